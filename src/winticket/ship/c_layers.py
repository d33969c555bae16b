"""The C functions of linear layers and convolutions, for every way in which weights are stored."""

from __future__ import annotations

import re
import textwrap

from winticket.ship.c_layer_text import (
    ABOUT,
    CONV,
    CONV_FINISH,
    CONV_START,
    CONV_ZERO,
    LINEAR,
    PLACES,
    TAP_USE,
    WALKS,
)


def layer(kind: str, coding: str, *, whole: bool) -> str:
    """The function NAME_{kind}_{coding}_{int8 or float} for kind "linear" or "conv"; whole: its weights are int8."""
    parameters = ["int32_t inputs"] if (kind, coding) == ("linear", "dense") else []
    parameters += [*PLACES[coding], f"const {'int8_t' if whole else 'float'} *values"]
    parameters += ["const float *scales"] if whole else []
    use = "sum += (float)*values++ * x[column]" if kind == "linear" else TAP_USE
    parts = {
        "WALK": put(WALKS[coding], "USE;", f"{use};\n"),
        "LEFT": "" if coding == "dense" else "int32_t left;\n",
        "START": CONV_ZERO if whole else CONV_START,
        "FINISH": CONV_FINISH if whole else "",
    }
    words = {
        "PARAMETERS": ", ".join(parameters),
        "ABOUT": ABOUT[coding] + (", multiples of a scale for each unit" if whole else ""),
        "CODING": coding,
        "TYPE": "int8" if whole else "float",
        "SUM": "scales[unit] * sum" if whole else "sum",
    }
    text = LINEAR if kind == "linear" else CONV
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    for word, lines in parts.items():
        text = put(text, word, lines)
    return text


def put(text: str, word: str, lines: str) -> str:
    """The text with these lines, indented alike, for each line that is only the word."""
    return re.sub(rf"^( *){re.escape(word)}\n", lambda m: textwrap.indent(lines, m[1]), text, flags=re.M)
