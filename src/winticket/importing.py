"""Modules that a user names, such as `mylab.nets:build`: where they are looked for, and on whose word.

The command looks for them in the working directory too, but last, and for nothing else: a `queue.py` that happens to
lie there is neither run in the place of Python's own, nor found by a library that asks for an optional package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType


class _Folders(MetaPathFinder):
    """Finds modules in the user's folders: those that were named, and what modules from there import in turn."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.names: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:  # inside a package, which says itself where its modules are
            return None
        if fullname not in self.names and not self._asked_from_there(sys._getframe(1)):
            return None
        return PathFinder.find_spec(fullname, self.folders, target)

    def _asked_from_there(self, frame: FrameType | None) -> bool:
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        file = "" if frame is None else frame.f_code.co_filename
        return any(file.startswith(folder.rstrip("/\\") + sep) for folder in self.folders for sep in "/\\")

    def invalidate_caches(self) -> None:
        PathFinder.invalidate_caches()


_folders = _Folders()


def look_in(folder: str | Path) -> None:
    """From now on the user's modules are also looked for in this folder, after everywhere else."""
    path = str(Path(folder).resolve())
    if path not in _folders.folders:
        _folders.folders.append(path)
    if _folders not in sys.meta_path:
        sys.meta_path.append(_folders)


def forget_working_directory() -> None:
    """Takes the working directory from where Python looks first; `look_in` puts it last, for the user's modules."""
    here = str(Path.cwd())
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]


def import_named(module: str) -> ModuleType:
    """The module of this name, which the user gave on the command line or in a program. Errors: what importing raises.

    A module that calls sys.exit while it is imported ends in an ImportError.
    """
    _folders.names.add(module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except SystemExit as error:
        raise ImportError(f"{module} calls sys.exit({error.code!r}) when it is imported") from error


def known() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folders and names, for a worker process."""
    return tuple(_folders.folders), tuple(sorted(_folders.names))


def know(told: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """What `known` told in the parent process."""
    for folder in told[0]:
        look_in(folder)
    _folders.names.update(told[1])


def require_trust(path: str, trust: Sequence[str], *, where: str) -> None:
    """ValueError unless the module of `package.module:name`, which stands in a file, is among those trusted."""
    module = path.partition(":")[0]
    if not any(module == name or module.startswith(f"{name}.") for name in trust):
        raise ValueError(
            f"{where} is {path!r}: that would import the module {module} and call what is in it, and nobody but the "
            f"file has named it; if you know it, say so: --trust {module} (in Python trust=[{module!r}])"
        )
