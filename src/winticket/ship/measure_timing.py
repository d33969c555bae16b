"""Times of several computations in turns, and what they say: medians, ratios, and intervals of both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[], object]
LEVEL = 0.95
"""At least this probable is it that an interval holds the true median."""
BURST = 0.005
"""Seconds that a computation is repeated for in a round, at least."""
WARM = 0.05
"""Seconds of warming up, at least; and at least three calls."""


def interval_called(count: int) -> str:
    """What an interval by `median` of so many numbers is called: of few, it is their range.

    >>> interval_called(5), interval_called(6)
    ('range', '95 % interval')
    """
    return "range" if 2 / 2**count > 1 - LEVEL else f"{100 * LEVEL:g} % interval"


@dataclass(frozen=True)
class Median:
    """The median of some numbers, and an interval of it: [low, high]."""

    middle: float
    low: float
    high: float


def median(numbers: Sequence[float]) -> Median:
    """The median with a distribution-free interval: two of the numbers, by the sign test (Conover 1999, 3.2).

    Up to five numbers, no two of them are apart far enough for `LEVEL`; then it is all their range.

    >>> median([1.0, 9.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Median(middle=4.0, low=1.0, high=9.0)
    """
    ordered, n = sorted(numbers), len(numbers)
    if not n:
        raise ValueError("the median of no numbers is not defined")
    tail, left_out = 0.0, 0
    while left_out < n // 2:
        tail += math.comb(n, left_out) / 2**n
        if 2 * tail > 1 - LEVEL:
            break
        left_out += 1
    low = max(left_out - 1, 0)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Median(middle, ordered[low], ordered[n - 1 - low])


def interleaved(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    progress: Callable[[float], object] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds per call of each computation, in each round: in every round each takes its turn, in rotating order.

    Before the rounds each is warmed up. A turn begins with a call that does not count, so that what the others left in
    the caches does not either, and lasts BURST seconds or one call.

    progress: called with the share that is done. clock: gives seconds; `time.process_time` counts those of this process
    alone, all threads together.
    """
    repeats = {name: _warm(call, clock) for name, call in calls.items()}
    order, times = list(calls), {name: [0.0] * 0 for name in calls}
    for done in range(rounds):
        for name in order[done % len(order) :] + order[: done % len(order)]:
            call, count = calls[name], repeats[name]
            call()
            began = clock()
            for _ in range(count):
                call()
            times[name].append((clock() - began) / count)
        progress((done + 1) / rounds)
    return times


def _warm(call: Call, clock: Callable[[], float]) -> int:
    """How many calls take BURST seconds, once it is warm."""
    began, calls, least = clock(), 0, math.inf
    while calls < 3 or clock() - began < WARM:
        start = clock()
        call()
        least = min(least, clock() - start)
        calls += 1
    return max(1, math.ceil(BURST / max(least, 1e-9)))


def ratio(slower: Sequence[float], faster: Sequence[float]) -> Median:
    """How many times as long the first takes as the second, round by round.

    >>> ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    Median(middle=2.0, low=2.0, high=3.0)
    """
    return median([a / b for a, b in zip(slower, faster, strict=True)])
