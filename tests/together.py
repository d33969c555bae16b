"""Processes of one test that have to run side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence


def together(ranks: Sequence[Sequence[str]], *, seconds: float) -> None:
    """Run Python with the arguments of every rank at once; AssertionError, with what it said, where one fails."""
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for arguments in ranks
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=seconds)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
