"""Advice on levels and on how to prune them: one function per rule, as in `advice`."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log

from winticket.procedures import METHODS, method_of
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import (
    about_classes,
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
"""At densities of at least one half, nearly every mask keeps the accuracy."""
USUAL_RATE = 0.2
"""Share of the remaining weights that iterative pruning removes per level, as in the 2019 paper."""


def iterate(document: Document) -> str | None:
    """A one-shot ticket falls behind at some density: prune iteratively."""
    first = first_loss(document)
    if first is None or question_of(document).get("method") != "one-shot" or is_transfer(document):
        return None
    instead = "in place of --method one-shot"
    options = f"--method imp {instead}"
    if question_of(document).get("density"):  # with one level per density, imp would be almost one-shot again
        last = float(pruned_levels(document)[-1]["density"])
        rounds = ceil(log(last) / log(1 - USUAL_RATE) - 1e-9)
        options = f"--method imp --final-density {last:g} --levels {rounds} {instead} and --density"
    return (
        f"Prune iteratively ({options}): the one-shot ticket falls {gap_words(document, first)}behind the dense "
        f"network at {density_percent(first['density'])} of the weights, and iterative pruning finds smaller tickets "
        "(Frankle & Carbin 2019, sec. 2 and fig. 4)."
    )


def prune_more_slowly(document: Document) -> str | None:
    """The method prunes level by level, and tickets fall behind only at low densities: prune less per level."""
    first, rate, count = (
        first_loss(document),
        question_of(document).get("rate"),
        question_of(document).get("levels"),
    )
    if first is None or first["density"] >= LIGHT_PRUNING or not _prunes_by_levels(document):
        return None
    if is_transfer(document):
        return None
    if rate is None or count is None:
        return None
    slower = rate / 2
    options = f"--rate {slower:g}" + "".join(
        f" {option} {usual / 2:g}"
        for option, usual in (
            ("--output-rate", question_of(document).get("output_rate")),
            ("--conv-rate", question_of(document).get("conv_rate")),
        )
        if usual is not None
    )
    again = ceil(count * log(1 - rate) / log(1 - slower) - 1e-9)
    match, end = _last_match(document), density_percent(pruned_levels(document)[-1]["density"])
    aim = "Prune" if match is None else "For a smaller ticket, prune"
    return (
        f"{aim} more slowly ({options} --levels {again}: {again} rounds, again down to about {end}): "
        f"{_how_far(document, first, match)} {_slower_in_the_paper(rate, metric_of(document))}"
    )


def _slower_in_the_paper(rate: float, metric: Metric) -> str:
    """What the 2019 paper found for rates of 0.1 to 0.8 on MNIST."""
    keep = "keep the accuracy" if metric.is_accuracy else "match the dense network"
    source = "(MNIST: Frankle & Carbin 2019, app. G.4, fig. 29)"
    if rate > USUAL_RATE:
        return f"Rates of 0.1 and 0.2 {keep} to smaller densities than 0.4 and above {source}."
    return (
        f"Rates of 0.1 and 0.2 {keep} to smaller densities than 0.4 and above, and 0.1 a little further than "
        f"0.2 {source}."
    )


def _prunes_by_levels(document: Document) -> bool:
    """Whether the method trains, prunes and rewinds level by level, so that it can prune less per level."""
    procedure = METHODS.get(question_of(document).get("method") or "")
    return procedure is not None and method_of(procedure).levels


def _how_far(document: Document, first: Level, match: float | None) -> str:
    """The lowest density at which the ticket's mean is within the margin, and the lowest with a shown match."""
    margin = question_of(document).get("margin_pp")
    fall = f"the ticket falls {gap_words(document, first)}behind at {density_percent(first['density'])}."
    denser = [level["density"] for level in pruned_levels(document) if level["density"] > first["density"]]
    if not denser or margin is None:
        return fall
    within = metric_of(document).margin(margin)
    means = f"the ticket's mean stays within {within} of dense down to {density_percent(min(denser))}"
    if match is None:
        return f"{means}, but {fall}"
    if match <= min(denser):
        return f"{means}, and {fall}"
    return f"{means}, but a match is shown only down to {density_percent(match)}."


