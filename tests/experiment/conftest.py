"""Small searches that take a moment, in this process, without drawing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from winticket import report
from winticket.experiment import Experiment, Result, conduct

Search = Callable[..., Result]

SMALL: dict[str, Any] = {
    "model": "lenet-20-10",
    "steps": 30,
    "evaluate_every": 10,
    "levels": 2,
    "replicates": 2,
    "stack": 2,
    "validation": 150,
    "test": 200,
}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and page have their own tests and take longer than all else here."""
    monkeypatch.setattr(report, "draw_all", lambda *_, **__: [])
    monkeypatch.setattr(report, "write_page", lambda *_: None)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """A small search on digits in this process; choices are the experiment's, `store` and the rest conduct's."""

    def search(data: str = "digits", *, store: str = "runs", workers: int = 0, **choices: Any) -> Result:
        names = ("watch", "retry_failed", "engine", "out")
        own = {name: choices.pop(name) for name in names if name in choices}
        experiment = Experiment.of(data, **{**SMALL, **choices})
        result = conduct(experiment, store=tmp_path / store, workers=workers, **own)
        written = json.loads(Path(result.document["results"]).read_text())
        assert written == json.loads(json.dumps(result.document))
        return result

    return search


def numbers(result: Result) -> dict[str, Any]:
    """What was measured, without what depends on where and when."""
    names = ("verdict", "levels", "dense_doubled", "failures", "keys")
    document: Any = result.document
    return {name: document[name] for name in names}
