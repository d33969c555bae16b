"""OWL: blocks whose scores have more outliers keep more weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def outlier_share(scores: Iterable[Tensor], threshold: float) -> float:
    """The share of a block's scores that exceed `threshold` times their mean, over all its layers together.

    Yin et al. 2024 (OWL), equation 1, with the scores |w| * ||X|| of Wanda. scores: tensors of any shape.

    >>> outlier_share([torch.tensor([1.0, 1.0]), torch.tensor([1.0, 9.0])], 2)
    0.25
    """
    listed = list(scores)
    total = sum(one.numel() for one in listed)
    mean = sum(float(one.sum(dtype=torch.float64)) for one in listed) / total
    return sum(int((one > threshold * mean).sum()) for one in listed) / total


def densities(shares: Sequence[float], density: float, spread: float) -> list[float]:
    """Each block's density: linear in its share of outliers, over a range of 2 * spread, with `density` as their mean.

    Yin et al. 2024 (OWL), section 3.3; the scaling is that of the authors' code (lib/prune_all.py): shares are mapped
    to 0..2λ and then shifted. Blocks with equal shares get equal densities. Raises ValueError if one is not in (0, 1].

    >>> [round(one, 6) for one in densities([0.01, 0.02, 0.03], 0.5, 0.08)]
    [0.42, 0.5, 0.58]
    """
    low, high = min(shares), max(shares)
    scaled = [2 * spread * (one - low) / (high - low) if high > low else 0.0 for one in shares]
    mean = sum(scaled) / len(scaled)
    made = [one - mean + density for one in scaled]
    if min(made) <= 0 or max(made) > 1:
        raise ValueError(
            f"OWL would give a block the density {min(made):.3g} and another {max(made):.3g}, which are not both in "
            f"(0, 1]; choose a narrower range than {spread:g} (--owl-range)"
        )
    return made
