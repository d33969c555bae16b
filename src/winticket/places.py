"""Where things are kept on this machine."""

import os
import sys
from pathlib import Path

VARIABLE = "WINTICKET_CACHE"


def cache_folder() -> Path:
    """The folder that $WINTICKET_CACHE names, else the platform's place for caches."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "winticket"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "winticket" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "winticket"
