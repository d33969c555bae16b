"""What tickets keep, in numbers that a page can draw: of every layer, and of the weights of every input."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from winticket.experiment.plan import Plan
from winticket.results import InputPlane, MaskLevel, Masks, Network
from winticket.stages import Setup
from winticket.ticket import Mask

MOST_INPUTS = 64 * 64
"""Larger examples get no input plane: a page would have to draw a square for each of their values."""


class Kept:
    """Adds up what masks keep, level by level; the masks themselves are not held.

    plane  of `plane`, None for no counts by input
    """

    def __init__(self, plane: InputPlane | None) -> None:
        self.plane = plane
        self.count: dict[int, int] = {}
        self.layers: dict[int, dict[str, int]] = {}
        self.inputs: dict[int, Tensor] = {}

    def add(self, level: int, mask: Mask) -> None:
        """Count one more mask of a level."""
        self.count[level] = self.count.get(level, 0) + 1
        layers = self.layers.setdefault(level, dict.fromkeys(mask.keep, 0))
        for name, (kept, _) in mask.layers().items():
            layers[name] += kept
        if self.plane is not None:
            of_inputs = mask.keep[self.plane["layer"]].sum(0, dtype=torch.int64)
            self.inputs[level] = self.inputs[level] + of_inputs if level in self.inputs else of_inputs

    def means(self, densities: Iterable[float], network: Network) -> Masks:
        """The counts as means over masks. `densities` are those of levels 0, 1, ..."""
        levels: list[MaskLevel] = [
            {
                "density": density,
                "replicates": count,
                "layers": {name: kept / count for name, kept in self.layers[level].items()},
                "inputs": None
                if level not in self.inputs
                else (self.inputs[level].double() / count).tolist(),
            }
            for level, density in enumerate(densities)
            if (count := self.count.get(level, 0))
        ]
        return {"network": network, "plane": self.plane, "levels": levels}


def network_of(plan: Plan) -> Network:
    """The size of a plan's network, and what its levels keep."""
    shapes = {name: parameter.shape for name, parameter in plan.setup.module().named_parameters()}
    return {
        "parameters": sum(shape.numel() for shape in shapes.values()),
        "eligible": plan.counts[0],
        "layers": [
            {"name": name, "shape": list(shapes[name]), "size": shapes[name].numel()}
            for name in plan.question.eligible
        ],
        "kept": list(plan.counts),
    }


def require_masks(masks: Masks) -> None:
    """Refuse what no run writes, before a page is drawn from it. ValueError says what is wrong."""
    sizes = {layer["name"]: layer["size"] for layer in masks["network"]["layers"]}
    if any(size < 1 for size in sizes.values()):
        raise ValueError("a layer has no weights")
    strange = {name for level in masks["levels"] for name in level["layers"]} - sizes.keys()
    if strange or any(not level["layers"] for level in masks["levels"]):
        raise ValueError("levels and network do not have the same layers")
    if (plane := masks["plane"]) is None:
        return
    shape, count = plane["shape"], math.prod(plane["shape"])
    if len(shape) not in (2, 3) or min(shape) < 1 or count > MOST_INPUTS or plane["units"] < 1:
        raise ValueError(f"the plane of inputs has the shape {shape[:4]}")
    for level in masks["levels"]:
        if plane["layer"] not in level["layers"] or len(level["inputs"] or ()) != count:
            raise ValueError("a level does not say what it keeps of every input")


def plane(setup: Setup, eligible: Iterable[str]) -> InputPlane | None:
    """The Linear layer that reads examples value by value, in the order of a flattened example; None if there is none.

    The network is asked: it computes one example of distinct values, and the layer is the one that receives exactly
    these. None also for text, for examples that are neither images nor signals, and for a layer that is not pruned.

    >>> from winticket.experiment import Experiment, plan
    >>> planned = plan(Experiment.of("digits", steps=20))
    >>> plane(planned.setup, planned.question.eligible)
    {'layer': 'fc1.weight', 'shape': [1, 8, 8], 'units': 300}
    """
    shape = setup.input_shape
    count = math.prod(shape)
    if setup.tokens or len(shape) not in (2, 3) or count > MOST_INPUTS:
        return None
    values = (torch.arange(count, dtype=torch.float32) + 1) / count
    try:
        module = copy.deepcopy(setup.module()).eval()  # the setup's own is shared, in training mode
        reads = _readers(module, values, values.reshape(1, *shape))
    except Exception:  # noqa: BLE001 - a user's network may refuse this example, and a picture is not worth a run
        return None
    known = set(eligible)
    for name, layer in reads.items():
        if f"{name}.weight" in known:
            return {"layer": f"{name}.weight", "shape": list(shape), "units": layer.out_features}
    return None


def _readers(module: nn.Module, values: Tensor, example: Tensor) -> Mapping[str, nn.Linear]:
    """The Linear layers that receive `values` [n] when the module computes `example` [1, ...]."""
    reads: dict[str, nn.Linear] = {}

    def note(name: str, layer: nn.Linear) -> Any:
        def look(_: nn.Module, received: tuple[Any, ...]) -> None:
            one = received[0] if received else None
            whole = layer.in_features == len(values)  # and not row by row, with the same weights for each
            if whole and isinstance(one, Tensor) and torch.equal(one.flatten(), values):
                reads[name] = layer

        return layer.register_forward_pre_hook(look)

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            note(name, layer)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module(example)
    return reads
