"""`winticket.<name>`: what completion offers is what the pages use, and importing the package stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import winticket

ROOT = Path(__file__).parents[1]
FUNCTIONS = {
    "compact",
    "edge_popup",
    "find",
    "gradual",
    "masked",
    "metric",
    "open",
    "prune",
    "remove_parts",
    "rigl",
    "set_",
    "supermask",
}
CLASSES = {"Experiment", "Levels", "Mask", "Recipe", "Result", "Run", "Ticket"}
ROOMS = {
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
PAGES = ("README.md", "docs/guide.md", "src/winticket/__init__.py")
USED = re.compile(r"(?<!from )(?<!import )\bwinticket\.([A-Za-z_]\w*)")
IMPORTED = re.compile(r"\bfrom winticket import ([\w, ]+)")


def used_in(text: str) -> set[str]:
    """The names that a page takes from the package, in blocks and in running text."""
    lists = (names.split(",") for names in IMPORTED.findall(text))
    return set(USED.findall(text)) | {name.strip() for names in lists for name in names}


def fresh(code: str) -> str:
    """What the code prints in a new process, where nothing of winticket has been used yet."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    return done.stdout.strip()


def test_dir_lists_exactly_what_users_type() -> None:
    assert dir(winticket) == sorted(FUNCTIONS | CLASSES | ROOMS | {"__version__"})
    # `from winticket import *` would hide Python's own `open`.
    assert sorted([*winticket.__all__, "open"]) == dir(winticket)


@pytest.mark.parametrize("name", winticket.__all__)
def test_each_name_is_there(name: str) -> None:
    value = getattr(winticket, name)
    if name in ROOMS:
        assert value.__name__ == f"winticket.{name}"
    elif name != "__version__":
        assert value.__name__ == name
        assert value.__module__.startswith("winticket.")


@pytest.mark.parametrize("page", PAGES)
def test_pages_use_names_that_dir_lists(page: str) -> None:
    text = (ROOT / page).read_text()
    if page.endswith(".py"):
        text = ast.get_docstring(ast.parse(text)) or ""
    used = used_in(text)
    assert len(used) > 5
    assert used - set(dir(winticket)) == set()


def test_the_pages_are_read_as_meant() -> None:
    text = "`winticket.find(x)`, winticket.set_: from winticket import rewind, judge\nfrom winticket.loops import a"
    assert used_in(text) == {"find", "set_", "rewind", "judge"}


def test_names_load_on_first_use() -> None:
    """Neither importing the package nor listing its names loads what takes seconds; using a name does."""
    code = "import sys, winticket; dir(winticket); print('torch' in sys.modules, 'winticket.ticket' in sys.modules)"
    assert fresh(code) == "False False"
    code = "import sys, winticket; winticket.Ticket; print('torch' in sys.modules, len(dir(winticket)))"
    assert fresh(code) == f"True {len(dir(winticket))}"


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'winticket' has no attribute 'fnid'"):
        winticket.fnid  # noqa: B018


def test_a_module_that_moved_says_where_to() -> None:
    with pytest.raises(
        ImportError, match=r"moved to winticket\.loops: from winticket\.loops import state_of"
    ):
        from winticket.levels import state_of  # noqa: F401
