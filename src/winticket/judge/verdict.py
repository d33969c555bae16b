"""The verdict: is there a winning ticket, down to which density, and how sure is that?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from winticket.judge.checks import (
    CONTROLS,
    MIN_REPLICATES,
    Check,
    Level,
    TrainedEnough,
    compare,
    differences,
)
from winticket.judge.coarse import accuracy_step
from winticket.judge.collapse import Collapse, collapse_limit, collapses
from winticket.judge.frame import ACCURACIES, ByArm, Frame, Margin, frame_of
from winticket.judge.gate import require_margin_and_alpha
from winticket.judge.inputs import check_numbers, checked, constant_of, require_not_negative
from winticket.judge.learned import Learned, has_learned
from winticket.judge.looks import Look, Spending, share, spending
from winticket.judge.reason import explain, notes, warn
from winticket.judge.record import Kind, LevelChecks, MarginPoint, Margins, Verdict
from winticket.judge.sequences import Decision, Differences, Outcome, decide, replicates_to_decide
from winticket.judge.statistics import Array
from winticket.judge.timing import time_check
from winticket.objective import ACCURACY, Scale

MARGINS_PP = (0.1, 0.2, 0.5, 1.0)
"""The other margins, for accuracies and shares."""
MARGINS = (0.2, 0.4, 1.0, 2.0)
"""The same as multiples of the usual margin, for metrics with a unit of their own."""


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
    verdict = _verdict(ordered, terms, test_examples=test_examples)
    return replace(verdict, sentences=explain(verdict), warnings=warn(verdict), notes=notes(verdict))


@dataclass(frozen=True)
class Terms:
    """What one experiment is judged by. step: between two possible accuracies; grid: steps between evaluations."""

    margin_pp: float
    margin: Margin
    alpha: float
    spending: Spending
    step: float
    grid: int | None
    trained_enough: TrainedEnough | None
    frame: Frame
    constant: float | None

    @property
    def framed(self) -> float:
        """The margin as the tests take it."""
        return self.margin.framed(self.frame)


@dataclass(frozen=True)
class Judged:
    """The pruned levels' tests, the decision on them, and whether the dense network learned."""

    terms: Terms
    differences: Differences
    decision: Decision
    learned: Learned
    replicates: int

    def stands(self, density: float, *, margin_pp: float, refuted: bool) -> bool:
        """True if an earlier look's claim at `density` holds at this margin, since this look does not refute it.

        With fewer than five replicates nothing is claimed, whatever was claimed before.
        """
        alpha, earlier = self.terms.alpha, self.terms.spending.earlier
        relative = self.terms.margin.relative
        return (
            self.replicates >= MIN_REPLICATES
            and not refuted
            and any(
                look.shows(density, margin_pp=margin_pp, alpha=alpha, relative=relative) for look in earlier
            )
        )


def _verdict(ordered: list[Level], terms: Terms, *, test_examples: int | None) -> Verdict:
    """The verdict without its words."""
    pruned = [level for level in ordered if level.density < 1]
    frame, scale = terms.frame, terms.frame.scale
    framed = [frame.put_all(level.accuracy) for level in pruned]
    gaps = gather(framed, step=terms.step, frame=frame, relative=terms.margin.relative)
    learned = has_learned(
        pruned[0].accuracy["dense"],
        pruned,
        constant=terms.constant,
        test_examples=test_examples,
        trained_enough=terms.trained_enough,
        scale=scale,
    )
    decision = decide(gaps, margin=terms.framed, alpha=terms.spending.alpha)
    judged = Judged(terms, gaps, decision, learned, len(pruned[0].accuracy["ticket"]))
    checks = tuple(_level_checks(level, judged, at) for at, level in enumerate(pruned))
    unpruned = tuple(LevelChecks.of_dense() for level in ordered if level.density == 1)
    claimed = tuple(level.density for level in checks if level.claimed)
    outcome: Outcome = "inconclusive"
    if learned.learned:
        outcome = "won" if claimed else decision.outcome()
    needed, fresh = _needed(judged, outcome)
    usual = terms.margin.typical(pruned[0].accuracy["dense"])
    return Verdict(
        outcome=outcome,
        density=min(claimed) if claimed else None,
        sentences=(),
        replicates_needed=needed,
        replicates_fresh=fresh,
        kind=_overall_kind(decision, checks, learned=learned.learned),
        claimed=claimed,
        levels=unpruned + checks,
        replicates=judged.replicates,
        margin_pp=terms.margin_pp,
        alpha=terms.alpha,
        margins=_margins(judged, checks),
        trained_enough=terms.trained_enough,
        learned=learned,
        spending=terms.spending,
        collapsed=_collapsed(ordered, margin=usual, scale=scale),
        collapse_limit=_collapse_limit(pruned, claimed, margin=usual, scale=scale),
        accuracy_step=terms.step,
        warnings=(),
        notes=(),
        scale=scale,
        relative=terms.margin.relative,
    )


