"""Do two searches find the same ticket? Overlap of masks against what chance gives in layers of these densities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from winticket import align
from winticket.analyse.facts import Cells, Lines, NothingToAnalyseError, analysis, part, present, together
from winticket.analyse.networks import last
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Mask, Trajectory
from winticket.ticket.mask import same_layers

REVISION = 1

Counts = tuple[int, int, int, float, float]


def jaccard(one: Mask, other: Mask) -> float:
    """|A ∩ B| / |A ∪ B| of the weights that two masks keep, over all layers; 1 for two masks that keep nothing.

    Jaccard 1912. ValueError if the masks' layers differ.

    >>> import torch
    >>> a, b = (Mask({"w": torch.tensor(keep)}) for keep in ([True, True, False], [True, False, True]))
    >>> jaccard(a, b)
    0.3333333333333333
    """
    both, kept, others, _, _ = _counts(one, other)
    union = kept + others - both
    return both / union if union else 1.0


def chance(one: Mask, other: Mask) -> tuple[float, float]:
    """The overlap that chance gives, and how far the two masks' is from it: (Jaccard index, z).

    Chance means masks drawn independently and uniformly with each layer's counts. In a layer of N weights of which the
    masks keep a and b, the number that both keep is hypergeometric: mean ab/N, variance ab(N-a)(N-b)/(N²(N-1)). Layers
    are independent, so means and variances add up. The index is that of the mean number, and z is the masks' number
    less its mean, in standard deviations. z is 0 if nothing is left to chance (every layer whole or empty).

    >>> import torch
    >>> mask = Mask({"w": torch.arange(100) < 10})
    >>> index, z = chance(mask, mask)
    >>> round(index, 3), round(z, 2)
    (0.053, 9.95)
    """
    both, kept, others, mean, variance = _counts(one, other)
    union = kept + others - mean
    z = (both - mean) / math.sqrt(variance) if variance > 0 else 0.0
    return (mean / union if union else 1.0), z


def _counts(one: Mask, other: Mask) -> Counts:
    same_layers("the two masks", one.keep, other.keep)
    both, kept, others, mean, variance = 0, 0, 0, 0.0, 0.0
    for name, keep in one.keep.items():
        total, a, b = keep.numel(), int(keep.sum()), int(other.keep[name].sum())
        both, kept, others = both + int((keep & other.keep[name]).sum()), kept + a, others + b
        if total > 1:
            mean += a * b / total
            variance += a * b * (total - a) * (total - b) / (total**2 * (total - 1))
        elif total:
            mean += a * b
    return both, kept, others, mean, variance


def matched(
    mask: Mask, fixed: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], groups: Any
) -> Mask:
    """The mask of a network with weights `other`, its hidden units renumbered to correspond to those of `fixed`.

    groups: of `winticket.align.symmetry`. Ainsworth, Hayase & Srinivasa 2023, algorithm 1; see `winticket.align.match`.
    """
    orders = align.match(fixed, other, groups)
    return replace(mask, keep=align.permuted(mask.keep, groups, orders))


COLUMNS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "pair": "what the two searches share: their init but not the order of examples, or neither; units matched or not",
    "replicate": "number of the first replicate, from 1",
    "jaccard": "weights that both tickets keep, as a share of those that at least one keeps",
    "chance": "the same share if both were drawn at random with each layer's counts",
    "z": "distance from chance in standard deviations",
}
SAME_INIT, NEW_INIT, MATCHED = "same init, new order", "new init", "new init, units matched"
BASELINE = "units matched, weights shuffled"


def overlap_of_stacks(
    setup: Setup,
    tickets: Sequence[Trajectory | Failed],
    dense: Sequence[Trajectory | Failed],
    again: Sequence[Any],
    *,
    level: int,
    density: float,
) -> Table:
    """The overlaps within a stack at one level: each replicate's ticket with the next one's and with its repetition's.

    again: tickets of the same search with other SGD noise, empty for none. A failed replicate has no rows.
    """
    rows: list[tuple[Any, ...]] = []
    trained = {number: last(path).weights for number, path in present(dense)}
    masks = {number: path.ticket.mask for number, path in present(tickets)}
    repeated = {one.seeds.replicate: one.mask for one in again if not isinstance(one, Failed)}
    groups = _groups(setup)

    def add(pair: str, number: int, one: Mask, other: Mask) -> None:
        expected, z = chance(one, other)
        rows.append((level, density, pair, number + 1, jaccard(one, other), expected, z))

    for number, mask in masks.items():
        if number in repeated:
            add(SAME_INIT, number, mask, repeated[number])
    numbers = sorted(masks)
    for number, following in zip(numbers, [*numbers[1:], *numbers[:1]], strict=True):
        if number == following:
            continue
        add(NEW_INIT, number, masks[number], masks[following])
        if groups is None or not {number, following} <= trained.keys():
            continue
        fixed, other = trained[number], trained[following]
        add(MATCHED, number, masks[number], matched(masks[following], fixed, other, groups))
        shuffled, moved = _shuffled(other, masks[following], seed=number)
        add(BASELINE, number, masks[number], matched(moved, fixed, shuffled, groups))
    return Table(tuple(COLUMNS), tuple(rows))


def _groups(setup: Setup) -> Any:
    """The hidden units that may be renumbered; None if the network's are not known."""
    try:
        return align.symmetry(setup.module(), setup.input_shape)
    except ValueError:
        return None


