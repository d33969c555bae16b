"""The gate before all claims: a dense network that did not learn proves nothing about its tickets."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from winticket.judge import Level, gate, has_learned, judge

Accuracies = tuple[float | None, ...]


def level(
    dense: Accuracies, ticket: Accuracies, *, density: float = 0.1, losses: tuple[float, float] | None = None
) -> Level:
    n = len(dense)
    accuracy = {"dense": dense, "ticket": ticket, "reinit": (0.2,) * n, "random": (0.2,) * n}
    loss = {}
    if losses is not None:
        spread = [0.01 * i for i in range(n)]
        loss = {arm: tuple(x + s for s in spread) for arm, x in zip(("dense", "ticket"), losses, strict=True)}
    return Level(density, accuracy, train_loss=loss)


def around(mean: float, n: int = 6) -> tuple[float, ...]:
    return tuple(mean + 0.002 * (i % 3 - 1) for i in range(n))


def test_nothing_is_won_against_a_network_at_chance() -> None:
    """Dense 12.5 % on ten classes, tickets of 3 % of the weights 96 %: once a win by 83.64 points."""
    levels = [level(around(0.125), around(0.96), density=d) for d in (0.28, 0.1, 0.03)]
    for commonest in (0.102, None):  # also if the commonest class's rate is not known
        verdict = judge(levels, commonest=commonest, test_examples=450)
        assert (verdict.outcome, verdict.density, verdict.claimed) == ("inconclusive", None, ())
        assert (verdict.kind, verdict.learned.learned, verdict.replicates_needed) == (
            "undecided",
            False,
            None,
        )
        assert "the dense network did not learn" in verdict.reason
        assert "Lower the learning rate" in verdict.reason
        assert {point.outcome for point in verdict.margins.curve} == {"inconclusive"}
        assert not any(x.claimed for x in verdict.levels)
        json.dumps(verdict.as_json(), allow_nan=False)
    assert (
        "its accuracy is 12.5 %, and always predicting the commonest class gives 10.2 %"
        in judge(levels, commonest=0.102).reason
    )


def test_no_ticket_is_faster_than_a_network_that_did_not_learn() -> None:
    """Nor slower: the step at which its loss was least is that of no learning."""
    dense, ticket = around(0.125), around(0.96)
    steps = {"dense": (100,) * 6, "ticket": (10,) * 6}
    unlearned = judge([dataclasses.replace(level(dense, ticket), early_stop_step=steps)], commonest=0.1)
    learned = judge([dataclasses.replace(level(ticket, ticket), early_stop_step=steps)], commonest=0.1)
    times = [verdict.levels[0].time for verdict in (unlearned, learned)]
    assert [time.outcome for time in times if time is not None] == [None, "faster"]
    assert unlearned.levels[0].as_json()["time"] is None


def test_one_replicate_that_did_not_learn_is_enough() -> None:
    """Its difference alone is worth any margin: the mean over replicates would be won by it."""
    dense = (0.1, *around(0.97)[1:])
    learned = has_learned(dense, [level(dense, around(0.96))], commonest=0.1)
    assert (learned.learned, learned.unlearned) == (False, (0,))
    assert "in 1 of 6 replicates" in learned.sentence


@pytest.mark.parametrize(
    ("accuracy", "commonest", "test_examples", "learned"),
    [
        (0.189, 0.1, None, False),  # a tenth of the way from .1 to 1 is .19
        (0.191, 0.1, None, True),
        (0.95, 0.95, None, False),  # always the commonest of unequal classes
        (0.956, 0.95, None, True),
        (0.53, 0.5, 20, False),  # guesses on 20 examples: two standard errors are .22
        (0.73, 0.5, 20, True),
        (0.11, 0.01, None, True),  # a hundred classes
    ],
)
def test_near_the_commonest_class(
    accuracy: float, commonest: float, test_examples: int | None, learned: bool
) -> None:
    dense = (accuracy,) * 5
    result = has_learned(dense, [level(dense, dense)], commonest=commonest, test_examples=test_examples)
    assert result.learned is learned


def test_a_dense_network_behind_its_tickets_is_judged_by_its_training() -> None:
    """Three points are more than pruning gains if the dense network fits the training data worse."""
    dense, ticket = around(0.93), around(0.96)
    explained = judge([level(dense, ticket, losses=(0.5, 0.2))])
    assert explained.outcome == "inconclusive"
    assert (
        "3.00 pp below the tickets with 10.0 % of its weights, and its training loss ends above theirs"
        in explained.reason
    )
    # A dense network that fits as well and generalises worse is what tickets are famous for (Conv-2: +3.4).
    assert judge([level(dense, ticket, losses=(0.2, 0.2))]).outcome == "won"
    assert judge([level(dense, ticket)]).outcome == "won"
    # One point is within what any recipe gives and takes.
    assert judge([level(around(0.95), ticket, losses=(0.5, 0.2))]).outcome == "won"
    doubled = gate(dense, around(0.955))
    unfinished = judge([level(dense, ticket)], trained_enough=doubled)
    assert (unfinished.outcome, unfinished.learned.learned) == ("inconclusive", False)
    assert "and training it for twice the steps gains +2.50 pp" in unfinished.reason


def test_ten_points_behind_need_no_explanation() -> None:
    verdict = judge([level(around(0.85), around(0.96))])
    assert verdict.outcome == "inconclusive"
    assert verdict.learned.behind == pytest.approx(0.11)


def test_a_dense_network_that_failed_everywhere_matches_nothing() -> None:
    dense: Accuracies = (None,) * 6
    verdict = judge([level(dense, around(0.96))], commonest=0.1)
    assert verdict.outcome == "inconclusive"
    assert "no dense network finished its training" in verdict.reason


def test_the_gate_neither_lets_through_nor_stops_wrongly() -> None:
    """Simulated: dense networks that each fail to learn at some rate, and ones that all learn."""
    generator = np.random.default_rng(0)
    good = level(around(0.98, 8), around(0.98, 8))
    claims, stopped = 0, 0
    for _ in range(200):
        ticket = tuple(0.98 + 0.003 * generator.standard_normal(8))
        failed = generator.random(8) < 0.3
        failed[0] = True
        dense = tuple(np.where(failed, 0.1 + 0.02 * generator.standard_normal(8), 0.97))
        sick = dataclasses.replace(good, accuracy={**good.accuracy, "dense": dense, "ticket": ticket})
        claims += bool(judge([sick], commonest=0.1, test_examples=450).claimed)
        healthy = tuple(0.98 + 0.003 * generator.standard_normal(8))
        well = dataclasses.replace(good, accuracy={**good.accuracy, "dense": healthy, "ticket": ticket})
        stopped += not judge([well], commonest=0.1, test_examples=450).learned.learned
    assert (claims, stopped) == (0, 0)
