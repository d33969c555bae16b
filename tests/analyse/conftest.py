"""One small run that the tests of analyses share."""

from __future__ import annotations

from pathlib import Path

import pytest

import winticket
from undrawn import undraw
from winticket.experiment import Run, execution


@pytest.fixture(autouse=True)
def in_this_process(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Analyses compute here, with what was traced before; how workers compute is no question of theirs."""
    monkeypatch.setattr(execution, "processes", lambda: 0)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: digits, two levels, three replicates; its store is beside it."""
    folder = tmp_path_factory.mktemp("analysed")
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        winticket.find(
            "digits",
            model="lenet-30-20",
            steps=60,
            density=[0.5, 0.2],
            replicates=3,
            store=folder / "store",
            out=folder / "out",
            workers=0,
        )
    return folder / "out"


@pytest.fixture
def run(small_run: Path) -> Run:
    """The small run, opened."""
    return winticket.open(small_run)
