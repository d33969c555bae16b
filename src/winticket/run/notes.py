"""The notes that are kept with a result or a failure."""

from __future__ import annotations

import functools
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from winticket.run.keys import Json
from winticket.run.task import Node


def about(node: Node, seconds: float) -> dict[str, Json]:
    """The notes that are kept with a result: function, options, time, versions and device; nothing personal."""
    import torch

    options = {name: _readable(value) for name, value in node.options.items()}
    cuda: Any = torch.cuda
    return {
        "key": node.key,
        "fn": node.fn,
        "options": options,
        "label": node.label,
        "seconds": round(seconds, 6),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {
            "winticket": _version("winticket"),
            "torch": torch.__version__,
            "numpy": _version("numpy"),
            "python": platform.python_version(),
            "system": f"{sys.platform} {platform.machine()}",
            "device": cuda.get_device_name() if cuda.is_initialized() else "cpu",
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
    }


def _readable(value: object) -> Json:
    """An option as people read it; the exact value is in the key."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if abs(value) != float("inf") else repr(value)
    if isinstance(value, (list, tuple)):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {name: _readable(item) for name, item in value.items()}
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
