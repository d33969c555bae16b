"""docs/command.md is what the command says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)
GENERATE = ["-m", "typer", "winticket.cli", "utils", "docs", "--name", "winticket"]
TITLED = ["--title", "The winticket command"]


def generated(file: Path, **environment: str) -> str:
    """The page as `make docs` writes it, in an environment whose terminal is as said."""
    command = [sys.executable, *GENERATE, *TITLED, "--output", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=100, env={**os.environ, **environment})
    return file.read_text(encoding="utf-8")


@pytest.mark.skipif(version("typer") != PINNED["typer"], reason="each typer words the page in its own way")
@pytest.mark.parametrize(
    "terminal", [{"COLUMNS": "40", "TERM": "dumb"}, {"COLUMNS": "250", "FORCE_COLOR": "1"}]
)
def test_the_page_is_current_whatever_the_terminal(terminal: dict[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
    same = generated(tmp_path / "command.md", **terminal) == page
    assert same, "docs/command.md is not what the command says of itself: make docs"


def test_make_docs_writes_that_page() -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "utils docs" in line]
    assert line.split("/typer ")[1] == (
        'winticket.cli utils docs --name winticket --title "The winticket command" --output docs/command.md'
    )
