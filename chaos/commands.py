"""Run the real command in a small search, in a separate process, and inspect what remains."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEARCH = (
    "--model",
    "lenet-20-10",
    "--density",
    "0.5",
    "--density",
    "0.2",
    "--steps",
    "300",
    "--stack",
    "1",
    "--no-gate",
)
PATIENCE = 60.0  # Seconds after which a command counts as hanging.


@dataclass
class Command:
    """A command that was started in a new session, so that processes which outlive it can be detected."""

    process: subprocess.Popen[bytes]
    words: Sequence[str]
    began: float = field(default_factory=time.monotonic)

    def kill(self, *, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)

    def end(self, patience: float = PATIENCE) -> tuple[int | None, str, str]:
        """Wait for the end. Returns exit status (None if it hung and was killed), stdout and stderr."""
        try:
            out, err = self.process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            self.kill(group=True)
            out, err = self.process.communicate()
            return None, _text(out), _text(err)
        return self.process.returncode, _text(out), _text(err)

    def left(self, seconds: float = 8.0) -> list[int]:
        """Kill and return the processes of its session that outlive it; they have some `seconds` to end."""
        until = time.monotonic() + seconds
        while (orphans := session(self.process.pid)) and time.monotonic() < until:
            time.sleep(0.1)
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return orphans


def _text(written: bytes | None) -> str:
    return (written or b"").decode("utf-8", "replace")


def start(
    folder: Path,
    *words: str,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    out: str | None = None,
) -> Command:
    """Start `winticket WORDS` in that folder. `before` is called in the new process first (resource limits).

    Its stdout is a pipe, or the file `out`.
    """
    code = "from winticket.cli import main; main()"
    target = subprocess.PIPE if out is None else os.open(out, os.O_WRONLY)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        stdout=target,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "WINTICKET_CACHE": str(folder / "cache"), **(environment or {})},
        start_new_session=True,
        preexec_fn=before,  # noqa: PLW1509 - nothing else runs in this process
    )
    if target != subprocess.PIPE:
        os.close(target)
    return Command(process, words)


def session(leader: int) -> list[int]:
    """The living processes of the session with this leader."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    members.append(int(entry.name))
    return members


def kept(store: Path) -> dict[str, int]:
    """Every stored result with its time of writing in nanoseconds."""
    return {p.name: p.stat().st_mtime_ns for p in (store / "results").rglob("*.safetensors")}


def numbers(out: str) -> Any:
    """All accuracies of a finished search: no trouble may change them."""
    levels = json.loads(out)["levels"]
    return [{arm: entry["accuracies"] for arm, entry in level["arms"].items()} for level in levels]


def traceback_in(err: str) -> bool:
    return "Traceback (most recent call last)" in err
