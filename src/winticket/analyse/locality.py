"""Whether units read neighbouring pixels, and which pixels are read at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from winticket.analyse.facts import Cells, Lines, NothingToAnalyseError, analysis, part, present, together
from winticket.analyse.networks import outputs
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Trajectory

REVISION = 2


def displacements(keep: Tensor, shape: Sequence[int]) -> Tensor:
    """How often two inputs that a unit keeps lie at each displacement from one another, in the same channel.

    keep: bool [units, inputs]; shape: of the inputs, [channels, height, width], [channels, length] or [length]. Returns
    counts [2 height - 1, 2 width - 1] (a height of 1 for signals); no displacement is in the middle, and its count is
    0. Both orders of a pair count. This is S^sc(d) of Pellegrini & Biroli 2022. ValueError if the shape does not hold
    as many inputs.

    >>> displacements(torch.tensor([[True, True, False], [True, False, True]]), (3,))
    tensor([[1., 1., 0., 1., 1.]])
    """
    together = _pairs(keep, shape)
    _, height, width = _image(keep, shape)
    row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
    down, right = (at[None, :] - at[:, None] for at in (row, column))
    position = (down + height - 1) * (2 * width - 1) + right + width - 1
    counts = torch.zeros((2 * height - 1) * (2 * width - 1), dtype=torch.float64)
    counts.index_add_(0, position.flatten(), together.flatten())
    return counts.view(2 * height - 1, 2 * width - 1).float()


def neighbours(keep: Tensor, shape: Sequence[int]) -> tuple[float, float]:
    """How many times as often as by chance two inputs of a unit are neighbours: (as kept, by the pixels alone).

    keep and shape as for `displacements`. Two inputs are neighbours if they are in the same channel and at most one
    pixel apart, also diagonally. By chance, a unit's inputs are drawn uniformly, so each pair of pixels is as likely as
    any other, whatever the counts. The second number is expected if units drew their inputs independently, each pixel
    as often as it is read; it is above 1 if pixels that are read often lie together. nan if no unit keeps two inputs of
    a channel.

    >>> keep = torch.tensor([[True, True, False, False], [False, False, True, True]])
    >>> neighbours(keep, (4,))  # half of all pairs are neighbours, and all kept ones; every pixel is read once
    (2.0, 1.0)
    """
    channels, height, width = _image(keep, shape)
    near = _near(height, width)
    pixels = height * width
    chance = float(near.sum()) / (pixels * (pixels - 1)) if pixels > 1 else math.nan
    together = _pairs(keep, shape)
    often = keep.double().sum(0).view(channels, pixels)
    apart = torch.einsum("cp,cq->pq", often, often).fill_diagonal_(0)
    return _share(together, near) / chance, _share(apart, near) / chance


def centrality(keep: Tensor, shape: Sequence[int]) -> float:
    """The mean distance of the kept inputs from the middle of the image, relative to that of all inputs.

    keep and shape as for `displacements`. Below 1, inputs in the middle are kept more often. nan if none is kept.

    >>> centrality(torch.tensor([[False, True, False]]), (3,))
    0.0
    """
    channels, height, width = _image(keep, shape)
    away = _from_middle(height, width).repeat(channels)
    often = keep.double().sum(0)
    return float((often * away).sum() / often.sum() / away.mean()) if bool(often.any()) else math.nan


def _image(keep: Tensor, shape: Sequence[int]) -> tuple[int, int, int]:
    """A shape of inputs as (channels, height, width). ValueError for others."""
    if not 1 <= len(shape) <= 3 or keep.ndim != 2 or math.prod(shape) != keep.shape[1]:
        raise ValueError(
            f"a mask of shape {tuple(keep.shape)} is not [units, inputs] for inputs of shape {tuple(shape)}; give "
            "[channels, height, width], [channels, length] or [length]"
        )
    padded = (
        (1, 1, *shape) if len(shape) == 1 else (shape[0], 1, shape[1]) if len(shape) == 2 else tuple(shape)
    )
    return padded[0], padded[1], padded[2]


def _pairs(keep: Tensor, shape: Sequence[int]) -> Tensor:
    """How many units keep both of two pixels of a channel, float64 [pixels, pixels], 0 on the diagonal."""
    channels, height, width = _image(keep, shape)
    images = keep.double().view(len(keep), channels, height * width)
    return torch.einsum("ucp,ucq->pq", images, images).fill_diagonal_(0)


def _near(height: int, width: int) -> Tensor:
    """Whether two pixels are neighbours, bool [pixels, pixels]."""
    row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
    apart = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    return apart == 1


def _from_middle(height: int, width: int) -> Tensor:
    """The distance of each pixel from the middle of the image, in pixels, float64 [pixels]."""
    row = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    column = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return torch.hypot(row[:, None], column[None, :]).flatten()


def _share(pairs: Tensor, near: Tensor) -> float:
    whole = float(pairs.sum())
    return float(pairs[near].sum()) / whole if whole else math.nan


COLUMNS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "mask": "the ticket's first layer, or inputs drawn for each unit, a pixel as often as the ticket reads it",
    "replicate": "number of the replicate, from 1",
    "kept": "weights that the first layer keeps",
    "neighbours": "how many times as often as by chance two inputs of a unit are neighbours",
    "beyond": "the ticket's neighbours / those of its pixels alone: above 1, units choose neighbours",
    "centrality": "mean distance of the inputs from the middle of the image, relative to chance",
}
PIXELS_ALONE = "ticket's pixels, drawn for each unit"


def locality_of_stack(
    setup: Setup, tickets: Sequence[Trajectory | Failed], *, layer: str, level: int, density: float
) -> Table:
    """How local and how central the inputs are that the first layer of a stack's tickets keeps."""
    rows: list[tuple[Any, ...]] = []
    for number, path in present(tickets):
        keep = path.ticket.mask.keep[layer]
        kept, pixels = neighbours(keep, setup.input_shape)
        middle = centrality(keep, setup.input_shape)
        for mask, ratio, beyond in (
            ("ticket", kept, kept / pixels if pixels else math.nan),
            (PIXELS_ALONE, pixels, math.nan),
        ):
            known = [None if math.isnan(value) else value for value in (ratio, beyond, middle)]
            rows.append((level, density, mask, number + 1, int(keep.sum()), *known))
    return Table(tuple(COLUMNS), tuple(rows))


