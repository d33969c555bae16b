"""The verdict: is there a winning ticket, down to which density, and how sure is that?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from winticket.judge.checks import (
    CONTROLS,
    MIN_REPLICATES,
    Check,
    Level,
    Runs,
    TrainedEnough,
    compare,
    differences,
    time_check,
)
from winticket.judge.coarse import accuracy_step
from winticket.judge.collapse import collapse_limit, collapses
from winticket.judge.gate import require_margin_and_alpha
from winticket.judge.learned import has_learned
from winticket.judge.looks import Look, Spending, share, spending
from winticket.judge.reason import explain, notes, warn
from winticket.judge.record import Kind, LevelChecks, MarginPoint, Margins, Verdict
from winticket.judge.sequences import Decision, Evidence, Outcome, decide, replicates_to_decide
from winticket.judge.statistics import Array

MARGINS_PP = (0.1, 0.2, 0.5, 1.0)
ARMS = ("dense", "ticket", *CONTROLS)
_RANGES = {
    "accuracy": (0.0, 1.0),
    "accuracy_at_early_stop": (0.0, 1.0),
    "early_stop_step": (0.0, math.inf),
    "train_loss": (-math.inf, math.inf),
}


def judge(
    levels: Sequence[Level],
    *,
    margin_pp: float = 0.5,
    alpha: float = 0.05,
    trained_enough: TrainedEnough | None = None,
    grid: int | None = None,
    arms_expected: Collection[str] = ("dense", "ticket"),
    test_examples: int | None = None,
    commonest: float | None = None,
    looks: Sequence[Look] = (),
) -> Verdict:
    """Judge an experiment: won, not won or inconclusive, at a family-wise error of at most `alpha`.

    Won: some density where the ticket is not inferior to the dense network by `margin_pp` percentage points
    and is superior to both its re-initialised twin and the layer-matched random mask; `density` is the
    smallest one. Not won: the data refute this at every pruned density. Inconclusive: anything else, always
    under 5 replicates, and whenever the dense network did not learn (`has_learned`). `decide` has the procedure,
    `differences` how failed runs count. `replicates_needed` assumes that the estimates are the truth, with 80 % power
    for all checks together.

    grid: steps between evaluations, the resolution of the early-stop steps. arms_expected: arms every pruned
    level must have (more than "dense" and "ticket" where controls were planned); without a control no ticket
    can be won. test_examples: answers that an accuracy is the mean of, whose step is the least sd to assume
    (default: read off the accuracies). commonest: accuracy of always answering the commonest class of the
    test data, for the gate. looks: earlier verdicts on the same networks, each of which has spent a part of `alpha`
    (`winticket.judge.looks.share`).

    Raises ValueError for unusable input, naming the level and the arm.
    """
    require_margin_and_alpha(margin_pp, alpha)
    _check_numbers(grid, test_examples, commonest)
    ordered = _checked(levels, arms_expected)
    pruned = [level for level in ordered if level.density < 1]
    replicates = len(pruned[0].accuracy["ticket"])
    now = spending(tuple(looks), alpha=alpha)
    step = accuracy_step(_accuracies(ordered), test_examples=test_examples)
    evidence = gather([level.accuracy for level in pruned], step=step)
    decision = decide(evidence, margin=margin_pp / 100, alpha=now.alpha)
    learned = has_learned(
        pruned[0].accuracy["dense"],
        pruned,
        commonest=commonest,
        test_examples=test_examples,
        trained_enough=trained_enough,
    )
    judged = Judged(decision, now, margin_pp, alpha, step, learned.learned, replicates)
    checks = tuple(_level_checks(level, judged, at, grid=grid) for at, level in enumerate(pruned))
    unpruned = tuple(LevelChecks.of_dense() for level in ordered if level.density == 1)
    claimed = tuple(level.density for level in checks if level.claimed)
    outcome: Outcome = "inconclusive"
    if learned.learned:
        outcome = "won" if claimed else decision.outcome()
    needed, fresh = None, None
    if outcome == "inconclusive" and learned.learned:
        needing = partial(replicates_to_decide, evidence, margin=margin_pp / 100)
        needed, fresh = needing(alpha=share(now.look + 1) * alpha), needing(alpha=share(1) * alpha)
        if needed is not None:
            needed = max(needed, replicates + 1)
    verdict = Verdict(
        outcome=outcome,
        density=min(claimed) if claimed else None,
        sentences=(),
        replicates_needed=needed,
        replicates_fresh=fresh,
        kind=_overall_kind(decision, checks, learned=learned.learned),
        claimed=claimed,
        levels=unpruned + checks,
        replicates=replicates,
        margin_pp=margin_pp,
        alpha=alpha,
        margins=_margins(evidence, judged, checks),
        trained_enough=trained_enough,
        learned=learned,
        spending=now,
        collapsed=tuple(
            one for level in _with_dense(ordered) for one in collapses(level, margin=margin_pp / 100)
        ),
        collapse_limit=next(
            (
                collapse_limit(level.accuracy["ticket"], margin=margin_pp / 100)
                for level in pruned
                if claimed and level.density == min(claimed)
            ),
            None,
        ),
        accuracy_step=step,
        warnings=(),
        notes=(),
    )
    return replace(verdict, sentences=explain(verdict), warnings=warn(verdict), notes=notes(verdict))


@dataclass(frozen=True)
class Judged:
    """What every level of one experiment is judged by."""

    decision: Decision
    now: Spending
    margin_pp: float
    alpha: float
    step: float
    learned: bool
    replicates: int

    def stands(self, density: float, *, margin_pp: float, refuted: bool) -> bool:
        """Whether what an earlier look claimed at `density` holds at this margin, since this look does not refute it.

        Fewer than five replicates claim nothing, whatever was claimed before.
        """
        return (
            self.replicates >= MIN_REPLICATES
            and not refuted
            and any(look.shows(density, margin_pp=margin_pp, alpha=self.alpha) for look in self.now.earlier)
        )


def _with_dense(ordered: list[Level]) -> list[Level]:
    """The levels with one of density 1, where the dense network stands once for all of them."""
    if ordered[0].density == 1:
        return ordered
    return [Level(1.0, {"dense": ordered[0].accuracy["dense"]}), *ordered]


def _accuracies(levels: Sequence[Level]) -> list[tuple[float | None, ...]]:
    return [values for level in levels for values in level.accuracy.values()]


def gather(accuracies: Sequence[Runs], *, step: float = 0.0) -> Evidence:
    """Differences of every pruned level, densest first; arms that were not run become NaN.

    step: between two possible accuracies.
    """
    n = len(accuracies[0]["ticket"])

    def stack(arm: str, *, worst: bool) -> Array:
        missing = np.full(n, np.nan)
        return np.stack(
            [
                differences(runs["ticket"], runs[arm], worst_for_ours=worst) if arm in runs else missing
                for runs in accuracies
            ]
        )

    references = ("dense", *CONTROLS)
    return Evidence(
        worst={arm: stack(arm, worst=True) for arm in references},
        best={arm: stack(arm, worst=False) for arm in references},
        step=step,
    )


def _level_checks(level: Level, judged: Judged, at: int, *, grid: int | None) -> LevelChecks:
    decision, margin = judged.decision, judged.margin_pp / 100
    each = judged.now.alpha / 2
    against = partial(compare, alpha=judged.alpha, refute_level=each, step=judged.step)
    accuracy = against(level.accuracy, "dense", null=-margin, test_level=each)
    beats = {
        arm: against(level.accuracy, arm, null=0.0, test_level=float(decision.control_level))
        for arm in CONTROLS
    }
    time = time_check(level.early_stop_step, alpha=judged.alpha, grid=grid)
    refuted = bool(decision.refuted[at])
    shown = bool(decision.claimed[at])
    earlier = judged.stands(level.density, margin_pp=judged.margin_pp, refuted=refuted)
    return LevelChecks(
        density=level.density,
        accuracy=accuracy,
        beats_reinit=beats["reinit"],
        beats_random=beats["random"],
        time=time if judged.learned or time is None else replace(time, outcome=None),
        accuracy_at_early_stop=against(level.accuracy_at_early_stop, "dense", null=-margin, test_level=each),
        refuted=refuted,
        matched=bool(decision.matched[at]),
        nontrivial=bool(decision.nontrivial[at]),
        claimed=judged.learned and (shown or earlier),
        claimed_earlier=judged.learned and earlier and not shown,
        kind=_kind(accuracy, beats),
    )


def _kind(accuracy: Check | None, beats: Mapping[str, Check | None]) -> Kind:
    """What one level's tests, taken alone, make of it."""
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
    """What is claimed over all densities: the strongest kind reached at any of them."""
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
    # Neither kind of win is claimed over all densities, so what single tests show is not claimed either.
    last = matched[-1].kind
    return "matching" if last in ("winning ticket", "winning structure") else last


