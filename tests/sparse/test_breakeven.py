"""What is measured of a shape: once, remembered, the same for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket.sparse import Shape, Tuning, breakeven, instruction_sets
from winticket.sparse.choices import PROBES, STEP, Choice, Times
from winticket.sparse.native import kernels
from winticket.sparse.updates import OnePass, Target
from winticket.sparse.windows import Window
from winticket.sparse.workload import layer_of

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")
TIMES = Times(0.5, ((0.05, 0.1), (0.2, 0.4), (0.5, 1.0)))
SHAPE = Shape(rows=20, columns=30, stack=2, batch=16, threads=1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WINTICKET_CACHE", str(tmp_path))
    breakeven._tuning.cache_clear()
    return tmp_path


def measured(break_even: float, blocks: tuple[int, int] = (3, 2), *, name: str = "plain") -> Tuning:
    """A measurement of `SHAPE` as no processor would make it."""
    sets = dict.fromkeys(SHAPE.products, name)
    return Tuning(SHAPE, break_even, tuple(Choice(d, sets, blocks) for d in PROBES), TIMES)


def measuring_is(monkeypatch: pytest.MonkeyPatch, result: Tuning) -> None:
    monkeypatch.setattr(breakeven, "measure", lambda _shape, _sets: result)


def written(cache: Path) -> tuple[Path, dict[str, Any]]:
    (file,) = (cache / "break-even").iterdir()
    content: dict[str, Any] = json.loads(file.read_text())
    return file, content


def again(shape: Shape = SHAPE) -> Tuning:
    """What another process gets, or this one without its memory."""
    breakeven._tuning.cache_clear()
    return breakeven.tuning(shape)


def test_is_a_density_with_ways_and_is_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = breakeven.tuning(SHAPE)
    assert 0 <= tuned.break_even <= 1
    assert round(tuned.break_even / STEP) == pytest.approx(tuned.break_even / STEP)
    for choice, density in zip(tuned.choices, PROBES, strict=True):
        assert choice.density == density
        assert choice.suits(SHAPE, instruction_sets())
    file, content = written(cache)
    assert (content["break_even"], content["rows"]) == (tuned.break_even, 20)
    assert content["kernels"] == instruction_sets()
    # Another process reads it, whatever it would measure itself.
    changed = {**content, "break_even": 0.35}
    changed["choices"][1]["blocks"] = [2, 1]
    file.write_text(json.dumps(changed))
    measuring_is(monkeypatch, measured(0.9))
    assert again().break_even == 0.35
    assert [choice.blocks for choice in again().choices][1] == (2, 1)


def test_the_first_to_write_is_believed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(shape: Shape, sets: Sequence[str]) -> Tuning:
        del sets
        measuring_is(monkeypatch, measured(0.2, (1, 1)))
        breakeven._tuning.__wrapped__(shape, "")  # another process, meanwhile
        return measured(0.8, (5, 5))

    monkeypatch.setattr(breakeven, "measure", slow)
    assert breakeven.tuning(SHAPE) == measured(0.2, (1, 1))
    assert [f.suffix for f in (cache / "break-even").iterdir()] == [".json"]


@pytest.mark.parametrize(
    "damage",
    [
        {"break_even": 1.5},
        {"break_even": "0.5"},
        {"choices": []},
        {"times": {"dense": 1.0, "sparse": []}},
        {"times": {"dense": 1.0, "sparse": [[0.05, 1.0]]}},
        {"times": {"dense": 0.0, "sparse": [[0.05, 1.0], [0.2, 1.0]]}},
        {"times": {"dense": 1.0, "sparse": [[0.05, -1.0], [0.2, 1.0]]}},
        {"times": {"dense": 1.0, "sparse": [[0.2, 1.0], [0.05, 1.0]]}},
        {"times": {"dense": 1.0, "sparse": [[0.05, 1.0], [1.5, 1.0]]}},
        {"choices": [{"density": 0.05, "sets": {}, "blocks": [1, 1]}]},
        {"density": 0.06},
        {"sets": {"forward": "plain"}},
        {"sets": {"forward": "plain", "by_weight": "plain", "by_input": "sse9"}},
        {"blocks": [0, 1]},
        {"blocks": [1, 10**9]},
        {"blocks": [1]},
    ],
    ids=str,
)
def test_a_damaged_file_is_measured_again(
    damage: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring_is(monkeypatch, measured(0.6))
    assert again() == measured(0.6)
    file, content = written(cache)
    whole = {k: v for k, v in damage.items() if k in content}
    content["choices"][0] |= {k: v for k, v in damage.items() if k not in content}
    file.write_text(json.dumps({**content, **whole}))
    measuring_is(monkeypatch, measured(0.7))
    assert again() == measured(0.7)
    assert written(cache)[1]["break_even"] == 0.7


def test_a_broken_or_absent_cache_costs_a_measurement(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring_is(monkeypatch, measured(0.6))
    assert breakeven.tuning(SHAPE) == measured(0.6)
    file, _ = written(cache)
    file.write_text("no json")
    assert again() == measured(0.6)
    # If nothing can be kept, workers could choose differently: there is no choice but the usual one.
    monkeypatch.setenv("WINTICKET_CACHE", str(file))  # no folder
    assert again() == Tuning(SHAPE, 0.6, times=TIMES)
    assert again().blocks(0.2) == (1, 1)


def test_a_forced_set_is_measured_alone(cache: Path) -> None:
    before = kernels.forced()
    try:
        for name in instruction_sets():
            kernels.use(name)
            forced = breakeven.tuning(SHAPE)
            assert {s for choice in forced.choices for s in choice.sets.values()} == {name}
    finally:
        kernels.use(before)
    breakeven.tuning(SHAPE)
    files = list((cache / "break-even").iterdir())
    kinds = {tuple(json.loads(f.read_text())["kernels"]) for f in files}
    assert kinds == {tuple(instruction_sets()), *((name,) for name in instruction_sets())}


@pytest.mark.parametrize(
    ("dense", "times", "crossing"),
    [
        (1.0, {0.05: 0.1, 0.2: 0.4, 0.5: 1.0}, 0.5),
        (0.7, {0.05: 0.1, 0.2: 0.4, 0.5: 1.0}, 0.35),  # .2 + (.7 − .4) / (.6 / .3)
        (0.3, {0.05: 0.1, 0.2: 0.4, 0.5: 1.0}, 0.15),  # .05 + (.3 − .1) / (.3 / .15)
        (0.36, {0.05: 0.1, 0.2: 0.4, 0.5: 1.0}, 0.15),  # .18, rounded down
        (1.5, {0.05: 0.1, 0.2: 0.4, 0.5: 1.0, 1.0: 3.0}, 0.6),  # .5 + (1.5 − 1) / (2 / .5) = .625
        (3.5, {0.05: 0.1, 0.2: 0.4, 0.5: 1.0, 1.0: 3.0}, 1.0),
        (1.0, {0.05: 1.2, 0.2: 1.5, 0.5: 2.0}, 0.0),
        (1.0, {0.05: 0.1, 0.2: 0.1, 0.5: 0.1, 1.0: 0.1}, 1.0),
    ],
)
def test_where_the_lines_cross(dense: float, times: dict[float, float], crossing: float) -> None:
    assert Times(dense, tuple(times.items())).crossing() == crossing


@pytest.mark.parametrize(
    ("density", "seconds"), [(0.0, 0.0), (0.05, 0.1), (0.1, 0.2), (0.35, 0.7), (0.5, 1.0), (1.0, 2.0)]
)
def test_times_between_and_beyond_those_measured_lie_on_their_lines(density: float, seconds: float) -> None:
    assert TIMES.at(density) == pytest.approx(seconds, abs=1e-12)


def test_no_time_is_negative() -> None:
    assert Times(1.0, ((0.05, 0.1), (0.06, 0.9))).at(0.01) == 0


@pytest.mark.parametrize("window", [None, Window(3, (3, 3), (1, 1), (1, 1))])
def test_a_dense_step_includes_what_surrounds_its_products(
    window: Window | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a small layer, this takes as long as the products."""
    updated: list[Target] = []
    monkeypatch.setattr(OnePass, "__call__", lambda self, *_, **__: updated.extend(self.targets))
    shape = Shape(rows=4, columns=27, stack=1, batch=2, threads=1, window=window, size=(5, 5))
    for step in layer_of(shape).dense:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
            step()
        calls = {event.key.removeprefix("aten::"): event.count for event in profiled.key_averages()}
        target = updated.pop()
        assert len(target.slots) == 2  # Adam's
        assert target.keep is not None
        assert {"relu", "threshold_backward"} | (set() if window else {"add", "sum"}) <= set(calls)
        assert (calls.get("bmm"), calls.get("convolution_backward")) == ((None, 1) if window else (3, None))
