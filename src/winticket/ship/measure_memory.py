"""How much memory a runtime takes: the peak of a process that loads the network and computes one example."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from winticket.ship.measure_runtimes import RUNTIMES, Files, Runtime

PATIENCE = 300.0
"""Seconds after which such a process is given up."""


def peak(runtime: Runtime, files: Files, threads: int = 1) -> int | None:
    """Bytes at the peak, interpreter and libraries included; None if the system does not tell, or the process fails.

    The files of the runtime exist already if it has been timed, so that the process only reads them.
    """
    of = json.dumps([runtime.name, str(files.folder), threads, list(files.network.input_shape)])
    path = os.pathsep.join(part for part in sys.path if part)
    # -P: a json.py in the working directory is none of ours.
    words = [sys.executable, "-P", "-m", "winticket.ship.measure_memory", of]
    environment = {**os.environ, "PYTHONPATH": path}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=True
        )
        return int(done.stdout.split()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None


def _main(name: str, folder: str, threads: int, shape: list[int]) -> None:
    # Not the network: a runtime that has a file of its own reads no other.
    bound = RUNTIMES[name].load(Files(None, Path(folder)), threads)(np.zeros((1, *shape), np.float32))
    bound.compute()
    # Not getrusage: its peak includes that of the process which started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    sys.stdout.write(str(next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))))


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
