"""The shape of the house: imports run downwards only. The rooms and their arrows are drawn in docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "winticket"
PUBLIC = {
    *(
        "allocate",
        "analyse",
        "controls",
        "criteria",
        "integrations",
        "interop",
        "judge",
        "models",
        "rewind",
        "schedules",
        "ship",
    ),
    "units",
}
STAGES = {
    "ticket",
    "units",
    "data",
    "models",
    "train",
    "criteria",
    "allocate",
    "pairing",
    "rewind",
    "align",
    "controls",
    "schedules",
    "objective",
}
SHARED = {"alive", "atomic", "bits", "importing", "interrupts", "limits", "outside", "text", "trouble"}
"""What every room may read."""
ROOMS: dict[str, set[str]] = {
    "version": set(),
    "places": set(),
    "outside": set(),
    "trouble": set(),
    "importing": set(),
    "interrupts": set(),
    "text": set(),
    "limits": set(),
    "bits": set(),
    "alive": set(),
    "atomic": set(),
    "catalogue": set(),
    "causal": set(),
    "documents": set(),
    "results": {"version"},
    "table": set(),
    "units": set(),
    "ticket": {"version", "units", "models"},
    "data": {"catalogue", "places", "causal", "documents"},
    "sparse": {"places"},
    "models": {"units", "catalogue", "causal"},
    "judge": {"results", "objective"},
    "objective": {"results", "catalogue"},
    "run": {"version"},
    "train": {"ticket", "sparse", "units", "objective"},
    "criteria": {"ticket", "units"},
    "allocate": {"ticket"},
    "pairing": {"criteria", "allocate"},
    "rewind": {"ticket"},
    "schedules": set(),
    "interop": {"ticket", "units", "loops"},
    "loops": {
        "ticket",
        "units",
        "models",
        "train",
        "criteria",
        "allocate",
        "pairing",
        "rewind",
        "schedules",
    },
    "levels": set(),
    "integrations": {"ticket", "loops"},
    "ship": {"version", "causal", "objective", "ticket", "units", "loops", "results", "table"},
    "align": {"ticket"},
    "lm": {
        "version",
        "causal",
        "documents",
        "models",
        "ticket",
        "units",
        "criteria",
        "allocate",
        "loops",
        "ship",
    },
    "controls": {"ticket", "align"},
    "stages": STAGES | {"run"},
    "procedures": STAGES | {"run", "stages"},
    "analyse": STAGES | {"run", "stages", "judge", "table"},
    "report": {"version", "controls", "procedures", "results", "table", "analyse", "run", "objective"},
    "experiment": STAGES
    | {"catalogue", "places", "sparse", "run", "stages", "procedures", "judge", "report", "version"}
    | {"results", "table", "ship", "analyse"},
    "cli": STAGES
    | {"catalogue", "places", "run", "stages", "procedures", "judge", "report", "experiment", "version"}
    | {"results", "table", "ship", "analyse", "lm"},
    "__init__": {"experiment", "loops", "objective", "ship", "ticket", "train", "version"} | PUBLIC,
    "__main__": {"cli"},
}


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    package = ["winticket", *file.relative_to(SOURCE).parts[:-1]]
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [module] if module != "winticket" else [f"winticket.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "winticket" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_run_downwards(file: Path) -> None:
    room = room_of(file)
    assert room in ROOMS, f"{room} is a new room: draw it here and in docs/architecture.md"
    upwards = imported_rooms(file) - ROOMS[room] - SHARED - {room}
    assert not upwards, (
        f"{file.name} of {room} imports {sorted(upwards)}; it may import {sorted(ROOMS[room])}"
    )


def test_the_parser_sees_every_way_to_import(tmp_path: Path) -> None:
    inside = SOURCE / "ticket" / "nouns.py"
    assert imported_rooms(inside) == {"ticket", "units"}
    assert "run" in imported_rooms(SOURCE / "stages" / "training.py")
    assert imported_rooms(SOURCE / "run" / "store.py") <= {"run"} | SHARED


def test_rooms_form_no_cycle() -> None:
    order: list[str] = []
    while len(order) < len(ROOMS):
        ready = [r for r in ROOMS if r not in order and ROOMS[r] <= set(order)]
        assert ready, f"a cycle among {sorted(set(ROOMS) - set(order))}"
        order += ready


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_modules_stay_readable(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400, "a module past 400 lines wants to be a folder"
    long = [(f.name, lines) for f in functions(file) if (lines := lines_of(f)) > 50]
    assert not long, "a function past 50 lines, its docstring apart, wants to be parted"


def test_most_modules_are_short() -> None:
    lines = [len(file.read_text().splitlines()) for file in FILES]
    assert median(lines) <= 130, "divide long modules where their subjects part"


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = function.body[0]
    text = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return (function.end_lineno or 0) - function.lineno + 1 - text


def module_of(file: Path) -> str:
    parts = ["winticket", *file.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(file: Path, known: set[str]) -> set[str]:
    """Every module of ours that a file imports: at its top, within a function, or for types alone."""
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names
            }
    return (found & known) - {module_of(file)}


def test_files_form_no_circle() -> None:
    known = {module_of(file) for file in FILES}
    left = {module_of(file): imported_modules(file, known) for file in FILES}
    while ready := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in ready:
            del left[name]
    circle = {name: sorted(needs & left.keys()) for name, needs in left.items()}
    assert not circle, f"these files import each other, or what does: {circle}"