def locality_says(table: Table) -> list[str]:
    """How local and how central the first layer is at the sparsest level."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    at = table.where(density=min(float(str(d)) for d in table.column("density")))
    density = float(str(at.column("density")[0]))
    near = {str(row["mask"]): row for row in summarised(at, "neighbours", ["mask"]).rows()}
    middle = {str(row["mask"]): row for row in summarised(at, "centrality", ["mask"]).rows()}
    beyond = summarised(at, "beyond", ["mask"]).rows()
    sentences = []
    if "ticket" in near and beyond:
        sentences.append(
            f"At a density of {kept_percent(density)}, two inputs that a unit of the first layer keeps are neighbours "
            f"{said(near['ticket'], 'neighbours')} times as often as in a random mask. This is "
            f"{said(beyond[0], 'beyond')} times as often as the ticket's choice of pixels explains."
        )
    if "ticket" in middle:
        sentences.append(
            f"Kept inputs are {said(middle['ticket'], 'centrality')} times as far from the middle of the image as "
            "those of a random mask."
        )
    return sentences or ["The first layer keeps too few weights to say whether they are local."]


@analysis(
    "locality",
    title="Do units read neighbouring pixels?",
    source="Pellegrini & Biroli 2022, locality of masks: pairs of a unit's inputs by displacement, in the same channel",
    says=locality_says,
    lines=(
        Lines(
            x="density", y="neighbours", series="mask", x_label="weights kept",
            y_label="neighbouring inputs of a unit / by chance", level=1.0, level_label="random mask",
        ),
        Lines(
            x="density", y="centrality", x_label="weights kept", y_label="distance from the middle / by chance",
            level=1.0, level_label="random mask", where={"mask": "ticket"},
        ),
    ),
    columns=COLUMNS,
)  # fmt: skip
def locality(cells: Cells, *, replicates: int = 15, levels: int = 8) -> Task:
    """Measures how local and how central the inputs are that the units of the first layer keep.

    The chance values are exact expectations over random masks with the ticket's count of weights in every unit. Data
    must be images or signals, and the first layer must be a Linear layer that reads them whole.
    """
    if feature_names(cells.setup):
        raise NothingToAnalyseError("the features of a table have no neighbours, as pixels have")
    layer = first_layer(cells.setup, cells.eligible)
    planned = [
        part(
            locality_of_stack, cells.setup, stack, name="locality", layer=layer, level=level,
            density=cells.densities[level],
        )
        for level in cells.chosen_levels("ticket", levels)
        for stack in cells.stacks(level, "ticket", replicates=replicates)
    ]  # fmt: skip
    if not planned:
        raise NothingToAnalyseError("no level's tickets have finished")
    return together(planned, name="locality")


PIXELS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "row": "row of the pixel, from 0 at the top; 0 for signals",
    "column": "column of the pixel, from 0 at the left",
    "feature": "name of the feature, if the data are a table",
    "kept": "units of the first layer that read the pixel, of any channel; mean over tickets",
    "share": "kept / units of the first layer / channels",
    "tickets": "number of tickets",
}


def pixels_of_level(
    setup: Setup,
    stacks: Sequence[Sequence[Trajectory | Failed]],
    *,
    layer: str,
    level: int,
    density: float,
    features: tuple[str, ...] = (),
) -> Table:
    """How many units of the first layer read each pixel, in the mean over the tickets of some stacks.

    features: what the inputs are called, if they are the features of a table.
    """
    masks = [path.ticket.mask.keep[layer] for stack in stacks for _, path in present(stack)]
    if not masks:
        return Table(tuple(PIXELS))
    channels, height, width = _image(masks[0], setup.input_shape)
    counts = (
        torch.stack([keep.double().sum(0) for keep in masks]).mean(0).view(channels, height, width).sum(0)
    )
    most = len(masks[0]) * channels
    rows = [
        (
            level,
            density,
            row,
            column,
            features[column] if features else None,
            float(counts[row, column]),
            float(counts[row, column]) / most,
            len(masks),
        )
        for row in range(height)
        for column in range(width)
    ]
    return Table(tuple(PIXELS), tuple(rows))


def pixels_says(table: Table) -> list[str]:
    """How unevenly pixels are read at the sparsest level."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    at = table.where(density=min(float(str(d)) for d in table.column("density")))
    counts = sorted((float(str(row["kept"])), row["row"], row["column"], row["feature"]) for row in at.rows())
    density, unread = float(str(at.column("density")[0])), sum(1 for kept, *_ in counts if kept == 0)
    half = _holders_of_half([kept for kept, *_ in counts])
    most, row, column, feature = counts[-1]
    inputs = "pixels" if feature is None else "features"
    which = (
        f"The pixel in row {int(str(row)) + 1}, column {int(str(column)) + 1}"
        if feature is None
        else f"The feature {feature}"
    )
    return [
        f"At a density of {kept_percent(density)}, {half} of {len(counts)} {inputs} have half of the first layer's "
        f"weights, and {unread} have none in any of {at.column('tickets')[0]} tickets. {which} is read by the most "
        f"units: {most:.3g} in the mean."
    ]


