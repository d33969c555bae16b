"""The headline and the figures' titles: each is a sentence that states what the numbers show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill

from winticket.report.metric import metric_of
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
    unlearned_in_words,
    won_at,
)
from winticket.results import Document, Level
from winticket.table import Table

_PP = re.compile(r" pp\b")
MOST_STRETCHES = 3
"""A title names the densities of at most this many stretches."""


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
        return f"Inconclusive: the dense network {unlearned_in_words(document)}"
    return "Inconclusive: the data neither show a winning ticket nor rule one out"


def not_won_at(document: Document) -> list[str]:
    """List the densities of a won experiment at which no win is shown, in one sentence per reason.

    Empty if the experiment is not won.
    """
    if not has_won(document):
        return []
    won, reasons = claimed(document), dict[str, list[float]]()
    for level in pruned_levels(document):
        if not is_in(level["density"], won):
            reasons.setdefault(_why_not_won(document, level), []).append(level["density"])
    return [f"No win at {_joined(_stretches(document, some))}: {why}." for why, some in reasons.items()]


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
    margin, metric = question_of(document).get("margin_pp"), metric_of(document)
    within = "" if margin is None else f" within {metric.margin(margin)}"
    missed = f"is not shown to match the dense network{within}"
    check = check_of(level, "accuracy")
    if check is not None and check.get("refuted"):
        by = "" if margin is None else f"more than {metric.margin(margin)} "
        missed = f"is shown to be {by}worse than the dense network"
    return f"the ticket beats both controls, but {missed}" if beats else f"the ticket {missed}"


def at_densities(document: Document, densities: Sequence[float], *, brief: bool = False) -> str:
    """Say at which of the pruned levels' densities something holds, and at no other: `at densities of 80.2 to 33.3 %`.

    Many stretches with gaps between them are counted: `at 9 of 16 densities`. `brief` leaves the noun out, if it stands
    in the same sentence already.
    """
    tried = len(pruned_levels(document))
    if len(densities) == tried > 1:
        return "at every density"
    names = _stretches(document, densities)
    if len(names) > MOST_STRETCHES:
        return f"at {len(densities)} of {tried} densities"
    noun = "" if brief else "a density of " if len(densities) == 1 else "densities of "
    return f"at {noun}{_joined(names)}"


def _stretches(document: Document, densities: Sequence[float]) -> list[str]:
    """Name some of the pruned levels' densities. Three or more neighbours become a range: 80.2 to 33.3 %, 17.3 %."""
    ranges: list[list[str]] = []
    gap = True
    for level in pruned_levels(document):
        if not is_in(level["density"], densities):
            gap = True
            continue
        if gap:
            ranges.append([])
        ranges[-1].append(density_percent(level["density"]))
        gap = False
    return [
        part
        for names in ranges
        for part in (names if len(names) < 3 else [f"{names[0].removesuffix(' %')} to {names[-1]}"])
    ]


def _joined(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def accuracy_title(document: Document, *, width: int = 72) -> str:
    """Return what the figure of the metric shows: where tickets win, or else the ticket at the lowest density."""
    margin, metric = question_of(document).get("margin_pp"), metric_of(document)
    within = "" if margin is None else f" within {metric.margin(margin)}"
    if has_won(document):
        where = at_densities(document, claimed(document))
        rule = f"it matches the dense network{within} and beats both controls"
        return lines(f"The ticket wins {where}: {rule}", width, unit=metric.scale.points)
    if unlearned(document):
        failed = unlearned_in_words(document)
        return lines(f"The dense network {failed}, so comparisons with it show nothing", width)
    dense = dense_arm(document)
    gaps = [
        (paired_difference(document, level, "ticket", dense), level["density"])
        for level in pruned_levels(document)
    ]
    measured = [(gap, density) for gap, density in gaps if gap is not None]
    if not measured:
        return f"Test {metric.name} against density"
    gap, density = measured[-1]
    start = "Not won" if document["verdict"]["outcome"] == "not won" else "Inconclusive"
    words = f"{start}: at {density_percent(density)} the ticket is {metric.apart(gap)} the dense network"
    return lines(words, width, unit=metric.scale.points)


def early_stop_title(document: Document, *, width: int = 72) -> str:
    """Return what the early-stop figure shows: the densities at which the ticket's early stop comes sooner or later."""
    outcomes = [(level["density"], time_outcome(level)) for level in pruned_levels(document)]
    when = sooner_or_later(
        document,
        sooner=[density for density, outcome in outcomes if outcome == "faster"],
        later=[density for density, outcome in outcomes if outcome == "slower"],
    )
    if all(outcome is None for _, outcome in outcomes):
        return lines("Early stops of the ticket and the dense network: not judged", width)
    if when is None:
        return lines("The early stops of the ticket and the dense network are not shown to differ", width)
    return lines(f"The ticket reaches its early stop {when}", width)


def sooner_or_later(document: Document, *, sooner: Sequence[float], later: Sequence[float]) -> str | None:
    """Say when a ticket is there: `sooner than the dense network at every density`. None if neither is ever shown."""
    if not sooner and not later:
        return None
    word, where = ("sooner", sooner) if sooner else ("later", later)
    also = f", and later {at_densities(document, later, brief=True)}" if sooner and later else ""
    return f"{word} than the dense network {at_densities(document, where)}{also}"


def learning_title(document: Document, table: Table, shown: Sequence[float], *, width: int = 72) -> str:
    """Return what the learning curves show: the difference between ticket and re-initialisation at the last step."""
    metric = metric_of(document)
    for density in sorted(shown, key=lambda d: abs(d - (document["verdict"].get("density") or 0.0))):
        last = [
            table.where(arm=arm, density=density).column("validation_accuracy")[-1:]
            for arm in ("ticket", "reinit")
        ]
        if all(last):
            gap = metric.shown(metric.scale.gain(float(last[1][0] or 0), float(last[0][0] or 0)))
            start = f"At {density_percent(density)} of the weights the ticket ends"
            words = (
                f"{start} {metric.apart(gap)} the same mask with re-initialised weights, on validation data"
            )
            return lines(words, width, unit=metric.scale.points)
    return "Learning curves of the tickets and the dense network"


def lines(text: str, width: int, *, unit: str = "") -> str:
    """Break a text into lines of at most `width` characters, but never between a number and its unit."""
    units = "|".join(["%", "pp", *([re.escape(unit)] if unit else [])])
    return fill(re.sub(rf"(\d) ({units})", "\\1\u00a0\\2", text), width).replace("\u00a0", " ")


def spelt_out(lines: Sequence[str]) -> list[str]:
    """Lines in which the first `pp` stands behind the words that it abbreviates.

    >>> spelt_out(["by +1.2 pp", "by 3 pp"])
    ['by +1.2 percentage points (pp)', 'by 3 pp']
    """
    done, found = False, []
    for line in lines:
        found.append(line if done else _PP.sub(" percentage points (pp)", line, count=1))
        done = done or "percentage points (pp)" in found[-1]
    return found
