"""The verdict: is there a winning ticket, down to which density, and how sure is that?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

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
from winticket.judge.gate import require_margin_and_alpha
from winticket.judge.reason import explain, warn
from winticket.judge.record import Kind, LevelChecks, MarginPoint, Margins, Verdict
from winticket.judge.sequences import Decision, Evidence, decide, replicates_to_decide
from winticket.judge.statistics import Array

MARGINS_PP = (0.1, 0.2, 0.5, 1.0)
ARMS = ("dense", "ticket", *CONTROLS)


def judge(
    levels: Sequence[Level],
    *,
    margin_pp: float = 0.5,
    alpha: float = 0.05,
    trained_enough: TrainedEnough | None = None,
    grid: int | None = None,
    arms_expected: Collection[str] = ("dense", "ticket"),
) -> Verdict:
    """Judge an experiment: won, not won or inconclusive, at a family-wise error of at most `alpha`.

    Won: some density where the ticket is not inferior to the dense network by `margin_pp` percentage points
    and is superior to both its re-initialised twin and the layer-matched random mask; `density` is the
    smallest one. Not won: the data refute this at every pruned density. Inconclusive: anything else, and
    always under 5 replicates. `decide` has the procedure, `differences` how failed runs count.
    `replicates_needed` assumes that the estimates are the truth, with 80 % power for each check at one-sided
    alpha/2.

    grid: steps between evaluations, the resolution of the early-stop steps. arms_expected: arms every pruned
    level must have (more than "dense" and "ticket" where controls were planned); without a control no ticket
    can be won.

    Raises ValueError for unusable input, naming the level and the arm.
    """
    require_margin_and_alpha(margin_pp, alpha)
    if grid is not None and grid < 1:
        raise ValueError(
            f"evaluation grid of {grid} steps; give the number of steps between evaluations, 1 or more"
        )
    ordered = _checked(levels, arms_expected)
    pruned = [level for level in ordered if level.density < 1]
    replicates = len(pruned[0].accuracy["ticket"])
    evidence = gather([level.accuracy for level in pruned])
    decision = decide(evidence, margin=margin_pp / 100, alpha=alpha)
    checks = tuple(
        _level_checks(level, decision, at, margin_pp=margin_pp, alpha=alpha, grid=grid)
        for at, level in enumerate(pruned)
    )
    unpruned = tuple(LevelChecks.of_dense() for level in ordered if level.density == 1)
    outcome = decision.outcome()
    needed = None
    if outcome == "inconclusive":
        needed = replicates_to_decide(evidence, margin=margin_pp / 100, alpha=alpha)
    claimed = tuple(level.density for level, won in zip(pruned, decision.claimed, strict=True) if won)
    verdict = Verdict(
        outcome=outcome,
        density=min(claimed) if claimed else None,
        reason="",
        replicates_needed=needed,
        kind=_overall_kind(decision, checks, replicates),
        claimed=claimed,
        levels=unpruned + checks,
        replicates=replicates,
        margin_pp=margin_pp,
        alpha=alpha,
        margins=_margins(evidence, decision, checks, margin_pp=margin_pp, alpha=alpha),
        trained_enough=trained_enough,
        warnings=(),
    )
    return replace(verdict, reason=explain(verdict), warnings=warn(verdict))


def gather(accuracies: Sequence[Runs]) -> Evidence:
    """Differences of every pruned level, densest first; arms that were not run become NaN."""
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
    )


def _level_checks(
    level: Level, decision: Decision, at: int, *, margin_pp: float, alpha: float, grid: int | None
) -> LevelChecks:
    margin = margin_pp / 100
    accuracy = compare(level.accuracy, "dense", null=-margin, alpha=alpha)
    beats = {arm: compare(level.accuracy, arm, null=0.0, alpha=alpha) for arm in CONTROLS}
    return LevelChecks(
        density=level.density,
        accuracy=accuracy,
        beats_reinit=beats["reinit"],
        beats_random=beats["random"],
        time=time_check(level.early_stop_step, alpha=alpha, grid=grid),
        accuracy_at_early_stop=compare(level.accuracy_at_early_stop, "dense", null=-margin, alpha=alpha),
        refuted=bool(decision.refuted[at]),
        matched=bool(decision.matched[at]),
        nontrivial=bool(decision.nontrivial[at]),
        claimed=bool(decision.claimed[at]),
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


def _overall_kind(decision: Decision, pruned: Sequence[LevelChecks], replicates: int) -> Kind:
    """What the sequences claim: the strongest kind reached at any density."""
    if replicates < MIN_REPLICATES:
        return "undecided"
    if decision.claimed.any():
        return "winning ticket"
    if any(
        shown and checks.beats_reinit is not None
        for shown, checks in zip(decision.structure, pruned, strict=True)
    ):
        return "winning structure"
    matched = [checks for checks in pruned if checks.matched]
    if not matched:
        return pruned[0].kind
    # The sequences claim neither kind of win, so what single tests found beyond them is not claimed either.
    last = matched[-1].kind
    return "matching" if last in ("winning ticket", "winning structure") else last


def _margins(
    evidence: Evidence, decision: Decision, pruned: Sequence[LevelChecks], *, margin_pp: float, alpha: float
) -> Margins:
    densities = [checks.density for checks in pruned]
    curve = []
    for pp in sorted({*MARGINS_PP, margin_pp}):
        at = decide(evidence, margin=pp / 100, alpha=alpha)
        won = [density for density, claimed in zip(densities, at.claimed, strict=True) if claimed]
        curve.append(MarginPoint(pp, at.outcome(), min(won) if won else None))
    by_level = [checks.accuracy.smallest_margin_pp if checks.accuracy else None for checks in pruned]
    # Being non-trivial does not depend on the margin; the way down to the densest such level does.
    smallest: float | None = None
    if decision.nontrivial.any():
        way = by_level[: int(np.argmax(decision.nontrivial)) + 1]
        known = [pp for pp in way if pp is not None]
        smallest = max(known) if len(known) == len(way) else None
    return Margins(tuple(curve), smallest, tuple(zip(densities, by_level, strict=True)))


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
    for what in ("accuracy", "accuracy_at_early_stop", "early_stop_step"):
        runs: Runs = getattr(level, what)
        for arm, values in runs.items():
            if arm not in ARMS:
                raise ValueError(f"{where}: unknown arm {arm!r} in {what}; the arms are {', '.join(ARMS)}")
            if len(values) != replicates:
                raise ValueError(
                    f"{where}: {what} of arm {arm} has {len(values)} values for {replicates} replicates; "
                    "runs are paired by position, and a failed one is None"
                )
            top = math.inf if what == "early_stop_step" else 1.0
            for value in values:
                if value is not None and not (math.isfinite(value) and 0 <= value <= top):
                    raise ValueError(
                        f"{where}: {what} of arm {arm} holds {value}; accuracies are fractions from 0 to 1, "
                        "steps are 0 or more, and a failed run is None"
                    )
