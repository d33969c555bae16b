"""Folders and files that winticket writes on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "WINTICKET_CACHE"
RESULT, CURVES, TICKET, PAGE, FIGURES = (
    "result.json",
    "curves.json",
    "ticket.safetensors",
    "report.html",
    "figures",
)
"""The names of the files that a run leaves in its output folder."""
COMPARISON = "compare.json"
COMPARISON_PAGE = "compare.html"
"""The document of a comparison of methods, in its folder."""
MASKS = "masks.json"
"""The file in it that says what the tickets keep of every layer and of every input."""
PROGRESS = "progress.html"
"""The page of a run that has not finished yet."""
STARTED = "run.json"
"""The question and the store of a run that has not finished yet."""
ANALYSED = "analyses"
"""The folder in it for what `winticket analyse` writes."""
SHIPPED = "ship"
"""The folder in it for what `winticket ship` writes."""
_SHOWN = 3


def exists_here(name: str) -> bool:
    """Whether there is anything at a path on this machine; text that cannot be a path, as a file may hold, is none.

    >>> exists_here("."), exists_here("x" * 10_000), exists_here("~no-such-user/x")
    (True, False, False)
    """
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError):  # too long a name; the home folder of nobody
        return False


def cache_folder() -> Path:
    """The folder that $WINTICKET_CACHE names, else the platform's folder for caches."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "winticket"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "winticket" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "winticket"


def require_file(path: Path) -> None:
    """Raise FileNotFoundError unless there is a file to read an experiment from.

    >>> require_file(Path("nowhere.py"))
    Traceback (most recent call last):
    FileNotFoundError: no file 'nowhere.py'; give a Python file that defines `experiment`
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}; give a Python file that defines `experiment`")


def comparison_file(path: Path) -> Path | None:
    """The compare.json at a path, or in the folder at a path; None if there is none, or a run's result beside it.

    >>> comparison_file(Path("nowhere")) is None
    True
    """
    if path.is_dir():
        there = (path / COMPARISON).is_file() and not (path / RESULT).is_file()
        return path / COMPARISON if there else None
    return path if path.name == COMPARISON and path.is_file() else None


def result_file(path: Path) -> Path:
    """The result document at a path, or in the folder at a path. Raises FileNotFoundError if there is none.

    >>> result_file(Path("nowhere"))
    Traceback (most recent call last):
    FileNotFoundError: there is no nowhere; give the result.json of a finished run
    """
    if path.is_dir():
        if (path / RESULT).is_file():
            return path / RESULT
        within = sorted(str(p) for depth in ("*", "*/*") for p in path.glob(f"{depth}/{RESULT}"))
        more = f" and {len(within) - _SHOWN} more" if len(within) > _SHOWN else ""
        raise FileNotFoundError(
            f"there is no {RESULT} in the folder {path}; "
            + (
                f"its subfolders hold {', '.join(within[:_SHOWN])}{more}"
                if within
                else f"give the {RESULT} of a finished `winticket find`, or its folder"
            )
        )
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; give the {RESULT} of a finished run")
    return path
