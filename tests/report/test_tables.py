"""Tables hold the document's numbers and no others. The interval of learning curves is Student's t."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from winticket.report import (
    accuracy_by_density,
    checks_by_density,
    early_stop_by_density,
    emptied_layers,
    failures,
    learning_curves,
    margins,
)
from winticket.report.durations import duration, run_time
from winticket.report.reading import density_percent, plus_minus, reason

Document = Any  # tests may remove keys that every run writes


def test_accuracy_rows_are_the_documents(digits: Document) -> None:
    table = accuracy_by_density(digits)
    assert len(table) == 1 + 16 * 3
    level = digits["levels"][3]
    (row,) = (r for r in table.where(arm="reinit").rows() if r["density"] == level["density"])
    entry = level["arms"]["reinit"]
    assert (row["accuracy"], row["ci_low"], row["ci_high"]) == (entry["accuracy"], *entry["accuracy_ci"])
    assert (row["replicates"], row["failed"], row["claimed"]) == (10, 0, False)
    won = [d for d, sure in zip(table.column("density"), table.column("claimed"), strict=True) if sure]
    assert won == digits["verdict"]["claimed"]


def test_failed_replicates_are_counted_not_replaced(build: Callable[..., Document]) -> None:
    document = build(failed=((2, "ticket", 0), (2, "ticket", 7)))
    row = accuracy_by_density(document).where(arm="ticket").rows()[1]
    assert (row["replicates"], row["failed"]) == (8, 2)
    assert [r["replicate"] for r in failures(document).rows()] == [0, 7]


def test_one_replicate_has_no_interval(build: Callable[..., Document]) -> None:
    table = early_stop_by_density(build(replicates=1))
    assert set(table.column("ci_low")) == {None}
    assert {True, False} == {step is None for step in table.column("early_stop_step")}


def test_an_early_stop_is_missing_if_most_trainings_have_it_at_the_last_step(digits: Document) -> None:
    """The mean would then measure only how long training was."""
    for level, at_end in zip(digits["levels"][1:3], (6, 5), strict=True):
        arm = level["arms"]["ticket"]
        arm["early_stop_steps"] = [800] * at_end + [400] * (10 - at_end)
        arm["early_stop_step"] = sum(arm["early_stop_steps"]) / 10
    table = early_stop_by_density(digits).where(arm="ticket")
    assert table.column("early_stop_step")[:2] == [None, 600.0]
    assert table.column("ci_low")[0] is table.column("ci_high")[0] is None
    assert table.column("ci_low")[1] is not None


def test_a_curve_skips_points_without_a_value() -> None:
    """Early points have no value if there are too many validation data to evaluate them all."""
    curves: Any = [
        {
            "density": 1.0,
            "arm": "dense",
            "replicate": 0,
            "step": [0, 1, 2],
            "validation_accuracy": [0.1, math.nan, 0.3],
        }
    ]
    rows = learning_curves(curves).rows()
    assert [(row["step"], row["validation_accuracy"]) for row in rows] == [(0, 0.1), (2, 0.3)]


def test_learning_curve_interval_by_hand() -> None:
    # Three replicates .6, .7, .8: mean .7, sd .1, t(.975, 2) = 4.302652730 (tables), half width .248413771.
    curves: Any = [
        {
            "density": 0.5,
            "arm": "ticket",
            "replicate": r,
            "step": [0, 10],
            "validation_accuracy": [0.1, value],
        }
        for r, value in enumerate((0.6, 0.7, 0.8))
    ]
    rows = learning_curves(curves).rows()
    assert [row["step"] for row in rows] == [0, 10]
    assert rows[1]["validation_accuracy"] == pytest.approx(0.7, abs=1e-12)
    assert rows[1]["ci_low"] == pytest.approx(0.7 - 0.2484137714, abs=1e-9)
    assert rows[1]["ci_high"] == pytest.approx(0.7 + 0.2484137714, abs=1e-9)
    assert rows[1]["replicates"] == 3


def test_a_diverged_replicate_is_skipped_at_every_step() -> None:
    def curve(replicate: int, values: list[float | None]) -> Document:
        return {
            "density": 0.5,
            "arm": "ticket",
            "replicate": replicate,
            "step": [0, 10],
            "validation_accuracy": values,
        }

    rows = learning_curves(
        [curve(0, [0.1, 0.9]), curve(1, [0.3, float("nan")]), curve(2, [0.5, None])]
    ).rows()
    assert [(row["validation_accuracy"], row["replicates"], row["ci_low"]) for row in rows] == [
        (0.1, 1, None),
        (0.9, 1, None),
    ]


def test_curves_on_different_steps_are_refused() -> None:
    curves: Any = [
        {
            "density": 0.5,
            "arm": "ticket",
            "replicate": r,
            "step": [0, 10 + r],
            "validation_accuracy": [0.1, 0.9],
        }
        for r in range(2)
    ]
    with pytest.raises(ValueError, match=r"replicates of arm 'ticket' at density 0\.5 .* different steps"):
        learning_curves(curves)


def test_checks_margins_and_emptied_layers(digits: Document) -> None:
    table = checks_by_density(digits)
    assert len(table) == 16 * 3
    assert {"check", "passed", "estimate", "ci_low", "ci_high", "p"} <= set(table.columns)
    assert [row["margin_pp"] for row in margins(digits).rows()] == [0.1, 0.2, 0.5, 1.0]
    assert emptied_layers(digits).values == ()
    digits["levels"][5]["emptied"] = {"ticket": [], "random": ["fc1", "fc2"]}
    assert emptied_layers(digits).values == ((digits["levels"][5]["density"], "random", "fc1, fc2"),)
    digits["verdict"]["margins"] = None
    assert margins(digits).values == ()


def test_words() -> None:
    assert [density_percent(d) for d in (1.0, 0.802, 0.107, 0.031, 0.0019)] == [
        "100 %",
        "80.2 %",
        "10.7 %",
        "3.1 %",
        "0.19 %",
    ]
    assert [duration(s) for s in (4.21, 84.2, 129, 12_000)] == ["4.2 s", "84 s", "2 min 9 s", "3 h 20 min"]
    assert plus_minus(0.9842, (0.9812, 0.9872), scale=100, digits=2) == "98.42 ± 0.30"
    assert plus_minus(None, None, scale=1, digits=0) == "–"
    document: Any = {
        "verdict": {"outcome": "not won", "reason": "Not won: at density 0.5 the ticket is below."}
    }
    assert reason(document) == "At density 0.5 the ticket is below."


def test_an_interval_of_accuracies_ends_at_0_and_100_percent() -> None:
    # .98, .99, 1: mean .99, half width 4.3027 · .01 / √3 = .0248, so the upper end would be 1.0148.
    def curves(values: tuple[float, ...], measure: str) -> list[Document]:
        return [
            {"density": 0.5, "arm": "ticket", "replicate": r, "step": [10], measure: [value]}
            for r, value in enumerate(values)
        ]

    (row,) = learning_curves(curves((0.98, 0.99, 1.0), "validation_accuracy")).rows()
    assert row["ci_low"] == pytest.approx(0.9651586, abs=1e-7)
    assert row["ci_high"] == 1.0
    (row,) = learning_curves(curves((0.0, 0.01, 0.02), "test_accuracy"), measure="test_accuracy").rows()
    assert row["ci_low"] == 0.0
    assert row["ci_high"] == pytest.approx(0.0348414, abs=1e-7)
    (row,) = learning_curves(curves((0.5, 1.0, 1.5), "validation_loss"), measure="validation_loss").rows()
    assert row["ci_high"] == pytest.approx(2.2420688, abs=1e-7)  # a loss may be above 1


def test_a_cut_interval_is_written_by_its_ends() -> None:
    assert plus_minus(0.99, (0.97, 1.0), scale=100, digits=2) == "99.00 (97.00–100)"
    assert plus_minus(0.01, (0.0, 0.04), scale=100, digits=1) == "1.0 (0–4.0)"


@pytest.mark.parametrize(
    ("computed", "reused", "words"),
    [
        (300, 0, "18 s"),
        (0, 300, "18 s, with all trainings from the store"),
        (1, 299, "18 s, with 99 % of the trainings from the store"),
        (0, 0, "18 s"),
    ],
)
def test_the_run_time_says_what_it_did_not_take(computed: int, reused: int, words: str) -> None:
    document: Any = {"computed": computed, "reused": reused, "seconds": 18.2}
    assert run_time(document) == words
