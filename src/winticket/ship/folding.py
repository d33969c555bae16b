"""Steps of a captured network that become part of the layers beside them: BatchNorm, and selections and padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor

from winticket.ship.network import INPUT
from winticket.ship.translate import PAD, SELECT, Constant, Step

_LINEAR = ("linear", "conv1d", "conv2d")


def folded(steps: Mapping[str, Step], output: str) -> dict[str, Step]:
    """The steps that the output depends on, by name, all of kinds that a network may have.

    A scale and shift is multiplied into the layer before it, if nothing else reads that layer. A selection of inputs
    becomes pruned inputs of the layers that read it, and padding their own. Raises ValueError, naming operation and
    layer, if something else reads a selection or padding.
    """
    made = _scaled(steps, output)
    for name in reversed(list(made)):  # the last first, so that a selection that is padded gets its turn
        if made[name].kind in (SELECT, PAD):
            _into_readers(made, name, output)
            del made[name]
    return _used(made, output)


def _readers(steps: Mapping[str, Step], output: str) -> dict[str, int]:
    """How many steps read each value; the output of the network counts as one more."""
    counts = {INPUT: 0, **dict.fromkeys(steps, 0)}
    counts[output] += 1
    for step in steps.values():
        for symbol in step.inputs:
            counts[symbol.name] += 1
    return counts


def _scaled(steps: Mapping[str, Step], output: str) -> dict[str, Step]:
    """The steps with every scale and shift multiplied into the layer before it, if nothing else reads that layer."""
    counts, folded = _readers(steps, output), dict(steps)
    for name, step in steps.items():
        before = folded.get(step.inputs[0].name)
        if step.kind != "scale_shift" or before is None or before.kind not in _LINEAR:
            continue
        if counts[step.inputs[0].name] == 1 and (before.kind != "linear" or len(step.inputs[0].shape) == 1):
            folded[name] = _multiplied(before, step)
    return folded


def _multiplied(layer: Step, norm: Step) -> Step:
    """scale * (W x + b) + shift = (scale * W) x + (scale * b + shift), computed in float64."""
    scale, shift = norm.tensors["scale"].value, norm.tensors["shift"].value
    weight, bias = layer.tensors["weight"], layer.tensors.get("bias")
    product = weight.value.double() * scale.view(-1, *(1,) * (weight.value.ndim - 1))
    if bias is not None:
        shift = bias.value.double() * scale + shift
    name = bias.name if bias is not None else norm.tensors["shift"].name
    return replace(layer, tensors={"weight": replace(weight, value=product), "bias": Constant(name, shift)})


def _used(steps: Mapping[str, Step], output: str) -> dict[str, Step]:
    """The steps that the output depends on."""
    needed = {output}
    for name in reversed(list(steps)):
        if name in needed:
            needed |= {symbol.name for symbol in steps[name].inputs}
    return {name: step for name, step in steps.items() if name in needed}


def _into_readers(steps: dict[str, Step], name: str, output: str) -> None:
    """Make a selection or padding part of each layer that reads it, in place."""
    step = steps[name]
    if name == output:
        _refuse(step, "the network's output")
    for other, reader in steps.items():
        if name not in (symbol.name for symbol in reader.inputs):
            continue
        if reader.kind not in _LINEAR:
            _refuse(
                step, f"operation {reader.kind}" + (f" in layer {reader.layer!r}" if reader.layer else "")
            )
        changed = _selected(step, reader) if step.kind == SELECT else _padded(step, reader)
        steps[other] = replace(changed, inputs=step.inputs)


def _refuse(step: Step, reader: str) -> NoReturn:
    layer = f"layer {step.layer!r}" if step.layer else "the model's own forward"
    what = "index_select" if step.kind == SELECT else "pad"
    wanted = "by Linear layers along their inputs, or by convolutions along their channels, not in groups"
    if step.kind == PAD:
        wanted = "by convolutions, along their positions"
    raise ValueError(
        f"operation {what} in {layer} cannot be shipped: what it gives may only be read {wanted}, but {reader} reads it"
    )


def _selected(step: Step, layer: Step) -> Step:
    """W x[positions] = W' x, in which W' has the columns of W at these positions, and no other kept weight."""
    (source,), axis = step.inputs, len(step.inputs[0].shape) - 1 if layer.kind == "linear" else 0
    if step.options["axis"] != axis or layer.options.get("groups", 1) != 1:
        _refuse(step, f"layer {layer.layer!r}")
    weight, positions = layer.tensors["weight"], step.options["positions"]
    keep = torch.ones_like(weight.value, dtype=torch.bool) if weight.keep is None else weight.keep
    wide = _scattered(weight.value, positions, source.shape[axis])
    kept = _scattered(keep.to(torch.uint8), positions, source.shape[axis]) > 0
    return replace(layer, tensors={**layer.tensors, "weight": Constant(weight.name, wide, kept)})


def _scattered(value: Tensor, positions: Tensor, size: int) -> Tensor:
    """[units, inputs, ...] -> [units, size, ...]: each input at its position, 0 elsewhere."""
    return value.new_zeros(value.shape[0], size, *value.shape[2:]).index_add(1, positions, value)


def _padded(step: Step, layer: Step) -> Step:
    """A convolution of padded inputs as one that pads more."""
    if layer.kind == "linear" or len(step.options["padding"]) != len(layer.options["padding"]):
        _refuse(step, f"layer {layer.layer!r}")
    pairs = zip(layer.options["padding"], step.options["padding"], strict=True)
    padding = [[a + c, b + d] for (a, b), (c, d) in pairs]
    return replace(layer, options={**layer.options, "padding": padding})
