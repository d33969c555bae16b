"""Numbers in words: a mean with its interval."""

from __future__ import annotations


def plus_minus(mean: float | None, ends: tuple[float, float] | None, *, scale: float, digits: int) -> str:
    """Write mean ± half the interval's width, both multiplied by `scale`. Without an interval, write only the mean.

    An interval that was cut at 0 or 100 % is not symmetric, so its two ends are written instead.

    >>> plus_minus(0.98, (0.97, 0.99), scale=100, digits=1)
    '98.0 ± 1.0'
    >>> plus_minus(0.999, (0.996, 1.0), scale=100, digits=2)
    '99.90 (99.60–100)'
    """
    if mean is None:
        return "–"
    text = f"{scale * mean:.{digits}f}"
    if ends is None:
        return text
    if is_cut(mean, ends):
        return f"{text} ({bare(scale * ends[0], digits)}–{bare(scale * ends[1], digits)})"
    return f"{text} ± {scale * (ends[1] - ends[0]) / 2:.{digits}f}"


def bare(value: float, digits: int) -> str:
    """Write a number with `digits` decimals, but 0 and 100 with none."""
    text = f"{value:.{digits}f}"
    return text if float(text) not in (0.0, 100.0) else f"{float(text):.0f}"


def is_cut(mean: float, ends: tuple[float, float]) -> bool:
    """True if an interval is not symmetric about its mean, because it was cut at a bound such as 0 or 100 %."""
    above, below = ends[1] - mean, mean - ends[0]
    return abs(above - below) > 1e-9 * max(1.0, abs(mean))
