"""This machine: how many processes to use, and a description for people."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy as np
import torch

from winticket import sparse
from winticket.places import cache_folder
from winticket.train import bf16_instructions
from winticket.version import __version__


def cores() -> int:
    """Number of cores that this process may use; a container or batch system may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def processes() -> int:
    """Default number of processes: one per core, or one for a GPU, since a single stack fills it.

    >>> processes() >= 1
    True
    """
    return 1 if torch.cuda.is_available() else cores()


def environment() -> dict[str, Any]:
    """Versions and hardware of this machine, for people; JSON.

    >>> sorted(environment())[:4]
    ['cache', 'cores', 'cpu', 'device']
    """
    return {
        "winticket": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
        "cores": cores(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "instructions for bf16": bf16_instructions() or "none",
        "sparse kernels": ", ".join(sparse.instruction_sets())
        if not sparse.missing
        else f"none: {sparse.missing}",
        "cache": str(cache_folder()),
    }
