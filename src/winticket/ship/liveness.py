"""Which values of a network exist at the same time, and buffers for them that overlap as much as that allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from winticket.ship.network import INPUT, Network, Operation

IN_PLACE = frozenset(
    (
        "scale_shift",
        "relu",
        "leaky_relu",
        "hardtanh",
        "gelu",
        "silu",
        "sigmoid",
        "tanh",
        "softmax",
        "log_softmax",
    )
)
"""Kinds that may write their output over their input; `add` may too, over either of its first two summands."""


@dataclass(frozen=True)
class Slot:
    """A value's memory: the caller's input or output buffer, or elements from `offset` on of the scratch buffer."""

    buffer: Literal["input", "output", "scratch"]
    offset: int = 0


@dataclass(frozen=True)
class Memory:
    """Where the values of one example are while a network runs.

    slots    by value; a reshaped value has the slot of what it reshapes
    scratch  elements of the scratch buffer
    alive    the most elements that must be in it at the same time; no scratch buffer can be smaller
    """

    slots: Mapping[str, Slot]
    scratch: int
    alive: int


@dataclass
class _Storage:
    """Memory that several values use one after the other. It is in use from operation `start` to operation `end`."""

    size: int
    start: int
    end: int

    def meets(self, other: _Storage) -> bool:
        return self.start <= other.end and other.start <= self.end


def memory(network: Network) -> Memory:
    """The memory of the network's values: the input stays unchanged, and the output is written where it is wanted.

    Elementwise operations write over their input if nothing reads it afterwards; reshaping takes no memory. The
    operations run in their order.

    >>> from winticket.ship import Network, Operation, Weight
    >>> tensors = [{"weight": Weight.of(str(n), [[1.0] * n] * m)} for n, m in ((4, 6), (6, 5), (5, 2))]
    >>> layers = [Operation("linear", (a,), b, tensors=t) for a, b, t in zip(("input", "1", "2"), "123", tensors)]
    >>> memory(Network((4,), tuple(layers))).scratch
    11
    """
    storages, of_value = _storages(network)
    final = of_value[network.output]
    inner = [s for number, s in enumerate(storages) if number not in (0, final)]
    alive = _alive(inner, len(network.operations))
    offsets = _offsets(inner, alive)
    at = dict(zip((id(s) for s in inner), offsets, strict=True))
    slots = {}
    for name, number in of_value.items():
        offset = at.get(id(storages[number]))
        outer: Literal["input", "output"] = "output" if number == final and number else "input"
        slots[name] = Slot(outer) if offset is None else Slot("scratch", offset)
    return Memory(slots, _end(inner, offsets), alive)


def _storages(network: Network) -> tuple[list[_Storage], dict[str, int]]:
    """(Storages; by value, the number of its storage). Number 0 is the input's, which is never written."""
    last = _last_reads(network)
    storages = [_Storage(math.prod(network.input_shape), -1, last[INPUT])]
    of_value, root = {INPUT: 0}, {INPUT: INPUT}
    for number, operation in enumerate(network.operations):
        first, output = operation.inputs[0], operation.output
        if operation.kind == "reshape":
            of_value[output], root[output] = of_value[first], root[first]
            continue
        root[output] = output
        over = [
            name
            for name in _overwritable(operation, root)
            if root[name] != INPUT and last[root[name]] == number
        ]
        if over:
            of_value[output] = of_value[over[0]]
            storages[of_value[output]].end = last[output]
        else:
            of_value[output] = len(storages)
            storages.append(_Storage(math.prod(network.shapes[output]), number, last[output]))
    return storages, of_value


def _last_reads(network: Network) -> dict[str, int]:
    """By value, except reshaped ones: the last operation that reads it in any shape. The output is read at the end."""
    last, root = {INPUT: 0}, {INPUT: INPUT}
    for number, operation in enumerate(network.operations):
        for name in operation.inputs:
            last[root[name]] = number
        root[operation.output] = (
            root[operation.inputs[0]] if operation.kind == "reshape" else operation.output
        )
        last.setdefault(root[operation.output], number)
    last[root[network.output]] = len(network.operations)
    return last


def _overwritable(operation: Operation, root: Mapping[str, str]) -> list[str]:
    """The inputs over which the operation may write its output."""
    if operation.kind in IN_PLACE:
        return [operation.inputs[0]]
    if operation.kind != "add":
        return []
    # The first two are added before the others are read.
    later = {root[name] for name in operation.inputs[2:]}
    return [name for name in operation.inputs[:2] if root[name] not in later]


_Order: TypeAlias = Callable[[_Storage], tuple[int, ...]]
_ORDERS: tuple[_Order, ...] = (
    lambda s: (-s.size, s.start),
    lambda s: (s.start, -s.size),
    lambda s: (s.start - s.end, -s.size),
)
"""Orders in which storages may get their offsets: largest, earliest or longest first."""


def _offsets(storages: Sequence[_Storage], alive: int) -> list[int]:
    """The offsets by the best of the orders; the first that needs no more than what is alive at once is the best."""
    best: list[int] = []
    for order in _ORDERS:
        offsets = _placed(storages, order)
        if not best or _end(storages, offsets) < _end(storages, best):
            best = offsets
        if _end(storages, best) == alive:
            break
    return best


def _placed(storages: Sequence[_Storage], order: _Order) -> list[int]:
    """The lowest free offset for each storage, one after the other in that order."""
    offsets: dict[int, int] = {}
    for number in sorted(range(len(storages)), key=lambda n: order(storages[n])):
        this = storages[number]
        taken = sorted((at, at + storages[n].size) for n, at in offsets.items() if storages[n].meets(this))
        offsets[number] = lowest_gap(taken, this.size)
    return [offsets[number] for number in range(len(storages))]


def lowest_gap(taken: Iterable[tuple[int, int]], size: int, *, step: int = 1) -> int:
    """The lowest multiple of `step` from which `size` elements are free. taken: (begin, end) of others, rising.

    >>> lowest_gap([(0, 10), (20, 30), (25, 40)], 8), lowest_gap([(0, 10), (20, 30)], 8, step=16)
    (10, 32)
    """
    begin = 0
    for low, high in taken:
        if begin + size <= low:
            break
        begin = max(begin, -(-high // step) * step)
    return begin


def _end(storages: Sequence[_Storage], offsets: Sequence[int]) -> int:
    return max((at + s.size for s, at in zip(storages, offsets, strict=True)), default=0)


def _alive(storages: Sequence[_Storage], operations: int) -> int:
    change = [0] * (operations + 2)
    for storage in storages:
        change[storage.start] += storage.size
        change[storage.end + 1] -= storage.size
    most = total = 0
    for step in change:
        total += step
        most = max(most, total)
    return most
