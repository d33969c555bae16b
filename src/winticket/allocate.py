"""Allocation: scores and the mask so far -> a smaller mask, with exact counts.

Counts are round(density · total), halves up, over eligible weights; a layer or network of n weights at
density d keeps exactly that many, whichever the scores. Ties break by position, the earlier weight staying,
on every device.
"""

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from winticket.ticket import Mask, Scores

__all__ = ["Allocate", "global_top", "layerwise"]

REVISION = 1

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
    """The best-scored weights of the whole network, layers competing; `density` over all eligible weights.

    Layers may be given a share of their own, as in `layerwise`, under any name but `*`; they then stay out of
    the competition, and `*` is the density of the layers that remain. Frankle & Carbin 2019, §4 (deeper
    networks). Raises ValueError as `layerwise` does.
    """
    return _select(scores, mask, quotas(mask, density, competing=True))


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
    return Mask({n: keep[n] for n in mask.keep})


def _check(scores: Scores, mask: Mask) -> None:
    for name, keep in mask.keep.items():
        if name not in scores or scores[name].shape != keep.shape:
            given = tuple(scores[name].shape) if name in scores else "none"
            raise ValueError(f"layer {name!r} of shape {tuple(keep.shape)} has scores of shape {given}")
        if not bool(torch.isfinite(scores[name]).all()):
            raise ValueError(
                f"the scores of layer {name!r} are not all finite; a criterion gives finite scores"
            )


def _top(scores: Tensor, alive: Tensor, count: int, what: str) -> Tensor:
    """Bool [n]: the `count` best of scores [n] among the alive."""
    available = int(alive.sum())
    if count > available:
        raise ValueError(
            f"{what}: the density asked for keeps {count} of {alive.numel()} weights, but only {available} "
            "are alive; pruning cannot revive weights"
        )
    places = torch.nonzero(alive).squeeze(1)
    # Stable: ties break by position, so that masks agree across devices.
    best = torch.sort(scores[places], descending=True, stable=True).indices[:count]
    keep = torch.zeros_like(alive)
    keep[places[best]] = True
    return keep
