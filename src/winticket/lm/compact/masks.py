"""Masks as bytes: one bit for each weight, Golomb-Rice codes of gaps, or for n:m patterns the number of each group."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from winticket.ship import coding
from winticket.ship.coding import Bytes, CodingError, Integers

Flags: TypeAlias = npt.NDArray[np.bool_]
LARGEST_GROUP = 16
"""Most consecutive inputs of a pattern's group."""
WORD = 62
"""Most bits of a word, which numbers several groups at once."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class MaskEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How a mask is coded. low: low bits of `rice`. n, m, columns: `groups` of m flags that keep n, see `encode`."""

    code: Literal["bits", "rice", "groups"]
    kept: _Count
    bytes: _Count
    low: Annotated[int, msgspec.Meta(ge=0, le=coding.MOST_LOW_BITS)] = 0
    n: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_GROUP)] = 0
    m: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_GROUP)] = 0
    columns: _Count = 0


def encode(flags: Flags, columns: int = 0) -> tuple[MaskEntry, Bytes]:
    """The shortest code of a mask [n] and its bytes.

    columns: 0 if the inputs of a unit are consecutive; if units are (Conv1D of Transformers), the number of units, and
    groups run along the first axis of [n / columns, columns]. The three codes are

    - bits: a bit for each flag, as `winticket.ship.coding.bits_of` writes them;
    - rice: gaps between kept flags in the Golomb-Rice code, as `winticket.ship.coding.rice_of` writes them;
    - groups: if each m consecutive flags keep exactly n, the number of each group among the C(m, n) possible ones, in
      the order of their flags as binary numbers. As many groups as fit best are one number in base C(m, n), in a word
      of so many bits as its largest value needs. This is enumerative coding (Cover 1973): 2:4 takes .647 bits for each
      weight, and log2(6) / 4 = .646 is least.

    >>> entry, coded = encode(np.array([1, 1, 0, 0, 0, 1, 0, 1] * 40, dtype=bool))
    >>> entry.code, entry.n, entry.m, len(coded)  # 80 groups: 5 words of 44 bits, where bits take 40 bytes
    ('groups', 2, 4, 28)
    """
    kept = int(np.count_nonzero(flags))
    best = MaskEntry("bits", kept, -(-len(flags) // 8))
    positions = np.empty(0, np.int64)
    if 2 * kept < len(flags):  # at a higher density, no such code is shorter than bits
        positions = np.flatnonzero(flags).astype(np.int64, copy=False)
        low, count = coding.best_rice(positions)
        if count < best.bytes:
            best = MaskEntry("rice", kept, count, low=low)
    for entry in _patterns(flags, columns, kept):
        if entry.bytes < best.bytes:
            best = entry
    if best.code == "groups":
        return best, _grouped(_transposed(flags, columns), best)
    if best.code == "rice":
        return best, coding.rice_of(positions, best.low)
    return best, np.packbits(flags)


def decode(stream: Bytes, size: int, entry: MaskEntry) -> Flags:
    """The mask [size] that `encode` coded. CodingError if the stream is none, or keeps another number of flags."""
    if len(stream) != entry.bytes:
        raise CodingError(f"its mask has {len(stream)} bytes, and {entry.bytes} are declared")
    if entry.code == "groups":
        return _ungrouped(stream, size, entry)
    flags = np.zeros(size, np.bool_)
    if entry.code == "rice":
        flags[coding.positions_of_rice(stream, size, entry.kept, entry.low)] = True
        return flags
    if len(stream) != -(-size // 8):
        raise CodingError(f"{size} flags need {-(-size // 8)} bytes, not {len(stream)}")
    bits = np.unpackbits(stream)
    kept = int(np.count_nonzero(bits))
    if kept != entry.kept or bits[size:].any():
        raise CodingError(f"its mask keeps {kept} elements, but {entry.kept} of {size} are declared")
    return bits[:size].view(np.bool_)


def _patterns(flags: Flags, columns: int, kept: int) -> Iterator[MaskEntry]:
    """The patterns n:m that a mask has."""
    if not 0 < kept < len(flags):
        return
    ordered = _transposed(flags, columns)
    for m in range(2, LARGEST_GROUP + 1):
        n = kept * m // len(flags)
        if len(flags) % m or n * len(flags) != kept * m or not _constant(ordered, n, m):
            continue
        groups, bits = _word(math.comb(m, n))
        words = -(-(len(flags) // m) // groups)
        yield MaskEntry("groups", kept, -(-words * bits // 8), n=n, m=m, columns=columns)


def _constant(flags: Flags, n: int, m: int) -> bool:
    """Whether each m consecutive flags keep n; the first ones decide for most masks without a pattern."""
    first = flags[: 64 * m].reshape(-1, m)
    return bool((first.sum(1) == n).all()) and bool((flags.reshape(-1, m).sum(1) == n).all())


def _transposed(flags: Flags, columns: int) -> Flags:
    """The flags with the inputs of each unit side by side."""
    return flags if columns == 0 else np.ascontiguousarray(flags.reshape(-1, columns).T).reshape(-1)


def _word(count: int) -> tuple[int, int]:
    """(Groups of `count` possible values, bits) of the word that takes the fewest bits for each group.

    >>> _word(6)
    (17, 44)
    """
    sizes = {g: (count**g - 1).bit_length() for g in range(1, WORD + 1)}
    return min(((g, bits) for g, bits in sizes.items() if bits <= WORD), key=lambda one: one[1] / one[0])


@lru_cache(maxsize=4)
def _possible(n: int, m: int) -> Integers:
    """All flags of m bits that keep n, as ascending numbers: int64 [C(m, n)].

    >>> [f"{flags:03b}" for flags in _possible(2, 3)]
    ['011', '101', '110']
    """
    numbers = np.arange(1 << m, dtype=np.int64)
    ones = (numbers[:, None] >> np.arange(m) & 1).sum(1)
    possible: Integers = numbers[ones == n]
    return possible


def _grouped(flags: Flags, entry: MaskEntry) -> Bytes:
    possible = _possible(entry.n, entry.m)
    weights = 1 << np.arange(entry.m - 1, -1, -1, dtype=np.int64)
    ranks = np.zeros(1 << entry.m, np.int64)
    ranks[possible] = np.arange(len(possible))
    numbers = ranks[flags.reshape(-1, entry.m) @ weights]
    groups, bits = _word(len(possible))
    padded = np.zeros(-(-len(numbers) // groups) * groups, np.int64)
    padded[: len(numbers)] = numbers
    words = padded.reshape(-1, groups) @ (len(possible) ** np.arange(groups - 1, -1, -1, dtype=np.int64))
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((words[:, None] >> places & 1).astype(np.uint8))


def _ungrouped(stream: Bytes, size: int, entry: MaskEntry) -> Flags:
    n, m, columns = entry.n, entry.m, entry.columns
    if not 0 < n < m or size % m or entry.kept != size // m * n or (columns and size % columns):
        raise CodingError(f"{size} flags have no groups of {m} with {n} kept, {entry.kept} in all")
    possible = _possible(n, m)
    groups, bits = _word(len(possible))
    count = size // m
    words = -(-count // groups)
    if len(stream) != -(-words * bits // 8):
        raise CodingError(f"{words} words of {bits} bits do not take {len(stream)} bytes")
    digits = np.unpackbits(stream)
    if digits[words * bits :].any():
        raise CodingError("its mask has bits behind its end")
    numbers = digits[: words * bits].reshape(words, bits) @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
    base = len(possible)
    if (numbers >= base**groups).any():
        raise CodingError(f"its mask has a word beyond {groups} groups of {base} possible ones")
    each = numbers[:, None] // base ** np.arange(groups - 1, -1, -1, dtype=np.int64) % base
    if each.reshape(-1)[count:].any():
        raise CodingError("its mask has groups behind its end")
    patterns = possible[each.reshape(-1)[:count]]
    ordered = ((patterns[:, None] >> np.arange(m - 1, -1, -1)) & 1).astype(np.bool_).reshape(-1)
    if not columns:
        return ordered
    return np.ascontiguousarray(ordered.reshape(columns, -1).T).reshape(-1)
