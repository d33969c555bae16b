"""Allocation: scores and the current mask -> a smaller mask, with exact counts.

A layer or network of n eligible weights at density d keeps exactly round(d · n) of them, halves rounded up, whatever
the scores. Ties break by position, on every device: the earlier weight stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from winticket.ticket import Mask, Scores, members, with_parts

__all__ = [
    "Allocate",
    "blocks",
    "constant_fan_in",
    "erk",
    "global_top",
    "layerwise",
    "n_of_m",
    "structures",
    "uniform",
    "units",
]

REVISION = 2

Allocate = Callable[..., Mask]
Densities = Mapping[str, float]
WORDS = frozenset({"output", "conv", "linear", "*"})


def layerwise(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every layer, each layer by itself.

    `density` is one share for all layers, or a mapping from names to shares. A name is an exact parameter name, a
    pattern (`features.*`), `output` (the last layer of the mask), `conv` or `linear` (by the weight's dimensions), or
    `*` for the rest; the most specific one applies. Frankle & Carbin 2019, §2 and Figure 2 (the output layer at half
    the rate). Raises ValueError if a layer has no share, a layer would have to grow, or a name matches no layer.

    >>> scores = {"fc1": torch.tensor([[4.0, 1.0, 3.0, 2.0]]), "fc2": torch.tensor([[9.0, 8.0, 7.0, 6.0]])}
    >>> layerwise(scores, Mask.full(scores), density={"*": 0.5, "output": 0.75}).keep
    {'fc1': tensor([[ True, False,  True, False]]), 'fc2': tensor([[ True,  True,  True, False]])}
    """
    return _select(scores, mask, quotas(mask, density, competing=False))


