"""What `winticket ship` may be asked for: formats, and the kinds of values that each can hold; without torch."""

from __future__ import annotations

from collections.abc import Mapping

from winticket.ship.coding import VALUES
from winticket.text import nearest

HOLDS: Mapping[str, tuple[str, ...]] = {"safetensors": VALUES, "torch": ("fp32",), "web": VALUES}
"""Format, as `--to` takes it -> the kinds of values that it can hold."""


def check(to: str, values: str) -> None:
    """ValueError for a format or a kind of values that does not exist, or if the two do not go together.

    >>> check("onnxx", "fp32")
    Traceback (most recent call last):
    ValueError: there is no format 'onnxx'; possible: safetensors, torch, web
    """
    if to not in HOLDS:
        raise ValueError(f"there is no format {to!r}{nearest(to, HOLDS)}; possible: {', '.join(HOLDS)}")
    known = dict.fromkeys(kind for kinds in HOLDS.values() for kind in kinds)
    if values not in known:
        raise ValueError(f"values is {values!r}{nearest(values, known)}; possible: {', '.join(known)}")
    if values not in HOLDS[to]:
        raise ValueError(f"format {to} holds values in {', '.join(HOLDS[to])}, not in {values}")
