"""Schedules: from the density to end at and the number of levels to the density of every level.

Every public function here is a schedule, `(final, levels) -> [d₁, ..., d_levels]`, falling, the last one `final`.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["cubic", "geometric", "linear"]

REVISION = 1

Density = float | Mapping[str, float]


def geometric(final: float, levels: int) -> list[float]:
    """The same share of what is left goes at every level: d = final^(l / L).

    Frankle & Carbin 2019, §2, whose p^(1/n) per round this is. ValueError where `final` is not in (0, 1).
    """
    end = _checked(final)
    return _falling([_number(geometric_at(end, level / levels)) for level in range(1, levels + 1)], final)


def linear(final: float, levels: int) -> list[float]:
    """The same share of the whole goes at every level: d = 1 - (1 - final) · l / L.

    Tanaka et al. 2020 (SynFlow), the authors' prune.py, schedule "linear". ValueError as in `geometric`.
    """
    gone = 1 - _checked(final)
    return _falling([1 - gone * level / levels for level in range(1, levels + 1)], final)


def cubic(final: float, levels: int) -> list[float]:
    """Much at first, then less and less: d = final + (1 - final) · (1 - l / L)³.

    Zhu & Gupta 2017 (To Prune, or Not to Prune), for gradual pruning. ValueError as in `geometric`.
    """
    end = _checked(final)
    return _falling([_number(cubic_at(end, level / levels)) for level in range(1, levels + 1)], final)


def geometric_at(density: Density, share: float) -> Density:
    """The density after that share, 0..1, of the way to `density` from 1, or layers' densities: d^share."""
    if isinstance(density, Mapping):
        return {name: d**share for name, d in density.items()}
    return float(density**share)


def cubic_at(density: Density, share: float) -> Density:
    """As `geometric_at`, on Zhu & Gupta's cubic (2017, eq. 1): d + (1 - d) · (1 - share)³."""
    if isinstance(density, Mapping):
        return {name: d + (1 - d) * (1 - share) ** 3 for name, d in density.items()}
    return density + (1 - density) * (1 - share) ** 3


def _number(density: Density) -> float:
    assert not isinstance(density, Mapping)
    return density


def _checked(final: float) -> float:
    if not 0 < final < 1:
        raise ValueError(f"final_density is {final}; the density to end at lies in (0, 1)")
    return final


def _falling(densities: list[float], final: float) -> list[float]:
    """The last one exactly."""
    return [*densities[:-1], final]
