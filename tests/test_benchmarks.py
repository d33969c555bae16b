"""Benchmarks are not timed in tests, but they must start: what they take from the package has to be there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
BENCHMARKS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: str(file.stem))
def test_a_benchmark_finds_everything_that_it_uses(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    try:
        names = runpy.run_path(str(file), run_name="benchmark")
        for _, module, function in names.get("CLOCKED", ()):
            assert callable(getattr(module, function))
    finally:
        for name in set(sys.modules) - before:
            if Path(str(getattr(sys.modules[name], "__file__", ""))).parent == FOLDER:
                del sys.modules[name]