def spare_emptied_layers(document: Document) -> str | None:
    """A ticket has no weights left in a layer or an output unit: keep more weights, or prune fewer levels."""
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
    """Options for densities above `tried[at]`, the densest level with an emptied layer."""
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
    """Which layers or output units have no weights left, in how many replicates if known, and the consequence."""
    if not all("(output unit" in name for name in names):
        return (
            f"the ticket has no weights left in {', '.join(names)}, and a network with an emptied layer cannot learn "
            "(layer collapse: Tanaka et al. 2020)"
        )
    every = (level.get("emptied_outputs") or {}).get("ticket")
    which = "classes" if about_classes(document) else "outputs"
    constant = f"so those {which} get the same score for every example"
    if not every:
        return f"the ticket has no weights left in {', '.join(names)}, {constant}"
    counts = [len(units) for units in every if units]
    many = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    of = f"of the {document['data']['classes']} output units"
    have = "has" if max(counts) == 1 else "have"
    return f"{many} {of} {have} no weights left (in {len(counts)} of {len(every)} replicates), {constant}"


def _spare_in_transfer(document: Document, level: Level, names: Sequence[str]) -> str | None:
    """The advice for a transfer: transfer only the denser tickets."""
    denser = [other["density"] for other in pruned_levels(document) if other["density"] > level["density"]]
    if not denser:
        return None
    return (
        f"Transfer only denser tickets (--density {min(denser):.2g}): at {density_percent(level['density'])} of the "
        f"weights {_emptied_words(document, level, names)}."
    )


def look_sparser(document: Document) -> str | None:
    """At the sparsest level, the ticket matches the dense network, but a control matches the ticket."""
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
        f"Try sparser levels ({further}): taken by itself, the test at {density_percent(tried[-1]['density'])} of the "
        f"weights shows that the ticket matches the dense network, but {control} does so well that the ticket is not "
        "shown to beat it. In the 2019 paper, tickets and controls differ at 21 % of the weights and below (LeNet: "
        "Frankle & Carbin 2019, sec. 2)."
    )


def add_levels(document: Document) -> str | None:
    """The ticket won at the sparsest level, so a smaller one may win too."""
    tried, won, count = pruned_levels(document), won_at(document), question_of(document).get("levels")
    if won is None or not tried or count is None:
        return None
    further = _further(document, count)
    if won > tried[-1]["density"] + 1e-9 or further is None:
        return None
    begin = "transfer sparser tickets" if is_transfer(document) else "prune further"
    return (
        f"For a smaller ticket, {begin} ({further}): the ticket still wins at the sparsest level, "
        f"{density_percent(won)} of the weights, so a smaller one may exist (LeNet tickets won down to "
        f"3.6 %: Frankle & Carbin 2019, sec. 2). {_reuse(document)}."
    )


def _further(document: Document, count: int) -> str | None:
    """The options for sparser levels; None if the transfer already includes the sparsest ticket of its source."""
    if is_transfer(document):
        question = question_of(document)
        sparser = question["source"]["levels"] - max(question["carried"])
        half = f"{float(pruned_levels(document)[-1]['density']) / 2:.2g}"
        return f"--density {half} in addition to the others" if sparser > 0 else None
    if question_of(document).get("final_density") is None and not question_of(document).get("density"):
        return f"--levels {count + _more(count)}"
    half = f"{float(pruned_levels(document)[-1]['density']) / 2:.2g}"
    return (
        f"--density {half} in addition to the others"
        if question_of(document).get("density")
        else f"--final-density {half}"
    )


def _reuse(document: Document) -> str:
    if question_of(document).get("final_density") is not None and not is_transfer(document):
        return "This changes the densities of all levels, so all of them run again"
    return "Finished levels are reused"


def _last_match(document: Document) -> float | None:
    matching: list[float] = []
    for level in pruned_levels(document):
        if passed(level, "accuracy") is not True:
            break
        matching.append(level["density"])
    return matching[-1] if matching else None


def _more(levels_run: int) -> int:
    return max(2, ceil(levels_run / 4))
