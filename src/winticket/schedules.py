"""Schedules: from the density to end at and the number of levels to the density of every level.

Every public function here is a schedule, `(final, levels) -> [d₁, ..., d_levels]`, falling, the last one `final`.
"""

__all__ = ["cubic", "geometric", "linear"]

REVISION = 1


def geometric(final: float, levels: int) -> list[float]:
    """The same share of what is left goes at every level: d = final^(l / L).

    Frankle & Carbin 2019, §2, whose p^(1/n) per round this is. ValueError where `final` is not in (0, 1).
    """
    return _falling([_checked(final) ** (level / levels) for level in range(1, levels + 1)], final)


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
    gone = 1 - _checked(final)
    return _falling([final + gone * (1 - level / levels) ** 3 for level in range(1, levels + 1)], final)


def _checked(final: float) -> float:
    if not 0 < final < 1:
        raise ValueError(f"final_density is {final}; the density to end at lies in (0, 1)")
    return final


def _falling(densities: list[float], final: float) -> list[float]:
    """The last one exactly."""
    return [*densities[:-1], final]
