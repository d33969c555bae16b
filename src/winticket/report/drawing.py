"""matplotlib, whatever $MPLBACKEND names: figures are written to files, and need no window or notebook to be shown in.

Notebooks set the variable for every process that they start, also for those that lack what it names.
"""

from __future__ import annotations

import os
import sys

try:
    import matplotlib as mpl
except ValueError:
    named = os.environ.pop("MPLBACKEND", None)
    if named is None:
        raise
    for half_imported in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[half_imported]
    import matplotlib as mpl

    os.environ["MPLBACKEND"] = named

__all__ = ["mpl"]
