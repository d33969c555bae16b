"""Memory of a network's values: none is overwritten before its last reading, and no more is taken than must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from drawn import networks
from shipped import NETWORKS, network
from winticket.ship import Network, Operation, Weight
from winticket.ship.liveness import IN_PLACE, Slot, memory

# Elements that the scratch buffer must have, by hand. LeNet: 300 and 100 units, both alive at the second product.
# Conv-2: both convolutions have 64 x 8 x 8. VGG-11 at width 8: its second convolution (16 x 8 x 8) reads 8 x 8 x 8
# pooled values; before, the first (8 x 16 x 16) is pooled to 8 x 8 x 8. ResNet-20: a block reads 16 x 16 x 16 values,
# which stay for its sum, and both its convolutions give as many.
BY_HAND = {
    "lenet-300-100": 300 + 100,
    "conv-2": 2 * 64 * 8 * 8,
    "vgg-11": 8 * 16 * 16 + 8 * 8 * 8,
    "resnet-20": 3 * 16 * 16 * 16,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    assert memory(network(name)).scratch == BY_HAND[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_buffer_can_be_smaller(name: str) -> None:
    plan = memory(network(name))
    assert plan.scratch == plan.alive


def test_where_values_are() -> None:
    weights = [{"weight": Weight.of(f"to {m}", np.ones((m, 6)))} for m in (6, 4)]
    operations = (
        Operation("reshape", ("input",), "1", {"shape": [6]}),
        Operation("linear", ("1",), "2", tensors=weights[0]),
        Operation("relu", ("2",), "3"),
        Operation("add", ("1", "3", "2"), "4"),
        Operation("reshape", ("4",), "5", {"shape": [2, 3]}),
        Operation("tanh", ("5",), "6"),
        Operation("reshape", ("6",), "7", {"shape": [6]}),
        Operation("linear", ("7",), "8", tensors=weights[1]),
        Operation("softmax", ("8",), "9"),
    )
    slots = memory(Network((2, 3), operations)).slots
    assert slots["1"] == slots["input"] == Slot("input")
    assert slots["3"] != slots["2"]  # the sum reads both
    # The sum may be written over its second summand, which nothing else reads, and the tanh of it over the sum.
    assert slots["3"] == slots["4"] == slots["5"] == slots["6"] == slots["7"]
    assert slots["8"] == slots["9"] == Slot("output")
    assert memory(Network((2, 3), operations)).scratch == 12


def test_a_sum_is_not_written_over_a_summand_that_it_reads_later() -> None:
    relu = Operation("relu", ("input",), "1")
    for inputs, over in (
        (("1", "input"), True),
        (("1", "input", "1"), False),
        (("input", "input", "1"), False),
    ):
        rest = (Operation("add", inputs, "2"), Operation("mean", ("2",), "3", {"axes": [0]}))
        slots = memory(Network((4,), (relu, *rest))).slots
        assert (slots["1"] == slots["2"]) == over


@settings(max_examples=200, deadline=None)
@given(networks())
def test_no_value_is_overwritten_before_it_is_read(drawn: Network) -> None:
    """Every operation finds in the memory of its inputs what was written there for them."""
    plan = memory(drawn)
    assert plan.scratch >= plan.alive
    buffers: dict[str, list[tuple[str, int] | None]] = {
        "scratch": [None] * plan.scratch,
        "input": [None] * math.prod(drawn.input_shape),
        "output": [None] * math.prod(drawn.shapes[drawn.output]),
    }
    content: dict[str, list[tuple[str, int] | None]] = {}

    def write(name: str) -> None:
        slot, size = plan.slots[name], math.prod(drawn.shapes[name])
        content[name] = [(name, i) for i in range(size)]
        buffers[slot.buffer][slot.offset : slot.offset + size] = content[name]

    def read(name: str) -> object:
        slot, size = plan.slots[name], math.prod(drawn.shapes[name])
        return buffers[slot.buffer][slot.offset : slot.offset + size]

    write("input")
    for operation in drawn.operations:
        for name in operation.inputs:
            assert read(name) == content[name]
        slots = [plan.slots[name] for name in operation.inputs]
        if operation.kind == "reshape":
            content[operation.output] = content[operation.inputs[0]]
            assert plan.slots[operation.output] == slots[0]
            continue
        output = plan.slots[operation.output]
        assert output.buffer != "input"
        if output in slots:
            assert operation.kind in IN_PLACE or (operation.kind == "add" and output not in slots[2:])
        else:
            before = {name: read(name) for name in operation.inputs}
            write(operation.output)
            assert all(
                read(name) == before[name] for name in operation.inputs
            )  # its inputs are apart from it
        write(operation.output)
    assert read(drawn.output) == content[drawn.output]
