"""Which classes may be stored as records, and be built from a file."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from winticket.run.errors import StoreError
from winticket.run.names import RECORDS, home, is_winticket, stored_name


def storable_path(value: object, where: str) -> str:
    """The name by which a file refers to a value's class. TypeError, which names `where`, if it may not be stored."""
    kind = type(value)
    path = f"{kind.__module__}:{kind.__qualname__}"
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"value{where}: dataclass {path} is not frozen, so it is not stored")
    if not _declared(kind):
        raise TypeError(
            f"value{where}: dataclass {path} is not stored unless it declares __storable__ = True"
        )
    if "<locals>" in path:
        raise TypeError(
            f"value{where}: dataclass {path} is local to a function, so later runs could not import it"
        )
    return stored_name(*path.split(":")) or path


def _declared(kind: type) -> bool:
    """True if the class itself, not a class that it inherits from, declares that it may be stored."""
    return vars(kind).get("__storable__") is True


def storable(name: str) -> Any:
    """The class of a record in a file. Only the few modules of winticket's records are imported for it.

    The class has to be a frozen dataclass that declares itself storable, in the module that defines it. So a file can
    neither run a function, nor build a class that is not meant to come from files, nor reach a class through another
    module.
    """
    known = home(name) if name in RECORDS else None
    if known:
        importlib.import_module(known[0])
    module, _, inside = (known[0], ":", known[1]) if known else name.partition(":")
    if known is None and (not inside or is_winticket(module)):
        raise StoreError(f"holds a {name}, which is not a record of this version")
    if module not in sys.modules:
        raise StoreError(
            f"holds a {name}; modules named in a file are not imported unless they are winticket's: "
            f"import {module} first"
        )
    kind: Any = sys.modules[module]
    for part in inside.split("."):
        kind = vars(kind).get(part) if isinstance(kind, (type, ModuleType)) else None
    defined = isinstance(kind, type) and (kind.__module__, kind.__qualname__) == (module, inside)
    parameters = vars(kind).get("__dataclass_params__") if defined else None
    if parameters is None or not parameters.frozen or not _declared(kind):
        raise StoreError(
            f"holds a {name}, which is not a dataclass that may be stored: it has to be frozen and declare "
            "__storable__ = True, in the module that defines it"
        )
    return kind
