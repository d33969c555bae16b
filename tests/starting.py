"""The command in a process of its own that starts at once: a fork of one that has everything imported.

Imports take seconds of computing at each start, which hardly any test is about. What differs from a real start is what
Python does before: its options, its variables of the environment, and how `winticket` was found.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import undrawn

SERVER = """
import gc, json, os, signal, socket, sys, warnings
import sklearn.datasets, torch, torch._dynamo
import winticket.cli, winticket.experiment, winticket.judge, winticket.report, winticket.run.serve, winticket.stages
torch.set_num_threads(1)
gc.freeze()
line = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for those that wait for commands
while True:
    asked, files, _, _ = socket.recv_fds(line, 1 << 20, 3)
    if not asked:
        sys.exit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, if libraries have threads
        if os.fork() == 0:
            break
    for file in files:
        os.close(file)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
line.close()
command = os.fork()
if command:
    os.write(files[2], b"%d\\n" % command)
    os.write(files[2], b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(command, 0)[1]))
    os._exit(0)
os.setsid()
os.dup2(files[0], 1)
os.dup2(files[1], 2)
for file in files:
    os.close(file)
told = json.loads(asked)
os.chdir(told["folder"])
os.environ.clear()
os.environ.update(told["environment"])
sys.argv[:] = ["winticket", *told["words"]]
exec(told["program"])
"""
COMMAND = "from winticket.cli import main\nmain()\n"
INLINE = (
    "import winticket.experiment.execution as execution\nexecution.processes = lambda: 0\n" + undrawn.COMMAND
)
"""The command that draws nothing and, unless told how many processes to use, computes in its own."""


@cache
def _server() -> socket.socket:
    """The line to the process that forks, which ends with this one, at the latest."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class Started:
    """A command in a session of its own: as much of `subprocess.Popen` as tests need."""

    def __init__(
        self,
        *words: str,
        folder: Path,
        program: str = COMMAND,
        stdout: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` is the working directory; `stdout` names a file for what the command answers."""
        around = {**os.environ, **(environment or {})}
        told = {"words": words, "folder": str(folder), "program": program, "environment": around}
        # In the file system and not in a pipe, so that nothing has to read while the command runs.
        self._said = os.memfd_create("stdout"), os.memfd_create("stderr")
        out = os.open(stdout, os.O_WRONLY | os.O_CREAT) if stdout else os.dup(self._said[0])
        self._status, theirs = os.pipe()
        socket.send_fds(_server(), [json.dumps(told).encode()], [out, self._said[1], theirs])
        os.close(out)
        os.close(theirs)
        self._read = 0
        self.returncode: int | None = None
        self.pid = self._number(60)

    def _number(self, seconds: float) -> int:
        if not select.select([self._status], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired("winticket", seconds)
        line = b""
        while not line.endswith(b"\n"):
            if not (more := os.read(self._status, 1)):
                raise EOFError("the process that starts commands has ended")
            line += more
        return int(line)

    def line(self, *, timeout: float) -> str:
        """The next line on stdout, of 1000 bytes at most."""
        until = time.monotonic() + timeout
        while True:
            line, end, _ = os.pread(self._said[0], 1000, self._read).partition(b"\n")
            if end:
                self._read += len(line) + 1
                return line.decode()
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("winticket", timeout)
            time.sleep(0.01)

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self, *, timeout: float) -> tuple[str, str]:
        """Wait for the end. What it said on stdout and stderr; `returncode` is its exit status."""
        self.returncode = self._number(timeout)
        os.close(self._status)
        said = []
        for file in self._said:
            os.lseek(file, 0, os.SEEK_SET)
            with os.fdopen(file, encoding="utf-8") as text:
                said.append(text.read())
        return said[0], said[1]
