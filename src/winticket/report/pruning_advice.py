"""What to try next about levels and how they are pruned; one function per rule, as in `advice`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log
from typing import Any

from winticket.report.reading import (
    Document,
    density_percent,
    first_loss,
    gap_words,
    is_transfer,
    passed,
    pruned_levels,
    said,
)

LIGHT_PRUNING = 0.5
"""A level that keeps at least half of the weights is light pruning: nearly any mask survives it."""


def iterate(document: Document) -> str | None:
    """One-shot pruning lost at some level: prune iteratively."""
    first = first_loss(document)
    if first is None or said(document, "method") != "one-shot" or is_transfer(document):
        return None
    return (
        f"Prune iteratively, --method imp: one-shot masks fall {gap_words(document, first)}behind the dense "
        f"network at {density_percent(first['density'])} of the weights, and iterative ones reach smaller "
        "densities (Frankle & Carbin 2019, sec. 2 and fig. 4)."
    )


def prune_more_slowly(document: Document) -> str | None:
    """Iterative, and the ticket falls only at the sparse end: smaller bites go further."""
    first, rate, count = first_loss(document), said(document, "rate"), said(document, "levels")
    if first is None or first["density"] >= LIGHT_PRUNING or said(document, "method") == "one-shot":
        return None
    if is_transfer(document):
        return None
    if rate is None or count is None:
        return None
    slower = rate / 2
    output = said(document, "output_rate")
    options = f"--rate {slower:g}" + ("" if output is None else f" --output-rate {output / 2:g}")
    again = ceil(count * log(1 - rate) / log(1 - slower) - 1e-9)
    match = _last_match(document)
    aim = "Prune" if match is None else f"To go below {density_percent(match)} of the weights, prune"
    return (
        f"{aim} more slowly ({options} --levels {again}, which ends at the same density): the ticket holds until it "
        f"falls {gap_words(document, first)}behind at {density_percent(first['density'])}, and in smaller "
        "steps accuracy survives to smaller densities (Frankle & Carbin 2019, fig. 4)."
    )


def spare_emptied_layers(document: Document) -> str | None:
    """A ticket lost a whole layer: prune that layer more slowly, or stop earlier."""
    for level in pruned_levels(document):
        names = (level.get("emptied") or {}).get("ticket")
        if names:
            if is_transfer(document):
                return _spare_in_transfer(document, level, names)
            rate = said(document, "output_rate")
            slower = "" if rate is None else f"; if it is the output layer, --output-rate {rate / 2:g}"
            end = "a network with an emptied layer cannot learn (layer collapse: Tanaka et al. 2020)"
            if all("(output unit" in name for name in names):
                end = "a class whose unit has no weight has the same score for every example"
            return (
                f"Prune more slowly or stop at fewer --levels{slower}: at "
                f"{density_percent(level['density'])} of the weights the ticket lost every weight of "
                f"{', '.join(names)}, and {end}."
            )
    return None


def _spare_in_transfer(document: Document, level: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The same for tickets that were carried over: the denser ones can be chosen."""
    denser = [other["density"] for other in pruned_levels(document) if other["density"] > level["density"]]
    if not denser:
        return None
    return (
        f"Carry denser tickets alone (--density {min(denser):.2g}): at {density_percent(level['density'])} of the "
        f"weights the ticket has none left in {', '.join(names)}, and a network with an emptied layer cannot learn "
        "(layer collapse: Tanaka et al. 2020)."
    )


def look_sparser(document: Document) -> str | None:
    """The ticket matches and is not yet separable from its controls, down to the sparsest level run."""
    found, count = pruned_levels(document), said(document, "levels")
    if document["verdict"]["outcome"] == "won" or not found or count is None:
        return None
    beaten = [passed(found[-1], f"beats_{control}") for control in ("reinit", "random")]
    if passed(found[-1], "accuracy") is not True or False not in beaten:
        return None
    control = "re-initialisation" if beaten[0] is False else "the random mask"
    further = _further(document, count)
    if further is None:
        return None
    return (
        f"Look at sparser levels, {further}: down to "
        f"{density_percent(found[-1]['density'])} the ticket matches the dense network, but {control} does "
        "too well to tell them apart; in the 2019 paper they part at 21 % of the weights (LeNet) and below "
        "(Frankle & Carbin 2019, sec. 2)."
    )


def add_levels(document: Document) -> str | None:
    """Won at the sparsest level: the smallest ticket was not reached."""
    found, verdict, count = pruned_levels(document), document["verdict"], said(document, "levels")
    if verdict["outcome"] != "won" or not found or count is None:
        return None
    further = _further(document, count)
    if verdict["density"] > found[-1]["density"] + 1e-9 or further is None:
        return None
    begin = "Carry sparser tickets" if is_transfer(document) else "Go on pruning"
    return (
        f"{begin}, {further}: the ticket still wins at the sparsest level, "
        f"{density_percent(verdict['density'])} of the weights, so a smaller one may exist. {_anew(document)} "
        "(LeNet tickets held to 3.6 %: Frankle & Carbin 2019, sec. 2)."
    )


def _further(document: Document, count: int) -> str | None:
    """The options for sparser levels, as the levels were given; None if a transfer has carried them all."""
    if is_transfer(document):
        sparser = said(document, "source")["levels"] - max(said(document, "carried"))
        half = f"{float(pruned_levels(document)[-1]['density']) / 2:.2g}"
        return f"--density {half} beside the others" if sparser > 0 else None
    if said(document, "final_density") is None and not said(document, "density"):
        return f"--levels {count + _more(count)}"
    half = f"{float(pruned_levels(document)[-1]['density']) / 2:.2g}"
    return f"--density {half} beside the others" if said(document, "density") else f"--final-density {half}"


def _anew(document: Document) -> str:
    if said(document, "final_density") is not None and not is_transfer(document):
        return "All levels will run anew"
    return "Only the new levels will run"


def _last_match(document: Document) -> float | None:
    matching: list[float] = []
    for level in pruned_levels(document):
        if passed(level, "accuracy") is not True:
            break
        matching.append(level["density"])
    return matching[-1] if matching else None


def _more(levels_run: int) -> int:
    return max(2, ceil(levels_run / 4))
