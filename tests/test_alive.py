"""Who still runs: what is left behind by a process may be cleared once it has ended, and never before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from winticket.alive import alive
from winticket.run.files import Entry, abandoned, host


@pytest.fixture
def unclaimed() -> subprocess.Popen[bytes]:
    """A process that has ended, and whose exit status nobody has asked for."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def test_a_process_runs_until_it_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert alive(process.pid)
        process.communicate(b"\n")
    assert not alive(process.pid)


@pytest.mark.skipif(not Path("/proc").exists(), reason="the state of another process is read in /proc")
def test_what_has_ended_does_not_run_though_nobody_asked_for_its_status(
    unclaimed: subprocess.Popen[bytes],
) -> None:
    with unclaimed:
        os.kill(unclaimed.pid, 0)  # its number is still taken
        assert not alive(unclaimed.pid)
        assert abandoned(Entry(f"tmp/result.{host()}-{unclaimed.pid}-{'0' * 16}", 1, time.time()))


def test_a_number_that_was_given_again_is_another_process() -> None:
    assert alive(os.getpid(), since=time.time())
    assert not alive(os.getpid(), since=time.time() - 10**9)


def test_the_first_process_and_impossible_numbers() -> None:
    assert alive(1)
    assert not alive(2**40)
    assert not alive(2**80)
