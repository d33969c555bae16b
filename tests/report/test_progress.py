"""Progress, told from made-up events: what is counted, what is drawn, what is printed where nothing can be drawn."""

from __future__ import annotations

import heapq
import io
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from winticket.report.progress import Watch


@dataclass
class Training:
    key: str
    label: Mapping[str, Any] = field(
        default_factory=lambda: {"arm": "ticket", "level": 1, "first": 0, "count": 5}
    )
    weight: float = 100.0


@dataclass
class Event:
    kind: str
    task: Training
    step: int | None = None
    steps: int | None = None
    text: str | None = None
    earlier: bool = False


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def watching(
    *, terminal: bool = False, seconds: float | None = 50.0, keys: str = "abcd"
) -> tuple[Watch, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    return Watch([Training(key) for key in keys], [1.0, 0.8], seconds=seconds, console=console), text


def test_what_is_reused_is_taken_out_of_the_whole(clock: Clock) -> None:
    watch, text = watching()
    with watch:
        for key in "ab":
            watch(Event("reused", Training(key)))
        watch(Event("started", Training("c")))
        clock.now += 3  # its worker starts up
        watch(Event("progress", Training("c"), step=0, steps=20))
        assert watch.seconds_left() == 47.0  # the estimate, before there is a speed
        clock.now += 12
        watch(Event("progress", Training("c"), step=10, steps=20))
        # A quarter of what is left took 12 s.
        assert text.getvalue() == "25 %, 0 of 10 trainings, 10 reused, about 36 s left\n"
        for key in "cd":
            watch(Event("finished", Training(key)))
    assert text.getvalue().splitlines()[-1] == "100 %, 10 of 10 trainings, 10 reused"


def test_the_estimate_speaks_before_there_is_a_speed(clock: Clock) -> None:
    watch, _ = watching(seconds=50.0)
    clock.now += 20
    assert watch.seconds_left() == 30.0
    clock.now += 100
    assert watch.seconds_left() == 0.0
    assert watching(seconds=None)[0].seconds_left() is None


def test_without_a_terminal_a_line_every_fifteen_seconds(clock: Clock) -> None:
    watch, text = watching()
    with watch:
        for _ in range(40):
            clock.now += 1
            watch(Event("progress", Training("a"), step=1, steps=20))
        assert len(text.getvalue().splitlines()) == 2
    assert len(text.getvalue().splitlines()) == 3


def test_a_failure_is_told_with_its_last_line_as_it_is(clock: Clock) -> None:
    watch, text = watching()
    with watch:
        watch(Event("started", Training("a")))
        watch(Event("failed", Training("a"), text="Traceback\n  ...\nRuntimeError: [/red] bad [bold]\n"))
        watch(Event("skipped", Training("b"), text="a"))
        watch(Event("failed", Training("c"), text="OSError: gone", earlier=True))
    first, second, last = text.getvalue().splitlines()
    assert first == (
        "failed: ticket at 80.0 % (level 1 of 1), replicates 1–5: RuntimeError: [/red] bad [bold]"
    )
    assert second.endswith("OSError: gone")
    # What is skipped, or failed before, takes no time; what failed now did.
    assert last.startswith(
        "50 %, 0 of 10 trainings, 10 failed, 5 skipped because they need a failed one, about"
    )


def test_a_training_whose_process_died_starts_again_from_nothing(clock: Clock) -> None:
    watch, text = watching(keys="a")
    with watch:
        watch(Event("started", Training("a")))
        watch(Event("progress", Training("a"), step=15, steps=20))
        watch(Event("retried", Training("a"), text="killed by signal SIGKILL"))
        assert watch.rows == {}
        watch(Event("started", Training("a")))
        watch(Event("progress", Training("a"), step=5, steps=20))
        assert watch._line().startswith("25 %")
        watch(Event("finished", Training("a")))
        assert watch.rows == {}
    assert "its process died (killed by signal SIGKILL), so it starts again" in text.getvalue()


def test_a_training_that_another_run_finished_meanwhile(clock: Clock) -> None:
    watch, _ = watching(keys="ab")
    with watch:
        watch(Event("started", Training("a")))
        watch(Event("progress", Training("a"), step=15, steps=20))
        watch(Event("reused", Training("a")))
        assert watch.rows == {}
        watch(Event("finished", Training("b")))
        assert watch._line() == "100 %, 5 of 5 trainings, 5 reused"


def test_a_terminal_shows_what_is_in_hand(clock: Clock) -> None:
    watch, text = watching(terminal=True)
    with watch:
        watch(Event("started", Training("a", {"arm": "reinit", "level": 1, "first": 5, "count": 1})))
        watch(Event("progress", Training("a"), step=300, steps=800))
        watch.live.refresh()
        shown = text.getvalue()
    assert "re-initialised at 80.0 % (level 1 of 1), replicate 6" in shown
    assert "300 / 800 steps" in shown
    assert "9 %, 0 of 20 trainings" in shown
    assert text.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in text.getvalue()  # the cursor is back


def test_nothing_to_do(clock: Clock) -> None:
    watch, text = watching(keys="")
    with watch:
        pass
    assert text.getvalue() == "nothing to train\n"


@dataclass
class Plan:
    """Trainings whose true seconds are not what their weights promise, for an executor of made-up workers."""

    trainings: list[Training]
    needs: dict[str, list[str]]
    seconds: dict[str, float]


def search(*, levels: int, controls: int, stacks: int, true: Callable[[float, int], float]) -> Plan:
    """Iterative pruning by a fifth: tickets wait for one another, controls for their ticket's own needs.

    Weights are 1000 steps of a step's relative cost, which falls with density as sparse kernels have it; `true` is the
    factor by which the seconds differ from that, by density and number of the training.
    """
    plan = Plan([], {}, {})

    def add(key: str, arm: str, level: int, weight: float, needs: list[str]) -> None:
        plan.trainings.append(Training(key, {"arm": arm, "level": level, "first": 0, "count": 5}, weight))
        plan.needs[key] = needs
        plan.seconds[key] = weight / 400 * true(0.8**level, len(plan.seconds))

    for stack in range(stacks):
        add(f"{stack} dense", "dense", 0, 1000, [])
        add(f"{stack} doubled", "dense doubled", 0, 2000, [])
        before = f"{stack} dense"
        for level in range(1, levels + 1):
            weight = 1000 * min(1.0, 0.09 + 2 * 0.8**level)
            add(f"{stack} ticket {level}", "ticket", level, weight, [before])
            for control in range(controls):
                add(f"{stack} control {control} {level}", "reinit", level, weight, [before])
            before = f"{stack} ticket {level}"
    return plan


def watched(plan: Plan, clock: Clock, *, workers: int, start: float) -> list[tuple[float, float]]:
    """Run a plan by workers that take `start` seconds to start up: moments and what the watch said was left then."""
    text = Console(file=io.StringIO(), width=120)
    watch = Watch(plan.trainings, [], seconds=None, needs=plan.needs, workers=workers, console=text)
    by_key = {training.key: training for training in plan.trainings}
    begin = clock.now
    waiting = {key: set(needs) for key, needs in plan.needs.items()}
    ready = [key for key, needs in waiting.items() if not needs]
    # (moment, number, what happens, worker, key, share)
    due: list[tuple[float, int, str, int, str, int]] = []
    told: list[tuple[float, float]] = []
    count = itertools.count()
    idle = list(range(workers))
    with watch:
        while ready or due:
            while ready and idle:
                worker, key = idle.pop(), ready.pop(0)
                watch(Event("started", by_key[key]))
                at = max(clock.now, begin + start)  # all workers start up at the beginning
                for tenth in range(1, 11):
                    moment = at + plan.seconds[key] * tenth / 10
                    heapq.heappush(due, (moment, next(count), "progress", worker, key, tenth))
            clock.now, _, _, worker, key, tenth = heapq.heappop(due)
            watch(Event("progress", by_key[key], step=tenth, steps=10))
            if tenth == 10:
                watch(Event("finished", by_key[key]))
                idle.append(worker)
                for other, needs in waiting.items():
                    if key in needs:
                        needs.remove(key)
                        if not needs:
                            ready.append(other)
            left = watch.seconds_left()
            if left is not None:
                told.append((clock.now - begin, left))
    return told


UNEVEN: dict[str, tuple[int, int, int, int, float, Callable[[float, int], float]]] = {
    # levels, controls, stacks, workers, start-up seconds, true seconds over promised ones
    "as promised": (16, 2, 1, 2, 3.0, lambda d, n: 1.0),
    "every training differs": (16, 2, 2, 2, 3.0, lambda d, n: (0.7, 1.3, 1.0, 0.85, 1.2)[n % 5]),
    "sparse levels cheaper still": (16, 2, 1, 2, 3.0, lambda d, n: 0.6 + 0.4 * d),
    "sparse levels dearer": (16, 2, 1, 2, 3.0, lambda d, n: 1.45 - 0.45 * d),
    "a chain, and a worker with nothing to do": (12, 0, 1, 2, 3.0, lambda d, n: 1.0),
    "more workers than are ever needed": (8, 2, 1, 8, 6.0, lambda d, n: 1.0),
    "one worker": (8, 2, 2, 1, 3.0, lambda d, n: 0.8 + 0.4 * (n % 2)),
}


@pytest.mark.parametrize("case", UNEVEN)
def test_the_time_left_is_right_within_a_half_after_the_first_tenth(case: str, clock: Clock) -> None:
    levels, controls, stacks, workers, start, true = UNEVEN[case]
    plan = search(levels=levels, controls=controls, stacks=stacks, true=true)
    told = watched(plan, clock, workers=workers, start=start)
    end = told[-1][0]
    later = [(now, left) for now, left in told if now >= end / 10 and end - now > 0.02 * end]
    assert len(later) > 20
    worst = max(max(left / (end - now), (end - now) / left) for now, left in later)
    assert worst < 1.5


def test_a_share_is_rounded_down_so_that_only_the_end_is_100_percent() -> None:
    trainings = [Training(str(number), weight=0.1) for number in range(1000)]
    watch = Watch(trainings, [], seconds=50.0, console=Console(file=io.StringIO(), width=120))
    for training in trainings[:997]:
        watch(Event("finished", training))
    assert watch._line().startswith("99 %, 4985 of 5000 trainings")
    for training in trainings[997:]:
        watch(Event("finished", training))
    assert watch._line() == "100 %, 5000 of 5000 trainings"


def test_of_a_large_plan_the_time_left_is_reckoned_now_and_then(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _ = watching()
    ticks = iter(range(1000))
    monkeypatch.setattr("winticket.report.progress.time.perf_counter", lambda: 0.2 * next(ticks))
    assert watch._makespan({"a": 30.0}, 100.0) == 30.0  # which took .2 s, so it rests for ten
    assert watch._makespan({"a": 7.0}, 106.0) == 24.0
    assert watch._makespan({"a": 7.0}, 111.0) == 7.0


def test_another_command_on_the_store_is_told_once(clock: Clock) -> None:
    watch, text = watching()
    for key in "abab":
        watch(Event("elsewhere", Training(key), text="process 7"))
    assert text.getvalue().count("another command (process 7)") == 1
    assert "10 running in another command" in watch._line()
    watch(Event("reused", Training("a")))
    assert "5 running in another command" in watch._line()


def test_a_training_repeated_for_its_states_takes_time_and_is_no_training(clock: Clock) -> None:
    text = io.StringIO()
    label = {"arm": "dense", "level": 0, "first": 0, "count": 5, "states": [20]}
    again, ticket = Training("s", label, weight=10.0), Training("t", weight=0.1)
    console = Console(file=text, width=120, color_system=None)
    with Watch([again, ticket], [1.0, 0.8], seconds=50.0, console=console) as watch:
        watch(
            Event("finished", Training("handed over", label))
        )  # on the way of a training: no work of its own
        watch(Event("started", again))
        assert watch._name(label) == "dense network again, up to step 20, replicates 1–5"
        assert "0 of 5 trainings" in watch._line()
        for each in (again, ticket):
            watch(Event("started", each))
            clock.now += 3
            watch(Event("finished", each))
    assert text.getvalue() == "100 %, 5 of 5 trainings\n"
