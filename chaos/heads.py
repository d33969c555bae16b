"""Kill a process of a search on Ray at random moments: a worker, the head's server, its manager, or the command itself.

Then the same search runs on a pool in the same store. Nothing that was finished may be lost or computed again, the
numbers are those of an undisturbed run, and no process may be left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from random import Random

import psutil  # type: ignore[import-untyped]

from chaos.commands import Command, kept, numbers, start, traceback_in
from chaos.counts import Count
from chaos.kills import FIND, compare
from chaos.workers import Say

ON_RAY = (*FIND, "--ray", "local", "--steps", "3000")
ON_POOL = (*FIND, "--steps", "3000")
PATIENCE = 150.0
"""Seconds. A command that has lost Ray's head waits for a minute whether it comes back."""
LEAVING = 60.0
"""Seconds that processes of Ray have to notice that their head or the command is gone."""


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """Kill `many` times, each time in a new store."""
    rng, count = Random(seed), Count("kills of a search on Ray: workers, head, command")
    folder = scratch / "heads"
    folder.mkdir(parents=True)
    began = time.monotonic()
    status, out, err = start(folder, *ON_RAY).end(PATIENCE)
    took, undisturbed = time.monotonic() - began, numbers(out)
    assert status == 0, err
    for number in range(many):
        shutil.rmtree(folder / "runs")
        _one(count, folder, rng, took, undisturbed)
        say(f"heads: {number + 1} of {many}, {len(count.notes)} notes")
    return [count]


def _one(count: Count, folder: Path, rng: Random, took: float, undisturbed: object) -> None:
    command = start(folder, *ON_RAY)
    time.sleep(rng.uniform(0.4, 1.0) * took)
    others = _below(command)
    victim = _kill(command, others, rng)
    count.tried += 1
    what = f"kill {count.tried} ({victim})"
    status, _, err = command.end(PATIENCE)
    if status is None or traceback_in(err):
        count.raw += 1
        count.notes.append(f"{what}: {'it hung' if status is None else err[-600:]}")
    before = kept(folder / "runs") if (folder / "runs").exists() else {}
    status, out, err = start(folder, *ON_POOL).end(PATIENCE)
    if status != 0:
        count.raw += 1
        count.notes.append(f"{what}: afterwards, exit status {status}: {err[-300:]}")
    elif numbers(out) != undisturbed:
        count.silent += 1
        count.notes.append(f"{what}: other numbers than undisturbed")
    compare(count, what, before, folder / "runs")
    until = time.monotonic() + LEAVING
    while (left := [p for p in others if _alive(p)]) and time.monotonic() < until:
        time.sleep(0.5)
    for process in left:
        count.raw += 1
        count.notes.append(f"{what}: {process} outlived it")
        with contextlib.suppress(psutil.Error):
            process.kill()


def _below(command: Command) -> list[psutil.Process]:
    """The processes that the command has started, and those that these have started."""
    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(command.process.pid).children(recursive=True)
    return below


def _kill(command: Command, others: list[psutil.Process], rng: Random) -> str:
    """Kill the command or one of its processes; the name of what was killed."""
    kinds = {"gcs_server": "the head's server", "raylet": "the head's manager", "ray::": "a worker"}
    named: dict[str, list[psutil.Process]] = {}
    for process in others:
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline()[:1])
            name = next((kind for word, kind in kinds.items() if word in line), None)
            if name is not None:
                named.setdefault(name, []).append(process)
    name = rng.choice([*sorted(named), "the command"])
    pid = command.process.pid if name == "the command" else rng.choice(named[name]).pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return name


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
