"""What to try next about levels and how they are pruned; one function per rule, as in `advice`."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log

from winticket.report.reading import (
    density_percent,
    first_loss,
    gap_words,
    is_transfer,
    passed,
    pruned_levels,
    question_of,
    won_at,
)
from winticket.results import Document, Level

LIGHT_PRUNING = 0.5
"""A level that keeps at least half of the weights is light pruning: nearly any mask survives it."""
USUAL_RATE = 0.2
"""Share of the remaining weights that iterative pruning takes per level, as in the 2019 paper."""


def iterate(document: Document) -> str | None:
    """One-shot pruning lost at some level: prune iteratively."""
    first = first_loss(document)
    if first is None or question_of(document).get("method") != "one-shot" or is_transfer(document):
        return None
    instead = "in place of --method one-shot"
    options = f"--method imp {instead}"
    if question_of(document).get("density"):  # a level for each would be one-shot again, or nearly
        last = float(pruned_levels(document)[-1]["density"])
        rounds = ceil(log(last) / log(1 - USUAL_RATE) - 1e-9)
        options = f"--method imp --final-density {last:g} --levels {rounds} {instead} and --density"
    return (
        f"Prune iteratively ({options}): one-shot masks fall {gap_words(document, first)}behind the dense network at "
        f"{density_percent(first['density'])} of the weights, and iterative ones reach smaller densities "
        "(Frankle & Carbin 2019, sec. 2 and fig. 4)."
    )


def prune_more_slowly(document: Document) -> str | None:
    """Iterative, and the ticket falls only at the sparse end: smaller bites go further."""
    first, rate, count = (
        first_loss(document),
        question_of(document).get("rate"),
        question_of(document).get("levels"),
    )
    if (
        first is None
        or first["density"] >= LIGHT_PRUNING
        or question_of(document).get("method") == "one-shot"
    ):
        return None
    if is_transfer(document):
        return None
    if rate is None or count is None:
        return None
    slower = rate / 2
    output = question_of(document).get("output_rate")
    options = f"--rate {slower:g}" + ("" if output is None else f" --output-rate {output / 2:g}")
    again = ceil(count * log(1 - rate) / log(1 - slower) - 1e-9)
    match, end = _last_match(document), density_percent(pruned_levels(document)[-1]["density"])
    aim = (
        "Prune"
        if match is None
        else f"For a ticket smaller than {density_percent(match)} of the weights, prune"
    )
    return (
        f"{aim} more slowly ({options} --levels {again}, which also ends at about {end}, in smaller steps): "
        f"{_how_far(document, first, match)} In smaller steps, accuracy survives to smaller densities "
        "(Frankle & Carbin 2019, fig. 4)."
    )


def _how_far(document: Document, first: Level, match: float | None) -> str:
    """Down to where the mean keeps up, and down to where that is shown."""
    margin = question_of(document).get("margin_pp")
    fall = f"the ticket falls {gap_words(document, first)}behind at {density_percent(first['density'])}."
    denser = [level["density"] for level in pruned_levels(document) if level["density"] > first["density"]]
    if not denser or margin is None:
        return fall
    means = f"the ticket's mean stays within {margin:g} pp of dense down to {density_percent(min(denser))}"
    if match is None:
        return f"{means}, but {fall}"
    if match <= min(denser):
        return f"{means}, and {fall}"
    return f"{means}, but a match is shown only down to {density_percent(match)}."


def spare_emptied_layers(document: Document) -> str | None:
    """A ticket lost a whole layer, or every weight of a class: keep more weights, or stop earlier."""
    tried = pruned_levels(document)
    for at, level in enumerate(tried):
        names = (level.get("emptied") or {}).get("ticket")
        if names:
            if is_transfer(document):
                return _spare_in_transfer(document, level, names)
            rate = question_of(document).get("output_rate")
            slower = (
                ""
                if rate is None
                else f", or prune the output layer more slowly (--output-rate {rate / 2:g})"
            )
            return (
                f"{_keep_more(document, tried, at)}{slower}: at {density_percent(level['density'])} of the weights "
                f"{_emptied_words(document, level, names)}."
            )
    return None


def _keep_more(document: Document, tried: Sequence[Level], at: int) -> str:
    """How to ask for densities above the first, number `at`, that emptied a layer."""
    density = float(tried[at]["density"])
    denser = f"{min(2 * density, (1 + density) / 2):.2g}"
    if question_of(document).get("density"):
        return f"Keep more weights (--density {denser} or more)"
    if question_of(document).get("final_density") is not None:
        before = f"{float(tried[at - 1]['density']):.2g}" if at else denser
        return f"Keep more weights (--final-density {before})"
    if at == 0 or question_of(document).get("levels") is None:
        return f"Keep more weights (--density {denser} in place of --levels)"
    return f"Stop at fewer levels (--levels {at})"


def _emptied_words(document: Document, level: Level, names: Sequence[str]) -> str:
    """What has no weights left, in how many replicates where the document says, and what comes of it."""
    if not all("(output unit" in name for name in names):
        return (
            f"the ticket has no weights left in {', '.join(names)}, and a network with an emptied layer cannot learn "
            "(layer collapse: Tanaka et al. 2020)"
        )
    every = (level.get("emptied_outputs") or {}).get("ticket")
    constant = "so those classes get the same score for every example"
    if not every:
        return f"the ticket has no weights left in {', '.join(names)}, {constant}"
    counts = [len(units) for units in every if units]
    many = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    of = f"of the {document['data']['classes']} output units"
    have = "has" if max(counts) == 1 else "have"
    return f"{many} {of} {have} no weights left (in {len(counts)} of {len(every)} replicates), {constant}"


def _spare_in_transfer(document: Document, level: Level, names: Sequence[str]) -> str | None:
    """The same for tickets that were carried over: the denser ones can be chosen."""
    denser = [other["density"] for other in pruned_levels(document) if other["density"] > level["density"]]
    if not denser:
        return None
    return (
        f"Carry denser tickets alone (--density {min(denser):.2g}): at {density_percent(level['density'])} of the "
        f"weights {_emptied_words(document, level, names)}."
    )


def look_sparser(document: Document) -> str | None:
    """The ticket matches and is not yet separable from its controls, down to the sparsest level run."""
    tried, count = pruned_levels(document), question_of(document).get("levels")
    if document["verdict"]["outcome"] == "won" or not tried or count is None:
        return None
    beaten = [passed(tried[-1], "beats_reinit"), passed(tried[-1], "beats_random")]
    if passed(tried[-1], "accuracy") is not True or False not in beaten:
        return None
    control = "re-initialisation" if beaten[0] is False else "the random mask"
    further = _further(document, count)
    if further is None:
        return None
    return (
        f"Look at sparser levels ({further}): down to "
        f"{density_percent(tried[-1]['density'])} the ticket matches the dense network, but {control} does "
        "too well to tell them apart; in the 2019 paper they part at 21 % of the weights (LeNet) and below "
        "(Frankle & Carbin 2019, sec. 2)."
    )


def add_levels(document: Document) -> str | None:
    """Won at the sparsest level: the smallest ticket was not reached."""
    tried, won, count = pruned_levels(document), won_at(document), question_of(document).get("levels")
    if won is None or not tried or count is None:
        return None
    further = _further(document, count)
    if won > tried[-1]["density"] + 1e-9 or further is None:
        return None
    begin = "carry sparser tickets" if is_transfer(document) else "go on pruning"
    return (
        f"For a smaller ticket, {begin} ({further}): the ticket still wins at the sparsest level, "
        f"{density_percent(won)} of the weights, so a smaller one may exist (LeNet tickets held to "
        f"3.6 %: Frankle & Carbin 2019, sec. 2). {_anew(document)}."
    )


def _further(document: Document, count: int) -> str | None:
    """The options for sparser levels, as the levels were given; None if a transfer has carried them all."""
    if is_transfer(document):
        question = question_of(document)
        sparser = question["source"]["levels"] - max(question["carried"])
        half = f"{float(pruned_levels(document)[-1]['density']) / 2:.2g}"
        return f"--density {half} added to the others" if sparser > 0 else None
    if question_of(document).get("final_density") is None and not question_of(document).get("density"):
        return f"--levels {count + _more(count)}"
    half = f"{float(pruned_levels(document)[-1]['density']) / 2:.2g}"
    return (
        f"--density {half} added to the others"
        if question_of(document).get("density")
        else f"--final-density {half}"
    )


def _anew(document: Document) -> str:
    if question_of(document).get("final_density") is not None and not is_transfer(document):
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
