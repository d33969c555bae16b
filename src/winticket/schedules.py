"""Schedules: the final density and the number of levels -> the density of every level.

Every public function here is a schedule, `(final, levels) -> [d₁, ..., d_levels]`. Densities fall; the last is `final`.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["cubic", "geometric", "linear"]

REVISION = 1

Density = float | Mapping[str, float]


def geometric(final: float, levels: int) -> list[float]:
    """Every level prunes the same share of the remaining weights: d = final^(l / L).

    Frankle & Carbin 2019, §2: each of n rounds prunes p^(1/n) %. Raises ValueError if `final` is not in (0, 1).

    >>> [round(d, 3) for d in geometric(0.1, 3)]
    [0.464, 0.215, 0.1]
    """
    end = _checked(final)
    return _falling([_number(geometric_at(end, level / levels)) for level in range(1, levels + 1)], final)


def linear(final: float, levels: int) -> list[float]:
    """Every level prunes the same share of all weights: d = 1 - (1 - final) · l / L.

    Tanaka et al. 2020 (SynFlow), the authors' prune.py, schedule "linear". Raises ValueError as `geometric` does.

    >>> [round(d, 3) for d in linear(0.1, 3)]
    [0.7, 0.4, 0.1]
    """
    pruned = 1 - _checked(final)
    return _falling([1 - pruned * level / levels for level in range(1, levels + 1)], final)


def cubic(final: float, levels: int) -> list[float]:
    """The first levels prune much, later ones less and less: d = final + (1 - final) · (1 - l / L)³.

    Zhu & Gupta 2017 (To Prune, or Not to Prune), for gradual pruning. Raises ValueError as `geometric` does.

    >>> [round(d, 3) for d in cubic(0.1, 3)]
    [0.367, 0.133, 0.1]
    """
    end = _checked(final)
    return _falling([_number(cubic_at(end, level / levels)) for level in range(1, levels + 1)], final)


def geometric_at(density: Density, share: float) -> Density:
    """The density after a share (0 to 1) of the way from 1 to `density`: d^share. `density` may be a mapping by layer.

    >>> geometric_at(0.25, 0.5), geometric_at({"fc1": 0.25, "fc2": 0.81}, 0.5)
    (0.5, {'fc1': 0.5, 'fc2': 0.9})
    """
    if isinstance(density, Mapping):
        return {name: d**share for name, d in density.items()}
    return float(density**share)


def cubic_at(density: Density, share: float) -> Density:
    """Like `geometric_at`, along Zhu & Gupta's cubic (2017, eq. 1): d + (1 - d) · (1 - share)³.

    >>> cubic_at(0.5, 0.5), cubic_at(0.5, 1.0)
    (0.5625, 0.5)
    """
    if isinstance(density, Mapping):
        return {name: d + (1 - d) * (1 - share) ** 3 for name, d in density.items()}
    return density + (1 - density) * (1 - share) ** 3


def _number(density: Density) -> float:
    assert not isinstance(density, Mapping)
    return density


def _checked(final: float) -> float:
    if not 0 < final < 1:
        raise ValueError(f"final_density is {final}; it must lie in (0, 1)")
    return final


def _falling(densities: list[float], final: float) -> list[float]:
    """The densities, the last one exactly `final`."""
    return [*densities[:-1], final]
