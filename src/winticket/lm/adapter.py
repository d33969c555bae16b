"""What tuning changed, as an adapter of PEFT: SHiRA, whose updates are sparse and of high rank.

Bhardwaj et al. 2024, "Sparse High Rank Adapters" (arXiv 2406.13175): an adapter is the values of a few weights and
their positions. The files are those that PEFT writes and reads (`peft/tuners/shira`, as of 0.21): in
adapter_config.json the type, the layers and r, and in adapter_model.safetensors for each layer `shira_weight`
[r · (inputs + outputs)], which is added to the base's weight at `shira_indices` [2, r · (inputs + outputs)], int32.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winticket.atomic import filling, replace_file, require_empty
from winticket.lm import loading
from winticket.lm.compact.record import size
from winticket.lm.files import save_tensors
from winticket.lm.finishing import CARD, peak_bytes
from winticket.lm.progress import Say
from winticket.lm.record import Adapter
from winticket.version import __version__

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What the names of layers begin with in PEFT's files."""


@dataclass(frozen=True)
class Pair:
    """A model before and after tuning, checked to be of one architecture. base_path: as the user gave it."""

    base: loading.Source
    tuned: loading.Source
    base_path: str


def prepare_adapter(base: str, tuned: str) -> Pair:
    """The two models, with only their configurations read.

    Raises ValueError if one cannot be read, if they differ in a parameter's name or shape, or if their linear layers
    are none of torch.nn.Linear, which is all that PEFT's SHiRA takes.
    """
    pair = Pair(loading.source(base), loading.source(tuned), base)
    shapes = []
    for of in (pair.base, pair.tuned):
        model = loading.skeleton(loading.configuration(of))
        shapes.append({name: tuple(one.shape) for name, one in model.named_parameters()})
    if shapes[0] != shapes[1]:
        differing = sorted(shapes[0].items() ^ shapes[1].items())
        raise ValueError(
            f"{tuned} is no tuned {base}: {differing[0][0]} is not of the same shape in both "
            f"({len(differing)} differences)"
        )
    return pair


def write_adapter(pair: Pair, out: Path, say: Say) -> Adapter:
    """Write the difference of two models as PEFT's adapter into a new folder; what it holds.

    PEFT gives every adapted layer r · (inputs + outputs) values, with one r for the whole adapter. A layer may have
    changed in fewer weights; the rest of its values are 0. So a tuning can be expressed if it changed linear layers
    alone, and if with the smallest r that suffices for each, no layer has fewer weights than values. Raises ValueError,
    with the layer, if it cannot, if nothing changed, or if there is something in the folder `out`.
    """
    require_empty(out)
    began = time.monotonic()
    say("Loading both models", None)
    before, after = loading.load(pair.base), loading.load(pair.tuned)
    changed = {name: count for name, count in _counts(before, after, say) if count}
    if not changed:
        raise ValueError(f"{pair.tuned.name()} has the bits of {pair.base.name()}; there is nothing to adapt")
    shapes = {name: tuple(after.get_parameter(name).shape) for name in changed}
    rank = rank_of(changed, shapes)
    tensors: dict[str, Tensor] = {}
    for name in changed:
        start, end = (model.get_parameter(name).detach() for model in (before, after))
        at, values = difference(start, end, count=rank * sum(shapes[name]))
        layer = PREFIX + name.removesuffix(".weight")
        tensors[f"{layer}.shira_weight"], tensors[f"{layer}.shira_indices"] = values, at
    result: Adapter = {
        "winticket": __version__,
        "base": pair.base_path,
        "tuned": pair.tuned.name(),
        "rank": rank,
        "layers": len(changed),
        "changed": sum(changed.values()),
        "values": sum(rank * sum(shape) for shape in shapes.values()),
        "parameters": sum(one.numel() for one in after.parameters()),
        "bytes": 0,
        "seconds": 0.0,
        "peak_bytes": None,
    }
    _write(out, tensors, result, [name.removesuffix(".weight") for name in changed], began)
    return result


