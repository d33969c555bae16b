"""Progress is told after a while, and so is what has no end that anybody knows."""

from __future__ import annotations

import time

import pytest

from winticket.cli import progress
from winticket.cli.progress import patient

pytestmark = pytest.mark.usefixtures("undrawn")
WAIT = 0.15


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "PATIENCE", WAIT)
    monkeypatch.setattr(progress, "QUIET_SECONDS", WAIT)
    monkeypatch.setattr(progress, "BRIEF", WAIT)
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def test_what_takes_long_is_told_though_nothing_follows(told: list[str]) -> None:
    with patient() as tell:
        tell("Loading the model", None)
        assert told == []
        time.sleep(2 * WAIT)
        assert told == ["Loading the model"]


def test_what_is_brief_is_not_told_however_late_it_begins(told: list[str]) -> None:
    with patient() as tell:
        time.sleep(2 * WAIT)
        tell("Reading the text", None)
    assert told == []


def test_what_is_over_is_not_told(told: list[str]) -> None:
    with patient() as tell:
        tell("Reading the text", None)
        tell("Loading the model", None)
        tell("Step 1 of 2", 3.0)
        time.sleep(2 * WAIT)
        assert told == []
        tell("Step 2 of 2", 0.0)
        assert told == ["Step 2 of 2, about 0.0 s left"]


def test_nothing_is_told_when_the_command_has_ended(told: list[str]) -> None:
    with patient() as tell:
        tell("Loading the model", None)
    time.sleep(2 * WAIT)
    assert told == []


def test_a_quiet_command_tells_nothing(told: list[str]) -> None:
    with patient(quiet=True) as tell:
        tell("Loading the model", None)
        time.sleep(2 * WAIT)
        tell("Step 1 of 1", 0.0)
    assert told == []
