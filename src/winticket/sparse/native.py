"""The compiled kernels, where the package was built with them, and why not, where it was not."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _load() -> tuple[Any, str]:
    try:
        return import_module("winticket.sparse._kernels"), ""
    except ImportError as error:
        failure = error
    try:  # written by the build where it left the kernels out
        return None, str(import_module("winticket.sparse._without").REASON)
    except ImportError:
        return (
            None,
            f"the compiled module does not load ({failure}); install winticket anew where a C++ compiler is",
        )


kernels, missing = _load()
"""The compiled module, or None and the reason in words."""


def require() -> Any:
    """The compiled module. RuntimeError, with the reason, where there is none."""
    if kernels is None:
        raise RuntimeError(f"no sparse kernels here: {missing}")
    return kernels


def instruction_sets() -> list[str]:
    """The kernels' instruction sets that this processor runs, best first; none without kernels."""
    return list(kernels.available()) if kernels else []
