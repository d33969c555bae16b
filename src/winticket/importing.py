"""Modules that a user names, such as `mylab.nets:build`: the folders to search, and the permission to import.

The command searches the working directory too, but last, and only for these modules. So a `queue.py` that happens to be
there does not replace Python's own, and no library finds it when it looks for an optional package.
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
    """Finds modules in the user's folders: those that the user names, and those that such modules import in turn.

    The importing module is identified by its name, not its folder, since a folder may hold a whole virtual environment.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.names: set[str] = set()
        self.loaded: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:  # inside a package, which itself knows where its modules are
            return None
        if fullname not in self.names and _importer(sys._getframe(1)) not in self.loaded:
            return None
        spec = PathFinder.find_spec(fullname, self.folders, target)
        if spec is not None:
            self.loaded.add(fullname)
        return spec

    def invalidate_caches(self) -> None:
        PathFinder.invalidate_caches()


def _importer(frame: FrameType | None) -> str:
    """The top-level name of the module whose code is importing."""
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "importlib":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", "")).partition(".")[0]


_folders = _Folders()
Known = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def look_in(folder: str | Path, *, for_module: str | None = None) -> None:
    """From now on, search this folder too for the user's modules, after everywhere else.

    `for_module` names a module that was loaded from there in another way; it may import modules beside it.
    """
    path = str(Path(folder).resolve())
    if path not in _folders.folders:
        _folders.folders.append(path)
    if for_module is not None:
        _folders.loaded.add(for_module)
    if _folders not in sys.meta_path:
        sys.meta_path.append(_folders)


def only_for_the_users_modules() -> None:
    """Remove the working directory from Python's search path, and search it last and only for the user's modules.

    Raises FileNotFoundError if the directory no longer exists.
    """
    here = Path.cwd()
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(here))]
    look_in(here)


def import_named(module: str) -> ModuleType:
    """The module of this name, which the user gave on the command line or in a program.

    Raises whatever importing it raises, and ImportError if the module calls sys.exit while it is imported.

    >>> import_named("json.decoder").__name__
    'json.decoder'
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
    """The folders and names that a worker process must take over (see `know`)."""
    return tuple(_folders.folders), tuple(sorted(_folders.names)), tuple(sorted(_folders.loaded))


def know(state: Known) -> None:
    """Take over the state that `known` returned in the parent process."""
    folders, names, loaded = state
    for folder in folders:
        look_in(folder)
    _folders.names.update(names)
    _folders.loaded.update(loaded)


def require_trust(path: str, trust: Sequence[str], *, where: str) -> None:
    """Raise ValueError unless the module of `package.module:name`, which a file names, is among the trusted ones.

    `where` says in the message what names it.

    >>> require_trust("mylab.nets:build", ["mylab"], where="the model")
    """
    module = path.partition(":")[0]
    if not any(module == name or module.startswith(f"{name}.") for name in trust):
        raise ValueError(
            f"{where} is {path!r}: that would import the module {module} ({_origin_of(module)}) and call code in it, "
            f"but only the file names this module; if you trust it, add --trust {module} (in Python "
            f"trust=[{module!r}])"
        )


def _origin_of(module: str) -> str:
    """The file that a module's package would be imported from, found without importing anything."""
    top = module.partition(".")[0]
    try:
        spec = PathFinder.find_spec(top) or PathFinder.find_spec(top, _folders.folders)
    except (ImportError, ValueError, AttributeError):
        spec = None
    return "which is not installed here" if spec is None else f"from {spec.origin or top}"