def _margins(evidence: Evidence, judged: Judged, pruned: Sequence[LevelChecks]) -> Margins:
    densities = [checks.density for checks in pruned]
    curve = []
    for pp in sorted({*MARGINS_PP, judged.margin_pp}):
        at = decide(evidence, margin=pp / 100, alpha=judged.now.alpha)
        won = [
            density
            for density, shown, refuted in zip(densities, at.claimed, at.refuted, strict=True)
            if judged.learned and (shown or judged.stands(density, margin_pp=pp, refuted=bool(refuted)))
        ]
        outcome: Outcome = "won" if won else at.outcome() if judged.learned else "inconclusive"
        curve.append(MarginPoint(pp, outcome, min(won) if won else None))
    by_level = [checks.accuracy.smallest_margin_pp if checks.accuracy else None for checks in pruned]
    # Being non-trivial does not depend on the margin; the way down to the densest such level does.
    smallest: float | None = None
    if judged.learned and judged.decision.nontrivial.any():
        way = by_level[: int(np.argmax(judged.decision.nontrivial)) + 1]
        known = [pp for pp in way if pp is not None]
        smallest = max(known) if len(known) == len(way) else None
    earlier = [point.margin_pp for point in curve if point.outcome == "won"]
    if earlier and (smallest is None or min(earlier) < smallest):
        smallest = min(earlier)  # what an earlier look claimed stands at its margin and above
    return Margins(tuple(curve), smallest, tuple(zip(densities, by_level, strict=True)))