def _holders_of_half(counts: Sequence[float]) -> int:
    """The fewest pixels that have half of the weights together."""
    half, total, number = sum(counts) / 2, 0.0, 0
    for count in sorted(counts, reverse=True):
        if total >= half:
            break
        total, number = total + count, number + 1
    return number


@analysis(
    "pixels",
    title="Which inputs does the ticket read?",
    source="Pellegrini & Biroli 2022, connections by pixel",
    says=pixels_says,
    lines=(),
    columns=PIXELS,
)
def pixels(cells: Cells, *, replicates: int = 5, levels: int = 6) -> Task:
    """Counts by pixel how many units of the first layer read it, at every level.

    The table has a row per pixel, so it can be drawn as a picture; for data that are a table, it has a row per feature.
    The first layer must be a Linear layer that reads examples whole.
    """
    layer, features = first_layer(cells.setup, cells.eligible), feature_names(cells.setup)
    planned = [
        part(
            pixels_of_level, cells.setup, list(cells.stacks(level, "ticket", replicates=replicates)), name="pixels",
            layer=layer, level=level, density=cells.densities[level], features=features,
        )
        for level in cells.chosen_levels("ticket", levels)
    ]  # fmt: skip
    if not planned:
        raise NothingToAnalyseError("no level's tickets have finished")
    return together(planned, name="pixels")


def feature_names(setup: Setup) -> tuple[str, ...]:
    """The names of a table's features; () for other data, and for data that are no longer there."""
    try:
        return setup.facts().feature_names
    except (OSError, ValueError, LookupError, ImportError):
        return ()


def first_layer(setup: Setup, prunable: Sequence[str]) -> str:
    """The name of the Linear weight that reads whole examples. NothingToAnalyseError if there is none."""
    if setup.tokens:
        raise NothingToAnalyseError(
            "the data are text, and only inputs that are images or signals have pixels"
        )
    if not 1 <= len(setup.input_shape) <= 3:
        raise NothingToAnalyseError(f"inputs of shape {setup.input_shape} are no images or signals")
    readers = _readers(setup)
    if not readers:
        raise NothingToAnalyseError(
            "no Linear layer reads whole examples; the kernels of convolutions are local by construction"
        )
    if readers[0] not in prunable:
        raise NothingToAnalyseError(f"{readers[0]}, which reads the examples, is not pruned")
    return readers[0]


def _readers(setup: Setup) -> list[str]:
    """The names of the weights of Linear layers that read an example as it is, flattened."""
    module, x = setup.module(), torch.rand(1, *setup.input_shape, generator=torch.Generator().manual_seed(0))
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if torch.equal(inputs[0].flatten(1), x.flatten(1)):
                found.append(f"{name}.weight")

        return hook

    linear = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(look(name)) for name, layer in linear]
    try:
        outputs(module, dict(module.named_parameters()), dict(module.named_buffers()), x)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in found if name in dict(module.named_parameters())]
