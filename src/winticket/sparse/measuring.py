"""Measures a layer's shape: the fastest instruction sets and blocks at a few densities, then the break-even density.

Instruction sets and blocks are chosen product by product and confirmed by whole steps; the break-even compares whole
steps (see `workload`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from winticket.sparse.choices import PROBES, Choice, Shape, Times, Tuning
from winticket.sparse.native import require
from winticket.sparse.timing import HOPELESS, Clock, Seconds, Work, best, clock_for, race
from winticket.sparse.workload import Layer, layer_of

Way = tuple[int, str]  # blocks and instruction set


def measure(shape: Shape, sets: Sequence[str]) -> Tuning:
    """The fastest ways of a layer among instruction sets `sets`, whose first is the usual one, and its break-even."""
    clock = clock_for(shape.threads)
    with _attempts():
        layer = layer_of(shape)
        choices = tuple(_choice(layer, density, sets, clock) for density in PROBES)
        times = _times(layer, choices, clock)
        if times.at(PROBES[-1]) < times.dense:
            whole = Choice(1.0, choices[-1].sets, Tuning(shape, 0.0, choices).blocks(1.0))
            times = _times(layer, [*choices, whole], clock)
    return Tuning(shape, times.crossing(), choices, times)


def steps(shape: Shape, choices: Iterable[Choice]) -> tuple[float, list[float]]:
    """The seconds of a dense step of a layer, and of a sparse one in each of these ways."""
    layer, clock = layer_of(shape), clock_for(shape.threads)
    with _attempts():
        works = {number: layer.step(choice) for number, choice in enumerate(choices)}
        dense = {-1 - number: work for number, work in enumerate(layer.dense)}
        times = race(works | dense, clock, hopeless=math.inf)
    return min(times[key].median for key in dense), [times[key].median for key in works]


def _times(layer: Layer, choices: Sequence[Choice], clock: Clock) -> Times:
    """Seconds of whole steps in turns: the least counts, so that none is misjudged for what else the machine did."""
    works: dict[float, Work] = {-1.0 - number: work for number, work in enumerate(layer.dense)}
    works |= {choice.density: layer.step(choice) for choice in choices}
    times = race(works, clock, hopeless=math.inf)
    dense = min(time.least for key, time in times.items() if key < 0)
    return Times(dense, tuple((choice.density, times[choice.density].least) for choice in choices))


@contextmanager
def _attempts() -> Iterator[None]:
    """Within the block, this thread may choose instruction sets call by call."""
    try:
        yield
    finally:
        require().attempt("")


def _choice(layer: Layer, density: float, sets: Sequence[str], clock: Clock) -> Choice:
    works, usual = layer.works(density), layer.usual(density)
    raced = {
        product: _raced(by_blocks, usual[product == "by_input"], sets, clock)
        for product, by_blocks in works.items()
    }
    of_rows = {product: times for product, times in raced.items() if product == "by_input"}
    of_columns = {product: times for product, times in raced.items() if product not in of_rows}
    across, chosen = fastest(of_columns, (usual[0], sets[0]))
    down, by_input = fastest(of_rows, (usual[1], sets[0])) if of_rows else (usual[1], {})
    choice = Choice(density, chosen | by_input, (across, down))
    return confirmed(layer, choice, Choice(density, dict.fromkeys(works, sets[0]), usual), clock)


def confirmed(layer: Layer, choice: Choice, usual: Choice, clock: Clock) -> Choice:
    """`choice` if a whole step that way is clearly faster than the usual one, else `usual`.

    A product's time by itself is the better the more of its operand an earlier call has left in the cache, so that a
    way may win a race of products and gain nothing in a step.
    """
    if choice == usual:
        return usual
    ways = {"usual": usual, "chosen": choice}
    times = race({name: layer.step(way) for name, way in ways.items()}, clock)
    return ways[best(times, "usual")]


def _raced(works: Mapping[int, Work], usual: int, sets: Sequence[str], clock: Clock) -> dict[Way, Seconds]:
    """The time of a product in each way that is worth a try: sets that lose clearly meet the usual blocks alone."""
    first = race({(usual, name): _with(name, works[usual]) for name in sets}, clock, turns=1)
    least = min(time.median for time in first.values())
    left = [name for name in sets if first[usual, name].median <= HOPELESS * least]
    ways = {(blocks, name): _with(name, work) for blocks, work in works.items() for name in left}
    return first | race(ways, clock)


def _with(name: str, work: Work) -> Work:
    attempt = require().attempt

    def attempted() -> None:
        attempt(name)
        work()

    return attempted


def fastest(times: Mapping[str, Mapping[Way, Seconds]], usual: Way) -> tuple[int, dict[str, str]]:
    """The number of blocks at which the products take the least time together, and each product's instruction set.

    Anything but the usual way must be clearly faster than it.

    >>> forward = {(1, "avx2"): Seconds(2, 2), (4, "avx2"): Seconds(1, 1)}
    >>> by_weight = {(1, "avx2"): Seconds(3, 3), (4, "avx2"): Seconds(3, 3)}
    >>> fastest({"forward": forward, "by_weight": by_weight}, (1, "avx2"))
    (4, {'forward': 'avx2', 'by_weight': 'avx2'})
    """
    chosen: dict[int, dict[str, str]] = {}
    together: dict[int, Seconds] = {}
    for blocks in sorted({blocks for blocks, _ in next(iter(times.values()))}):
        parts = []
        chosen[blocks] = {}
        for product, by_way in times.items():
            by_set = {name: time for (number, name), time in by_way.items() if number == blocks}
            name = chosen[blocks][product] = best(by_set, usual[1])
            parts.append(by_set[name])
        together[blocks] = Seconds(sum(t.median for t in parts), sum(t.least for t in parts))
    blocks = best(together, usual[0])
    return blocks, chosen[blocks]
