"""Sizes, shares and paths in words."""

from __future__ import annotations

import re


def last_part(path: str) -> str:
    """The last part of a path, which may say more than others should know; a name of the Hub stays whole.

    >>> last_part("/home/me/letters"), last_part("ylecun/mnist"), last_part("digits")
    ('letters', 'ylecun/mnist', 'digits')
    """
    if path.count("/") == 1 and not path.startswith(("/", ".", "~")):
        return path
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def kilobytes(count: float) -> str:
    """A number of bytes in words.

    >>> [kilobytes(count) for count in (512, 14_017, 1_456_187)]
    ['512 bytes', '14.0 kB', '1.46 MB']
    """
    if count < 1000:
        return f"{count:.0f} bytes"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"


def percent(share: float, digits: int = 2) -> str:
    """A fraction as a percentage.

    >>> percent(0.97333)
    '97.33 %'
    """
    return f"{100 * share:.{digits}f} %"


def density_percent(density: float) -> str:
    """A density as a percentage, with two significant digits or more.

    >>> [density_percent(density) for density in (1.0, 0.0476, 0.0012)]
    ['100 %', '4.8 %', '0.12 %']
    """
    share = 100 * density
    return f"{share:.0f} %" if share >= 99.95 else f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"
