"""What machines, people and models do to a search while it runs."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos.commands import SEARCH, Command, session, start

FIND = (
    "find",
    "data",
    *SEARCH,
    "--replicates",
    "2",
    "--workers",
    "1",
    "--store",
    "runs",
    "--out",
    "out",
    "--json",
)


@dataclass(frozen=True)
class Fault:
    """One fault, and the exit statuses that are correct under it.

    act          called while the command runs
    before       called first in the process of the command, to set limits
    environment  additional environment variables
    words        additional options of the command
    folder       working directory of the command, below the scratch folder
    out          file for its stdout instead of a pipe
    status       correct exit statuses
    mend         called to repair the damage before the same command runs again
    """

    act: Callable[[Path, Command], None] | None = None
    before: Callable[[], None] | None = None
    environment: Mapping[str, str] | None = None
    words: tuple[str, ...] = ()
    folder: str = ""
    out: str | None = None
    status: tuple[int, ...] = (1,)
    mend: Callable[[Path], None] | None = None


def _after_a_result(folder: Path, command: Command) -> None:
    while command.process.poll() is None and not any((folder / "runs" / "results").glob("*/*")):
        time.sleep(0.02)


def _remove_store(folder: Path, command: Command) -> None:
    _after_a_result(folder, command)
    shutil.rmtree(folder / "runs", ignore_errors=True)


def _move_store(folder: Path, command: Command) -> None:
    _after_a_result(folder, command)
    (folder / "runs").rename(folder / "elsewhere")


def _show_store(folder: Path) -> None:
    shutil.rmtree(folder / "runs", ignore_errors=True)
    if (folder / "elsewhere").exists():
        (folder / "elsewhere").rename(folder / "runs")


def _remove_results(folder: Path, command: Command) -> None:
    _after_a_result(folder, command)
    shutil.rmtree(folder / "runs" / "results", ignore_errors=True)


def _keep_another(folder: Path, command: Command) -> None:
    """Run `store gc --keep` for another run that shares no training with this one."""
    _after_a_result(folder, command)
    other = (
        "find",
        "data",
        *SEARCH[:-1],
        "--replicates",
        "1",
        "--workers",
        "0",
        "--steps",
        "10",
        "--no-gate",
    )
    start(folder, *other, "--seed", "9", "--store", "runs", "--out", "other").end()
    start(folder, "store", "gc", "--store", "runs", "--keep", "other/result.json").end()


def _hide_data(folder: Path, command: Command) -> None:
    while command.process.poll() is None and not (folder / "runs" / "winticket-store.json").exists():
        time.sleep(0.005)
    (folder / "data").rename(folder / "away")


def _show_data(folder: Path) -> None:
    if (folder / "away").exists():
        (folder / "away").rename(folder / "data")


def _signal(number: int) -> Callable[[Path, Command], None]:
    def act(folder: Path, command: Command) -> None:
        _after_a_result(folder, command)
        if command.process.poll() is None:
            os.kill(command.process.pid, number)

    return act


def _kill_the_fork_server(folder: Path, command: Command) -> None:
    """Kill the first process that the command started, usually the fork server."""
    _after_a_result(folder, command)
    others = [pid for pid in session(command.process.pid) if pid != command.process.pid]
    if others:
        os.kill(min(others), signal.SIGKILL)


def _limit(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


def _heeded() -> None:
    """Restore the default action of signals, which the calling shell may ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _close(descriptor: int) -> Callable[[], None]:
    return lambda: os.close(descriptor)


def _occupied(folder: Path, command: Command) -> None:
    """Replace the output folder by a file of the user."""
    _after_a_result(folder, command)
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").write_text("mine")


def _clear(folder: Path) -> None:
    if (folder / "out").is_file():
        (folder / "out").unlink()


def _mine(trouble: str, *status: int) -> Fault:
    return Fault(
        environment={"TROUBLE": trouble}, words=("--model", "nets:build"), status=status or (0,), mend=None
    )


FAULTS: dict[str, Fault] = {
    "the store is removed": Fault(_remove_store),
    "the store is moved": Fault(_move_store, mend=_show_store),
    "the results are removed": Fault(_remove_results),
    "gc keeps another run alone": Fault(_keep_another, status=(0, 1)),
    "the data are away": Fault(_hide_data, status=(0, 1), mend=_show_data),
    "a file in place of the output folder": Fault(_occupied, status=(1, 2), mend=_clear),
    "interrupted": Fault(_signal(signal.SIGINT), before=_heeded, status=(130,)),
    "terminated": Fault(_signal(signal.SIGTERM), before=_heeded, status=(143,)),
    "hung up": Fault(_signal(signal.SIGHUP), before=_heeded, status=(129,)),
    "the first process of its own is killed": Fault(_kill_the_fork_server, status=(0, 1)),
    "files may not grow": Fault(before=_limit(resource.RLIMIT_FSIZE, 3000), status=(1, 2)),
    "few files may be open": Fault(before=_limit(resource.RLIMIT_NOFILE, 12)),
    "some files may be open": Fault(before=_limit(resource.RLIMIT_NOFILE, 40), status=(0, 1)),
    "too little memory to begin": Fault(before=_limit(resource.RLIMIT_AS, 500 << 20)),
    "hardly enough memory": Fault(before=_limit(resource.RLIMIT_AS, 1500 << 20), status=(0, 1)),
    "a notebook's backend": Fault(environment={"MPLBACKEND": "module://matplotlib_inline.gone"}, status=(0,)),
    "a terminal without Unicode": Fault(
        environment={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}, status=(0,)
    ),
    "no stdout": Fault(before=_close(1), out=os.devnull, status=(0,)),
    "no stderr": Fault(before=_close(2), status=(0,)),
    "a full disk for stdout": Fault(out="/dev/full", status=(1,)),
    "a folder called like a formula": Fault(folder="cost $x_1 [red]$", status=(0,)),
    "a folder that is no text": Fault(folder=os.fsdecode(b"bytes \xff\x1b[31m"), status=(0,)),
    "a model that prints": _mine("prints"),
    "a model that forks": _mine("forks"),
    "a model that starts a program": _mine("starts a program"),
    "a model that closes descriptors": _mine("closes descriptors", 1, 2),
    "a model that exits": _mine("exits", 1, 2),
    "a model whose pipe is broken": _mine("prints into a broken pipe", 1, 2),
}
if sys.platform != "linux":
    raise SystemExit("python -m chaos needs Linux: it reads /proc and sets resource limits")
