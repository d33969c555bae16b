"""Small searches that take a moment, in this process, without drawing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from undrawn import undraw
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
def undrawn_experiments(undrawn: None) -> None:
    """No test here looks at figures or page."""


def searched(folder: Path, data: str, *, store: str = "runs", workers: int = 0, **choices: Any) -> Result:
    """A small search in this process, its store in `folder`; choices are the experiment's and the rest conduct's."""
    names = ("watch", "retry_failed", "engine", "out")
    own = {name: choices.pop(name) for name in names if name in choices}
    experiment = Experiment.of(data, **{**SMALL, **choices})
    result = conduct(experiment, store=folder / store, workers=workers, **own)
    written = json.loads(Path(result.document["results"]).read_text())
    assert written == json.loads(json.dumps(result.document))
    return result


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """`searched` in the test's own folder, on digits unless other data are passed."""

    def search(data: str = "digits", **choices: Any) -> Result:
        return searched(tmp_path, data, **choices)

    return search


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One finished run for all tests of a module that only read it: result, store and files stay as they are."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        return searched(folder, "digits", gate=False, out=folder / "out")


def numbers(result: Result) -> dict[str, Any]:
    """What was measured, without what depends on where and when."""
    names = ("verdict", "levels", "dense_doubled", "failures", "keys")
    document: Any = result.document
    return {name: document[name] for name in names}
