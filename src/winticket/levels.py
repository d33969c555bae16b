"""The former place of `Levels`, `Level` and `state_of`, which are in `winticket.loops`."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name.startswith("__"):  # the import system asks for some
        raise AttributeError(name)
    raise ImportError(f"winticket.levels has moved to winticket.loops: from winticket.loops import {name}")
