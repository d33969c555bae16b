"""Tuning language models: under a mask all weights or merged low-rank updates, or a few chosen weights (LoTA)."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from winticket.atomic import filling, remove_unfinished, replace_file
from winticket.bits import pack_bits, unpack_bits
from winticket.lm import loading
from winticket.lm.checkpoints import CHECKPOINT, Checkpoints
from winticket.lm.files import MASKS, save_tensors
from winticket.lm.finishing import CARD, RESULT, comparison, peak_bytes
from winticket.lm.lota import check_unchanged, copied, largest_changes, only, rewind
from winticket.lm.low_rank import low_rank
from winticket.lm.precision import Precision
from winticket.lm.progress import Say, silent
from winticket.lm.pruning import evaluated
from winticket.lm.record import Comparison, Tuned
from winticket.lm.state import TuningState, load_state, save_state, state_file
from winticket.lm.steps import descend
from winticket.lm.tuned_card import card
from winticket.lm.tuning_request import PreparedTuning, Tuning
from winticket.loops import masked
from winticket.ticket import Mask
from winticket.version import __version__

CHOSEN = "chosen.safetensors"
"""The packed mask of the weights that LoTA has chosen, until the tuning is finished."""


def tune(prepared: PreparedTuning, out: Path, *, say: Say = silent) -> Tuned:
    """Tune the model under its mask, measure perplexity before and after, and write a folder as `prune` does.

    Weights that are pruned are exactly 0 after every step and in the file; they are counted, and RuntimeError is raised
    if one is not. The state is saved in `out` every ten seconds, or less often if saving would take more than a
    twentieth of the time, and on Ctrl-C. If `out` holds an unfinished tuning of the same request, it goes on from
    there, with the same bits. Raises ValueError if `out` holds anything else, and FloatingPointError if the
    loss is not finite.
    """
    state, kept = load_state(out, prepared.identity, TuningState), Checkpoints(out)
    say("Loading the model", None)
    model = loading.load(prepared.source)
    precision = Precision(model)
    precision.widen()
    with torch.no_grad():
        for name, keep in prepared.mask.keep.items():
            model.get_parameter(name).mul_(keep)
    if state.before is None:
        state.before = evaluated(model, prepared.held, "Perplexity before", say)
        save_state(out, state)
    start = copied(model) if prepared.asked.sparse() else {}
    trained, chosen = _trained(model, prepared, start, kept, say)
    model.eval().requires_grad_(requires_grad=False)
    precision.store()
    counts = counted(model, prepared.mask)
    unchanged = None if chosen is None else check_unchanged(model, start, chosen)
    precision.widen()
    after = evaluated(model, prepared.held, "Perplexity after", say)
    precision.store()
    compared = comparison(state.before, after, prepared.held)
    result = _result(prepared, kept, trained=trained, counts=counts, unchanged=unchanged, compared=compared)
    _write(model, prepared, out, result)
    return result


def _result(
    prepared: PreparedTuning,
    progress: Checkpoints,
    *,
    trained: int,
    counts: tuple[int, int],
    unchanged: int | None,
    compared: Comparison,
) -> Tuned:
    """The document of a tuning. counts: (weights kept, weights that are 0). unchanged: of LoTA, or None."""
    asked = prepared.asked
    return {
        "winticket": __version__,
        "model": prepared.source.name(),
        "how": _way(asked),
        "lora": asked.lora,
        "lota": None
        if unchanged is None
        else {
            "density": asked.lota,
            "rank": asked.lota_rank,
            "calibration_steps": asked.calibration(),
            "unchanged": unchanged,
        },
        "pruned": prepared.masks is not None,
        "steps": asked.steps,
        "batch": asked.batch,
        "length": prepared.train.shape[1],
        "lr": asked.rate(),
        "seed": asked.seed,
        "trained": trained,
        "kept": counts[0],
        "zeros": counts[1],
        "total": sum(counts),
        "perplexity": compared,
        "resumed": progress.done,
        "seconds": round(progress.seconds(), 1),
        "peak_bytes": peak_bytes(),
    }


def counted(model: nn.Module, mask: Mask) -> tuple[int, int]:
    """(Weights kept, weights that are pruned and exactly 0). RuntimeError, with the layer, if a pruned one is not 0."""
    kept = zeros = 0
    for name, keep in mask.keep.items():
        weight = model.get_parameter(name).detach()
        gone = int((weight[~keep] == 0).sum())
        if gone != int((~keep).sum()):
            raise RuntimeError(f"{int((~keep).sum()) - gone} pruned weights of {name} are not 0")
        kept, zeros = kept + int(keep.sum()), zeros + gone
    return kept, zeros


def _way(asked: Tuning) -> str:
    """What is trained, in words."""
    if asked.sparse():
        return "weights chosen by LoTA"
    return "all weights" if asked.lora is None else f"updates of rank {asked.lora}"


def _trained(
    model: nn.Module, prepared: PreparedTuning, start: Mapping[str, Tensor], kept: Checkpoints, say: Say
) -> tuple[int, Mask | None]:
    """Train in place: (how many numbers were trained, the weights that LoTA chose)."""
    asked, train, rate = prepared.asked, prepared.train, prepared.asked.rate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(asked.seed)
        if asked.sparse():
            chosen = _chosen(model, prepared, start, kept, say)
            rewind(model, start)
            torch.default_generator.manual_seed(asked.seed)
            some = train[: asked.steps * asked.batch]
            with only(model, chosen) as values:
                few = torch.optim.AdamW(values, lr=rate, weight_decay=0.0)
                descend(model, few, some, batch=asked.batch, rate=rate, say=say, kept=kept)
            return chosen.count(), chosen
        if asked.lora is None:
            model.requires_grad_(requires_grad=True)
            optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
            with masked(model, prepared.mask):
                descend(model, optimizer, train, batch=asked.batch, rate=rate, say=say, kept=kept)
            return sum(p.numel() for p in model.parameters()), None
        with low_rank(model, prepared.mask, rank=asked.lora) as updates:
            numbers = [p for update in updates for p in update.parameters()]
            optimizer = torch.optim.AdamW(numbers, lr=rate, weight_decay=0.0)
            descend(model, optimizer, train, batch=asked.batch, rate=rate, say=say, kept=kept)
        return sum(p.numel() for p in numbers), None


def _chosen(
    model: nn.Module, prepared: PreparedTuning, start: Mapping[str, Tensor], kept: Checkpoints, say: Say
) -> Mask:
    """The weights that Lottery Ticket Adaptation trains: calibrated, or read if they were chosen before."""
    asked, file = prepared.asked, kept.folder / CHOSEN
    if (before := _chosen_before(prepared, file)) is not None:
        kept.done += asked.calibration()
        return before
    model.requires_grad_(requires_grad=True)
    every = torch.optim.AdamW(model.parameters(), lr=asked.rate(), weight_decay=0.0)
    some = prepared.train[: asked.calibration() * asked.batch]
    with masked(model, prepared.mask):
        descend(
            model,
            every,
            some,
            batch=asked.batch,
            rate=asked.rate(),
            say=say,
            kept=kept,
            what="Calibration step",
        )
    del every
    model.zero_grad()
    chosen = largest_changes(model, start, prepared.mask, density=asked.lota, rank=asked.lota_rank)
    save_tensors({name: pack_bits(one) for name, one in chosen.keep.items()}, file, {})
    return chosen


def _chosen_before(prepared: PreparedTuning, file: Path) -> Mask | None:
    """The weights that an earlier command chose; None if it chose none, or, with a warning, if the file is damaged."""
    if not file.is_file():
        return None
    try:
        packed = load_file(file)
        keep = {
            n: unpack_bits(packed[n], one.numel()).view(one.shape) for n, one in prepared.mask.keep.items()
        }
    except (OSError, SafetensorError, LookupError, ValueError, RuntimeError) as error:
        warnings.warn(f"{file} is damaged ({error}), so calibration begins again", stacklevel=2)
        return None
    return Mask(keep, prepared.mask.layout)


def _write(model: nn.Module, prepared: PreparedTuning, out: Path, result: Tuned) -> None:
    """The files, each of them whole; the unfinished state is removed when all are there."""
    with filling(out) as new:
        loading.saved(new, model)
        loading.saved_beside(new, model, prepared.tokenizer)
        if prepared.masks is not None:
            shutil.copyfile(prepared.masks, new / MASKS)
        replace_file(new / RESULT, f"{json.dumps(result, indent=1, allow_nan=False)}\n".encode())
        replace_file(new / CARD, card(result).encode())
    state_file(out, TuningState).unlink()
    for left in (CHOSEN, CHECKPOINT):
        (out / left).unlink(missing_ok=True)
    remove_unfinished(out)
