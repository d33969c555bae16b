"""Warnings next to the verdict: how tickets were found and how their weights are counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from winticket.experiment.runs import Replicate, Runs
from winticket.models import pretrained
from winticket.ticket import Failed


def remarks(runs: Runs) -> list[str]:
    """Warnings about tickets that are a variant, had more steps, did not settle, or lost whole units."""
    return [*_varied(runs), *_trained_longer(runs), *_unsettled(runs), *_dead_units(runs)]


def notes(runs: Runs) -> list[str]:
    """What is worth knowing of how networks started: which weights are pretrained, and what their control shows."""
    setup = runs.plan.setup
    if setup.pretrained is None:
        return []
    fit = pretrained.fit(setup.module(), setup.pretrained.tensors())
    new = f"; {', '.join(fit.drawn)} are drawn for each replicate" if fit.drawn else ""
    sentences = [
        f"All replicates start from the same pretrained weights{new}, so they differ in the order of examples"
        f"{' and in these' if fit.drawn else ' alone'}, and the verdict is about this start."
    ]
    if "reinit" in runs.plan.experiment.controls:
        shown = {
            "fresh": "draws fresh weights under the ticket's mask: beating it shows that the ticket needs the "
            "pretrained weights (Chen et al. 2020)",
            "shuffled": "shuffles the pretrained weights within each layer under the ticket's mask: beating it shows "
            "that the ticket needs each weight in its place, and not only each layer's distribution of weights",
        }
        sentences.append(f"The re-initialised control {shown[setup.pretrained.redraw]}.")
    return sentences


def _varied(runs: Runs) -> list[str]:
    """A warning about an allocation that is not the one in the criterion's paper."""
    sentence = runs.plan.experiment.variant()
    return [] if sentence is None else [sentence]


def _trained_longer(runs: Runs) -> list[str]:
    """A warning about tickets that do not start from the weights of the dense network that they were found in."""
    experiment = runs.plan.experiment
    if experiment.source is not None and runs.plan.question.another_width():
        return [
            f"only the masks were transferred from {experiment.source.model}: ticket and re-initialised ticket differ "
            "only in the draw of their weights, so the random mask is the control that counts here"
        ]
    rewind = experiment.rewind
    if rewind not in ("learning_rate", "fine_tune"):
        return []
    return [
        f"rewind {rewind}: tickets continue from the trained weights of the previous level, so they have had more "
        "steps than the dense network and the re-initialised tickets"
    ]


def _unsettled(runs: Runs) -> list[str]:
    """Warnings about tickets that were drawn in the middle of a training."""
    tickets = [e for (_, arm), entries in runs.by_cell.items() if arm == "ticket" for e in entries]
    loose = sum(not isinstance(e, Failed) and not e.settled for e in tickets)
    if not any(not isinstance(e, Failed) and e.searched_steps for e in tickets):
        return []
    early = (
        "tickets continue from weights that the search had trained already, so they have had more steps than the dense "
        "network and the re-initialised tickets"
    )
    if not loose:
        return [early]
    return [
        early,
        f"{loose} of {len(tickets)} masks had not settled in the first half of the training; these tickets were "
        "drawn at its end",
    ]


def _dead_units(runs: Runs) -> list[str]:
    """A note that densities count weights that only read dead units, if whole units were pruned."""
    densities = runs.plan.densities()
    levels = [
        n for n in range(1, len(densities)) if mean_effective_count(runs.by_cell.get((n, "ticket"), ()))
    ]
    if not levels:
        return []
    last = levels[-1]
    count = mean_effective_count(runs.by_cell[last, "ticket"]) or 0
    return [
        "densities count all weights of the units that are kept; without the weights that only read dead units, "
        f"{100 * densities[last]:.2g} % becomes {100 * count / runs.plan.counts[0]:.2g} % (effective_density in "
        "result.json)"
    ]


def mean_effective_count(entries: Sequence[Replicate]) -> float | None:
    """Mean number of kept weights that do not merely read dead units; None unless whole units are pruned."""
    counts = [r.effective for r in entries if not isinstance(r, Failed) and r.effective is not None]
    return math.fsum(counts) / len(counts) if counts else None
