"""Progress, told from made-up events: what is counted, what is drawn, what is printed where nothing can be drawn."""

import io
import time
from collections.abc import Mapping
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
    return Watch(dict.fromkeys(keys, 100.0), [1.0, 0.8], seconds=seconds, console=console), text


def test_what_is_reused_is_taken_out_of_the_whole(clock: Clock) -> None:
    watch, text = watching()
    with watch:
        for key in "ab":
            watch(Event("reused", Training(key)))
        watch(Event("started", Training("c")))
        watch(Event("progress", Training("c"), step=10, steps=20))
        clock.now += 15
        watch(Event("progress", Training("c"), step=10, steps=20))
        # A quarter of what is left took 15 s.
        assert text.getvalue() == "25 %, 0 of 2 stack trainings, 2 reused, about 45 s left\n"
        for key in "cd":
            watch(Event("finished", Training(key)))
    assert text.getvalue().splitlines()[-1] == "100 %, 2 of 2 stack trainings, 2 reused"


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
        "50 %, 0 of 2 stack trainings, 2 failed, 1 skipped, needing one that failed, about"
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
    assert "its process died (killed by signal SIGKILL), started again" in text.getvalue()


def test_a_training_that_another_run_finished_meanwhile(clock: Clock) -> None:
    watch, _ = watching(keys="ab")
    with watch:
        watch(Event("started", Training("a")))
        watch(Event("progress", Training("a"), step=15, steps=20))
        watch(Event("reused", Training("a")))
        assert watch.rows == {}
        watch(Event("finished", Training("b")))
        assert watch._line() == "100 %, 1 of 1 stack trainings, 1 reused"


def test_a_terminal_shows_what_is_in_hand(clock: Clock) -> None:
    watch, text = watching(terminal=True)
    with watch:
        watch(Event("started", Training("a", {"arm": "reinit", "level": 1, "first": 5, "count": 1})))
        watch(Event("progress", Training("a"), step=300, steps=800))
        watch.live.refresh()
        shown = text.getvalue()
    assert "re-initialised at 80.0 % (level 1 of 1), replicate 6" in shown
    assert "300 / 800 steps" in shown
    assert "9 %, 0 of 4 stack trainings" in shown
    assert text.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in text.getvalue()  # the cursor is back


def test_nothing_to_do(clock: Clock) -> None:
    watch, text = watching(keys="")
    with watch:
        pass
    assert text.getvalue() == "100 %, 0 of 0 stack trainings\n"
