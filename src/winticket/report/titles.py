"""What each figure shows, in one sentence made from the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill

from winticket.report.reading import (
    check_of,
    claimed,
    dense_arm,
    density_percent,
    has_won,
    is_in,
    paired_difference,
    passed,
    pruned_levels,
    question_of,
    time_outcome,
    too_few,
    unlearned,
    won_at,
)
from winticket.results import Document, Level
from winticket.table import Table


def headline(document: Document) -> str:
    """The verdict in one short sentence."""
    if (density := won_at(document)) is not None:
        return f"Won: a ticket with {density_percent(density)} of the weights"
    if document["verdict"]["outcome"] == "not won":
        tried = pruned_levels(document)
        if len(tried) == 1:
            return f"Not won at {density_percent(tried[0]['density'])}, the only density tried"
        return f"Not won: none of the {len(tried)} densities tried holds a winning ticket"
    if too_few(document):
        count = question_of(document).get("replicates")
        number = "1 replicate is" if count == 1 else f"{count} replicates are"
        return f"Inconclusive: {number} too few to decide, whatever the numbers"
    if unlearned(document):
        return "Inconclusive: the dense network did not learn"
    return "Inconclusive: a winning ticket was neither shown nor ruled out"


def not_won_at(document: Document) -> list[str]:
    """Of a won experiment, the densities at which no win was shown, with the reason: a sentence for each reason."""
    if not has_won(document):
        return []
    won, reasons = claimed(document), dict[str, list[int]]()
    tried = pruned_levels(document)
    for at, level in enumerate(tried):
        if not is_in(level["density"], won):
            reasons.setdefault(_why_not_won(document, level), []).append(at)
    densities = [level["density"] for level in tried]
    return [f"No win at {_stretches(densities, where)}: {why}." for why, where in reasons.items()]


def _why_not_won(document: Document, level: Level) -> str:
    """What a level lacks of a win."""
    beaten = [passed(level, "beats_reinit"), passed(level, "beats_random")]
    beats = all(beaten)
    if level["checks"].get("matched", passed(level, "accuracy")):
        control = "a control is missing" if None in beaten else "it is not shown to beat both controls"
        return f"the ticket matches the dense network there, but {control}"
    if passed(level, "accuracy"):
        return "the ticket passes the test against the dense network there, but a denser level does not"
    margin = question_of(document).get("margin_pp")
    within = "" if margin is None else f" within {margin:g} pp"
    missed = f"is not shown to match the dense network{within}"
    check = check_of(level, "accuracy")
    if check is not None and check.get("refuted"):
        by = "" if margin is None else f"more than {margin:g} pp "
        missed = f"is shown to be {by}worse than the dense network"
    return f"the ticket beats both controls there, but {missed}" if beats else f"the ticket {missed} there"


def _stretches(densities: Sequence[float], where: Sequence[int]) -> str:
    """Some of the densities, three neighbours or more as a range: 80.2 to 33.3 %, 17.3 %."""
    runs: list[list[int]] = []
    for at in where:
        if runs and runs[-1][-1] == at - 1:
            runs[-1].append(at)
        else:
            runs.append([at])
    named = [[density_percent(densities[at]) for at in run] for run in runs]
    return ", ".join(
        part
        for run in named
        for part in (run if len(run) < 3 else [f"{run[0].removesuffix(' %')} to {run[-1]}"])
    )


def accuracy_title(document: Document, *, width: int = 72) -> str:
    """The accuracy figure's finding: the verdict where won, otherwise where the ticket stands at its best."""
    margin = question_of(document).get("margin_pp")
    within = "" if margin is None else f" within {margin:g} pp"
    if (won := won_at(document)) is not None:
        controls = _controls(document)
        beaten = f" and beats {' and '.join(controls)} there" if controls else ""
        down = density_percent(won)
        return lines(f"The ticket matches the dense network{within} down to {down}{beaten}", width)
    if unlearned(document):
        return lines("The dense network did not learn, so differences to it show nothing", width)
    dense = dense_arm(document)
    gaps = [
        (paired_difference(level, "ticket", dense), level["density"]) for level in pruned_levels(document)
    ]
    known = [(gap, density) for gap, density in gaps if gap is not None]
    if not known:
        return "Test accuracy against density"
    gap, density = known[-1]
    start = "No verified winning ticket" if document["verdict"]["outcome"] == "not won" else "Not decided yet"
    return lines(f"{start}: at {density_percent(density)} the ticket is {_gap(gap)} the dense network", width)


def early_stop_title(document: Document, *, width: int = 72) -> str:
    """The early-stop figure's finding: where the ticket learns faster than the dense network."""
    faster = [level["density"] for level in pruned_levels(document) if time_outcome(level) == "faster"]
    slower = [level["density"] for level in pruned_levels(document) if time_outcome(level) == "slower"]
    if faster:
        words = f"The ticket reaches its early stop sooner than the dense network {span(faster)}"
        return lines(
            words + (f", and later from {density_percent(max(slower))} down" if slower else ""), width
        )
    if slower:
        return lines(f"The ticket reaches its early stop later than the dense network {span(slower)}", width)
    return "The ticket is about as fast as the dense network, or the runs cannot tell"


def learning_title(document: Document, table: Table, shown: Sequence[float], *, width: int = 100) -> str:
    """The learning curves' finding: the last step's gap between ticket and re-initialisation."""
    for density in sorted(shown, key=lambda d: abs(d - (document["verdict"].get("density") or 0.0))):
        last = [
            table.where(arm=arm, density=density).column("validation_accuracy")[-1:]
            for arm in ("ticket", "reinit")
        ]
        if all(last):
            gap = 100 * (float(last[0][0] or 0) - float(last[1][0] or 0))
            start = f"At {density_percent(density)} of the weights the ticket ends"
            words = f"{start} {_gap(gap)} the same mask re-initialised, on validation data"
            return lines(words, width)
    return "Learning curves of the tickets and the dense network"


def lines(text: str, width: int) -> str:
    """Broken into lines, never between a number and its unit."""
    return fill(re.sub(r"(\d) (%|pp)", "\\1\u00a0\\2", text), width).replace("\u00a0", " ")


def _controls(document: Document) -> list[str]:
    present = {arm for level in pruned_levels(document) for arm in level["arms"]}
    names = {"reinit": "re-initialisation", "random": "the random mask"}
    return [names[arm] for arm in ("reinit", "random") if arm in present]


def _gap(points: float) -> str:
    if abs(points) < 0.005:
        return "level with"
    return f"{abs(points):.2f} pp {'above' if points > 0 else 'below'}"


def span(densities: Sequence[float]) -> str:
    """At one density, or between the outermost two."""
    low, high = density_percent(min(densities)), density_percent(max(densities))
    return f"at {low}" if low == high else f"between {high} and {low}"
