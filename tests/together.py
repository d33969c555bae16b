"""Processes of one test that have to run side by side."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = """
import importlib, os, runpy, sys, traceback, warnings
count, words = int(sys.argv[1]), sys.argv[2:]
for name in words[:count]:
    importlib.import_module(name)
script, size = words[count], int(words[count + 1])
ranks = words[count + 2 :]
started = []
for first in range(0, len(ranks), size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, if libraries have threads
        process = os.fork()
    if process == 0:
        try:
            sys.argv = [script, *ranks[first : first + size]]
            runpy.run_path(script, run_name="__main__")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # a script that comes to its end has left already
    started.append(process)
sys.exit(any([os.waitpid(process, 0)[1] for process in started]))
"""
"""Imports once, which takes seconds, and forks into the ranks."""


def together(
    script: Path,
    ranks: Sequence[Sequence[str]],
    *,
    seconds: float,
    imported: Sequence[str] = (),
    options: Sequence[str] = (),
) -> None:
    """Run a script with the arguments of every rank at once; AssertionError, with what it said, where one fails.

    The script ends itself by `os._exit(0)`. What it imports is imported once, before, as far as `imported` names it.
    `options` are Python's.
    """
    sizes = {len(arguments) for arguments in ranks}
    assert len(sizes) == 1
    words = [str(len(imported)), *imported, str(script), str(sizes.pop()), *(a for r in ranks for a in r)]
    process = subprocess.Popen(
        [sys.executable, *options, "-c", PROGRAM, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=seconds)
        assert process.returncode == 0, errors
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