def _counts(before: nn.Module, after: nn.Module, say: Say) -> Iterator[tuple[str, int]]:
    """(Parameter, how many of its numbers changed). ValueError for one that changed and is no linear layer's weight."""
    began, whole = time.monotonic(), dict(before.named_parameters())
    for number, (name, end) in enumerate(after.named_parameters(), 1):
        start, owner = whole[name].detach(), after.get_submodule(name.rpartition(".")[0])
        count = int((end.detach().to(start.dtype) != start).sum())
        if count and not (isinstance(owner, nn.Linear) and name.endswith(".weight")):
            what = "a bias" if name.endswith("bias") else f"of a {type(owner).__name__}"
            raise ValueError(
                f"tuning changed {count} numbers of {name}, which is {what}; PEFT's SHiRA adapts the weights of "
                "torch.nn.Linear alone, and winticket lm tune --lota changes no others"
            )
        passed = time.monotonic() - began
        say(f"Comparing {name}", passed / number * (len(whole) - number))
        yield name, count


def rank_of(changed: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> int:
    """The smallest r for which r · (inputs + outputs) is not less than what changed in each layer.

    Raises ValueError if r · (inputs + outputs) is more than a layer has, which PEFT refuses.

    >>> rank_of({"a": 7, "b": 8}, {"a": (3, 4), "b": (3, 4)})
    Traceback (most recent call last):
    ValueError: b changed in 8 of 12 weights, which takes r = 2; PEFT's SHiRA then has 14 values for a, of 12
    >>> rank_of({"a": 7, "b": 1}, {"a": (3, 4), "b": (3, 4)})
    1
    """
    needed = {name: math.ceil(count / sum(shapes[name])) for name, count in changed.items()}
    most = max(needed, key=lambda name: needed[name])
    rank = needed[most]
    for name, shape in shapes.items():
        if rank * sum(shape) > math.prod(shape):
            raise ValueError(
                f"{most} changed in {changed[most]} of {math.prod(shapes[most])} weights, which takes r = {rank}; "
                f"PEFT's SHiRA then has {rank * sum(shape)} values for {name}, of {math.prod(shape)}"
            )
    return rank


def difference(start: Tensor, end: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """(Positions [2, count], int32, in row-major order; values [count], float32) of what is to be added to the start.

    If fewer than `count` elements changed, the first others have values of 0.

    >>> at, values = difference(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 5.0]]), count=2)
    >>> at.tolist(), values.tolist()
    ([[0, 0], [0, 2]], [0.0, 2.0])
    """
    delta = (end - start) if start.dtype == torch.float64 else end.float() - start.float()
    chosen = end.to(start.dtype) != start
    others = (~chosen).flatten().nonzero().flatten()[: count - int(chosen.sum())]
    chosen.view(-1)[others] = True
    return chosen.nonzero().t().to(torch.int32).contiguous(), delta[chosen].float()


def _write(out: Path, tensors: dict[str, Tensor], result: Adapter, layers: list[str], began: float) -> None:
    """Write the files into a new folder, whole or not at all."""
    config: dict[str, Any] = {
        "peft_type": "SHIRA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": result["base"],
        "r": result["rank"],
        "mask_type": "random",  # PEFT has no other; the positions in the file take the place of those it draws
        "target_modules": layers,
        "fan_in_fan_out": False,
        "init_weights": True,
        "inference_mode": True,
    }
    with filling(out) as new:
        save_tensors(tensors, new / WEIGHTS)
        replace_file(new / CONFIG, f"{json.dumps(config, indent=1)}\n".encode())
        result["bytes"] = sum(file.stat().st_size for file in new.iterdir())
        result["seconds"], result["peak_bytes"] = round(time.monotonic() - began, 1), peak_bytes()
        replace_file(new / CARD, _card(result).encode())


def sentences(result: Adapter) -> Iterator[str]:
    """What the adapter is, in words, a sentence each."""
    yield (
        f"Tuning changed {result['changed']:,} of {result['parameters']:,} numbers, in {result['layers']} linear "
        f"layers."
    )
    padding = result["values"] - result["changed"]
    more = f"; {padding:,} of them are 0, since all layers have one r" if padding else ""
    yield (
        f"The adapter is SHiRA of PEFT with r = {result['rank']}: {result['values']:,} values with their "
        f"positions{more}. Its files have {size(result['bytes'])}."
    )


def _card(result: Adapter) -> str:
    listed = "\n".join(f"- {sentence}" for sentence in sentences(result))
    base, tuned = (json.dumps(result[key], ensure_ascii=False)[1:-1] for key in ("base", "tuned"))
    return f"""---
library_name: peft
tags:
- winticket
- shira
---

# {tuned}, as an adapter

{listed}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "path/of/this/folder")
```
"""
