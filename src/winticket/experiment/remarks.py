"""What is to be said beside the verdict of how tickets were found and are counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from winticket.experiment.runs import Replicate, Runs
from winticket.ticket import Failed


def remarks(runs: Runs) -> list[str]:
    """In sentences: tickets that have had more steps than others, did not settle, or whose units have died."""
    return [*_varied(runs), *_went_on(runs), *_unsettled(runs), *_cut_out(runs)]


def _varied(runs: Runs) -> list[str]:
    """A warning about an allocation that is not the criterion's own."""
    sentence = runs.plan.experiment.variant()
    return [] if sentence is None else [sentence]


def _went_on(runs: Runs) -> list[str]:
    """A warning about tickets that do not have the start that they are a ticket by."""
    experiment = runs.plan.experiment
    if experiment.source is not None and runs.plan.question.another_width():
        return [
            f"masks alone were carried from {experiment.source.model}: ticket and re-initialised twin differ by the "
            "draw of their weights and by nothing else, so what speaks here is the random mask"
        ]
    rewind = experiment.rewind
    if rewind not in ("learning_rate", "fine_tune"):
        return []
    return [
        f"rewind {rewind}: tickets go on from the trained weights of the level before, so theirs have had more steps "
        "than the dense network's and the re-initialised ones'"
    ]


def _unsettled(runs: Runs) -> list[str]:
    """Warnings about tickets that were drawn from the middle of a training."""
    tickets = [e for (_, arm), entries in runs.by_cell.items() if arm == "ticket" for e in entries]
    loose = sum(not isinstance(e, Failed) and not e.settled for e in tickets)
    if not any(not isinstance(e, Failed) and e.searched_steps for e in tickets):
        return []
    early = (
        "tickets go on from weights that the search had trained already, so theirs have had more steps than the dense "
        "network's and the re-initialised ones'"
    )
    if not loose:
        return [early]
    return [
        early,
        f"{loose} of {len(tickets)} masks had not settled in the first half of the training; their tickets were drawn "
        "at its end",
    ]


def _cut_out(runs: Runs) -> list[str]:
    """That weights which read dead units are counted in the densities, where whole units went."""
    densities = runs.plan.densities()
    levels = [n for n in range(1, len(densities)) if effective(runs.by_cell.get((n, "ticket"), ()))]
    if not levels:
        return []
    last = levels[-1]
    count = effective(runs.by_cell[last, "ticket"]) or 0
    return [
        f"densities count the weights of the units that are kept; without those that only read dead units, "
        f"{100 * densities[last]:.2g} % is {100 * count / runs.plan.counts[0]:.2g} % (effective_density in result.json)"
    ]


def effective(entries: Sequence[Replicate]) -> float | None:
    """Mean over replicates of the weights left once dead units are cut out; None without masks of whole units."""
    counts = [r.effective for r in entries if not isinstance(r, Failed) and r.effective is not None]
    return math.fsum(counts) / len(counts) if counts else None
