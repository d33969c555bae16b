"""One block of memory for all values of a network: what is no longer read makes room for what comes."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from winticket.ship.layout import LINE
from winticket.ship.liveness import lowest_gap
from winticket.ship.network import INPUT
from winticket.ship.stages import Stage


@dataclass(frozen=True)
class Memory:
    """The first position of every value, and of the scratch space of the stages that need some (by their outputs)."""

    values: Mapping[str, int]
    scratch: Mapping[str, int]
    size: int


def arranged(
    stages: Sequence[Stage],
    extents: Mapping[str, int],
    scratch: Mapping[str, int],
    *,
    aliases: Mapping[str, str],
    output: str,
) -> Memory:
    """Places for values of so many positions (`extents`) and scratch spaces, each on a cache line.

    Two share positions only if one is read for the last time before the other is written. aliases: values that lie
    where another one does.
    """
    spans = _lifetimes(stages, aliases, output)
    wanted = [(first, last, extents[name], name, True) for name, (first, last) in spans.items()]
    wanted += [
        (at, at, scratch[s.output], s.output, False) for at, s in enumerate(stages) if s.output in scratch
    ]
    held: list[tuple[int, int, int]] = []  # begin, end, last use
    values: dict[str, int] = {}
    spaces: dict[str, int] = {}
    for first, last, size, name, is_value in sorted(wanted, key=lambda one: one[0]):
        held = [one for one in held if one[2] >= first]
        begin = lowest_gap((one[:2] for one in held), size, step=LINE)
        insort(held, (begin, begin + size, last))
        (values if is_value else spaces)[name] = begin
    for name, original in aliases.items():
        values[name] = values[original]
    ends = [values[name] + extents[name] for name in spans]
    ends += [begin + scratch[name] for name, begin in spaces.items()]
    return Memory(values, spaces, max(ends))


def _lifetimes(
    stages: Sequence[Stage], aliases: Mapping[str, str], output: str
) -> dict[str, tuple[int, int]]:
    """The stages that write a value and that read it last; one entry for all values that lie in one place."""
    spans = {INPUT: (-1, 0)}
    for at, stage in enumerate(stages):
        for name in stage.reads:
            original = aliases.get(name, name)
            spans[original] = spans[original][0], at
        if stage.output not in aliases:
            spans[stage.output] = at, at
    final = aliases.get(output, output)
    spans[final] = spans[final][0], len(stages)
    return spans
