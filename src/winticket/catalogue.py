"""Every name that can be typed, and what is said of one that is none.

Names are read from the source files of the rooms that offer them, without importing those: that takes seconds, for
torch comes with it, and a slip of the finger should be answered at once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from winticket.limits import EXPERIMENT, RECIPE
from winticket.limits import check as check_limits
from winticket.text import nearest

_SOURCE = Path(__file__).parent
FLAGS = {
    "method": "--method",
    "criterion": "--criterion",
    "allocate": "--allocate",
    "rewind": "--rewind",
    "pruning": "--pruning",
    "control": "--control",
    "optimizer": "--optimizer",
    "schedule": "--schedule",
}
"""Kind of name -> the option that takes it."""
_A = {
    "method": "a method",
    "criterion": "a criterion",
    "allocate": "an allocation",
    "rewind": "a rewind",
    "pruning": "a schedule of densities",
    "control": "a control",
    "optimizer": "an optimiser",
    "schedule": "a learning-rate schedule",
}
AT_INITIALISATION = ("grasp", "snip", "synflow")
"""Criteria whose papers prune before any training."""
_MODEL = re.compile(r"(lenet|conv|vgg|resnet|chargpt)(-\d+)+|mlp1d|chargpt")
_MODEL_FORM = re.compile(
    r"(lenet(-[1-9]\d*)+|(conv|vgg|resnet)(-[1-9]\d*)+|mlp1d|chargpt(-[1-9]\d*)*)", re.ASCII
)
"""Names that some model may have: whether one has, is left to the models, but no other name is any's."""
MODELS = (
    *("lenet-300-100", "conv-2", "conv-4", "conv-6", "mlp1d", "vgg-11", "vgg-16", "vgg-19"),
    *("resnet-20", "resnet-32", "resnet-56", "chargpt"),
)
_WORD = re.compile(r"[A-Za-z0-9_-]+")


@cache
def names(kind: str) -> tuple[str, ...]:
    """What an option of that kind takes by name, in the order in which it is listed."""
    match kind:
        case "method":
            return _methods()
        case "control":
            return _marked("controls.py", "arm")
        case "criterion":
            return _functions("criteria")
        case "pruning":
            return _functions("schedules")
        case "optimizer":
            return ("sgd", "adam", "adamw")
        case "schedule":
            return ("constant", "step", "cosine")
        case "data":
            return (*_keys("data/built_in.py", "BUILT_IN"), *_keys("data/hub.py", "NAMED"))
        case _:
            return _functions(kind)


def _keys(file: str, table: str) -> tuple[str, ...]:
    """The keys of a dictionary that a module of ours defines."""
    found = _assigned(_SOURCE / file, table)
    keys = found.keys if isinstance(found, ast.Dict) else []
    written = [key.value for key in keys if isinstance(key, ast.Constant)]
    if not keys or len(written) < len(keys):  # it is computed
        return tuple(getattr(import_module("winticket." + file[:-3].replace("/", ".")), table))
    return tuple(map(str, written))


def _marked(file: str, decorator: str) -> tuple[str, ...]:
    """The names that a room's functions give themselves: what their decorator `@arm("random", ...)` begins with."""
    found = _marks(_SOURCE / file, decorator)
    if not found:  # there is no source to read
        room = import_module("winticket." + file[:-3].replace("/", "."))
        return tuple(getattr(room, f"{decorator}s")())
    return tuple(found.values())


def _marks(file: Path, decorator: str) -> dict[str, str]:
    """Functions of a file under that decorator: name -> what the decorator begins with; none without the source."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return {
        node.name: str(ast.literal_eval(mark.args[0]))
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == decorator
    }


def _methods() -> tuple[str, ...]:
    """The methods' names, in the order in which `winticket.procedures` lists them."""
    room = _SOURCE / "procedures"
    listed = _assigned(room / "__init__.py", "METHODS")
    if not isinstance(listed, ast.DictComp) or not isinstance(listed.generators[0].iter, ast.Tuple):
        return tuple(import_module("winticket.procedures").METHODS)
    named = {name: said for file in room.glob("*.py") for name, said in _marks(file, "method").items()}
    return tuple(named[p.id] for p in listed.generators[0].iter.elts if isinstance(p, ast.Name))


def _functions(room: str) -> tuple[str, ...]:
    """The public functions of a room: what it exports, without its types."""
    file = _SOURCE / f"{room}.py"
    found = _assigned(file if file.exists() else _SOURCE / room / "__init__.py", "__all__")
    try:
        exported = ast.literal_eval(found) if found is not None else None
    except ValueError:
        exported = None
    if exported is None:
        exported = import_module(f"winticket.{room}").__all__
    return tuple(name for name in exported if not name[0].isupper())


