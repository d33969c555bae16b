"""The last files of a pruned model's folder: what no block holds, masks, configuration, tokenizer, result, README."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch import nn

from winticket.atomic import remove_unfinished, replace_file
from winticket.lm.blocks import Blocks
from winticket.lm.card import card
from winticket.lm.files import Shards, write_masks, write_rest
from winticket.lm.loading import saved_beside
from winticket.lm.perplexity import estimate, ratio
from winticket.lm.record import Comparison, Perplexity, Pruned
from winticket.lm.request import Prepared
from winticket.lm.state import PruningState, state_file
from winticket.lm.text import Windows
from winticket.version import __version__

RESULT, CARD = "result.json", "README.md"


def finish(
    prepared: Prepared,
    model: nn.Module,
    blocks: Blocks,
    shards: Shards,
    state: PruningState,
    *,
    after: list[float] | None,
    resumed: int,
    began: float,
) -> Pruned:
    """Write all files but those of the blocks into the folder; what is in result.json."""
    request, names = prepared.request, {layer["name"] for block in state.blocks for layer in block["layers"]}
    about: dict[str, Any] = {"model": prepared.source.name(), "method": request.method, "seed": request.seed}
    write_rest(shards, model, blocks)
    saved_beside(shards.folder, model, prepared.tokenizer)
    excluded = [name for name, _ in model.named_parameters() if name not in names]
    write_masks(shards, blocks, about, excluded=excluded)
    compared = None
    if prepared.held_out is not None and state.before is not None and after is not None:
        compared = comparison(state.before, after, prepared.held_out)
    result = _result(prepared, model, state, compared, resumed)
    result["seconds"] = round(time.monotonic() - began, 1)
    replace_file(shards.folder / RESULT, f"{json.dumps(result, indent=1, allow_nan=False)}\n".encode())
    replace_file(shards.folder / CARD, card(result).encode())
    # The state goes first: with it and without the blocks' masks, all blocks would be pruned again.
    state_file(shards.folder, PruningState).unlink()
    shards.tidy()
    remove_unfinished(shards.folder)
    return result


def comparison(before: list[float], after: list[float], windows: Windows) -> Comparison:
    """The perplexities before and after of the same windows, from their mean losses in nats.

    >>> import torch
    >>> comparison([0.0, 0.0], [0.0, 0.0], Windows(torch.zeros(2, 5), (0, 0)))["ratio"]["value"]
    1.0
    """
    return {
        "before": summary(before, windows),
        "after": summary(after, windows),
        "ratio": ratio(after, before, windows.documents),
    }


def summary(losses: list[float], windows: Windows) -> Perplexity:
    """The perplexity of windows from their mean losses in nats.

    >>> import torch
    >>> summary([0.0, 0.0], Windows(torch.zeros(2, 5), (0, 3)))["tokens"]
    8
    """
    length = windows.ids.shape[1]
    return {
        "windows": len(losses),
        "documents": len(set(windows.documents)),
        "length": length,
        "tokens": len(losses) * (length - 1),
        "perplexity": estimate(losses, windows.documents),
    }


def _result(
    prepared: Prepared, model: nn.Module, state: PruningState, compared: Comparison | None, resumed: int
) -> Pruned:
    request = prepared.request
    layers = [layer for block in state.blocks for layer in block["layers"]]
    obs, owl = request.method == "sparsegpt", request.allocation == "owl"
    return {
        "winticket": __version__,
        "model": prepared.source.name(),
        "model_type": prepared.config.model_type,
        "method": request.method,
        "density": request.target().density,
        "pattern": request.pattern,
        "allocation": request.allocation,
        "owl": {"threshold": request.owl_threshold, "range": request.owl_range} if owl else None,
        "samples": request.samples if request.calibrates() else None,
        "length": prepared.length,
        "seed": request.seed,
        "blocksize": request.blocksize if obs else None,
        "percdamp": request.percdamp if obs else None,
        "kept": sum(layer["kept"] for layer in layers),
        "total": sum(layer["total"] for layer in layers),
        "parameters": sum(one.numel() for one in model.parameters()),
        "blocks": state.blocks,
        "perplexity": compared,
        "resumed": resumed,
        "seconds": 0.0,
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int | None:
    """Most memory that this process has had, in bytes; None where the system does not tell.

    >>> (peak_bytes() or 1) > 0
    True
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