def _needed(judged: Judged, outcome: Outcome) -> tuple[int | None, int | None]:
    """How many replicates would decide: at the next look at these networks, and at the first of a new experiment."""
    if outcome != "inconclusive" or not judged.learned.learned:
        return None, None
    terms = judged.terms
    needing = partial(replicates_to_decide, judged.differences, margin=terms.framed)
    needed = needing(alpha=share(terms.spending.look + 1) * terms.alpha)
    fresh = needing(alpha=share(1) * terms.alpha)
    return None if needed is None else max(needed, judged.replicates + 1), fresh


def _collapsed(ordered: list[Level], *, margin: float, scale: Scale) -> tuple[Collapse, ...]:
    """The collapsed replicates; the dense network's once, at density 1."""
    if ordered[0].density < 1:
        ordered = [Level(1.0, {"dense": ordered[0].accuracy["dense"]}), *ordered]
    return tuple(one for level in ordered for one in collapses(level, margin=margin, scale=scale))


def _collapse_limit(
    pruned: Sequence[Level], claimed: Sequence[float], *, margin: float, scale: Scale
) -> float | None:
    """The accuracy below which a ticket at the smallest density claimed counts as collapsed."""
    if not claimed:
        return None
    (smallest,) = (level for level in pruned if level.density == min(claimed))
    return collapse_limit(smallest.accuracy["ticket"], margin=margin, scale=scale)


def _accuracies(levels: Sequence[Level]) -> list[tuple[float | None, ...]]:
    return [values for level in levels for values in level.accuracy.values()]


def gather(
    accuracies: Sequence[ByArm], *, step: float, frame: Frame = ACCURACIES, relative: bool = False
) -> Differences:
    """The differences of every pruned level, densest first; an arm that was not run becomes NaN. Values are framed."""
    n = len(accuracies[0]["ticket"])

    def stack(arm: str, *, worst: bool) -> Array:
        missing = np.full(n, np.nan)
        return np.stack(
            [
                differences(level["ticket"], level[arm], worst_for_ours=worst, frame=frame)
                if arm in level
                else missing
                for level in accuracies
            ]
        )

    def dense(lost: float) -> Array | None:
        return np.stack([frame.measured(x["dense"], lost) for x in accuracies]) if relative else None

    references = ("dense", *CONTROLS)
    return Differences(
        worst={arm: stack(arm, worst=True) for arm in references},
        best={arm: stack(arm, worst=False) for arm in references},
        step=step,
        dense_worst=dense(frame.perfect),
        dense_best=dense(frame.worst),
    )


def _level_checks(level: Level, judged: Judged, at: int) -> LevelChecks:
    terms, decision = judged.terms, judged.decision
    each = terms.spending.alpha / 2
    against = partial(compare, alpha=terms.alpha, refute_level=each, step=terms.step)
    match = partial(against, reference="dense", test_level=each, relative=terms.margin.relative)
    frame, margin = terms.frame, terms.margin
    values = frame.put_all(level.accuracy)
    accuracy = match(values, null=-terms.framed, frame=frame)
    # What failed counts at that step as the values there say.
    stop = frame_of(frame.scale, level.accuracy_at_early_stop.values(), constant=terms.constant)
    at_stop = stop.put_all(level.accuracy_at_early_stop)
    control_level = float(decision.control_level)
    beats = {arm: against(values, arm, null=0.0, test_level=control_level, frame=frame) for arm in CONTROLS}
    time = time_check(level.early_stop_step, alpha=terms.alpha, grid=terms.grid)
    learned, refuted = judged.learned.learned, bool(decision.refuted[at])
    shown = bool(decision.claimed[at])
    earlier = judged.stands(level.density, margin_pp=terms.margin_pp, refuted=refuted)
    return LevelChecks(
        density=level.density,
        accuracy=accuracy,
        beats_reinit=beats["reinit"],
        beats_random=beats["random"],
        time=time if learned or time is None else replace(time, outcome=None),
        accuracy_at_early_stop=match(at_stop, null=-margin.framed(stop), frame=stop),
        refuted=refuted,
        matched=bool(decision.matched[at]),
        nontrivial=bool(decision.nontrivial[at]),
        claimed=learned and (shown or earlier),
        claimed_earlier=learned and earlier and not shown,
        kind=_kind(accuracy, beats),
    )


