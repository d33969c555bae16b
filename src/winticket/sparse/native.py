"""The compiled kernels or, if the package was built without them, the reason."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _load() -> tuple[Any, str]:
    try:
        return import_module("winticket.sparse._kernels"), ""
    except ImportError as error:
        failure = error
    try:  # the build writes this module if it skips the kernels
        return None, str(import_module("winticket.sparse._without").REASON)
    except ImportError:
        return (
            None,
            f"the compiled module does not load ({failure}); reinstall winticket with a C++ compiler available",
        )


kernels, missing = _load()
"""The compiled module and an empty reason, or None and the reason why there is none."""


def require() -> Any:
    """The compiled module. Raises RuntimeError, with the reason, if there is none."""
    if kernels is None:
        raise RuntimeError(f"the sparse kernels are not available: {missing}")
    return kernels


def instruction_sets() -> list[str]:
    """The kernels' instruction sets that this processor supports, best first; empty without kernels.

    >>> bool(instruction_sets()) == (not missing)
    True
    """
    return list(kernels.available()) if kernels else []
