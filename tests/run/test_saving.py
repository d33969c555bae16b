"""How often the state of a task is saved: by the clock, and less often if saving takes long."""

from __future__ import annotations

from typing import Any

import pytest

from winticket.run import checkpoints
from winticket.run.checkpoints import Checkpoint


class Clock:
    """A time that passes only when it is told to, and a store whose writing takes some of it."""

    def __init__(self, writing: float) -> None:
        self.now, self.writing = 0.0, writing

    def monotonic(self) -> float:
        return self.now

    def save_partial(self, key: str, value: object) -> None:
        self.now += self.writing


@pytest.mark.parametrize(("writing", "pause"), [(0.1, 10.0), (0.5, 10.0), (3.0, 60.0)])
def test_saving_takes_at_most_a_twentieth_of_the_time(
    writing: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Any = Clock(writing)
    monkeypatch.setattr(checkpoints, "time", clock)
    checkpoint = Checkpoint(clock, "key", 10.0, lambda: False)
    clock.now = 9.9
    assert not checkpoint.due()
    clock.now = 10.0
    assert checkpoint.due()
    checkpoint.save("state")
    clock.now += pause - 0.1
    assert not checkpoint.due()
    clock.now += 0.2
    assert checkpoint.due()


def test_a_run_that_stops_saves_once_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock(100.0)
    monkeypatch.setattr(checkpoints, "time", clock)
    checkpoint = Checkpoint(clock, "key", 10.0, lambda: True)
    assert checkpoint.due()
    checkpoint.save("state")
    assert not checkpoint.due()
