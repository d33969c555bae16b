"""Every name that users can type, and the messages for names that do not exist.

Names are read from the code of the rooms that offer them, without importing those rooms: importing takes seconds, since
it loads torch, and a typing mistake should be answered at once.
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

_PACKAGE = Path(__file__).parent
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
"""Criteria whose papers prune before training."""
_MODEL = re.compile(r"(lenet|conv|conv1d|vgg|resnet|chargpt|fcn)(-\d+)+|mlp1d|chargpt")
_MODEL_FORM = re.compile(
    r"(lenet(-[1-9]\d*)+|(conv|conv1d|vgg|resnet|fcn)(-[1-9]\d*)+|mlp1d|chargpt(-[1-9]\d*)*)", re.ASCII
)
"""The form of model names. The models decide whether a name of this form exists; no other name does."""
MODELS = (
    *("lenet-300-100", "conv-2", "conv-4", "conv-6", "conv1d-32-64", "mlp1d", "vgg-11", "vgg-16", "vgg-19"),
    *("resnet-20", "resnet-32", "resnet-56", "chargpt", "fcn-32-32"),
)
_WORD = re.compile(r"[A-Za-z0-9_-]+")


@cache
def names(kind: str) -> tuple[str, ...]:
    """The names that an option of that kind accepts, in the order in which they are listed.

    >>> names("pruning")
    ('cubic', 'geometric', 'linear')
    """
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
    """The keys of a dictionary that one of our modules defines."""
    expression = _assigned(_PACKAGE / file, table)
    keys = expression.keys if isinstance(expression, ast.Dict) else []
    written = [key.value for key in keys if isinstance(key, ast.Constant)]
    if not keys or len(written) < len(keys):  # it is computed
        return tuple(getattr(import_module("winticket." + file[:-3].replace("/", ".")), table))
    return tuple(map(str, written))


def _marked(file: str, decorator: str) -> tuple[str, ...]:
    """The names that a room's functions declare: the first argument of their decorator, as in `@arm("random", ...)`."""
    marks = _marks(_PACKAGE / file, decorator)
    if not marks:  # the code is not available
        room = import_module("winticket." + file[:-3].replace("/", "."))
        return tuple(getattr(room, f"{decorator}s")())
    return tuple(marks.values())


def _marks(file: Path, decorator: str) -> dict[str, str]:
    """The functions of a file with that decorator: name -> the decorator's first argument; empty without the code."""
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
    room = _PACKAGE / "procedures"
    listed = _assigned(room / "__init__.py", "METHODS")
    if not isinstance(listed, ast.DictComp) or not isinstance(listed.generators[0].iter, ast.Tuple):
        return tuple(import_module("winticket.procedures").METHODS)
    named = {
        function: name for file in room.glob("*.py") for function, name in _marks(file, "method").items()
    }
    return tuple(named[p.id] for p in listed.generators[0].iter.elts if isinstance(p, ast.Name))


def _functions(room: str) -> tuple[str, ...]:
    """The public functions of a room: its exports without types."""
    file = _PACKAGE / f"{room}.py"
    expression = _assigned(file if file.exists() else _PACKAGE / room / "__init__.py", "__all__")
    try:
        exported = ast.literal_eval(expression) if expression is not None else None
    except ValueError:
        exported = None
    if exported is None:
        exported = import_module(f"winticket.{room}").__all__
    return tuple(name for name in exported if not name[0].isupper())


def _assigned(file: Path, name: str) -> ast.expr | None:
    """The expression that a module assigns to a name; None if there is none, or if the code is not available."""
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
    """Raise ValueError if an experiment's choices hold a name that does not exist, or a number outside its limits.

    Paths, import paths and names on the Hub are not checked here.

    >>> check("digits", {"steps": 0})
    Traceback (most recent call last):
    ValueError: steps is 0; it is a whole number of at least 1
    """
    check_limits(RECIPE, choices)
    check_limits(EXPERIMENT, choices)
    if _WORD.fullmatch(data) and data not in names("data") and not Path(data).exists():
        raise ValueError(unknown_dataset(data))
    model = choices.get("model")
    if model in names("data"):
        raise ValueError(f"model {model!r} is a dataset; type it as DATA: winticket find {model}")
    if model is not None and not (":" in model or _MODEL_FORM.fullmatch(model) or is_folder(model)):
        raise ValueError(no_model(model))
    for kind in FLAGS:
        choice = choices.get("controls" if kind == "control" else kind)
        if choice is None:
            continue
        if kind in ("optimizer", "schedule"):
            if choice not in names(kind):
                raise ValueError(f"{kind} is {choice!r}; possible: {', '.join(names(kind))}")
            continue
        for name in (choice,) if isinstance(choice, str) else choice:
            if kind == "control" or ":" not in name:
                choose(kind, name, names(kind))


