"""What `winticket ship` may be asked for: formats, and the kinds of values that each can hold; without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec

from winticket.ship.coding import VALUES
from winticket.text import nearest

HOLDS: Mapping[str, tuple[str, ...]] = {
    "safetensors": VALUES,
    "torch": ("fp32",),
    "onnx": ("fp32",),
    "tflite": ("fp32",),
    "tflite-sparse": ("fp32",),
    "c": ("fp32", "int8"),
    "hub": VALUES,
    "web": VALUES,
}
"""Format, as `--to` takes it -> the kinds of values that it can hold."""
COMPACT = "compact"
"""What the command also calls "safetensors", the compact file of a network or of a language model."""
_LITERT = ("ai_edge_litert", "ai-edge-litert")
NEEDS: Mapping[str, tuple[str, str]] = {"onnx": ("onnx", "onnx"), "tflite": _LITERT, "tflite-sparse": _LITERT}
"""Format -> (the module that it needs to be written, the package that has it)."""


def check_name(name: str) -> None:
    """ValueError for a name of a file that has a folder in it, or a dot at its ends.

    >>> check_name("../digits")
    Traceback (most recent call last):
    ValueError: name is '../digits'; it names a file, so it has no folder in it and no dot at its ends
    """
    if name and name != re.split(r"[/\\]", name)[-1].strip(". "):
        raise ValueError(
            f"name is {name!r}; it names a file, so it has no folder in it and no dot at its ends"
        )


def check(to: str, values: str) -> None:
    """ValueError for a format or a kind of values that does not exist, or if the two do not go together.

    Also if the package that writes the format is not installed.

    >>> check("torch", "fp16")
    Traceback (most recent call last):
    ValueError: format torch holds values in fp32, not in fp16
    """
    if to not in HOLDS:
        raise ValueError(
            f"there is no format {to!r}{nearest(to, (*HOLDS, COMPACT))}; possible: {', '.join(HOLDS)}, and {COMPACT}, "
            "which is safetensors by another name"
        )
    known = dict.fromkeys(kind for kinds in HOLDS.values() for kind in kinds)
    if values not in known:
        raise ValueError(f"values is {values!r}{nearest(values, known)}; possible: {', '.join(known)}")
    if values not in HOLDS[to]:
        raise ValueError(f"format {to} holds values in {', '.join(HOLDS[to])}, not in {values}")
    module, package = NEEDS.get(to, ("", ""))
    if module and find_spec(module) is None:
        raise ValueError(
            f"format {to} is written with the package {package}, which is not installed: pip install 'winticket[ship]'"
        )
