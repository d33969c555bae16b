"""Bit streams of the compact file: masks as bits or as Golomb-Rice codes of gaps, and values in fewer bits."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]
Values = Literal["fp32", "fp16", "bf16", "int8"]
VALUES: tuple[Values, ...] = get_args(Values)
BITS: dict[Values, int] = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}
MOST_LOW_BITS = 24
"""Largest Rice parameter: gaps of more than 2**24 are rarer than any file's weights."""
LEVELS = 127
"""int8 values are -127 to 127."""


class CodingError(ValueError):
    """A bit stream is not one that this module writes."""


def check_values(values: str) -> Values:
    """The name of a kind of values. ValueError for any other."""
    if values not in VALUES:
        raise ValueError(f"values is {values!r}; possible: {', '.join(VALUES)}")
    return values


def bits_of(positions: Integers, size: int) -> Bytes:
    """One bit for each of `size` elements, the first in the highest bit, padded with zeros.

    >>> bits_of(np.array([0, 2]), 3).tolist()
    [160]
    """
    flags = np.zeros(size, np.bool_)
    flags[positions] = True
    return np.packbits(flags)


def positions_of_bits(stream: Bytes, size: int, kept: int) -> Integers:
    """The inverse of `bits_of`. CodingError if the stream has another length, count or padding."""
    if len(stream) != -(-size // 8):
        raise CodingError(f"{size} flags need {-(-size // 8)} bytes, not {len(stream)}")
    positions = np.flatnonzero(np.unpackbits(stream))
    if len(positions) != kept or (kept and positions[-1] >= size):
        raise CodingError(f"its mask keeps {len(positions)} elements, but {kept} of {size} are declared")
    return positions.astype(np.int64)


def _gaps(positions: Integers) -> Integers:
    """The number of pruned elements before each kept one, since the kept one before it."""
    gaps: Integers = np.diff(positions, prepend=-1) - 1
    return gaps


def rice_bytes(gaps: Integers, low: int) -> int:
    """Bytes of the Golomb-Rice code with `low` low bits: the quotients in unary, then the remainders."""
    return -(-(int((gaps >> low).sum()) + len(gaps)) // 8) + -(-(len(gaps) * low) // 8)


def best_rice(positions: Integers) -> tuple[int, int]:
    """(low bits, bytes) of the shortest code.

    >>> best_rice(np.arange(0, 8000, 20))  # gaps of 19: quotient 2 and 3 low bits, 6 bits each
    (3, 300)
    """
    gaps = _gaps(positions)
    return min(((low, rice_bytes(gaps, low)) for low in range(MOST_LOW_BITS + 1)), key=lambda each: each[1])


def rice_of(positions: Integers, low: int) -> Bytes:
    """The gaps before the kept elements in the Golomb-Rice code with `low` low bits (Golomb 1966; Rice 1979).

    A gap g has the quotient q = g >> low and the remainder r = g & (2**low - 1). First come the quotients, each as q
    zeros and a one, then the remainders of `low` bits each, highest bit first. Both parts begin on a byte and are
    padded with zeros.

    >>> rice_of(np.array([1, 6]), 1).tolist()  # gaps 1 and 4: quotients 0 and 2, remainders 1 and 0
    [144, 128]
    """
    gaps = _gaps(positions)
    ends = np.cumsum((gaps >> low) + 1) - 1
    unary = bits_of(ends, int(ends[-1]) + 1 if len(ends) else 0)
    places = np.arange(low - 1, -1, -1)
    return np.concatenate([unary, np.packbits((gaps[:, None] >> places & 1).astype(np.uint8))])


def positions_of_rice(stream: Bytes, size: int, kept: int, low: int) -> Integers:
    """The inverse of `rice_of`. CodingError if the stream has another length, count or padding, or leads too far."""
    tail = -(-kept * low // 8)
    if not 0 <= low <= MOST_LOW_BITS or len(stream) < tail:
        raise CodingError(f"{kept} remainders of {low} bits do not fit into {len(stream)} bytes")
    ends = np.flatnonzero(np.unpackbits(stream[: len(stream) - tail]))
    if len(ends) != kept or len(stream) - tail != (-(-(int(ends[-1]) + 1) // 8) if kept else 0):
        raise CodingError(f"its mask keeps {len(ends)} elements, but {kept} of {size} are declared")
    if kept and (int(ends[-1]) + 1 - kept) << low > size:  # before anything could overflow
        raise CodingError(f"its mask leads beyond its {size} elements")
    digits = np.unpackbits(stream[len(stream) - tail :])
    if digits[kept * low :].any():
        raise CodingError("its mask has bits behind its end")
    places = 1 << np.arange(low - 1, -1, -1, dtype=np.int64)
    remainders = digits[: kept * low].reshape(kept, low).astype(np.int64) @ places
    gaps = ((np.diff(ends, prepend=-1) - 1) << low) + remainders
    positions: Integers = np.cumsum(gaps + 1) - 1
    if kept and positions[-1] >= size:
        raise CodingError(f"its mask leads beyond its {size} elements")
    return positions


def information(size: int, kept: int) -> float:
    """Bits of information in a mask that keeps `kept` of `size` elements: size * H(kept / size), Shannon's entropy.

    >>> round(information(1000, 50) / 50, 2)
    5.73
    """
    share = kept / size
    parts = [p for p in (share, 1 - share) if p]
    return -size * sum(p * math.log2(p) for p in parts)


def stored(name: str, values: Floats, kind: Values) -> npt.NDArray[Any]:
    """Values as a file holds them in fp32, fp16 or bf16 (uint16). ValueError, naming the tensor, if one is too large.

    >>> stored("w", np.array([1.0], np.float32), "bf16").tolist()
    [16256]
    """
    if kind == "fp32":
        return values.astype("<f4")
    if kind == "fp16":
        with np.errstate(over="ignore"):
            small = values.astype("<f2")
        if not np.isfinite(small).all():
            raise ValueError(
                f"tensor {name!r} has values up to {abs(values).max():.3g}, and fp16 ends at 65504; use bf16 or fp32"
            )
        return small
    whole = values.view(np.uint32).astype(np.uint64)
    rounded = ((whole + 0x7FFF + (whole >> 16 & 1)) >> 16).astype("<u2")  # to the nearest, ties to even
    if not np.isfinite(restored(rounded, "bf16")).all():
        raise ValueError(f"tensor {name!r} has values too large for bf16; use fp32")
    return rounded


def restored(values: npt.NDArray[Any], kind: Values) -> Floats:
    """The float32 values of what `stored` gave."""
    if kind == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def units_of(positions: Integers | None, shape: tuple[int, ...]) -> Integers:
    """The output unit, by number, that each kept element of a tensor belongs to."""
    each = math.prod(shape[1:])
    return (np.arange(shape[0] * each) if positions is None else positions) // each


def quantised(values: Floats, units: Integers, count: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """(whole numbers -127..127, one scale for each of `count` units): value = number * scale, up to half a scale.

    A unit's scale is its largest magnitude / 127, so that 0 stays 0 and the largest value is exact to float32.

    >>> whole, scales = quantised(np.array([0.5, -1.0, 3.0], np.float32), np.array([0, 0, 1]), 2)
    >>> whole.tolist(), [round(float(scale) * 127, 6) for scale in scales]
    ([64, -127, 127], [1.0, 3.0])
    """
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, units, abs(values))
    scales = largest / np.float32(LEVELS)
    return whole_numbers(values, scales[units]), scales


def multiples(values: Floats, scales: Floats) -> npt.NDArray[np.int8] | None:
    """The whole numbers -127..127 of which values are exact multiples of their scales; None if they are not all.

    >>> scales = np.array([0.5, 0.5], np.float32)
    >>> multiples(np.array([1.5, -63.5], np.float32), scales).tolist()
    [3, -127]
    >>> multiples(np.array([1.4, -63.5], np.float32), scales) is None
    True
    """
    whole = whole_numbers(values, scales)
    return whole if np.array_equal(whole * scales, values) else None


def whole_numbers(values: Floats, scales: Floats) -> npt.NDArray[np.int8]:
    """The nearest multiple of its scale for each value, -127..127; 0 for a scale of 0."""
    with np.errstate(over="ignore"):  # cut to -127..127 below
        ratios = np.divide(values, scales, out=np.zeros_like(values), where=scales > 0)
    return np.clip(np.rint(ratios), -LEVELS, LEVELS).astype(np.int8)
