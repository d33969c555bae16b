"""The machine at hand: how many processes it can feed, and what to tell people about it."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy as np
import torch

from winticket import sparse
from winticket.places import cache_folder
from winticket.version import __version__


def cores() -> int:
    """Cores that this process may use, which a container or batch system makes fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def processes() -> int:
    """How many to compute with: one per core, or one for a GPU, which stacks fill and processes would quarrel over."""
    return 1 if torch.cuda.is_available() else cores()


def environment() -> dict[str, Any]:
    """Versions and hardware here, for people."""
    return {
        "winticket": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
        "cores": cores(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "sparse kernels": sparse.instruction_sets()[0] if not sparse.missing else f"none: {sparse.missing}",
        "cache": str(cache_folder()),
    }
