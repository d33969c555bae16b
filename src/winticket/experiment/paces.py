"""Pace: the steps to an accuracy, read from learning curves, as the result document reports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from winticket import judge
from winticket.objective import ACCURACY, Scale
from winticket.results import PaceCheck, StepsTo
from winticket.ticket import Curve

if TYPE_CHECKING:
    from winticket.judge import Pace

Curves = Sequence[Curve | None]
"""One arm's learning curves by replicate; None if the training failed."""


def of_level(
    arms: Mapping[str, Curves],
    dense: Curves,
    *,
    alpha: float,
    learned: bool = True,
    scale: Scale = ACCURACY,
    constant: float | None = None,
) -> tuple[dict[str, dict[str, StepsTo]], PaceCheck | None]:
    """Every arm's `steps_to` at a level, by target ("0.9", ...), and the level's check `pace`, which judges the ticket.

    `dense` are the dense network's curves. The target of a replicate is a share of the final accuracy of its dense
    network; for another metric than accuracy, of the way from `constant`, the value that the best constant answer
    reaches. The check is None if the level has no ticket. If the dense network has not `learned`, its accuracy is no
    goal, so no arm is called sooner or later.
    """
    goals = _goals(dense, scale, constant)
    theirs = _paces(dense, dense, goals, scale, alpha=alpha, itself=True)
    by_arm = {
        arm: _paces(curves, dense, goals, scale, alpha=alpha, itself=arm == "dense")
        for arm, curves in arms.items()
    }
    if not learned:
        by_arm = {arm: [replace(pace, outcome=None) for pace in targets] for arm, targets in by_arm.items()}
    steps_to = {
        arm: {f"{pace.fraction:g}": pace.as_json() for pace in by_target} for arm, by_target in by_arm.items()
    }
    if "ticket" not in by_arm:
        return steps_to, None
    at = judge.FRACTIONS.index(judge.JUDGED_FRACTION)
    return steps_to, _check(by_arm["ticket"][at], theirs[at], (arms["ticket"], dense))


def _goals(dense: Curves, scale: Scale, constant: float | None) -> dict[float, list[float | None]]:
    """The value to be reached by replicate, by fraction; None if there is no such value."""
    ends = [None if curve is None else curve.last()["pace_accuracy"] for curve in dense]
    return {
        fraction: [
            None if end is None else judge.target(end, fraction, scale=scale, constant=constant)
            for end in ends
        ]
        for fraction in judge.FRACTIONS
    }


def _paces(
    curves: Curves,
    dense: Curves,
    goals: Mapping[float, Sequence[float | None]],
    scale: Scale,
    *,
    alpha: float,
    itself: bool,
) -> list[Pace]:
    """The pace of an arm at every target."""
    by_target = []
    for fraction, targets in goals.items():
        theirs = _steps(dense, targets, scale)
        by_target.append(
            judge.pace_against_dense(
                theirs if itself else _steps(curves, targets, scale),
                theirs,
                fraction=fraction,
                alpha=alpha,
                has_target=[target is not None for target in targets],
                itself=itself,
            )
        )
    return by_target


def _check(ticket: Pace, dense: Pace, curves: Sequence[Curves]) -> PaceCheck:
    """The ticket's pace at the judged target, and its resolution; `curves` are the ticket's and the dense network's."""
    late = [
        gap
        for pace, runs in zip((ticket, dense), curves, strict=True)
        for step, curve in zip(pace.steps, runs, strict=True)
        if step is not None and curve is not None and (gap := _gap(curve, step)) is not None
    ]
    known = (
        f"steps are read from the evaluation grid, so they are late by less than {max(late)}"
        if late
        else "no step was read"
    )
    return {
        "fraction": ticket.fraction,
        "outcome": ticket.outcome,
        "ratio": ticket.ratio,
        "ratio_ci": None if ticket.ratio_ci is None else list(ticket.ratio_ci),
        "median": {"ticket": ticket.median, "dense": dense.median},
        "never": {"ticket": ticket.never, "dense": dense.never},
        "p_sooner": ticket.p_sooner,
        "p_later": ticket.p_later,
        "ties": ticket.ties,
        "gap": max(late, default=None),
        "resolution": known,
    }


def _steps(curves: Curves, targets: Sequence[float | None], scale: Scale) -> tuple[int | None, ...]:
    return tuple(
        None if curve is None or target is None else _first(curve, target, scale)
        for curve, target in zip(curves, targets, strict=True)
    )


def _first(curve: Curve, target: float, scale: Scale) -> int | None:
    if scale == ACCURACY:
        return curve.steps_to(target)
    return judge.first_step(curve.step.tolist(), curve.pace_accuracy.tolist(), target, scale=scale)


def _gap(curve: Curve, step: int) -> int | None:
    """Steps from the previous grid point to `step`; None if `step` is the first point."""
    before = curve.step[curve.step < step]
    return step - int(before[-1]) if len(before) else None
