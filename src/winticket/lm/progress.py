"""How computations on language models report what they do."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str, float | None], None]
"""Takes what is being done, and the seconds that it will still take, if that is known."""


def silent(_what: str, _left: float | None) -> None:
    """Reports nothing.

    >>> silent("Loading the model", None)
    """
