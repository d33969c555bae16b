"""Every example in a docstring of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch

SOURCE = Path(__file__).parents[1] / "src" / "winticket"
OPTIONAL = {
    "winticket.integrations.lightning": "lightning",
    "winticket.integrations.transformers": "transformers",
    "winticket.ship.engine": "winticket.ship._inference",  # absent if the package was built without kernels
    "winticket.ship.onnx": "onnx",
    "winticket.ship.tflite": "ai_edge_litert",
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def module_of(file: Path) -> str:
    parts = ("winticket", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(module_of(file) for file in SOURCE.rglob("*.py") if file.name != "__main__.py")


def failures(module: str) -> list[str]:
    """What the examples of a module print beside what they should; nothing if they all hold or there are none."""
    reports: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
        if test.examples:
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002 - an example may draw from the global generator
            torch.manual_seed(0)
            runner.run(test, out=reports.append)
    return reports


# What Lightning and Transformers warn of, which no example can help.
@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.parametrize("module", MODULES)
def test_examples_run_as_they_stand(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if module in OPTIONAL:
        pytest.importorskip(OPTIONAL[module])
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        assert not (reports := failures(module)), "\n".join(reports)


def test_an_example_that_prints_something_else_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong_example.py").write_text('"""\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    (report,) = failures("wrong_example")
    assert "Expected:\n    3\nGot:\n    2" in report
