"""Looking again: shares of the error, claims that stand, collapsed replicates."""

from __future__ import annotations

import math

import pytest

from winticket.judge import Level, Look, judge
from winticket.judge.coarse import accuracy_step
from winticket.judge.collapse import collapse_limit, unseen_rate
from winticket.judge.looks import share, spending


def level(gap: float, *, n: int = 10, density: float = 0.1) -> Level:
    """A ticket `gap` points over dense, sd .3 pp, far above its controls."""
    spread = [0.3 * x / math.sqrt(1.1) for x in (1, -1) * 5]
    return Level(
        density,
        {
            "dense": (0.98,) * n,
            "ticket": tuple(0.98 + (gap + s) / 100 for s in spread[:n]),
            "reinit": (0.9,) * n,
            "random": (0.9,) * n,
        },
    )


def test_all_looks_together_spend_no_more_than_alpha() -> None:
    assert share(1) == 0.9
    assert [round(share(k), 6) for k in (2, 3, 4)] == [0.05, 0.016667, 0.008333]
    assert sum(share(k) for k in range(1, 7)) == pytest.approx(1 - 0.1 / 6)
    assert sum(share(k) for k in range(1, 10_000)) < 1
    with pytest.raises(ValueError, match="look 0 does not exist"):
        share(0)


def test_a_later_look_is_held_to_a_stricter_level_and_says_so() -> None:
    # −.27 ± .095·t: past −.5 at .0225 (t = 2.33), not at .00125 (t = 4.1).
    first = judge([level(-0.22)])
    assert (first.outcome, first.spending.look) == ("won", 1)
    second = judge([level(-0.22)], looks=[Look(5, 0.5, 0.05)])
    assert (second.outcome, second.spending.look) == ("inconclusive", 2)
    check = second.levels[0].accuracy
    assert check is not None
    assert check.test_level == pytest.approx(0.00125)
    assert "This is verdict number 2 on these networks (earlier ones: 5 replicates)" in second.reason
    assert (
        "a chance of 0.25 %; all verdicts so far add up to 4.75 % of the 5 % allowed in total"
        in second.reason
    )
    assert second.as_json()["looks"] == {
        "look": 2,
        "alpha": pytest.approx(0.0025),
        "spent": pytest.approx(0.0475),
        "earlier": [{"replicates": 5, "margin_pp": 0.5, "claimed": []}],
    }


def test_a_claim_of_an_earlier_look_stands_unless_refuted() -> None:
    before = Look(5, 0.5, 0.05, (0.1,))
    standing = judge([level(-0.22)], looks=[before])
    assert (standing.outcome, standing.density) == ("won", 0.1)
    assert standing.levels[0].claimed_earlier
    assert "an earlier verdict on these networks, from 5 replicates, showed" in standing.reason
    assert judge([level(-1.5)], looks=[before]).outcome == "not won"
    # A claim at a wider margin is none at this one.
    assert judge([level(-0.22)], looks=[Look(5, 1.0, 0.05, (0.1,))]).outcome == "inconclusive"
    assert judge([level(-0.22)], looks=[Look(5, 0.2, 0.05, (0.1,))]).outcome == "won"
    # Nor is one at a looser error rate, however sure the user is of the ticket.
    loose = judge([level(-0.22)], looks=[Look(5, 0.5, 0.4, (0.1,))])
    assert (loose.outcome, loose.claimed) == ("inconclusive", ())
    assert judge([level(-0.22)], looks=[Look(5, 0.5, 0.01, (0.1,))]).outcome == "won"


def test_the_look_that_is_named_is_the_one_whose_claim_stands() -> None:
    looser = [Look(5, 1.0, 0.05, (0.1,)), Look(6, 0.5, 0.4, (0.1,))]
    standing = judge([level(-0.22)], looks=[*looser, Look(8, 0.5, 0.05, (0.1,))])
    assert standing.outcome == "won"
    assert "an earlier verdict on these networks, from 8 replicates, showed" in standing.reason


def test_fewer_than_five_replicates_claim_nothing_whatever_was_claimed_before() -> None:
    few = judge([level(-0.22, n=4)], looks=[Look(10, 0.5, 0.05, (0.1,))])
    assert (few.outcome, few.claimed, few.kind) == ("inconclusive", (), "undecided")
    assert "4 replicates are too few to decide anything" in few.reason


def test_other_margins_know_the_claims_that_stand() -> None:
    """Won at .5 by an earlier look is won at every wider margin, and smaller ones are for this look to show."""
    verdict = judge([level(-0.22)], looks=[Look(5, 0.5, 0.05, (0.1,))])
    outcomes = {point.margin_pp: (point.outcome, point.density) for point in verdict.margins.curve}
    assert outcomes[0.5] == outcomes[1.0] == ("won", 0.1)
    assert {outcomes[pp][0] for pp in (0.1, 0.2)} == {"inconclusive"}
    assert verdict.margins.smallest_pp == 0.5


