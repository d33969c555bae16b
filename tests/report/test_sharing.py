"""Works shared with a forked process give what they give alone, whatever becomes of that process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from winticket.report import sharing


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    monkeypatch.setattr(sharing, "forks", lambda: True)


def slow(number: int) -> tuple[int, int]:
    """The number, and the process that returned it."""
    time.sleep(0.02)
    return number, os.getpid()


def works(do: Callable[[int], tuple[int, int]], count: int = 12) -> list[Callable[[], tuple[int, int]]]:
    return [partial(do, number) for number in range(count)]


@pytest.mark.usefixtures("forking")
def test_two_processes_do_the_works_and_results_are_in_order() -> None:
    made = sharing.each(works(slow))
    assert [number for number, _ in made] == list(range(12))
    (other,) = {process for _, process in made} - {os.getpid()}
    with pytest.raises(ChildProcessError):  # it was waited for
        os.waitpid(other, os.WNOHANG)


@pytest.mark.usefixtures("forking")
def test_the_works_of_a_process_that_is_killed_are_done_here() -> None:
    here = os.getpid()

    def fatal(number: int) -> tuple[int, int]:
        if os.getpid() != here and number > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return slow(number)

    assert sharing.each(works(fatal)) == [(number, here) for number in range(12)]


@pytest.mark.usefixtures("forking")
def test_results_that_cannot_be_sent_are_made_here() -> None:
    here = os.getpid()

    def unsendable(number: int) -> tuple[int, object]:
        return slow(number)[0], threading.Lock() if os.getpid() != here else here

    made = sharing.each([partial(unsendable, number) for number in range(12)])
    assert made == [(number, here) for number in range(12)]


@pytest.mark.usefixtures("forking")
def test_an_error_is_raised_here_and_ends_the_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, forked = os.fork, list[int]()

    def noted() -> int:
        process = fork()
        if process:
            forked.append(process)
        return process

    monkeypatch.setattr(os, "fork", noted)

    def failing(number: int) -> tuple[int, int]:
        if number == 5:
            raise LookupError("five")
        return slow(number)

    with pytest.raises(LookupError, match="five"):
        sharing.each(works(failing))
    (other,) = forked
    with pytest.raises(ChildProcessError):
        os.waitpid(other, os.WNOHANG)


def test_nothing_forks_while_another_thread_may_hold_a_lock() -> None:
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(sharing.forks()))
    thread.start()
    thread.join()
    assert seen == [False]
