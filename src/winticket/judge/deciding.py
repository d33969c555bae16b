"""The verdict by the tests of all levels, without its words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from winticket.judge.checks import Level
from winticket.judge.collapse import Collapse, collapse_limit, collapses
from winticket.judge.gathered import gather
from winticket.judge.learned import has_learned
from winticket.judge.level_checks import level_checks, overall_kind
from winticket.judge.looks import share
from winticket.judge.margins import margins_of
from winticket.judge.record import LevelChecks, Verdict
from winticket.judge.sequences import Outcome, decide, replicates_to_decide
from winticket.judge.terms import Judged, Terms
from winticket.objective import Scale


def verdict_of(ordered: list[Level], terms: Terms, *, test_examples: int | None) -> Verdict:
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
    checks = tuple(level_checks(level, judged, at) for at, level in enumerate(pruned))
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
        kind=overall_kind(decision, checks, learned=learned.learned),
        claimed=claimed,
        levels=unpruned + checks,
        replicates=judged.replicates,
        margin_pp=terms.margin_pp,
        alpha=terms.alpha,
        margins=margins_of(judged, checks),
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
