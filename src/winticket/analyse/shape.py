"""The shape of a ticket: how its weights are spread over layers, and over the units of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from winticket.allocate import erk
from winticket.analyse.drawn import RANDOM, counts_by, drawn_masks
from winticket.analyse.facts import Cells, Lines, NothingToAnalyseError, analysis, part, present, together
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.table import Table, Value
from winticket.ticket import Failed, Mask, Trajectory

REVISION = 1
TICKET = "ticket"
SHOWN = 4
"""Layers that a figure with one panel per layer can draw."""


def gini(counts: Tensor) -> float:
    """How unevenly a total is spread over its n holders, in 0..1: 0 if all have the same, 1 - 1/n if one has it all.

    counts: [n], none negative. Half the mean absolute difference of two holders, relative to the mean (Gini 1912). nan
    if the total is 0, or n is.

    >>> gini(torch.tensor([2, 2, 2])), round(gini(torch.tensor([0, 0, 3])), 3)
    (0.0, 0.667)
    """
    ordered, n = counts.flatten().double().sort().values, counts.numel()
    total = float(ordered.sum())
    if not total:
        return float("nan")
    rank = torch.arange(1, n + 1, dtype=torch.float64)
    return float(((2 * rank - n - 1) * ordered).sum()) / (n * total)


def degrees(mask: Mask) -> dict[str, tuple[Tensor, Tensor]]:
    """By layer, the in-degree of each of its units [units] and the out-degree of each of its inputs [inputs].

    An in-degree is the number of kept weights that lead into a unit, an out-degree the number of those that read an
    input, at all positions of a kernel. In a convolution with groups, only the units of its group can read an input.

    >>> mask = Mask({"fc": torch.tensor([[True, True, False], [True, False, False]])})
    >>> degrees(mask)["fc"]
    (tensor([2, 1]), tensor([2, 1, 0]))
    """
    found = {}
    for name, keep in mask.keep.items():
        layout = mask.laid_out(name)
        unit = layout.by_unit(keep)
        units, inputs, positions = unit.shape
        grouped = unit.reshape(layout.groups, units // layout.groups, inputs, positions)
        found[name] = unit.sum((1, 2)), grouped.sum((1, 3)).flatten()
    return found


LAYERS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "kept_percent": "the same in percent, as text",
    "counts": "whose counts these are: the ticket's, or those of the ERK rule at the same density",
    "replicate": "number of the replicate, from 1",
    "layer": "name of the weight",
    "position": "number of the layer, from 1 at the input",
    "kept": "weights that the layer keeps",
    "total": "weights of the layer",
    "layer_density": "kept / total",
    "relative": "the layer's density relative to the network's; 1 in every layer if layers are pruned alike",
}
ERK_RULE = "ERK rule"


def layers_of_stack(tickets: Sequence[Trajectory | Failed], *, level: int, density: float) -> Table:
    """The density of every layer of a stack's tickets, and of the ERK rule at the tickets' density."""
    rows: list[tuple[Any, ...]] = []
    for number, path in present(tickets):
        mask = path.ticket.mask
        ticket = {name: kept for name, (kept, _) in mask.layers().items()}
        for counts, kept in ((TICKET, ticket), (ERK_RULE, counts_by(erk, mask))):
            rows += _layer_rows((level, density, _percent(density), counts, number + 1), kept, mask)
    return Table(tuple(LAYERS), tuple(rows))


def _layer_rows(place: tuple[Any, ...], kept: Mapping[str, int], mask: Mask) -> list[tuple[Any, ...]]:
    whole, rows = mask.density(), []
    for position, (name, (_, total)) in enumerate(mask.layers().items(), 1):
        if total and name in kept:
            share = kept[name] / total
            relative = share / whole if whole else None
            rows.append((*place, name, position, kept[name], total, share, relative))
    return rows


def _percent(density: float) -> str:
    return f"{100 * density:.3g} %"


def layers_says(table: Table) -> list[str]:
    """The densest and the sparsest layer at the sparsest level, and how far the counts are from the rules'."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    at = table.where(density=min(float(str(d)) for d in table.column("density")))
    ticket = at.where(counts=TICKET)
    means = summarised(ticket, "layer_density", ["layer"]).rows()
    total = {str(row["layer"]): float(str(row["total"])) for row in ticket.rows()}
    counts = {(row["layer"], row["kept"]) for row in ticket.rows()}
    same = len(counts) == len(total)

    def share(row: dict[str, Value]) -> str:
        return (
            f"{100 * float(row['layer_density'] or 0):.3g} %"
            if same
            else said(row, "layer_density", share=True)
        )

    low, high = (choose(means, key=lambda row: float(row["layer_density"] or 0)) for choose in (min, max))
    whole = f"At a density of {kept_percent(float(at.column('density')[0] or 0))}, "
    if low["layer"] == high["layer"]:  # one layer, or as many weights kept of each
        who = "all layers keep" if len(means) > 1 else f"{low['layer']}, the only layer, keeps"
        return [f"{whole}{who} {share(low)}."]
    kept, by_erk = (
        {str(row["layer"]): float(row["kept"] or 0) for row in summarised(rows, "kept", ["layer"]).rows()}
        for rows in (ticket, at.where(counts=ERK_RULE))
    )
    alike = {name: sum(kept.values()) * size / sum(total.values()) for name, size in total.items()}
    sentences = [
        f"{whole}{high['layer']} is the densest layer and keeps {share(high)} of its weights; {low['layer']} is the "
        f"sparsest and keeps {share(low)}.",
        f"If all layers had the same density, {100 * _moved(kept, alike):.3g} % of the kept weights would be in other "
        f"layers; if densities followed the ERK rule, {100 * _moved(kept, by_erk):.3g} %.",
    ]
    if same and len(set(ticket.column("replicate"))) > 1:
        sentences.append(
            "All replicates have the same counts, so the allocation sets them and not the training."
        )
    return sentences


