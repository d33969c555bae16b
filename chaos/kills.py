"""Kill a command, its workers or their fork server (kill -9) at random moments; then run the same command again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from chaos.commands import SEARCH, Command, kept, numbers, session, start, traceback_in
from chaos.counts import Count

FIND = (
    "find",
    "digits",
    *SEARCH,
    "--replicates",
    "2",
    "--workers",
    "2",
    "--store",
    "runs",
    "--out",
    "out",
    "--json",
)


def run(scratch: Path, seed: int, many: int, say: Callable[[str], None]) -> list[Count]:
    """Kill `many` times. A search that was killed is resumed and killed again until it ends."""
    rng, count = Random(seed), Count("kills of a search and its processes")
    folder = scratch / "kills"
    folder.mkdir(parents=True)
    began = time.monotonic()
    status, out, err = start(folder, *FIND).end()
    took, undisturbed = time.monotonic() - began, numbers(out)
    assert status == 0, err
    shutil.rmtree(folder / "runs")
    while count.tried < many:
        before = kept(folder / "runs") if (folder / "runs").exists() else {}
        command = start(folder, *FIND)
        time.sleep(rng.uniform(0.3, took))
        if command.process.poll() is None:
            count.tried += 1
            _kill(command, rng)
        status, out, err = command.end()
        what = f"kill {count.tried}"
        if status is None or traceback_in(err):
            count.raw += 1
            count.notes.append(f"{what}: {'it hung' if status is None else err[-300:]}")
        if orphans := command.left():
            count.raw += 1
            count.notes.append(f"{what}: {len(orphans)} processes outlived it")
        compare(count, what, before, folder / "runs")
        if status == 0:
            if numbers(out) != undisturbed:
                count.silent += 1
                count.notes.append(f"{what}: other numbers than undisturbed")
            shutil.rmtree(folder / "runs")
        if count.tried % 10 == 0:
            say(f"kills: {count.tried} of {many}")
    return [count]


def _kill(command: Command, rng: Random) -> None:
    """Kill the command, its whole group, or one of its other processes."""
    others = [pid for pid in session(command.process.pid) if pid != command.process.pid]
    kind = rng.randrange(3)
    if kind == 0 or not others:
        command.kill()
    elif kind == 1:
        command.kill(group=True)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(others), signal.SIGKILL)


def compare(count: Count, what: str, before: dict[str, int], store: Path) -> None:
    """Count the results that were there before and are gone, or were written again."""
    after = kept(store) if store.exists() else {}
    gone = [name for name, when in before.items() if after.get(name) != when]
    if gone:
        count.lost += len(gone)
        count.notes.append(f"{what}: {len(gone)} results were lost or computed again")
