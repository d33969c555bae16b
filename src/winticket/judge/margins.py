"""What the verdict would be at other margins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winticket.judge.frame import Margin
from winticket.judge.record import LevelChecks, MarginPoint, Margins
from winticket.judge.sequences import Outcome, decide
from winticket.judge.terms import Judged

MARGINS_PP = (0.1, 0.2, 0.5, 1.0)
"""The other margins, for accuracies and shares."""
MARGINS = (0.2, 0.4, 1.0, 2.0)
"""The same as multiples of the usual margin, for metrics with a unit of their own."""


def margins_of(judged: Judged, pruned: Sequence[LevelChecks]) -> Margins:
    """The verdict at every margin, and the smallest margin at which it would be won."""
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
