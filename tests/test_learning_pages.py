"""The tutorial and the pages of how to do things run as they stand: each page's blocks, one after the other."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    "tutorial": 10,
    "own-model": 2,
    "own-data": 2,
    "data": 1,
    "read-a-verdict": 1,
    "no-ticket": 1,
    "own-loop": 2,
    "heads": 3,
}
"""Pages, and how many blocks each has: a block that is not found is not run."""


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    """What the prose claims is asserted in the blocks themselves, before the reader's eyes; none is about figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # In this process: each search would start workers anew, which takes as long as a short one.
    monkeypatch.setattr("winticket.experiment.execution.processes", lambda: 0)
    names: dict[str, Any] = {}
    assert len(blocks(page)) == PAGES[page]
    assert any("\nassert " in block for block in blocks(page))
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page}.md, block {number}", "exec"), names)
    sys.modules.pop("mylab", None)


def test_commands_and_calls_of_the_tutorial_ask_the_same() -> None:
    """The command that the tutorial names for the shell has the options of its call in Python."""
    text = (DOCS / "tutorial.md").read_text()
    (command,) = re.findall(r"`winticket (find digits .*?)`", text)
    (call,) = re.findall(r"winticket\.find\(\n    \"digits\",\n(.*?)\n\)", text, re.DOTALL)
    given = dict(re.findall(r"(\w+)=([\d.]+|\[.*?\]|False)", call))
    assert f"--replicates {given['replicates']} --steps {given['steps']} " in command
    assert re.findall(r"--density (\S+)", command) == given["density"].strip("[]").split(", ")
    assert f"--margin {float(given['margin_pp']):g} --no-gate " in command
    assert given["gate"] == "False"
