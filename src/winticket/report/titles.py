"""What each figure shows, in one sentence made from the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from winticket.report.reading import (
    FEWEST_REPLICATES,
    Document,
    claimed,
    dense_arm,
    density_percent,
    is_in,
    paired_difference,
    pruned_levels,
    said,
    time_outcome,
    unlearned,
)

if TYPE_CHECKING:
    from winticket.report.tables import Table


def headline(document: Document) -> str:
    """The verdict in one short sentence."""
    verdict = document["verdict"]
    if verdict["outcome"] == "won":
        return f"Won: a ticket with {density_percent(verdict['density'])} of the weights"
    if verdict["outcome"] == "not won":
        return "Not won: no density holds a verified winning ticket"
    count = said(document, "replicates")
    if count is not None and count < FEWEST_REPLICATES:
        number = "1 replicate decides" if count == 1 else f"{count} replicates decide"
        return f"Inconclusive: {number} nothing, {FEWEST_REPLICATES} are the fewest that can"
    if unlearned(document):
        return "Inconclusive: the dense network did not learn"
    return "Inconclusive: a winning ticket was neither shown nor ruled out"


def not_won_at(document: Document) -> str | None:
    """The densities of a won experiment at which no win was shown, neighbours together; None if there are none."""
    won = claimed(document)
    stretches: list[list[str]] = [[]]
    for level in pruned_levels(document):
        if is_in(level["density"], won):
            stretches.append([])
        else:
            stretches[-1].append(density_percent(level["density"]))
    named = [
        part
        for found in stretches
        for part in (found if len(found) < 3 else [f"{found[0].removesuffix(' %')} to {found[-1]}"])
    ]
    if document["verdict"]["outcome"] != "won" or not named:
        return None
    return f"No win was shown at {', '.join(named)} of the weights."


def accuracy_title(document: Document, *, width: int = 72) -> str:
    """The accuracy figure's finding: the verdict where won, otherwise where the ticket stands at its best."""
    verdict = document["verdict"]
    margin = document.get("experiment", {}).get("margin_pp")
    within = "" if margin is None else f" within {margin:g} pp"
    if verdict["outcome"] == "won":
        controls = _controls(document)
        beaten = f" and beats {' and '.join(controls)} there" if controls else ""
        down = density_percent(verdict["density"])
        return lines(f"The ticket matches the dense network{within} down to {down}{beaten}", width)
    if unlearned(document):
        return lines("The dense network did not learn, so differences to it show nothing", width)
    dense = dense_arm(document)
    found = [
        (paired_difference(level, "ticket", dense), level["density"]) for level in pruned_levels(document)
    ]
    known = [(gap, density) for gap, density in found if gap is not None]
    if not known:
        return "Test accuracy against density"
    gap, density = known[-1]
    start = {"not won": "No verified winning ticket", "inconclusive": "Not decided yet"}[verdict["outcome"]]
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