def _moved(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The share of the kept weights that are in another layer under other counts of the same total."""
    whole = sum(one.values())
    return sum(abs(one[name] - other[name]) for name in one) / (2 * whole) if whole else 0.0


@analysis(
    "layers",
    title="Which layers keep their weights?",
    source="ERK: Mocanu et al. 2018 (SET); for kernels Evci et al. 2020 (RigL)",
    says=layers_says,
    lines=(
        Lines(
            x="position", y="relative", series="kept_percent", panel="counts", scale="linear",
            x_label="layer, from input to output", y_label="density of the layer / density of the network",
            level=1.0, level_label="uniform",
        ),
    ),
    columns=LAYERS,
)  # fmt: skip
def layers(cells: Cells, *, replicates: int = 5, levels: int = 6) -> Task:
    """Compares the density of every layer with uniform densities and with the ERK rule, at the same total.

    If the allocation prunes layer by layer, it sets these densities; if layers compete, the training does.
    """
    return _by_stack(layers_of_stack, cells, "layers", replicates=replicates, levels=levels)


UNITS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "mask": "the ticket's, or one drawn at random with its counts in every layer",
    "replicate": "number of the replicate, from 1",
    "layer": "name of the weight",
    "shown": "whether figures show the layer: at most four, evenly spread",
    "units": "units of the layer",
    "without_inputs": "share of the units that no kept weight leads into",
    "in_mean": "mean in-degree: kept weights that lead into a unit",
    "in_most": "largest in-degree",
    "in_gini": "Gini coefficient of in-degrees: 0 if all units have the same, near 1 if few units have all",
    "inputs": "inputs of the layer: units of an earlier one, or of the data",
    "unread": "share of the inputs that no kept weight reads",
    "out_mean": "mean out-degree: kept weights that read an input",
    "out_most": "largest out-degree",
    "out_gini": "Gini coefficient of out-degrees",
}


def units_of_stack(tickets: Sequence[Trajectory | Failed], *, level: int, density: float) -> Table:
    """In-degrees of units and out-degrees of inputs, by layer, in a stack's tickets and in random masks."""
    rows: list[tuple[Any, ...]] = []
    for number, path in present(tickets):
        ticket = path.ticket
        names = [name for name, (_, total) in ticket.mask.layers().items() if total]
        drawn = {name: mask for name, mask in drawn_masks(ticket, level).items() if name == RANDOM}
        for kind, mask in {TICKET: ticket.mask, **drawn}.items():
            found = degrees(mask)
            for name in names:
                into, out_of = found[name]
                shown = name in _spread_evenly(names, SHOWN)
                place = (level, density, kind, number + 1, name, shown)
                rows.append((*place, *_spread_of(into), *_spread_of(out_of)))
    return Table(tuple(UNITS), tuple(rows))


def _spread_of(counts: Tensor) -> tuple[int, float, float, int, float | None]:
    """Number, share of zeros, mean, largest and Gini coefficient (None if all are 0) of degrees."""
    uneven = gini(counts) if int(counts.sum()) else None
    share = float((counts == 0).double().mean())
    return counts.numel(), share, float(counts.double().mean()), int(counts.max()), uneven


def _spread_evenly(names: Sequence[str], most: int) -> list[str]:
    if len(names) <= most:
        return list(names)
    return [names[round(n * (len(names) - 1) / (most - 1))] for n in range(most)]


def units_says(table: Table) -> list[str]:
    """How uneven degrees are at the sparsest level, in the first layer and over all, against random masks."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    at = table.where(density=min(float(str(d)) for d in table.column("density")))
    density, first = float(str(at.column("density")[0])), str(at.column("layer")[0])
    at = at.where(layer=first)

    def mean(column: str, mask: str) -> dict[str, Value] | None:
        rows = summarised(at.where(mask=mask), column, ["mask"]).rows()
        return rows[0] if rows else None

    sentences = []
    for column, what in (("in_gini", "in-degrees of the units"), ("out_gini", "out-degrees of the inputs")):
        ticket, chance = mean(column, TICKET), mean(column, RANDOM)
        if ticket and chance:
            sentences.append(
                f"At a density of {kept_percent(density)}, the {what} of {first} have a Gini coefficient of "
                f"{said(ticket, column)}; in a random mask it is {said(chance, column)}."
            )
    for column, what in (
        ("without_inputs", "of its units have no input left"),
        ("unread", "of its inputs are unread"),
    ):
        ticket, chance = mean(column, TICKET), mean(column, RANDOM)
        if ticket and chance and max(float(row[column] or 0) for row in (ticket, chance)) >= 0.01:
            shares = [said(row, column, share=True) for row in (ticket, chance)]
            sentences.append(f"{shares[0]} {what}, against {shares[1]} in a random mask.")
    return sentences


@analysis(
    "units",
    title="Are connections spread evenly over units?",
    source="Gini 1912; in-degrees of tickets: Pellegrini & Biroli 2022",
    says=units_says,
    lines=(
        Lines(
            x="density", y="in_gini", series="mask", panel="layer", x_label="weights kept",
            y_label="Gini coefficient of in-degrees", where={"shown": True},
        ),
        Lines(
            x="density", y="out_gini", series="mask", panel="layer", x_label="weights kept",
            y_label="Gini coefficient of out-degrees", where={"shown": True},
        ),
        Lines(
            x="density", y="without_inputs", series="mask", panel="layer", x_label="weights kept",
            y_label="units without inputs", percent=True, where={"shown": True},
        ),
    ),
    columns=UNITS,
)  # fmt: skip
def units(cells: Cells, *, replicates: int = 5, levels: int = 8) -> Task:
    """Counts the kept weights that lead into each unit and that read each input, against random masks.

    The random masks have the ticket's count in every layer.
    """
    return _by_stack(units_of_stack, cells, "units", replicates=replicates, levels=levels)


def _by_stack(fn: Any, cells: Cells, name: str, *, replicates: int, levels: int) -> Task:
    """The task of an analysis with one part for every stack of tickets at the chosen levels."""
    parts = [
        part(fn, stack, name=name, level=level, density=cells.densities[level])
        for level in cells.chosen_levels(TICKET, levels)
        for stack in cells.stacks(level, TICKET, replicates=replicates)
    ]
    if not parts:
        raise NothingToAnalyseError("no level's tickets have finished")
    return together(parts, name=name)
