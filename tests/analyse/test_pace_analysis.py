"""Pace: known steps to a goal, and the same judgement as in the run's own document."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from winticket import analyse
from winticket.analyse.pace import PACE, REACHED, pace_says
from winticket.experiment import Run
from winticket.table import Table
from winticket.ticket import Curve


def curve(*accuracies: float) -> Curve:
    nothing = torch.full((len(accuracies),), torch.nan, dtype=torch.float64)
    pace = torch.tensor(accuracies, dtype=torch.float64)
    return Curve(10 * torch.arange(len(accuracies)), nothing, nothing, nothing, pace, nothing, nothing)


def test_the_goal_is_a_share_of_the_dense_networks_last_accuracy() -> None:
    dense = curve(0.1, 0.7, 0.9, 0.8)
    assert analyse.steps_to_share(dense, dense, goal=1.0) == 20
    assert analyse.steps_to_share(curve(0.1, 0.2, 0.6), dense, goal=0.75) == 20
    assert analyse.steps_to_share(curve(0.1, 0.2, 0.3), dense, goal=0.75) is None


def reached(steps: list[int | None], dense: list[int | None], *, accuracy: float = 0.9) -> Table:
    rows = [
        (1, 0.1, "ticket", number, one, other, other is not None, accuracy, accuracy, 0.1)
        for number, (one, other) in enumerate(zip(steps, dense, strict=True), 1)
    ]
    return Table(tuple(REACHED), tuple(rows))


def test_trainings_that_never_reach_the_goal_count_as_later_than_any_other() -> None:
    (row,) = analyse.judged_pace([reached([20, 20, 20, 20, 20, None], [10] * 6)], goal=0.95).rows()
    assert (row["never"], row["steps"], row["dense_steps"], row["outcome"]) == (1, 20, 10, "later")
    # 15 of the 21 averages of two log ratios are log 2, the others infinite, which leaves the interval open.
    assert row["ratio"] == pytest.approx(2)
    assert row["low"] == pytest.approx(2)
    assert row["high"] is None


def test_the_exact_test_decides_and_few_replicates_do_not() -> None:
    """Six pairs of one sign have p = 2^-6 under the signed-rank test."""
    (row,) = analyse.judged_pace([reached([5] * 6, [10] * 6)], goal=0.95).rows()
    assert row["p_sooner"] == pytest.approx(0.5**6)
    assert row["outcome"] == "sooner"
    assert row["ratio"] == pytest.approx(0.5)
    (few,) = analyse.judged_pace([reached([5] * 4, [10] * 4)], goal=0.95).rows()
    assert few["outcome"] is None


def test_nothing_is_sooner_than_a_network_that_did_not_learn() -> None:
    (row,) = analyse.judged_pace([reached([5] * 6, [10] * 6, accuracy=0.12)], goal=0.95).rows()
    assert row["outcome"] is None
    assert "did not learn" in pace_says(Table(tuple(PACE), (tuple(row.values()),)))[0]


def test_a_run_has_the_pace_of_its_own_document(run: Run, small_run: Path) -> None:
    (made,) = run.analyse("pace")
    assert made.reason is None
    assert run.document is not None
    compared = 0
    for level, there in enumerate(run.document["levels"]):
        for arm in ("ticket", "reinit", "random"):
            rows = made.table.where(level=level, arm=arm).rows()
            if not rows:
                assert level == 0
                continue
            known = there["arms"][arm]["steps_to"]["0.95"]
            (row,) = rows
            assert (row["steps"], row["never"], row["outcome"]) == (known["median"], known["never"], None)
            assert (row["ratio"], row["p_sooner"]) == (known["ratio"], known["p_sooner"])
            compared += 1
    assert compared == 6


def test_a_goal_above_the_dense_network_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="at most 1"):
        run.analyse("pace", options={"pace": {"goal": 1.5}})
