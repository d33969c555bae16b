"""The headline and the figures' titles: each is a sentence that states what the numbers show."""

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
    """Return the verdict in one short sentence."""
    if (density := won_at(document)) is not None:
        return f"Won: a ticket with {density_percent(density)} of the weights"
    if document["verdict"]["outcome"] == "not won":
        tried = pruned_levels(document)
        if len(tried) == 1:
            return f"Not won at {density_percent(tried[0]['density'])}, the only density tried"
        return f"Not won: no winning ticket at any of the {len(tried)} densities tried"
    if too_few(document):
        count = question_of(document).get("replicates")
        number = "1 replicate is" if count == 1 else f"{count} replicates are"
        return f"Inconclusive: {number} too few for any verdict"
    if unlearned(document):
        return "Inconclusive: the dense network did not learn"
    return "Inconclusive: the data neither show a winning ticket nor rule one out"


def not_won_at(document: Document) -> list[str]:
    """List the densities of a won experiment at which no win is shown, in one sentence per reason.

    Empty if the experiment is not won.
    """
    if not has_won(document):
        return []
    won, reasons = claimed(document), dict[str, list[int]]()
    tried = pruned_levels(document)
    for index, level in enumerate(tried):
        if not is_in(level["density"], won):
            reasons.setdefault(_why_not_won(document, level), []).append(index)
    densities = [level["density"] for level in tried]
    return [f"No win at {_stretches(densities, indices)}: {why}." for why, indices in reasons.items()]


def _why_not_won(document: Document, level: Level) -> str:
    """Say which condition of a win this level does not meet."""
    beaten = [passed(level, "beats_reinit"), passed(level, "beats_random")]
    beats = all(beaten)
    if level["checks"].get("matched", passed(level, "accuracy")):
        control = "a control is missing" if None in beaten else "it is not shown to beat both controls"
        return f"the ticket matches the dense network, but {control}"
    if passed(level, "accuracy"):
        return (
            "the ticket passes the test against the dense network, but the ticket of a denser level does not"
        )
    margin = question_of(document).get("margin_pp")
    within = "" if margin is None else f" within {margin:g} pp"
    missed = f"is not shown to match the dense network{within}"
    check = check_of(level, "accuracy")
    if check is not None and check.get("refuted"):
        by = "" if margin is None else f"more than {margin:g} pp "
        missed = f"is shown to be {by}worse than the dense network"
    return f"the ticket beats both controls, but {missed}" if beats else f"the ticket {missed}"


def _stretches(densities: Sequence[float], indices: Sequence[int]) -> str:
    """Name the densities at these indices. Three or more neighbours become a range: 80.2 to 33.3 %, 17.3 %."""
    ranges: list[list[int]] = []
    for index in indices:
        if ranges and ranges[-1][-1] == index - 1:
            ranges[-1].append(index)
        else:
            ranges.append([index])
    named = [[density_percent(densities[index]) for index in neighbours] for neighbours in ranges]
    return ", ".join(
        part
        for names in named
        for part in (names if len(names) < 3 else [f"{names[0].removesuffix(' %')} to {names[-1]}"])
    )


def accuracy_title(document: Document, *, width: int = 72) -> str:
    """Return what the accuracy figure shows: the win if there is one, else the ticket at the lowest density."""
    margin = question_of(document).get("margin_pp")
    within = "" if margin is None else f" within {margin:g} pp"
    if (won := won_at(document)) is not None:
        controls = _controls(document)
        beaten = f" and beats {' and '.join(controls)}" if controls else ""
        down = density_percent(won)
        return lines(f"The ticket matches the dense network{within} down to {down}{beaten}", width)
    if unlearned(document):
        return lines("The dense network did not learn, so comparisons with it show nothing", width)
    dense = dense_arm(document)
    gaps = [
        (paired_difference(level, "ticket", dense), level["density"]) for level in pruned_levels(document)
    ]
    measured = [(gap, density) for gap, density in gaps if gap is not None]
    if not measured:
        return "Test accuracy against density"
    gap, density = measured[-1]
    start = "Not won" if document["verdict"]["outcome"] == "not won" else "Inconclusive"
    return lines(f"{start}: at {density_percent(density)} the ticket is {_gap(gap)} the dense network", width)


def early_stop_title(document: Document, *, width: int = 72) -> str:
    """Return what the early-stop figure shows: the densities at which the ticket learns faster than dense."""
    faster = [level["density"] for level in pruned_levels(document) if time_outcome(level) == "faster"]
    slower = [level["density"] for level in pruned_levels(document) if time_outcome(level) == "slower"]
    if faster:
        words = f"The ticket reaches its early stop sooner than the dense network {span(faster)}"
        return lines(
            words + (f", and later at {density_percent(max(slower))} and below" if slower else ""), width
        )
    if slower:
        return lines(f"The ticket reaches its early stop later than the dense network {span(slower)}", width)
    return "No difference in speed between the ticket and the dense network is shown"


def learning_title(document: Document, table: Table, shown: Sequence[float], *, width: int = 100) -> str:
    """Return what the learning curves show: the difference between ticket and re-initialisation at the last step."""
    for density in sorted(shown, key=lambda d: abs(d - (document["verdict"].get("density") or 0.0))):
        last = [
            table.where(arm=arm, density=density).column("validation_accuracy")[-1:]
            for arm in ("ticket", "reinit")
        ]
        if all(last):
            gap = 100 * (float(last[0][0] or 0) - float(last[1][0] or 0))
            start = f"At {density_percent(density)} of the weights the ticket ends"
            words = f"{start} {_gap(gap)} the same mask with re-initialised weights, on validation data"
            return lines(words, width)
    return "Learning curves of the tickets and the dense network"


def lines(text: str, width: int) -> str:
    """Break a text into lines of at most `width` characters, but never between a number and its unit."""
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
    """Write the range of some densities: `at 9.0 %`, or `between 80.2 % and 9.0 %`."""
    low, high = density_percent(min(densities)), density_percent(max(densities))
    return f"at {low}" if low == high else f"between {high} and {low}"
