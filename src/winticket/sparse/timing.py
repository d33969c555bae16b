"""Clocks: the time of a call, and the fastest of several ways to compute the same."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple, TypeVar

Work = Callable[[], object]
Clock = Callable[[], float]
Way = TypeVar("Way", bound=Hashable)

TURNS = 5
SLOW = 0.05  # seconds; a call that takes longer is timed once, since noise matters little then
TURN = 0.001  # seconds; calls that take less are repeated within a turn
HOPELESS = 1.3  # a way that takes so many times as long as the best one in the first turn gets no other
GAIN = 0.03  # a way must take so much less time than the usual one: less is noise, and would change numbers' last bits


class Seconds(NamedTuple):
    """The time of a call over several turns."""

    median: float
    least: float


def clock_for(threads: int) -> Clock:
    """The clock for work of so many threads: of one, its processor time, which other programs disturb little."""
    fine = time.get_clock_info("thread_time").resolution <= TURN / 1000
    return time.thread_time if threads == 1 and fine else time.perf_counter


def race(
    ways: Mapping[Way, Work], clock: Clock, *, turns: int = TURNS, hopeless: float = HOPELESS
) -> dict[Way, Seconds]:
    """The time of a call in each way. The ways take turns, so that all meet the same noise.

    Those that take more than `hopeless` times as long as the best one in the first turn have no other. If every call is
    slow, there is one turn, since noise matters little then.

    >>> times = race({"short": lambda: sum(range(10)), "long": lambda: sum(range(10_000))}, clock_for(1))
    >>> times["short"].median < times["long"].median
    True
    """
    firsts = {way: _first(work, clock) for way, work in ways.items()}
    taken = {way: [first] for way, (_, first) in firsts.items()}
    least = min(first for _, first in firsts.values())
    left = [way for way, (_, first) in firsts.items() if first <= hopeless * least]
    for turn in range(1, turns if least <= SLOW else 1):
        for way in left if turn % 2 else reversed(left):
            taken[way].append(_turn(ways[way], firsts[way][0], clock))
    return {way: Seconds(statistics.median(each), min(each)) for way, each in taken.items()}


def best(times: Mapping[Way, Seconds], usual: Way) -> Way:
    """The way of the least median if that and its least time are at least `GAIN` below the usual way's, else that way.

    >>> times = {"usual": Seconds(1.0, 1.0), "alike": Seconds(0.98, 0.98), "lucky": Seconds(0.9, 0.99)}
    >>> best(times, "usual"), best({**times, "better": Seconds(0.8, 0.8)}, "usual")
    ('usual', 'better')
    """
    fastest = min(times, key=lambda way: times[way].median)
    if usual not in times or all(
        t <= (1 - GAIN) * u for t, u in zip(times[fastest], times[usual], strict=True)
    ):
        return fastest
    return usual


def _first(work: Work, clock: Clock) -> tuple[int, float]:
    """The calls of `work` in a turn, and the seconds of one in the first turn, after a warm-up."""
    work()
    taken = _turn(work, 1, clock)
    if taken >= TURN:
        return 1, taken
    calls = round(TURN / max(taken, 1e-6)) + 1
    return calls, _turn(work, calls, clock)


def _turn(work: Work, calls: int, clock: Clock) -> float:
    begun = clock()
    for _ in range(calls):
        work()
    return (clock() - begun) / calls
