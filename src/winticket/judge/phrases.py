"""A difference, and a list of densities, in the words of a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from winticket.judge.checks import Check
from winticket.judge.crosschecks import percent
from winticket.judge.record import LevelChecks, Verdict
from winticket.judge.words import Words, confidence


def difference(check: Check | None, *, bound: bool = True) -> str:
    """+0.04 pp, above -0.55 with 97.8 % confidence: the bound is the test's, so it lies where the test decides."""
    if check is None:
        return "not run"
    if check.estimate is None:
        return "unknown: no replicate finished both trainings"
    failed = sum(check.failed.values())
    words, estimate, low = Words(check.scale), check.estimate, check.bound
    if check.relative is not None and check.relative.estimate is not None and check.reference == "dense":
        words, estimate, low = (
            Words(check.scale, relative=True),
            check.relative.estimate,
            check.relative.bound,
        )
    text = words.difference(estimate)
    if bound and low is not None:
        text += f", {words.low(low)} with {confidence(check.test_level)} confidence"
    return text + (f", {failed} failed" if failed else "")


def against_dense(check: Check | None, verdict: Verdict) -> str:
    """difference +0.04 pp, above -0.55 with 97.8 % confidence; limit -0.5."""
    return f"difference {difference(check)}; limit {verdict.words.limit(verdict.margin_pp)}"


def listed(densities: Sequence[float], verdict: Verdict) -> str:
    """The densities; three or more neighbouring levels become a range: 80.2 to 33.3 % and 17.3 %."""
    order = sorted((level.density for level in verdict.levels), reverse=True)
    ranges: list[list[float]] = []
    for density in sorted(densities, reverse=True):
        if ranges and order.index(density) == order.index(ranges[-1][-1]) + 1:
            ranges[-1].append(density)
        else:
            ranges.append([density])
    *parts, last = (
        part
        for each in ranges
        for part in (
            map(percent, each)
            if len(each) < 3
            else [f"{percent(each[0]).removesuffix(' %')} to {percent(each[-1])}"]
        )
    )
    return f"{', '.join(parts)} and {last}" if parts else last


def pruned_levels(verdict: Verdict) -> list[LevelChecks]:
    """The levels below a density of 1."""
    return [level for level in verdict.levels if level.density < 1]
