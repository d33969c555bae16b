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

from winticket.text import nearest


class _Folders(MetaPathFinder):
    """Finds modules in the user's folders: those that were named, and what modules that it found import in turn.

    Who asks is known by the name of the module, since a folder may hold a virtual environment with everybody's.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.names: set[str] = set()
        self.found: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:  # inside a package, which says itself where its modules are
            return None
        if fullname not in self.names and _asker(sys._getframe(1)) not in self.found:
            return None
        spec = PathFinder.find_spec(fullname, self.folders, target)
        if spec is not None:
            self.found.add(fullname)
        return spec

    def invalidate_caches(self) -> None:
        PathFinder.invalidate_caches()


def _asker(frame: FrameType | None) -> str:
    """The top-level name of the module whose code is importing."""
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "importlib":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", "")).partition(".")[0]


_folders = _Folders()
Known = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def look_in(folder: str | Path, *, for_module: str | None = None) -> None:
    """From now on the user's modules are also looked for in this folder, after everywhere else.

    `for_module` is one that was loaded from there in another way, and may import what lies beside it.
    """
    path = str(Path(folder).resolve())
    if path not in _folders.folders:
        _folders.folders.append(path)
    if for_module is not None:
        _folders.found.add(for_module)
    if _folders not in sys.meta_path:
        sys.meta_path.append(_folders)


def only_for_the_users_modules() -> None:
    """Takes the working directory from where Python looks for modules, and looks there last, for the user's alone.

    Errors: FileNotFoundError if there is no such directory any more.
    """
    here = Path.cwd()
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(here))]
    look_in(here)


def import_named(module: str) -> ModuleType:
    """The module of this name, which the user gave on the command line or in a program. Errors: what importing raises.

    A module that calls sys.exit while it is imported ends in an ImportError.
    """
    _folders.names.add(module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except SystemExit as error:
        raise ImportError(f"{module} calls sys.exit({error.code!r}) when it is imported") from error


def object_named(path: str) -> object:
    """What `package.module:name` names; the name may be dotted. Imports the module.

    ValueError if the path is none, the module cannot be imported, or it has nothing of that name.
    """
    module, _, inside = path.partition(":")
    if not (module and inside):
        raise ValueError(f"{path!r} is not an import path; write package.module:name")
    try:
        thing: object = import_named(module)
    except MemoryError:
        raise
    except Exception as error:  # a user's module may raise anything
        raise ValueError(
            f"{path!r} cannot be imported ({type(error).__name__}: {error}); give package.module:name of a module "
            "that is installed, in this folder, or on PYTHONPATH"
        ) from error
    for part in inside.split("."):
        if not hasattr(thing, part):
            public = [name for name in dir(thing) if not name.startswith("_")]
            raise ValueError(f"{path!r}: {module} has no {inside!r}{nearest(part, public)}")
        thing = getattr(thing, part)
    return thing


def known() -> Known:
    """Folders and names, for a worker process."""
    return tuple(_folders.folders), tuple(sorted(_folders.names)), tuple(sorted(_folders.found))


def know(told: Known) -> None:
    """What `known` told in the parent process."""
    folders, names, found = told
    for folder in folders:
        look_in(folder)
    _folders.names.update(names)
    _folders.found.update(found)


def require_trust(path: str, trust: Sequence[str], *, where: str) -> None:
    """ValueError unless the module of `package.module:name`, which stands in a file, is among those trusted."""
    module = path.partition(":")[0]
    if not any(module == name or module.startswith(f"{name}.") for name in trust):
        raise ValueError(
            f"{where} is {path!r}: that would import the module {module} ({_place_of(module)}) and call what is in it, "
            f"and nobody but the file has named it; if you know it, say so: --trust {module} (in Python "
            f"trust=[{module!r}])"
        )


def _place_of(module: str) -> str:
    """The file that a module's package would be imported from; nothing is imported to tell."""
    top = module.partition(".")[0]
    try:
        spec = PathFinder.find_spec(top) or PathFinder.find_spec(top, _folders.folders)
    except (ImportError, ValueError, AttributeError):
        spec = None
    return "there is none of that name here" if spec is None else f"from {spec.origin or top}"
