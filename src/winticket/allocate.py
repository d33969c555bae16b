"""Allocation: scores and the mask so far -> a smaller mask, with exact counts.

Counts are round(density · total), halves up, over eligible weights; a layer or network of n weights at
density d keeps exactly that many, whichever the scores. Ties break by position, the earlier weight staying,
on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from winticket.ticket import Mask, Scores

__all__ = [
    "Allocate",
    "blocks",
    "constant_fan_in",
    "erk",
    "global_top",
    "layerwise",
    "n_of_m",
    "uniform",
    "units",
]

REVISION = 2

Allocate = Callable[..., Mask]
Densities = Mapping[str, float]
WORDS = frozenset({"output", "conv", "linear", "*"})


def layerwise(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every layer on its own.

    `density` is one share for all layers, or shares by name: an exact parameter name or a pattern
    (`features.*`), `output` (the last layer of the mask), `conv` and `linear` (by the weight's dimensions),
    `*` for the rest; the most particular one holds. Frankle & Carbin 2019, §2 and Figure 2 (the output layer
    at half the rate). Raises ValueError where a layer has no share or would have to grow, or a name fits no
    layer.
    """
    return _select(scores, mask, quotas(mask, density, competing=False))


def global_top(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of the whole network, layers competing.

    `density` is over all eligible weights. Layers may be given a share of their own, as in `layerwise`, under any name
    but `*`; they then stay out of the competition, and `*` is the density of the layers that remain. Frankle & Carbin
    2019, §4 (deeper networks). Raises ValueError as `layerwise` does.
    """
    return _select(scores, mask, quotas(mask, density, competing=True))


def uniform(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every layer, one density for all of them: `layerwise` without exceptions.

    Evci et al. 2020 (RigL), §3 "Uniform", who leave the first layer whole, as `exclude` does here.
    """
    return layerwise(scores, mask, density=_single(density, "uniform"))


def erk(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every layer, with layers' densities by the Erdős–Rényi kernel rule.

    A layer's density is proportional to (its dimensions' sum) / (their product), so that small layers stay denser;
    what would go beyond 1 is kept whole. Mocanu et al. 2018 (SET), and for kernels Evci et al. 2020 (RigL).
    ValueError where a layer would have to grow.
    """
    whole = _single(density, "erk")
    sizes = {name: keep.numel() for name, keep in mask.keep.items()}
    exact = _erk_counts({name: tuple(keep.shape) for name, keep in mask.keep.items()}, whole)
    counts = {name: math.floor(count) for name, count in exact.items()}
    left = _count(whole, sum(sizes.values())) - sum(counts.values())
    for name in sorted(exact, key=lambda n: counts[n] - exact[n])[: max(left, 0)]:
        counts[name] += 1  # the largest remainders
    return _select(scores, mask, [((name,), counts[name]) for name in mask.keep])


BY_LAYER: tuple[Allocate, ...] = (layerwise, uniform, erk)
"""Those whose counts of every layer follow from the density alone, whatever the scores."""


def constant_fan_in(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every output unit: each has as many inputs as the others of its layer.

    As Wanda compares weights (Sun et al. 2024) and as Lasby et al. 2024 (SRigL) train them: round(density ·
    fan-in) inputs, at least 1. ValueError where a unit has fewer left.
    """
    share = _single(density, "constant_fan_in")
    _check(scores, mask)
    keep = {}
    for name, before in mask.keep.items():
        layout = mask.laid_out(name)
        alive, row = layout.rows(before), layout.rows(scores[name])
        chosen = _within_rows(row, alive, max(1, _count(share, row.shape[1])), f"a unit of {name}")
        keep[name] = layout.from_rows(chosen, before)
    return replace(mask, keep=keep)


def n_of_m(scores: Scores, mask: Mask, *, density: float | Densities, m: int = 4) -> Mask:
    """The best-scored n = density · m of every m consecutive inputs of an output unit, as 2:4 at density .5.

    Mishra et al. 2021 (Accelerating Sparse Deep Neural Networks). Of a convolution, the m are input channels at one
    position of the kernel, as sparse tensor cores multiply them (NVIDIA's apex, sparse_masklib.py); of one in groups,
    channels of one group. ValueError if n is no whole number of at least 1, a unit's inputs are no multiple of m, or m
    of them have fewer weights left than n.
    """
    share = _single(density, "n_of_m")
    n = round(share * m)
    if n < 1 or abs(n - share * m) > 1e-9:
        possible = ", ".join(f"{k / m:g}" for k in range(1, m))
        raise ValueError(f"density {share:g} is no pattern of {m}; possible are {possible}")

    for name, before in mask.keep.items():
        inputs = mask.laid_out(name).by_unit(before).shape[1]
        if inputs % m:
            raise ValueError(
                f"the units of {name} read {inputs} inputs each, which is no multiple of {m}; exclude it"
            )
    _check(scores, mask)
    keep = {}
    for name, before in mask.keep.items():
        layout = mask.laid_out(name)
        alive, values = (layout.by_unit(x).transpose(1, 2) for x in (before, scores[name]))
        what = f"a run of {m} inputs of {name}"
        chosen = _within_rows(values.reshape(-1, m), alive.reshape(-1, m), n, what)
        keep[name] = layout.from_units(chosen.view(alive.shape).transpose(1, 2), before)
    return replace(mask, keep=keep)


def blocks(scores: Scores, mask: Mask, *, density: float | Densities, size: int = 4) -> Mask:
    """Whole blocks of `size` output units by `size` inputs, at all positions of a kernel: those of the highest sum.

    Gray et al. 2017 (GPU Kernels for Block-Sparse Weights), whose blocks of convolutions are of input and output
    features as well. round(density · blocks) of each layer; of a convolution in groups, a block is within one.
    ValueError if a layer does not divide into blocks or has fewer alive.
    """
    share, keep = _single(density, "blocks"), {}
    _check(scores, mask)
    for name, before in mask.keep.items():
        layout = mask.laid_out(name)
        alive, values = layout.by_unit(before), layout.by_unit(scores[name]).double()
        units, inputs, positions = alive.shape
        if units // layout.groups % size or inputs % size:
            within = f" in {layout.groups} groups" if layout.groups > 1 else ""
            raise ValueError(
                f"{name} is {units} units x {inputs} inputs{within}, which blocks of {size} do not divide; exclude it"
            )
        tiles = (units // size, size, inputs // size, size, positions)
        cells = alive.reshape(tiles)
        sums = values.masked_fill(~alive, 0).reshape(tiles).sum((1, 3, 4)).flatten()
        chosen = _top(
            sums, cells.any(4).any(3).any(1).flatten(), _count(share, len(sums)), f"{name}, by blocks"
        )
        kept = cells & chosen.view(tiles[0], 1, tiles[2], 1, 1)
        keep[name] = layout.from_units(kept.reshape(alive.shape), before)
    return replace(mask, keep=keep)


def units(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """Whole filters and neurons, those of the highest mean score: round(density · units) of each layer, at least 1.

    Li et al. 2017. Leave the output layer out of the mask, since its units are the classes. With a unit go its bias,
    the scale and shift of its BatchNorm and the weights that read it (`winticket.units.dead`): they are 0 in training.
    ValueError if fewer units are alive.
    """
    share, keep = _single(density, "units"), {}
    _check(scores, mask)
    for name, before in mask.keep.items():
        layout = mask.laid_out(name)
        alive, values = layout.by_unit(before), layout.by_unit(scores[name]).double()
        mean = values.masked_fill(~alive, 0).sum((1, 2)) / alive.sum((1, 2)).clamp(min=1)
        chosen = _top(mean, alive.flatten(1).any(1), max(1, _count(share, len(mean))), f"{name}, by units")
        keep[name] = layout.from_units(alive & chosen.view(-1, 1, 1), before)
    return replace(mask, keep=keep)


def quotas(mask: Mask, density: float | Densities, *, competing: bool) -> list[tuple[tuple[str, ...], int]]:
    """Groups of layers and the count of weights that each group keeps, before any score is known.

    Where layers are `competing`, those that only `*` speaks of form one group. ValueError where a density is
    not in (0, 1], a layer has none, or a name or pattern fits no layer.
    """
    shares = {"*": density} if isinstance(density, int | float) else dict(density)
    names = list(mask.keep)
    _check_shares(shares, names)
    rules = {name: _rule(name, names, mask, shares) for name in names}
    pool = tuple(n for n in names if competing and rules[n] == "*")
    groups = [(n,) for n in names if n not in pool] + ([pool] if pool else [])
    return [(g, _count(shares[rules[g[0]]], sum(mask.keep[n].numel() for n in g))) for g in groups]


def _check_shares(shares: Densities, names: list[str]) -> None:
    for rule, density in shares.items():
        if not 0 < density <= 1:
            raise ValueError(f"density {density} of {rule!r} is not in (0, 1]")
        if rule not in WORDS and not any(name == rule or fnmatchcase(name, rule) for name in names):
            raise ValueError(f"a density is given for {rule!r}, which fits no layer of {', '.join(names)}")


def _count(density: float, total: int) -> int:
    return math.floor(density * total + 0.5)


def _rule(name: str, names: list[str], mask: Mask, shares: Densities) -> str:
    """Which of the shares holds for a layer: the most particular one."""
    patterns = [p for p in shares if p not in WORDS and p != name and fnmatchcase(name, p)]
    choices = [name, *sorted(patterns, key=len, reverse=True)]
    if name == names[-1]:
        choices.append("output")
    choices += ["linear" if mask.keep[name].ndim == 2 else "conv", "*"]
    for choice in choices:
        if choice in shares:
            return choice
    raise ValueError(
        f"no density is given for layer {name!r}; given are {', '.join(shares)}; add '*' for the rest"
    )


def _select(scores: Scores, mask: Mask, groups: list[tuple[tuple[str, ...], int]]) -> Mask:
    _check(scores, mask)
    keep: dict[str, Tensor] = {}
    for names, count in groups:
        flat = torch.cat([scores[n].reshape(-1) for n in names])
        alive = torch.cat([mask.keep[n].reshape(-1) for n in names])
        sizes = [mask.keep[n].numel() for n in names]
        chosen = _top(flat, alive, count, ", ".join(names))
        for name, part in zip(names, torch.split(chosen, sizes), strict=True):
            keep[name] = part.view(mask.keep[name].shape)
    return replace(mask, keep={n: keep[n] for n in mask.keep})


def _check(scores: Scores, mask: Mask) -> None:
    for name, keep in mask.keep.items():
        if name not in scores or scores[name].shape != keep.shape:
            given = tuple(scores[name].shape) if name in scores else "none"
            raise ValueError(f"layer {name!r} of shape {tuple(keep.shape)} has scores of shape {given}")
        if not bool(torch.isfinite(scores[name]).all()):
            raise ValueError(
                f"the scores of layer {name!r} are not all finite; a criterion gives finite scores, of a training that "
                "has not diverged"
            )


def _top(scores: Tensor, alive: Tensor, count: int, what: str) -> Tensor:
    """Bool [n]: the `count` best of scores [n] among the alive."""
    available = int(alive.sum())
    if count > available:
        raise ValueError(
            f"{what}: the density asked for keeps {count} of {alive.numel()} weights, but only {available} "
            "are alive; pruning cannot revive weights"
        )
    if count in (0, available):
        return alive.clone() if count else torch.zeros_like(alive)
    if scores.dtype not in (torch.float32, torch.float64):
        scores = scores.to(torch.float64 if scores.dtype == torch.int64 else torch.float32)
    candidates = scores if available == len(alive) else scores[alive]
    # A selection takes a fraction of a sort's time, least of it on the shorter side of the cut.
    gone = available - count
    if count <= gone:
        cut = torch.topk(candidates, count, sorted=False).values.min()
    else:
        cut = torch.topk(candidates, gone + 1, largest=False, sorted=False).values.max()
    keep = alive & (scores > cut)
    # Ties break by position, so that masks agree across devices.
    ties = torch.nonzero(alive & (scores == cut)).squeeze(1)
    keep[ties[: count - int(keep.sum())]] = True
    return keep


def _single(density: float | Densities, what: str) -> float:
    """The one density that an allocation takes. ValueError for several."""
    if isinstance(density, Mapping):
        if set(density) != {"*"}:
            raise ValueError(f"{what} takes one density for all layers, not {dict(density)}")
        density = density["*"]
    if not 0 < density <= 1:
        raise ValueError(f"density {density} is not in (0, 1]")
    return density


def _erk_counts(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """How many weights each layer keeps by the rule, before rounding."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        left = density * sum(sizes.values()) - sum(sizes[n] for n in dense)
        weight = {
            n: float(sum(shape)) for n, shape in shapes.items() if n not in dense
        }  # density times size, up to ε
        scale = left / sum(weight.values()) if weight else 0.0
        beyond = {n for n in weight if scale * weight[n] > sizes[n]}
        if not beyond:
            return {n: float(sizes[n]) if n in dense else scale * weight[n] for n in shapes}
        dense |= beyond


def _within_rows(scores: Tensor, alive: Tensor, count: int, what: str) -> Tensor:
    """Bool [rows, n]: the `count` best of each row of scores [rows, n] among the alive."""
    fewest = int(alive.sum(1).min())
    if fewest < count:
        raise ValueError(
            f"{what} has {fewest} weights left, and {count} are to stay; pruning cannot revive weights"
        )
    ranked = scores.double().masked_fill(~alive, -torch.inf)
    order = torch.sort(ranked, dim=1, descending=True, stable=True).indices
    return torch.zeros_like(alive).scatter_(1, order[:, :count], value=True)