def test_what_a_look_spends() -> None:
    now = spending((Look(5, 0.5, 0.05), Look(10, 0.5, 0.05)), alpha=0.05)
    assert now.look == 3
    assert now.alpha == pytest.approx(0.05 / 60)
    assert now.spent == pytest.approx(0.05 * (1 - 0.1 / 3))


def test_a_collapsed_replicate_is_named() -> None:
    usual = level(0.0)
    fallen = [*(x for x in usual.accuracy["ticket"])]
    fallen[3] = 0.125
    verdict = judge([Level(0.1, {**usual.accuracy, "ticket": tuple(fallen)})])
    assert [(one.arm, one.replicate) for one in verdict.collapsed] == [("ticket", 3)]
    assert verdict.outcome == "inconclusive"
    named = "Replicate 4 collapsed (ticket at 10.0 %): its accuracy is 12.50 %, and the median of its arm is"
    assert any(note.startswith(named) for note in verdict.notes)
    won = judge([usual])
    assert won.collapsed == ()
    # The median less four margins of .5 pp, which is more here than eight deviations.
    assert won.collapse_limit is not None
    limit = (
        "None of the 10 tickets at 10.0 % collapsed, that is, ended below "
        f"{100 * won.collapse_limit:.1f} % test accuracy, far from the median of these 10."
    )
    assert limit in won.reason
    assert (
        "Rarer collapses remain possible: 10 replicates rule out only rates above 26 % (95 % confidence)."
        in won.reason
    )
    assert collapse_limit((0.97, 0.98, 0.98, 0.98, None), margin=0.005) == pytest.approx(0.98 - 4 * 0.005)
    # Median absolute deviation .01: 8 · 1.4826 · .01 = .1186.
    assert collapse_limit((0.97, 0.97, 0.98, 0.99, 0.99), margin=0.005) == pytest.approx(0.98 - 0.118608)
    assert collapse_limit((0.97, 0.98, 0.98, None), margin=0.005) is None
    # A random mask that collapsed at a claimed density made the win look larger: it bears on the claim.
    random = [*usual.accuracy["random"]]
    random[0] = 0.85
    control = judge([Level(0.1, {**usual.accuracy, "random": tuple(random)})])
    assert control.claimed == (0.1,)
    assert any("Replicate 1 collapsed (random at 10.0 %)" in warning for warning in control.warnings)


def test_the_dense_networks_collapse_is_named_once_with_and_without_a_dense_level() -> None:
    usual = level(0.0)
    dense = (0.9, *usual.accuracy["dense"][1:])
    for levels in ([], [Level(1.0, {"dense": dense, "ticket": dense})]):
        verdict = judge([*levels, Level(0.1, {**usual.accuracy, "dense": dense})])
        assert [(one.arm, one.density, one.replicate) for one in verdict.collapsed] == [("dense", 1.0, 0)]
        assert any("Replicate 1 collapsed (dense at 100 %)" in warning for warning in verdict.warnings)


def test_failed_tickets_are_not_reported_as_uncollapsed() -> None:
    """With a margin of 20 pp one failure of ten is no obstacle (mean −10 pp, sd 31 pp would be: the margin is 60)."""
    usual = level(0.0)
    one = Level(
        0.1, {**usual.accuracy, "ticket": (None, *usual.accuracy["ticket"][1:]), "reinit": (0.1,) * 10}
    )
    verdict = judge([Level(0.1, {**one.accuracy, "random": (0.1,) * 10})], margin_pp=60)
    assert verdict.outcome == "won"
    assert "collapsed" not in verdict.reason
    assert any("1 ticket" in warning for warning in verdict.warnings)


def test_no_difference_is_reported_beyond_all_or_nothing() -> None:
    """Five tickets of which two failed: the t interval of the mean ends below −100 pp, which no accuracy reaches."""
    usual = level(0.0, n=5)
    wild = (0.0, 1.0, 0.0, 1.0, 0.0)
    check = judge([Level(0.1, {**usual.accuracy, "ticket": wild})]).levels[0].accuracy
    assert check is not None
    assert check.ci is not None
    assert check.bound == -1.0
    assert check.ci[0] == -1.0
    assert "-100.00" in judge([Level(0.1, {**usual.accuracy, "ticket": wild})]).reason


def test_ordinary_spread_is_no_collapse() -> None:
    assert judge([level(-0.3)]).collapsed == ()


def test_what_cannot_be_excluded() -> None:
    """Rule of three: about 3/n."""
    assert unseen_rate(10) == pytest.approx(1 - 0.05**0.1)
    assert unseen_rate(300) == pytest.approx(3 / 300, rel=0.01)


def test_the_step_between_accuracies() -> None:
    assert accuracy_step([[0.5], [0.984]], test_examples=450) == 1 / 450
    assert accuracy_step([[448 / 450, 441 / 450], [None, 1.0]]) == 1 / 450
    assert accuracy_step([[0.98, 0.975]]) == pytest.approx(1 / 200)
    assert accuracy_step([[1 / math.pi, 1 / math.e]]) == 0.0
    assert accuracy_step([[None], []]) == 0.0
