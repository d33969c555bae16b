"""Tensors of a network as C arrays: how they are coded, how many bytes they take, and their text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from winticket.ship.coding import multiples, units_of
from winticket.ship.network import Floats, Positions, Weight
from winticket.text import visible

SKIP = 255
"""A gap byte that skips so many columns and has no value."""
LONGEST_STRING = 4095
"""Bytes of a string literal that every C99 compiler takes."""
_COLUMNS = 1 << 16
_LINE = 100
Coding: TypeAlias = Literal["dense", "gaps", "columns"]


def literal(value: float) -> str:
    """The float32 as a C constant: nine digits, which read back to the same float32.

    Raises ValueError if it is too large for one.

    >>> literal(0.1), literal(-2), literal(1e-3)
    ('0.100000001f', '-2.0f', '0.00100000005f')
    """
    return _literals(singles([value]).tolist())[0]


def singles(values: Sequence[float]) -> Floats:
    """The numbers as float32. Raises ValueError if one is too large."""
    with np.errstate(over="ignore"):
        rounded = np.array(values, np.float32)
    if not np.isfinite(rounded).all():
        raise ValueError(f"{max(values, key=abs)} is larger than what float32 holds")
    return rounded


def _literals(values: Sequence[float]) -> list[str]:
    texts = ("%.9g " * len(values) % tuple(values)).split()
    return [f"{text}f" if "." in text or "e" in text else f"{text}.0f" for text in texts]


def string(text: str) -> str:
    r"""The text as a C string of UTF-8: control characters as visible escapes, everything special in octal.

    Raises ValueError for more bytes than every compiler takes.

    >>> print(string('a "b"??/'))
    "a \042b\042\077\077/"
    """
    data = visible(text).encode()
    if len(data) > LONGEST_STRING:
        raise ValueError(
            f"the name {visible(text[:40])!r}... has {len(data)} bytes; in C99 a string has at most {LONGEST_STRING}"
        )
    return (
        '"' + re.sub(rb"[^A-Za-z0-9 ._/:,;()\[\]+=*#-]", lambda m: b"\\%03o" % m[0][0], data).decode() + '"'
    )


def string_bytes(text: str) -> int:
    """Bytes that the string takes in memory, with the 0 at its end."""
    return len(visible(text).encode()) + 1


def comment(text: str, *, most: int = 60) -> str:
    """What of the text can be in a C comment: plain characters; others become underscores.

    >>> comment("fc*/ evil() /*")
    'fc__ evil() __'
    """
    plain = re.sub(r"[^A-Za-z0-9 .:,()\[\]+=#-]", "_", text)
    return plain if len(plain) <= most else plain[:most] + "..."


@dataclass(frozen=True, eq=False)
class Rows:
    """A weight as it is stored: the kept values row by row, a row being what one unit reads.

    coding  "dense": all values, pruned ones as 0
            "gaps": the columns skipped before each kept value, in bytes; SKIP skips without a value
            "columns": the column of each kept value, in 16 bits
    counts  kept values of each row; None if dense
    places  uint8 gaps or uint16 columns; None if dense
    values  float32, or int8 multiples of the row's scale
    scales  float32 [rows] of int8 values
    """

    coding: Coding
    values: npt.NDArray[Any]
    scales: Floats | None = None
    counts: Positions | None = None
    places: npt.NDArray[Any] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of values, places and scales; the counts' depend on the widest of the network."""
        arrays = (self.values, self.places, self.scales)
        return sum(max(1, a.size) * a.itemsize for a in arrays if a is not None)


def coded(weight: Weight) -> Rows:
    """The smallest of the three codings of a weight with two axes or more.

    >>> keep = np.array([[True] + [False] * 8 + [True], [False] * 10])
    >>> rows = coded(Weight.of("w", np.ones((2, 10)), keep))
    >>> rows.coding, rows.counts.tolist(), rows.places.tolist()
    ('gaps', [2, 0], [0, 8])
    """
    values, scales = _whole(weight)
    if weight.positions is None:
        return Rows("dense", values, scales)
    width = weight.size // weight.shape[0]
    rows, columns = np.divmod(weight.positions, width)
    counts = np.bincount(rows, minlength=weight.shape[0]).astype(np.int64)
    gaps = np.diff(weight.positions, prepend=-1) - 1
    first = np.diff(rows, prepend=-1) > 0
    gaps[first] = columns[first]
    sizes = {
        "dense": weight.size * values.itemsize,
        "gaps": len(values) * values.itemsize
        + int((gaps // SKIP + 1).sum())
        + count_bytes(counts) * len(counts),
    }
    if width <= _COLUMNS:
        sizes["columns"] = len(values) * (values.itemsize + 2) + count_bytes(counts) * len(counts)
    coding = min(sizes, key=lambda name: sizes[name])
    if coding == "dense":
        whole = np.zeros(weight.size, values.dtype)
        whole[weight.positions] = values
        return Rows("dense", whole, scales)
    if coding == "columns":
        return Rows("columns", values, scales, counts, columns.astype(np.uint16))
    return Rows("gaps", values, scales, counts, _gap_bytes(gaps))


def count_bytes(counts: Positions) -> int:
    """The fewest bytes, 1, 2 or 4, that hold each of the counts."""
    most = int(counts.max())
    return 1 if most < 1 << 8 else 2 if most < 1 << 16 else 4


def _whole(weight: Weight) -> tuple[npt.NDArray[Any], Floats | None]:
    """(Values as they are stored, scales): int8 if the values are exact multiples of their unit's scale."""
    if weight.scales is None:
        return weight.values, None
    whole = multiples(weight.values, weight.scales[units_of(weight.positions, weight.shape)])
    return (weight.values, None) if whole is None else (whole, weight.scales)


def _gap_bytes(gaps: Positions) -> npt.NDArray[np.uint8]:
    lengths = gaps // SKIP + 1
    coded = np.full(int(lengths.sum()), SKIP, np.uint8)
    coded[np.cumsum(lengths) - 1] = gaps % SKIP
    return coded


def array(type_: str, name: str, values: npt.NDArray[Any]) -> str:
    """The definition of a constant array. One that would be empty, which C has not, has a 0.

    >>> print(array("int8_t", "w", np.array([1, -2])), end="")
    static const int8_t w[2] = {
        1,-2
    };
    """
    values = values if values.size else np.zeros(1, values.dtype)
    items = values.tolist()
    texts = _literals(items) if values.dtype == np.float32 else list(map(str, items))
    return f"static const {type_} {name}[{len(texts)}] = {{\n{_lines(texts)}\n}};\n"


def _lines(texts: Iterable[str]) -> str:
    lines, line = [], ""
    for text in texts:
        if len(line) + len(text) > _LINE:
            lines.append(f"    {line}")
            line = ""
        line += f"{text},"
    lines.append(f"    {line[:-1]}")
    return "\n".join(lines)