def _check_numbers(grid: int | None, test_examples: int | None, commonest: float | None) -> None:
    if grid is not None and grid < 1:
        raise ValueError(
            f"evaluation grid of {grid} steps; give the number of steps between evaluations, 1 or more"
        )
    if test_examples is not None and test_examples < 1:
        raise ValueError(f"{test_examples} test examples; give how many answers an accuracy is the mean of")
    if commonest is not None and not 0 < commonest <= 1:
        raise ValueError(
            f"the commonest class's rate is {commonest}; give a fraction above 0, as 0.1 for ten equal classes"
        )


def _checked(levels: Sequence[Level], expected: Collection[str]) -> list[Level]:
    """The levels from the densest to the sparsest, or a ValueError that says what is wrong with them."""
    if unknown := set(expected) - set(ARMS):
        raise ValueError(
            f"unknown arms expected: {', '.join(sorted(unknown))}; the arms are {', '.join(ARMS)}"
        )
    ordered = sorted(levels, key=lambda level: -level.density)
    for level in ordered:
        if not 0 < level.density <= 1:
            raise ValueError(f"density {level.density} is not in (0, 1]; density is kept / eligible weights")
    for dense_side, sparse_side in itertools.pairwise(ordered):
        if dense_side.density == sparse_side.density:
            raise ValueError(f"density {dense_side.density} is given twice; give one level per density")
    pruned = [level for level in ordered if level.density < 1]
    if not pruned:
        raise ValueError(f"{len(levels)} levels and none of density below 1; a verdict needs a pruned level")
    for level in pruned:
        missing = [arm for arm in ARMS if arm in {"dense", "ticket", *expected} and arm not in level.accuracy]
        if missing:
            raise ValueError(
                f"level of density {level.density} has no arm {' or '.join(missing)}; "
                f"it has {', '.join(level.accuracy) or 'none'}"
            )
    replicates = len(pruned[0].accuracy["ticket"])
    if replicates == 0:
        raise ValueError("no replicates; give at least one, and 5 or more for a verdict that can be decided")
    for level in ordered:
        _check_values(level, replicates)
    return ordered


def _check_values(level: Level, replicates: int) -> None:
    where = f"level of density {level.density}"
    for what in ("accuracy", "accuracy_at_early_stop", "early_stop_step", "train_loss"):
        runs: Runs = getattr(level, what)
        for arm, values in runs.items():
            if arm not in ARMS:
                raise ValueError(f"{where}: unknown arm {arm!r} in {what}; the arms are {', '.join(ARMS)}")
            if len(values) != replicates:
                raise ValueError(
                    f"{where}: {what} of arm {arm} has {len(values)} values for {replicates} replicates; "
                    "runs are paired by position, and a failed one is None"
                )
            low, top = _RANGES[what]
            for value in values:
                if value is not None and not (math.isfinite(value) and low <= value <= top):
                    raise ValueError(
                        f"{where}: {what} of arm {arm} holds {value}; accuracies are fractions from 0 to 1, "
                        "steps are 0 or more, losses finite, and a failed run is None"
                    )