def _assigned(file: Path, name: str) -> ast.expr | None:
    """The expression that a module assigns to a name of its own; None if there is none, or no source to read."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except OSError:
        return None
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value: ast.expr | None = getattr(node, "value", None)
            return value
    return None


def check(data: str, choices: Mapping[str, Any]) -> None:
    """ValueError for a name among the choices of an experiment that nothing has, or a number that none takes.

    A path, an import path and a name of the Hub are left to those who can look for them.
    """
    check_limits(RECIPE, choices)
    check_limits(EXPERIMENT, choices)
    if _WORD.fullmatch(data) and data not in names("data") and not Path(data).exists():
        raise ValueError(unknown_dataset(data))
    model = choices.get("model")
    if model in names("data"):
        raise ValueError(f"model {model!r} is a dataset; type it as DATA: winticket find {model}")
    if model is not None and ":" not in model and not _MODEL_FORM.fullmatch(model):
        raise ValueError(no_model(model))
    for kind in FLAGS:
        given = choices.get("controls" if kind == "control" else kind)
        if given is None:
            continue
        if kind in ("optimizer", "schedule"):
            if given not in names(kind):
                raise ValueError(f"{kind} is {given!r}; possible: {', '.join(names(kind))}")
            continue
        for name in (given,) if isinstance(given, str) else given:
            if kind == "control" or ":" not in name:
                choose(kind, name, names(kind))


def check_methods(methods: Sequence[str]) -> None:
    """ValueError for a name that nothing has among a comparison's METHOD, METHOD:CRITERION and METHOD@STEP."""
    for asked in methods:
        method, _, criterion = asked.partition("@")[0].partition(":")
        if "," in asked:
            parts = [_with_method(part.strip()) for part in asked.split(",")]
            raise ValueError(f"{asked!r} is no method: type {typed_again('--method', parts)}")
        if (meant := _with_method(method)) != method:
            raise ValueError(f"unknown method {method!r}, which is a criterion: type --method {meant}")
        choose("method", method, names("method"))
        if criterion.isdecimal():
            raise ValueError(
                f"{asked!r} names no criterion; to rewind to a step, type --method {method}@{criterion}"
            )
        if criterion and ":" not in criterion:
            choose("criterion", criterion, names("criterion"))


def _with_method(name: str) -> str:
    """A criterion with the method that it is usual in, as a comparison takes it; any other name as it is."""
    if name in names("method") or name not in names("criterion"):
        return name
    return f"{'at-init' if name in AT_INITIALISATION else 'one-shot'}:{name}"


def no_model(name: str) -> str:
    """What is said of a name that no model has."""
    return (
        f"there is no model {name!r}{nearest(name, MODELS)}; possible are {', '.join(MODELS)}, any widths as "
        "lenet-W1-W2-..., vgg-16-W or resnet-20-W, chargpt-LAYERS-WIDTH or chargpt-LAYERS-WIDTH-CONTEXT, or your own "
        "package.module:build"
    )


def choose(what: str, name: str, offered: Collection[str]) -> None:
    """ValueError unless the name is offered; the message says what to type instead, as far as that can be told."""
    if name not in offered:
        hint = _elsewhere(what, name) or _listed(what, name, offered) or nearest(name, offered)
        raise ValueError(f"unknown {what} {name!r}{hint}; there are {', '.join(offered)}")


def _elsewhere(what: str, name: str) -> str:
    """A hint for the name of another kind of thing, or of this kind in other letters."""
    for kind in (what, *(kind for kind in FLAGS if kind != what)):
        if kind not in FLAGS:
            continue
        same = [known for known in names(kind) if _plain(known) == _plain(name)]
        if same and kind == what:
            return f" (did you mean {same[0]!r}?)"
        if same:
            typed = f"{FLAGS[kind]} {same[0]}"
            if what == "method" and same[0] in AT_INITIALISATION:
                typed = f"--method at-init {typed}"
            return f", which is {_A[kind]}: type {typed}"
    return ""


def _listed(what: str, name: str, offered: Collection[str]) -> str:
    """A hint for several names in one word."""
    parts = [part.strip() for part in name.split(",")]
    if len(parts) < 2 or not all(part in offered for part in parts):
        return ""
    if what == "control":
        return f": type {' '.join(f'--control {part}' for part in parts)}"
    if what == "method":
        return f": a search takes one; to compare them, type winticket compare DATA {typed_again('--method', parts)}"
    return f": only one can be used; type {FLAGS.get(what, what)} {parts[0]}"


def typed_again(flag: str, values: Sequence[str]) -> str:
    """An option as it is typed for several values: once for each."""
    return " ".join(f"{flag} {value}" for value in values)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").strip("-")


def unknown_dataset(given: str) -> str:
    """What is said of a name that is no dataset."""
    if _MODEL.fullmatch(given):
        return f"{given!r} is a model, and DATA is what to train it on: winticket find digits --model {given}"
    known = names("data")
    hint = nearest(given, known)
    return (
        f"unknown dataset {given!r}{hint}; the known names are {', '.join(known)}; any other dataset of the Hub is "
        "named user/name, and a local folder or parquet file is given by its path"
    )
