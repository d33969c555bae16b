"""Imports matplotlib even if $MPLBACKEND names a backend that is not installed.

Figures are only written to files, so they need no window or notebook. Notebooks set the variable for every process that
they start, and the backend may be missing in the environment of that process.
"""

from __future__ import annotations

import os
import sys

try:
    import matplotlib as mpl
except ValueError:
    backend = os.environ.pop("MPLBACKEND", None)
    if backend is None:
        raise
    for half_imported in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[half_imported]
    import matplotlib as mpl

    os.environ["MPLBACKEND"] = backend

__all__ = ["mpl"]
