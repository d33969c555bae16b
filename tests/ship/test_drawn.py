"""Compiled inference of networks drawn at random, in every instruction set, is what the interpreter computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferring import agree, examples, weight
from winticket.ship import Network, Operation, SparseModel, Weight, engine
from winticket.ship.kinds import Shape
from winticket.ship.native import instruction_sets, missing

pytestmark = pytest.mark.skipif(bool(missing), reason=f"no compiled inference: {missing}")
SETS = instruction_sets()


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Small networks of all kinds: each operation reads a value before it, and what is left over is joined at last."""
    network_shape = draw(st.sampled_from([(5,), (3, 9), (2, 6, 7), (4, 1, 3), (2, 3, 4, 2)]))
    shapes: dict[str, Shape] = {"input": network_shape}
    operations: list[Operation] = []
    unread = {"input"}
    for number in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(sorted(shapes)))
        made = draw(operation(str(number), name, shapes))
        shapes |= {str(number): Network(shapes[name], (_alone(made, name),)).shapes[str(number)]}
        unread = (unread - set(made.inputs)) | {str(number)}
        operations.append(made)
    flat = []
    for name in sorted(unread):
        flat.append(f"{name} flat")
        operations.append(Operation("reshape", (name,), flat[-1], {"shape": [int(np.prod(shapes[name]))]}))
    if len(flat) > 1:
        operations.append(Operation("concat", tuple(flat), "joined", {"axis": 0}))
    return Network(network_shape, tuple(operations))


def _alone(made: Operation, name: str) -> Operation:
    inputs = tuple("input" for _ in made.inputs)
    return Operation(made.kind, inputs, made.output, made.options, made.tensors)


@st.composite
def operation(draw: st.DrawFn, number: str, name: str, shapes: Mapping[str, Shape]) -> Operation:
    shape = shapes[name]
    kinds = ["linear", "relu", "hardtanh", "silu", "tanh", "add", "concat", "softmax", "mean", "reshape"]
    if len(shape) > 1:
        kinds.append("scale_shift")
    if len(shape) in (2, 3):
        kinds += ["conv", "conv", "conv", "max_pool", "avg_pool", "adaptive_avg_pool"]
    kind = draw(st.sampled_from(kinds))
    axis = draw(st.integers(0, len(shape) - 1))
    density, seed = draw(st.sampled_from([0.1, 0.4, 1.0])), int(number)
    options: dict[str, Any] = {}
    tensors: dict[str, Weight] = {}
    inputs: tuple[str, ...] = (name,)
    if kind == "linear":
        units = draw(st.integers(1, 20))
        tensors = {"weight": weight(f"w{number}", units, shape[-1], density=density, seed=seed)}
        if draw(st.booleans()):
            tensors["bias"] = weight(f"b{number}", units, seed=seed)
    elif kind == "scale_shift":
        tensors = {role: weight(f"{role}{number}", shape[0], seed=seed) for role in ("scale", "shift")}
    elif kind == "add":
        others = sorted(n for n, s in shapes.items() if s == shape)
        inputs = (name, *draw(st.lists(st.sampled_from(others), min_size=1, max_size=2)))
    elif kind == "concat":
        inputs, options = (name, name), {"axis": axis}
    elif kind == "softmax":
        options = {"axis": axis}
    elif kind == "mean":
        options = {"axes": sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))}
        options["keep_axes"] = len(options["axes"]) == len(shape) or draw(st.booleans())
    elif kind == "reshape":
        size = int(np.prod(shape))
        first = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        options = {"shape": [first, size // first]}
    elif kind == "conv":
        kind = f"conv{len(shape) - 1}d"
        groups = draw(st.sampled_from([1, shape[0]]))
        options = draw(windows(shape[1:], dilated=True)) | {"groups": groups}
        filters = (groups * draw(st.integers(1, 3)), shape[0] // groups, *options.pop("kernel"))
        tensors = {"weight": weight(f"w{number}", *filters, density=density, seed=seed)}
    elif kind in ("max_pool", "avg_pool"):
        options = draw(windows(shape[1:], dilated=kind == "max_pool"))
        options["padding"] = [
            [min(p, k - 1) for p in pair]
            for pair, k in zip(options["padding"], options["kernel"], strict=True)
        ]
        # A window of a dilated pooling may hold nothing but padding, which no framework defines.
        if kind == "max_pool" and max(options["dilation"]) > 1:
            options["padding"] = [[0, 0]] * (len(shape) - 1)
        if kind == "avg_pool":
            options["count_padding"] = True
        kind = f"{kind}{len(shape) - 1}d"
    elif kind == "adaptive_avg_pool":
        options = {"size": [draw(st.integers(1, n + 1)) for n in shape[1:]]}
        kind = f"{kind}{len(shape) - 1}d"
    return Operation(kind, inputs, number, options, tensors)


@st.composite
def windows(draw: st.DrawFn, sizes: Shape, *, dilated: bool) -> dict[str, Any]:
    """A kernel, stride, padding and dilation that fit these sizes."""
    options: dict[str, Any] = {"kernel": [], "stride": [], "padding": [], "dilation": []}
    for size in sizes:
        padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
        kernel = draw(st.integers(1, min(4, size)))
        room = (size - 1) // (kernel - 1) if kernel > 1 else 2
        options["kernel"].append(kernel)
        options["stride"].append(draw(st.integers(1, 3)))
        options["padding"].append(list(padding))
        options["dilation"].append(draw(st.integers(1, max(1, min(room, 3)))) if dilated else 1)
    if not dilated:
        del options["dilation"]
    return options


@given(network=networks(), instructions=st.sampled_from(SETS or ["none"]), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_networks_drawn_at_random(network: Network, instructions: str, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_split", lambda tiles: [0] + [len(tiles) - 1] * tiles[-1].width)
        patch.setattr(engine, "MICROSECONDS", 1.0)
        model = SparseModel(network, instructions=instructions)
        x = examples(17, network.input_shape, seed=seed)
        for batch in (1, 2, 17):
            agree(model, x[:batch])
