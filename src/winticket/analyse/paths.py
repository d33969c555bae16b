"""Effective density: how many of the kept weights lie on a path from the input to the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from winticket.analyse.drawn import drawn_masks
from winticket.analyse.facts import Cells, Lines, NothingToAnalyseError, analysis, part, present, together
from winticket.analyse.reach import on_paths
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Mask, Trajectory

REVISION = 1

COLUMNS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "mask": "the ticket's, or drawn at random: with the ticket's count in every layer, or in the network",
    "replicate": "number of the replicate, from 1",
    "layer": "name of the weight, or network for all of them",
    "total": "eligible weights",
    "kept": "weights kept",
    "on_path": "kept weights on a path from the input to the output",
    "connected": "on_path / kept",
    "effective_density": "on_path / total",
    "units": "units of the layer",
    "cut_off": "share of the units that no weight on a path leads into",
}
NETWORK = "network"


def paths_of_stack(
    setup: Setup, tickets: Sequence[Trajectory | Failed], *, level: int, density: float
) -> Table:
    """The weights on paths in a stack's tickets and in random masks, by layer and in the network."""
    rows: list[tuple[Any, ...]] = []
    module, example = setup.module(), example_of(setup)
    for number, path in present(tickets):
        ticket = path.ticket
        for kind, mask in {"ticket": ticket.mask, **drawn_masks(ticket, level)}.items():
            connected = on_paths(module, mask, example)
            rows += [(level, density, kind, number + 1, *row) for row in _by_layer(mask, connected)]
    return Table(tuple(COLUMNS), tuple(rows))


def example_of(setup: Setup) -> Tensor:
    """An input that reaches every weight: any image, or as many texts as hold every token."""
    if not setup.tokens:
        return setup.blank(1)
    length = setup.input_shape[0]
    texts = -(-setup.classes // length)
    return (torch.arange(texts * length) % setup.classes).view(texts, length)


def _by_layer(mask: Mask, connected: Mask) -> list[tuple[Any, ...]]:
    rows, sums = [], [0, 0, 0, 0, 0]
    for name, keep in connected.keep.items():
        if not keep.numel():
            continue
        reached = connected.laid_out(name).by_unit(keep).flatten(1).any(1)
        counts = [
            keep.numel(),
            int(mask.keep[name].sum()),
            int(keep.sum()),
            len(reached),
            int((~reached).sum()),
        ]
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        rows.append((name, counts))
    return [
        (name, total, kept, on, on / kept if kept else None, on / total, units, cut / units)
        for name, (total, kept, on, units, cut) in [(NETWORK, sums), *rows]
        if total
    ]


def paths_says(table: Table) -> list[str]:
    """How much of the ticket and of random masks is connected at the sparsest level."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    at = table.where(density=min(float(str(d)) for d in table.column("density")), layer=NETWORK)
    density = float(str(at.column("density")[0]))
    means = {str(row["mask"]): row for row in summarised(at, "connected", ["mask"]).rows()}
    if "ticket" not in means:
        return [f"At a density of {kept_percent(density)}, the tickets keep no weights."]
    effective = summarised(at.where(mask="ticket"), "effective_density", ["mask"]).rows()[0]
    cut = {str(row["mask"]): row for row in summarised(at, "cut_off", ["mask"]).rows()}
    sentences = [
        f"At a density of {kept_percent(density)}, {said(means['ticket'], 'connected', share=True)} of the ticket's "
        f"weights lie on a path from the input to the output, so its effective density is "
        f"{said(effective, 'effective_density', share=True)}; {said(cut['ticket'], 'cut_off', share=True)} of the "
        "units are cut off."
    ]
    chance = [
        f"{said(row, 'connected', share=True)} ({kind})" for kind, row in means.items() if kind != "ticket"
    ]
    return [
        *sentences,
        f"Of random masks with as many weights, these shares lie on a path: {'; '.join(chance)}.",
    ]


@analysis(
    "paths",
    title="How many of the kept weights connect the input to the output?",
    source="Vysogorets & Kempe 2023 (Connectivity Matters), effective sparsity",
    says=paths_says,
    lines=(
        Lines(
            x="density", y="connected", series="mask", x_label="weights kept",
            y_label="kept weights on a path from input to output", percent=True, where={"layer": NETWORK},
        ),
        Lines(
            x="density", y="cut_off", series="mask", x_label="weights kept", y_label="units cut off", percent=True,
            where={"layer": NETWORK},
        ),
    ),
    columns=COLUMNS,
)  # fmt: skip
def paths(cells: Cells, *, replicates: int = 5, levels: int = 8) -> Task:
    """Counts the kept weights that lie on a path from the input to the output, in tickets and in random masks.

    The random masks have as many weights as the ticket: in every layer, or spread over layers uniformly or by the ERK
    rule.
    """
    try:
        on_paths(cells.setup.module(), Mask({}), example_of(cells.setup))
    except ValueError as error:
        raise NothingToAnalyseError(str(error)) from error
    parts = [
        part(paths_of_stack, cells.setup, stack, name="paths", level=level, density=cells.densities[level])
        for level in cells.chosen_levels("ticket", levels)
        for stack in cells.stacks(level, "ticket", replicates=replicates)
    ]
    if not parts:
        raise NothingToAnalyseError("no level's tickets have finished")
    return together(parts, name="paths")
