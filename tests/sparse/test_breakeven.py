"""The break-even: measured once, remembered, the same for all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from winticket.sparse import Shape, breakeven
from winticket.sparse.native import kernels

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")
SHAPE = Shape(rows=20, columns=30, stack=2, batch=16, threads=1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WINTICKET_CACHE", str(tmp_path))
    breakeven.break_even.cache_clear()
    return tmp_path


def test_is_a_density_and_is_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = breakeven.break_even(SHAPE)
    assert 0 <= found <= 1
    assert round(found / breakeven.STEP) == pytest.approx(found / breakeven.STEP)
    (file,) = (cache / "break-even").iterdir()
    told = json.loads(file.read_text())
    assert (told["break_even"], told["rows"], told["kernels"]) == (found, 20, kernels.chosen())
    # Another process reads it, whatever it would measure itself.
    breakeven.break_even.cache_clear()
    file.write_text(json.dumps({**told, "break_even": 0.35}))
    monkeypatch.setattr(breakeven, "measure", lambda _: 0.9)
    assert breakeven.break_even(SHAPE) == 0.35


def test_the_first_to_write_is_believed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(shape: Shape) -> float:
        monkeypatch.setattr(breakeven, "measure", lambda _: 0.2)
        breakeven.break_even.__wrapped__(shape)  # another process, meanwhile
        return 0.8

    monkeypatch.setattr(breakeven, "measure", slow)
    assert breakeven.break_even(SHAPE) == 0.2
    assert [f.suffix for f in (cache / "break-even").iterdir()] == [".json"]


def test_a_broken_or_absent_cache_costs_a_measurement(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakeven, "measure", lambda _: 0.6)
    assert breakeven.break_even(SHAPE) == 0.6
    (file,) = (cache / "break-even").iterdir()
    file.write_text("no json")
    breakeven.break_even.cache_clear()
    assert breakeven.break_even(SHAPE) == 0.6
    breakeven.break_even.cache_clear()
    monkeypatch.setenv("WINTICKET_CACHE", str(file))  # no folder
    assert breakeven.break_even(SHAPE) == 0.6


@pytest.mark.parametrize(
    ("dense", "low", "high", "found"),
    [
        (1.0, 0.1, 0.8, 0.5),  # .05 + (1 − .1) / ((.8 − .1) / .35) = .5
        (1.0, 1.2, 2.0, 0.0),
        (1.0, 0.1, 0.1, 1.0),
        (0.5, 0.1, 0.8, 0.25),
    ],
)
def test_where_the_lines_cross(
    dense: float, low: float, high: float, found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([dense, low, high])
    monkeypatch.setattr(breakeven, "_time", lambda _: next(times))
    assert breakeven.measure(SHAPE) == pytest.approx(found)