def _kind(accuracy: Check | None, beats: Mapping[str, Check | None]) -> Kind:
    """The kind of one level by its tests alone."""
    if accuracy is None or accuracy.replicates < MIN_REPLICATES:
        return "undecided"
    if not accuracy.passed:
        return "not matching" if accuracy.refuted else "undecided"
    return _kind_of_match({arm: None if check is None else check.passed for arm, check in beats.items()})


def _kind_of_match(beaten: Mapping[str, bool | None]) -> Kind:
    if beaten["reinit"] and beaten["random"]:
        return "winning ticket"
    if None in beaten.values():
        return "matching, controls missing"
    if beaten["random"]:
        return "winning structure"
    return "matching" if beaten["reinit"] else "matching, trivially sparse"


def _overall_kind(decision: Decision, pruned: Sequence[LevelChecks], *, learned: bool) -> Kind:
    """The strongest kind that is claimed over all densities."""
    accuracy = pruned[0].accuracy
    if not learned or accuracy is None or accuracy.replicates < MIN_REPLICATES:
        return "undecided"
    if any(checks.claimed for checks in pruned):
        return "winning ticket"
    if any(
        shown and checks.beats_reinit is not None
        for shown, checks in zip(decision.structure, pruned, strict=True)
    ):
        return "winning structure"
    matched = [checks for checks in pruned if checks.matched]
    if not matched:
        return pruned[0].kind
    # Neither kind of win is claimed over all densities, so a win by single tests is not claimed either.
    last = matched[-1].kind
    return "matching" if last in ("winning ticket", "winning structure") else last


def _margins(judged: Judged, pruned: Sequence[LevelChecks]) -> Margins:
    densities = [checks.density for checks in pruned]
    terms = judged.terms
    points = terms.frame.scale.unit == "%" or terms.margin.relative
    others = MARGINS_PP if points else [float(f"{times * terms.margin_pp:.6g}") for times in MARGINS]
    curve = tuple(_margin_point(judged, densities, pp) for pp in sorted({*others, terms.margin_pp}))
    by_level = [checks.accuracy.smallest_margin_pp if checks.accuracy else None for checks in pruned]
    # Whether a ticket is non-trivial does not depend on the margin; matching down to the densest such level does.
    smallest: float | None = None
    if judged.learned.learned and judged.decision.nontrivial.any():
        path = by_level[: int(np.argmax(judged.decision.nontrivial)) + 1]
        known = [pp for pp in path if pp is not None]
        smallest = max(known) if len(known) == len(path) else None
    won = [point.margin_pp for point in curve if point.outcome == "won"]
    if won and (smallest is None or min(won) < smallest):
        smallest = min(won)  # what an earlier look claimed holds at its margin and above
    return Margins(curve, smallest, tuple(zip(densities, by_level, strict=True)))


def _margin_point(judged: Judged, densities: Sequence[float], margin_pp: float) -> MarginPoint:
    """What the verdict would have been at this margin."""
    terms = judged.terms
    margin = Margin.of(margin_pp, terms.frame.scale, relative=terms.margin.relative).framed(terms.frame)
    at = decide(judged.differences, margin=margin, alpha=terms.spending.alpha)
    learned = judged.learned.learned
    won = [
        density
        for density, shown, refuted in zip(densities, at.claimed, at.refuted, strict=True)
        if learned and (shown or judged.stands(density, margin_pp=margin_pp, refuted=bool(refuted)))
    ]
    outcome: Outcome = "won" if won else at.outcome() if learned else "inconclusive"
    return MarginPoint(margin_pp, outcome, min(won) if won else None)