def is_folder(model: str) -> bool:
    """True if a model's name is the path of a language model's folder or GGUF file, and no name or function.

    >>> is_folder("./smol"), is_folder("lenet-300-100"), is_folder("mylab.nets:build")
    (True, False, False)
    """
    if ":" in model or _MODEL_FORM.fullmatch(model):
        return False
    return "/" in model or model.startswith((".", "~")) or model.endswith(".gguf") or Path(model).is_dir()


def check_methods(methods: Sequence[str]) -> None:
    """Raise ValueError if a comparison's METHOD, METHOD:CRITERION or METHOD@STEP holds a name that does not exist.

    >>> check_methods(["imp", "at-init:snip"])
    """
    for request in methods:
        method, _, criterion = request.partition("@")[0].partition(":")
        if "," in request:
            parts = [_with_method(part.strip()) for part in request.split(",")]
            raise ValueError(f"{request!r} is not a method: type {typed_again('--method', parts)}")
        if (meant := _with_method(method)) != method:
            raise ValueError(f"unknown method {method!r}, which is a criterion: type --method {meant}")
        choose("method", method, names("method"))
        if criterion.isdecimal():
            raise ValueError(
                f"{request!r} names no criterion; to rewind to a step, type --method {method}@{criterion}"
            )
        if criterion and ":" not in criterion:
            choose("criterion", criterion, names("criterion"))


def _with_method(name: str) -> str:
    """A criterion with its usual method, in the form that a comparison accepts; any other name unchanged."""
    if name in names("method") or name not in names("criterion"):
        return name
    return f"{'at-init' if name in AT_INITIALISATION else 'one-shot'}:{name}"


def no_model(name: str) -> str:
    """The message for a model name that does not exist.

    >>> no_model("lenet300")[:48]
    "there is no model 'lenet300' (did you mean 'lene"
    """
    return (
        f"there is no model {name!r}{nearest(name, MODELS)}; possible: {', '.join(MODELS)}; other widths, as "
        "lenet-W1-W2-..., conv1d-W1-W2-..., vgg-16-W, resnet-20-W, chargpt-LAYERS-WIDTH, "
        "chargpt-LAYERS-WIDTH-CONTEXT or fcn-W1-W2-...; or your own package.module:build"
    )


def choose(what: str, name: str, offered: Collection[str]) -> None:
    """Raise ValueError unless the name is offered; the message says what to type instead, if that can be guessed.

    >>> choose("pruning", "qubic", ["linear", "cubic"])
    Traceback (most recent call last):
    ValueError: unknown pruning 'qubic' (did you mean 'cubic'?); there are linear, cubic
    """
    if name not in offered:
        hint = _elsewhere(what, name) or _listed(what, name, offered) or nearest(name, offered)
        raise ValueError(f"unknown {what} {name!r}{hint}; there are {', '.join(offered)}")


def _elsewhere(what: str, name: str) -> str:
    """A hint for a name of another kind, or for a name of this kind that is spelled differently."""
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
    """A hint for several names that are joined by commas."""
    parts = [part.strip() for part in name.split(",")]
    if len(parts) < 2 or not all(part in offered for part in parts):
        return ""
    if what == "control":
        return f": type {' '.join(f'--control {part}' for part in parts)}"
    if what == "method":
        return f": a search takes one; to compare them, type winticket compare DATA {typed_again('--method', parts)}"
    return f": only one can be used; type {FLAGS.get(what, what)} {parts[0]}"


def typed_again(flag: str, values: Sequence[str]) -> str:
    """An option as it is typed for several values: once for each.

    >>> typed_again("--control", ["reinit", "random"])
    '--control reinit --control random'
    """
    return " ".join(f"{flag} {value}" for value in values)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").strip("-")


def unknown_dataset(name: str) -> str:
    """The message for a dataset name that does not exist.

    >>> unknown_dataset("digts")[:48]
    "unknown dataset 'digts' (did you mean 'digits'?)"
    """
    if _MODEL.fullmatch(name):
        return f"{name!r} is a model, but DATA is the dataset to train it on: winticket find digits --model {name}"
    known = names("data")
    return (
        f"unknown dataset {name!r}{nearest(name, known)}; the known names are {', '.join(known)}; for any other "
        "dataset on the Hub, give user/name; for a file or folder of yours, give its path"
    )
