"""The verdict: is there a winning ticket, down to which density, and how sure is that?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from winticket.judge.checks import Level, TrainedEnough
from winticket.judge.coarse import accuracy_step
from winticket.judge.deciding import verdict_of
from winticket.judge.frame import Margin, frame_of
from winticket.judge.gate import require_margin_and_alpha
from winticket.judge.inputs import check_numbers, checked, constant_of, require_not_negative
from winticket.judge.looks import Look, spending
from winticket.judge.reason import explain
from winticket.judge.record import Verdict
from winticket.judge.remarks import notes, warn
from winticket.judge.terms import Terms
from winticket.objective import ACCURACY, Scale


def judge(
    levels: Sequence[Level],
    *,
    scale: Scale = ACCURACY,
    margin_pp: float = 0.5,
    relative: bool = False,
    alpha: float = 0.05,
    trained_enough: TrainedEnough | None = None,
    grid: int | None = None,
    arms_expected: Collection[str] = ("dense", "ticket"),
    test_examples: int | None = None,
    constant: float | None = None,
    commonest: float | None = None,
    looks: Sequence[Look] = (),
) -> Verdict:
    """Judge an experiment: won, not won or inconclusive, with a chance of any false win of at most `alpha`.

    Won: at some density the ticket is not inferior to the dense network by `margin_pp` percentage points, and superior
    to both the same mask re-initialised and the random mask. Not won: the data refute that at every pruned density.
    Inconclusive: anything else, always with fewer than 5 replicates or if the dense network did not learn
    (`has_learned`). docs/verdict.md has the procedure and its sources, `winticket.judge.sequences.decide` the tests.

    trained_enough: the answer of `gate`. grid: steps between evaluations. arms_expected: arms that every pruned level
    must have; without both controls no ticket is won. test_examples: how many a test accuracy is measured on; the step
    between two accuracies is the least sd assumed (default: read off the accuracies). constant: accuracy of the best
    constant answer, which is always to predict the commonest class, so it is also called `commonest`. looks: earlier
    verdicts on these networks, each of which spent part of `alpha`.

    scale: the metric that `Level.accuracy` holds, if not accuracy. `margin_pp` is then in its unit (percentage points
    if that is "%"), and `constant` is the value that the best constant answer reaches. Other metrics have no step
    between two values. relative: `margin_pp` is in percent of the dense network's value, which must not be negative.

    Raises ValueError for unusable input, naming the level and the arm; and if a training failed, the metric has no
    worst value, and no `constant` says what the training counts as (`winticket.judge.frame.frame_of`).

    >>> from winticket.judge import Level, judge
    >>> dense = (0.97, 0.98, 0.96, 0.97, 0.98, 0.97)
    >>> level = Level(0.1, {"dense": dense, "ticket": dense, "reinit": (0.9,) * 6, "random": (0.8,) * 6})
    >>> verdict = judge([level], test_examples=1000)
    >>> verdict.outcome, verdict.density
    ('won', 0.1)
    >>> errors = Level(0.1, {arm: tuple(200 * (1 - v) for v in values) for arm, values in level.accuracy.items()})
    >>> judge([errors], scale=Scale("RMSE", "lower", "mm", 0.0), margin_pp=1.0, constant=60.0).margins.smallest_pp
    0.0
    """
    require_margin_and_alpha(margin_pp, alpha, scale, relative=relative)
    constant = constant_of(constant, commonest, scale)
    check_numbers(grid, test_examples, constant, scale)
    ordered = checked(levels, arms_expected, scale)
    if relative:
        require_not_negative(ordered, scale)
    step = accuracy_step(_accuracies(ordered), test_examples=test_examples) if scale == ACCURACY else 0.0
    frame = frame_of(scale, _accuracies(ordered), constant=constant)
    margin = Margin.of(margin_pp, scale, relative=relative)
    spent = spending(tuple(looks), alpha=alpha)
    terms = Terms(margin_pp, margin, alpha, spent, step, grid, trained_enough, frame, constant)
    verdict = verdict_of(ordered, terms, test_examples=test_examples)
    return replace(verdict, sentences=explain(verdict), warnings=warn(verdict), notes=notes(verdict))


def _accuracies(levels: Sequence[Level]) -> list[tuple[float | None, ...]]:
    return [values for level in levels for values in level.accuracy.values()]