def global_top(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of the whole network; layers compete.

    `density` applies to all eligible weights together. As in `layerwise`, it may be a mapping: a layer with its own
    share, under any name but `*`, does not compete, and `*` is the density of all other layers together. Frankle &
    Carbin 2019, §4 (deeper networks). Raises ValueError as `layerwise` does.

    >>> scores = {"fc1": torch.tensor([[4.0, 1.0, 3.0, 2.0]]), "fc2": torch.tensor([[9.0, 8.0, 7.0, 6.0]])}
    >>> global_top(scores, Mask.full(scores), density=0.5).keep
    {'fc1': tensor([[False, False, False, False]]), 'fc2': tensor([[True, True, True, True]])}
    """
    return _select(scores, mask, quotas(mask, density, competing=True))


def uniform(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every layer, at one density for all layers: `layerwise` without exceptions.

    Evci et al. 2020 (RigL), §3 "Uniform". They keep the first layer whole; use `exclude` for that. Raises ValueError if
    `density` has several shares, or a layer would have to grow.

    >>> scores = {"fc1": torch.tensor([[4.0, 1.0, 3.0, 2.0]]), "fc2": torch.tensor([[9.0, 8.0, 7.0, 6.0]])}
    >>> uniform(scores, Mask.full(scores), density=0.5).keep
    {'fc1': tensor([[ True, False,  True, False]]), 'fc2': tensor([[ True,  True, False, False]])}
    """
    return layerwise(scores, mask, density=_single(density, "uniform"))


def erk(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every layer, with the layers' densities from the Erdős–Rényi kernel rule.

    A layer's density is proportional to the sum of its dimensions over their product, so small layers stay denser. A
    layer whose density would exceed 1 is kept whole. Mocanu et al. 2018 (SET), and for kernels Evci et al. 2020 (RigL).
    Raises ValueError if `density` has several shares, or a layer would have to grow.

    >>> scores = {"fc1": torch.ones(20, 30), "fc2": torch.ones(10, 20)}
    >>> erk(scores, Mask.full(scores), density=0.2).layers()  # 160 weights, as 20 + 30 to 10 + 20
    {'fc1': (100, 600), 'fc2': (60, 200)}
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
"""Allocations whose counts in every layer follow from the density alone, whatever the scores."""


def constant_fan_in(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The best-scored weights of every output unit, the same number for all units of a layer.

    Wanda compares weights like this (Sun et al. 2024), and Lasby et al. 2024 (SRigL) train like this. A unit keeps
    round(density · fan-in) inputs, at least 1. Raises ValueError if a unit has fewer alive, or `density` has several
    shares.

    >>> scores = {"fc": torch.tensor([[1.0, 2.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0]])}
    >>> constant_fan_in(scores, Mask.full(scores), density=0.5).keep
    {'fc': tensor([[False, False,  True,  True],
            [ True,  True, False, False]])}
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
    """The best-scored n = density · m of every m consecutive inputs of an output unit, such as 2:4 at density 0.5.

    Mishra et al. 2021 (Accelerating Sparse Deep Neural Networks). In a convolution, the m inputs are channels at one
    position of the kernel, as sparse tensor cores multiply them (NVIDIA's apex, sparse_masklib.py); with groups, they
    are channels of one group. Raises ValueError if n is not a whole number of at least 1, if a unit's inputs are not a
    multiple of m, or if m consecutive inputs have fewer than n weights alive.

    >>> scores = {"fc": torch.tensor([[1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0]])}
    >>> n_of_m(scores, Mask.full(scores), density=0.5).keep
    {'fc': tensor([[False,  True, False,  True,  True,  True, False, False]])}
    """
    share = _single(density, "n_of_m")
    n = round(share * m)
    if n < 1 or abs(n - share * m) > 1e-9:
        possible = ", ".join(f"{k / m:g}" for k in range(1, m))
        raise ValueError(f"density {share:g} does not give a pattern of {m}; possible: {possible}")

    for name, before in mask.keep.items():
        inputs = mask.laid_out(name).by_unit(before).shape[1]
        if inputs % m:
            raise ValueError(
                f"the units of {name} read {inputs} inputs each, which is not a multiple of {m}; exclude it"
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
    """The whole blocks with the highest sum of scores: `size` output units by `size` inputs, at all kernel positions.

    Gray et al. 2017 (GPU Kernels for Block-Sparse Weights); in convolutions, their blocks too are of input and output
    features. Each layer keeps round(density · blocks). In a convolution with groups, a block lies within one group.
    Raises ValueError if a layer does not divide into blocks, or has fewer alive.

    >>> scores = {"fc": torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 9.0]])}
    >>> blocks(scores, Mask.full(scores), density=0.5, size=2).keep
    {'fc': tensor([[False, False,  True,  True],
            [False, False,  True,  True]])}
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
                f"{name} has {units} units x {inputs} inputs{within}, which do not divide into blocks of {size}; "
                "exclude it"
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
    """The whole filters and neurons with the highest mean score: round(density · units) of each layer, at least 1.

    Li et al. 2017. Exclude the output layer, since its units are the classes. With a unit, training also sets to 0 its
    bias, the scale and shift of its BatchNorm and the weights that read it (`winticket.units.dead`). Raises ValueError
    if fewer units are alive.

    >>> scores = {"fc": torch.tensor([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0], [0.0, 0.0]])}
    >>> units(scores, Mask.full(scores), density=0.5).keep["fc"][:, 0]
    tensor([False,  True,  True, False])
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


def structures(scores: Scores, mask: Mask, *, density: float | Densities) -> Mask:
    """The whole attention heads, hidden neurons and tokens with the highest mean score of their weights.

    Each structure (`winticket.units.structures`), such as the heads of one layer, keeps round(density · parts) of its
    parts, at least 1. Michel et al. 2019 (Are Sixteen Heads Really Better than One?), who prune heads; hidden neurons
    are units (Li et al. 2017), pruned together with the weights that read them. Exclude weights that belong to no
    structure; they are kept whole. Raises ValueError if there are no structures, fewer parts are alive, or only some of
    a structure's weights may be pruned.

    >>> from winticket.units import Layout
    >>> rows = Layout(structure="neurons", parts=2, members=2)
    >>> layout = {"up": rows, "down": replace(rows, by_inputs=True)}
    >>> scores = {"up": torch.tensor([[1.0, 1.0], [3.0, 0.0]]), "down": torch.tensor([[1.0, 2.0]])}
    >>> structures(scores, Mask.full(scores, layout=layout), density=0.5).keep
    {'up': tensor([[False, False],
            [ True,  True]]), 'down': tensor([[False,  True]])}
    """
    share, kept = _single(density, "structures"), {}
    _check(scores, mask)
    found = members(mask)
    if not found:
        raise ValueError(
            "none of the weights that may be pruned belongs to attention heads or to hidden neurons of a feed-forward "
            "part, so there are no structures to prune; a module of yours declares its own in prunable_structures"
        )
    for structure, names in found.items():
        blocks = [
            (mask.layout[n].by_part(scores[n]).double(), mask.layout[n].by_part(mask.keep[n])) for n in names
        ]
        total = sum(values.masked_fill(~alive, 0).sum(1) for values, alive in blocks)
        count = sum(alive.sum(1) for _, alive in blocks)
        mean = torch.as_tensor(total) / torch.as_tensor(count).clamp(min=1)
        kept[structure] = _top(
            mean, torch.as_tensor(count) > 0, max(1, _count(share, len(mean))), f"{structure}, by parts"
        )
    return with_parts(mask, kept)


def quotas(mask: Mask, density: float | Densities, *, competing: bool) -> list[tuple[tuple[str, ...], int]]:
    """Groups of layers, and the number of weights that each group keeps, before any score is known.

    If layers are `competing`, those that only `*` covers form one group. Raises ValueError if a density is not in (0,
    1], a layer has none, or a name or pattern matches no layer.

    >>> mask = Mask.full({"fc1": torch.ones(2, 4), "fc2": torch.ones(1, 2)})
    >>> quotas(mask, 0.5, competing=False), quotas(mask, 0.5, competing=True)
    ([(('fc1',), 4), (('fc2',), 1)], [(('fc1', 'fc2'), 5)])
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
            raise ValueError(
                f"there is a density for {rule!r}, which matches none of the layers {', '.join(names)}"
            )


def _count(density: float, total: int) -> int:
    return math.floor(density * total + 0.5)


def _rule(name: str, names: list[str], mask: Mask, shares: Densities) -> str:
    """The name of the share that applies to a layer: the most specific one."""
    patterns = [p for p in shares if p not in WORDS and p != name and fnmatchcase(name, p)]
    choices = [name, *sorted(patterns, key=len, reverse=True)]
    if name == names[-1]:
        choices.append("output")
    choices += ["linear" if mask.keep[name].ndim == 2 else "conv", "*"]
    for choice in choices:
        if choice in shares:
            return choice
    raise ValueError(
        f"there is no density for layer {name!r}, only for {', '.join(shares)}; add '*' for the rest"
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
            shape = f"scores of shape {tuple(scores[name].shape)}" if name in scores else "no scores"
            raise ValueError(f"layer {name!r} of shape {tuple(keep.shape)} has {shape}")
        if not bool(torch.isfinite(scores[name]).all()):
            raise ValueError(
                f"the scores of layer {name!r} are not all finite; a criterion must return finite scores, and the "
                "training must not have diverged"
            )


def _top(scores: Tensor, alive: Tensor, count: int, what: str) -> Tensor:
    """The `count` best of scores [n] among the alive, bool [n]."""
    available = int(alive.sum())
    if count > available:
        raise ValueError(
            f"{what}: this density keeps {count} of {alive.numel()} weights, but only {available} are alive; pruning "
            "cannot revive weights"
        )
    if count in (0, available):
        return alive.clone() if count else torch.zeros_like(alive)
    if scores.dtype not in (torch.float32, torch.float64):
        scores = scores.to(torch.float64 if scores.dtype == torch.int64 else torch.float32)
    candidates = scores if available == len(alive) else scores[alive]
    # Selecting takes a fraction of the time of sorting, and least on the shorter side of the cut.
    dropped = available - count
    if count <= dropped:
        cut = torch.topk(candidates, count, sorted=False).values.min()
    else:
        cut = torch.topk(candidates, dropped + 1, largest=False, sorted=False).values.max()
    keep = alive & (scores > cut)
    # Ties break by position, so that masks agree across devices.
    ties = torch.nonzero(alive & (scores == cut)).squeeze(1)
    keep[ties[: count - int(keep.sum())]] = True
    return keep


def _single(density: float | Densities, what: str) -> float:
    """The one density that an allocation takes. Raises ValueError for several."""
    if isinstance(density, Mapping):
        if set(density) != {"*"}:
            raise ValueError(f"{what} takes one density for all layers, not {dict(density)}")
        density = density["*"]
    if not 0 < density <= 1:
        raise ValueError(f"density {density} is not in (0, 1]")
    return density


def _erk_counts(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """The number of weights that each layer keeps by the rule, before rounding."""
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
    """The `count` best of each row of scores [rows, n] among the alive, bool [rows, n]."""
    fewest = int(alive.sum(1).min())
    if fewest < count:
        raise ValueError(
            f"{what} has {fewest} weights alive, but should keep {count}; pruning cannot revive weights"
        )
    ranked = scores.double().masked_fill(~alive, -torch.inf)
    order = torch.sort(ranked, dim=1, descending=True, stable=True).indices
    return torch.zeros_like(alive).scatter_(1, order[:, :count], value=True)
