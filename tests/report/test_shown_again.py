"""A finished run's screen and page are made again, with its stored analyses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import winticket
from undrawn import undraw
from winticket.cli import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewritten")
    options: dict[str, Any] = {
        "model": "lenet-20-10",
        "steps": 30,
        "density": [0.3],
        "replicates": 2,
        "workers": 0,
    }
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)  # each test has the page written again
        winticket.find("digits", store=folder / "store", out=folder / "out", **options)
    return folder / "out"


def typed(*words: str) -> tuple[int, str]:
    answer = CliRunner().invoke(app, list(words))
    return answer.exit_code, answer.output


def test_the_page_gets_what_was_analysed(folder: Path) -> None:
    (folder / "report.html").unlink(missing_ok=True)
    status, said = typed("report", str(folder))
    assert status == 0, said
    assert "Understanding the ticket" not in (folder / "report.html").read_text()
    status, said = typed("analyse", str(folder), "overlap", "--workers", "0")
    assert status == 0, said
    page = (folder / "report.html").read_text()
    assert "Understanding the ticket" in page
    assert "Do two searches find the same ticket?" in page
    assert page.count("Jaccard") > 2
    assert (folder / "analyses" / "overlap.pdf").read_bytes().startswith(b"%PDF")
    status, said = typed("analyse", str(folder), "overlap", "--json", "--quiet")
    rows = json.loads(said)["analyses"][0]["rows"]
    assert {row["pair"] for row in rows} >= {"new init", "same init, new order"}


def test_a_run_is_shown_again(folder: Path) -> None:
    status, said = typed("show", str(folder))
    assert status == 0
    assert "Inconclusive" in said
    status, said = typed("show", str(folder), "--json")
    assert json.loads(said)["verdict"]["outcome"] == "inconclusive"
