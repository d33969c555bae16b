"""Steps to an accuracy in the result document: by hand from the curves beside it, and for the shortest trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from winticket.experiment import paces
from winticket.judge import FRACTIONS
from winticket.objective import Scale
from winticket.ticket import Curve

from .conftest import Search

GRID = (0, 1, 2, 4, 8, 10)


def curve(accuracies: tuple[float, ...]) -> Curve:
    nothing = torch.full((len(GRID),), math.nan, dtype=torch.float64)
    pace = torch.tensor(accuracies, dtype=torch.float64)
    return Curve(torch.tensor(GRID), nothing, nothing, nothing, pace, nothing, nothing)


DENSE = curve((0.1, 0.3, 0.5, 0.7, 0.9, 0.8))  # ends at .8: .72 is reached at 8, .8 too
FAST = curve((0.1, 0.72, 0.77, 0.78, 0.79, 0.8))
SLOW = curve((0.1, 0.2, 0.3, 0.4, 0.5, 0.75))


def test_targets_are_shares_of_what_the_same_replicates_dense_network_ends_at() -> None:
    better = curve((0.1, 0.3, 0.5, 0.7, 0.9, 0.9))
    dense = (DENSE, better, None, DENSE)
    found, check = paces.of_level(
        {"ticket": (FAST, FAST, FAST, None), "reinit": (SLOW,) * 4}, dense, alpha=0.05
    )
    # .9, .95, .98, .99 and 1 of .8 are .72, .76, .784, .792 and .8; of .9: .81, .855, .882, .891 and .9.
    assert [found["ticket"][f"{f:g}"]["steps"] for f in FRACTIONS] == [
        [1, None, None, None],
        [2, None, None, None],
        [8, None, None, None],
        [10, None, None, None],
        [10, None, None, None],
    ]
    assert found["reinit"]["0.9"]["steps"] == [10, None, None, 10]
    # The third replicate's dense network failed: there was nothing to reach. The fourth ticket failed.
    assert found["ticket"]["0.9"]["never"] == 2
    assert found["reinit"]["0.95"]["never"] == 3
    assert check is not None
    assert (check["fraction"], check["outcome"]) == (0.95, None)  # four replicates
    assert check["median"] == {"ticket": None, "dense": 8}
    assert check["gap"] == 4  # dense at 8, and the point before is 4


def test_an_accuracy_that_a_network_has_without_learning_is_no_goal() -> None:
    arms = {"ticket": (FAST,) * 5, "reinit": (SLOW,) * 5}
    _, check = paces.of_level(arms, (DENSE,) * 5, alpha=0.05)
    assert check is not None
    assert check["outcome"] == "sooner"
    found, check = paces.of_level(arms, (DENSE,) * 5, alpha=0.05, learned=False)
    assert check is not None
    assert check["outcome"] is None
    assert {entry["outcome"] for by_target in found.values() for entry in by_target.values()} == {None}
    assert found["ticket"]["0.95"]["steps"] == [2] * 5


def test_an_rmse_is_reached_from_above_on_the_way_from_the_constant_answer() -> None:
    """From 10 mm to 2: .9 of the way is 2.8 mm, .95 is 2.4, .98 is 2.16, .99 is 2.08."""
    dense = curve((12.0, 9.0, 6.0, 2.5, 2.3, 2.0))
    fast = curve((12.0, 2.8, 2.4, 2.16, 2.08, 2.05))
    unlearned = curve(
        (12.0, 11.0, 11.0, 11.0, 11.0, 10.5)
    )  # worse than the constant answer: nothing to reach
    rmse = Scale("RMSE", "lower", "mm", 0.0)
    found, check = paces.of_level(
        {"ticket": (fast, fast)}, (dense, unlearned), alpha=0.05, scale=rmse, constant=10.0
    )
    assert [found["ticket"][f"{f:g}"]["steps"] for f in FRACTIONS] == [
        [1, None],
        [2, None],
        [4, None],
        [8, None],
        [None, None],
    ]
    assert found["ticket"]["1"]["never"] == 1
    assert check is not None
    assert check["median"] == {"ticket": 2, "dense": 8}


def test_a_level_without_a_ticket_has_no_check() -> None:
    found, check = paces.of_level({"dense": (DENSE,) * 6}, (DENSE,) * 6, alpha=0.05)
    assert check is None
    assert found["dense"]["1"]["steps"] == [8] * 6
    assert (found["dense"]["1"]["outcome"], found["dense"]["1"]["ratio"]) == (None, None)


def first(row: Mapping[str, Any], target: float) -> int | None:
    reached = (s for s, a in zip(row["step"], row["pace_accuracy"], strict=True) if a >= target - 1e-9)
    return next(reached, None)


def test_the_document_agrees_with_the_curves_beside_it(search: Search) -> None:
    result = search(replicates=6, stack=6, steps=60, levels=1, gate=False)
    rows: Any = {(row["density"], row["arm"], row["replicate"]): row for row in result.curves}
    ends = [rows[1.0, "dense", r]["pace_accuracy"][-1] for r in range(6)]
    compared = 0
    for level in result.document["levels"]:
        for arm, entry in level["arms"].items():
            assert list(entry["steps_to"]) == ["0.9", "0.95", "0.98", "0.99", "1"]
            for fraction, found in entry["steps_to"].items():
                steps = [first(rows[level["density"], arm, r], float(fraction) * ends[r]) for r in range(6)]
                assert found["steps"] == steps
                assert found["never"] == steps.count(None)
                compared += 1
    assert compared == 4 * 5
    checks: Any = result.document["levels"][1]["checks"]
    # Nor is the dense network's accuracy a goal by then, as the verdict says, so none is called sooner.
    assert not result.verdict["learned"]["learned"]
    assert checks["pace"]["outcome"] is None
    assert (
        checks["pace"]["outcome"]
        == result.document["levels"][1]["arms"]["ticket"]["steps_to"]["0.95"]["outcome"]
    )
    # 60 steps of lenet-20-10 are far from enough: the loss still falls at the end.
    assert checks["time"] is None
    assert checks["time_left_out"].startswith("not compared: in ")


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_trainings_have_a_grid_and_a_document(search: Search, steps: int) -> None:
    short = {"evaluate_every": max(1, steps // 2)} if steps > 1 else {"evaluate_every": 1}
    result = search(steps=steps, levels=1, gate=True, **short)
    assert {tuple(row["step"]) for row in result.curves} == {tuple(range(steps + 1))}
    assert set(result.document["levels"][1]["checks"]) >= {"pace", "time", "time_left_out"}
