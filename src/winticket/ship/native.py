"""The compiled inference or, if the package was built without it, the reason. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _load() -> tuple[Any, str]:
    try:
        return import_module("winticket.ship._inference"), ""
    except ImportError as error:
        failure = error
    try:  # the build writes this module if it skips the kernels
        return None, str(import_module("winticket.ship._without").REASON)
    except ImportError:
        return (
            None,
            f"the compiled module does not load ({failure}); reinstall winticket with a C++ compiler available",
        )


inference, missing = _load()
"""The compiled module and an empty reason, or None and the reason why there is none."""


def require() -> Any:
    """The compiled module. Raises RuntimeError, with the reason, if there is none."""
    if inference is None:
        raise RuntimeError(
            f"sparse inference is not available: {missing}; winticket.ship.run needs numpy alone"
        )
    return inference


def instruction_sets() -> list[str]:
    """The instruction sets that this processor supports, best first; empty without the compiled module.

    >>> bool(instruction_sets()) == (not missing)
    True
    """
    return list(inference.available()) if inference else []