def _shuffled(
    weights: Mapping[str, torch.Tensor], mask: Mask, *, seed: int
) -> tuple[dict[str, torch.Tensor], Mask]:
    """Weights and mask with the positions of every tensor shuffled, alike in both: what matching finds in noise."""
    generator = torch.Generator().manual_seed(seed)
    moved, keep = dict(weights), dict(mask.keep)
    for name, weight in weights.items():
        order = torch.randperm(weight.numel(), generator=generator)
        moved[name] = weight.flatten()[order].view_as(weight)
        if name in keep:
            keep[name] = keep[name].flatten()[order].view_as(weight)
    return moved, replace(mask, keep=keep)


def overlap_says(table: Table) -> list[str]:
    """The overlap at the sparsest level, against chance."""
    if not table.values:
        return ["No two replicates finished, so there is nothing to compare."]
    sparsest = min(float(str(d)) for d in table.column("density"))
    at = table.where(density=sparsest)
    means = {str(row["pair"]): row for row in summarised(at, "jaccard", ["pair"]).rows()}
    by_chance = summarised(at, "chance", ["pair"]).rows()[0]["chance"]
    lines = [
        f"At a density of {kept_percent(sparsest)}, chance gives tickets of these layer densities an overlap (Jaccard "
        f"index) of {float(by_chance or 0):.3g}."
    ]
    words = {
        SAME_INIT: "Searches from the same init with another order of examples overlap by {}",
        NEW_INIT: "searches from different inits by {}",
        MATCHED: "after matching their hidden units by {}",
        BASELINE: "and matching gives as much as {} between shuffled weights, where there is nothing to find",
    }
    said_of = [words[pair].format(said(means[pair], "jaccard")) for pair in words if pair in means]
    text = ", ".join(said_of)
    return [*lines, text[:1].upper() + text[1:] + "."]


@analysis(
    "overlap",
    title="Do two searches find the same ticket?",
    source="Jaccard 1912; chance within layers: hypergeometric; matching: Ainsworth, Hayase & Srinivasa 2023, alg. 1",
    says=overlap_says,
    lines=(
        Lines(
            x="density", y="jaccard", series="pair", x_label="weights kept",
            y_label="overlap of two tickets (Jaccard index)",
        ),
    ),
    columns=COLUMNS,
)  # fmt: skip
def overlap(cells: Cells, *, replicates: int = 5, levels: int = 8) -> Task:
    """Compares tickets of two searches: of the same init with another order of examples, and of different inits.

    The overlap of masks is set against chance within layers, and for different inits it is also measured after matching
    hidden units. The search from the same inits is run again with other SGD noise, for `replicates` replicates;
    `levels` levels are compared.
    """
    chosen = cells.chosen_levels("ticket", levels)
    dense = {str(s.label["first"]): s for s in cells.stacks(0, "dense", replicates=replicates)}
    again = {first: cells.search(1, int(first)) for first in dense}
    parts = [
        part(
            overlap_of_stacks,
            cells.setup,
            stack,
            dense[str(stack.label["first"])],
            again[str(stack.label["first"])][level - 1],
            name="overlap",
            level=level,
            density=cells.densities[level],
        )
        for level in chosen
        for stack in cells.stacks(level, "ticket", replicates=replicates)
        if str(stack.label["first"]) in dense
    ]
    if not parts:
        raise NothingToAnalyseError("no level's tickets have finished")
    return together(parts, name="overlap")
