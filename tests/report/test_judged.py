"""The report reads what the judge writes: same keys, same meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from winticket.judge import Level, gate, judge
from winticket.report import advise, checks_by_density, margins, page
from winticket.report.reading import claimed, falls_behind, passed, time_outcome
from winticket.report.titles import headline

Document = Any  # a test may take away what every run writes


@pytest.fixture(scope="module")
def judged(build: Callable[..., Document]) -> Document:
    """The digits case with the judge's own verdict and checks in place of the fixture's."""
    document = build(failed=((2, "random", 4),))
    dense = document["levels"][0]["arms"]["dense"]
    levels = [
        Level(
            density=level["density"],
            accuracy={
                arm: tuple(entry["accuracies"]) for arm, entry in ({"dense": dense} | level["arms"]).items()
            },
            early_stop_step={
                arm: tuple(entry["early_stop_steps"])
                for arm, entry in ({"dense": dense} | level["arms"]).items()
            },
        )
        for level in document["levels"]
    ]
    enough = gate(dense["accuracies"], [value + 0.001 for value in dense["accuracies"]])
    verdict = judge(levels, trained_enough=enough, grid=10)
    document["verdict"] = verdict.as_json()
    for level, checks in zip(document["levels"], verdict.levels, strict=True):
        level["checks"] = checks.as_json()
    return document


def test_the_verdict_is_read(judged: Document) -> None:
    assert judged["verdict"]["outcome"] == "won"
    assert min(claimed(judged)) == judged["verdict"]["density"]
    assert headline(judged).startswith("Won: a ticket with ")
    assert [row["margin_pp"] for row in margins(judged).rows()] == [0.1, 0.2, 0.5, 1.0]


def test_the_checks_are_read(judged: Document) -> None:
    level = next(level for level in judged["levels"] if level["density"] == judged["verdict"]["density"])
    assert [passed(level, name) for name in ("accuracy", "beats_reinit", "beats_random")] == [True] * 3
    assert time_outcome(level) == "slower"
    assert falls_behind(judged, judged["levels"][-1])
    rows = checks_by_density(judged).where(check="beats_random").rows()
    assert len(rows) == 16
    assert rows[0]["estimate"] is not None


def test_page_and_advice_hold_the_judges_words(judged: Document) -> None:
    text = page(judged, [])
    assert "Training the dense network for twice the steps" in text
    assert "Failed trainings count against the ticket" in text
    assert any("prune more slowly" in sentence for sentence in advise(judged))
