"""What the tests of a level show, and of what kind its ticket is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from winticket.judge.checks import CONTROLS, MIN_REPLICATES, Check, Level, compare
from winticket.judge.frame import frame_of
from winticket.judge.record import Kind, LevelChecks
from winticket.judge.sequences import Decision
from winticket.judge.terms import Judged
from winticket.judge.timing import time_check


def level_checks(level: Level, judged: Judged, at: int) -> LevelChecks:
    """The checks of a pruned level, which is at that position among the pruned ones."""
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


def overall_kind(decision: Decision, pruned: Sequence[LevelChecks], *, learned: bool) -> Kind:
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
