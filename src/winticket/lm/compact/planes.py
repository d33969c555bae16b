"""Values in fewer bytes without loss: their first bytes, second bytes and so on, each deflated if that helps."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from winticket.ship.coding import CodingError

Numbers: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
BLOCK = 1 << 20
"""Values that are coded at a time, which bounds the memory."""
WIDTHS = (1, 2, 4, 8)
"""Bytes of a value."""


def encode(values: Numbers) -> Iterator[bytes]:
    """The bytes of values [n], which are the bits of numbers of any type, in parts to be written one after the other.

    Each block of up to BLOCK values has a plane for each of their bytes, the lowest first: its length in four bytes,
    lowest first, and then the plane, deflated in zlib's format (RFC 1950) if that is shorter, else as it is. Signs and
    exponents of weights resemble each other, so the last plane shrinks to about a fifth; low bytes of their fractions
    seldom shrink.

    >>> coded = b"".join(encode(np.ones(1000, np.float32).view(np.uint32)))
    >>> len(coded) < 100
    True
    """
    for at in range(0, len(values), BLOCK):
        block = np.ascontiguousarray(values[at : at + BLOCK])
        planes = (
            block.astype(block.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(len(block), -1)
        )
        for plane in planes.T:
            raw = plane.tobytes()
            # Z_RLE finds runs and what is frequent, which is all that there is to find, ten times as fast as usual.
            deflating = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
            short = deflating.compress(raw) + deflating.flush()
            coded = short if len(short) < len(raw) else raw
            yield len(coded).to_bytes(4, "little") + coded


def decode(stream: memoryview, count: int, width: int) -> Iterator[Numbers]:
    """The values, `count` of `width` bytes each, block by block. CodingError if the stream is anything else.

    >>> values = np.arange(5, dtype=np.uint16)
    >>> [block.tolist() for block in decode(memoryview(b"".join(encode(values))), 5, 2)]
    [[0, 1, 2, 3, 4]]
    """
    at = 0
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        planes = np.empty((size, width), np.uint8)
        for place in range(width):
            length = int.from_bytes(stream[at : at + 4], "little")
            if at + 4 + length > len(stream) or length > size:
                raise CodingError(f"its values end within a plane of {length} bytes")
            coded = stream[at + 4 : at + 4 + length]
            planes[:, place] = np.frombuffer(coded if length == size else _inflated(coded, size), np.uint8)
            at += 4 + length
        yield planes.reshape(-1).view(f"<u{width}")
    if at != len(stream):
        raise CodingError(f"{len(stream) - at} bytes follow its values")


def _inflated(coded: memoryview, size: int) -> bytes:
    inflating = zlib.decompressobj()
    try:
        raw = inflating.decompress(coded, size + 1)
    except zlib.error as error:
        raise CodingError(f"its values cannot be inflated ({error})") from error
    if len(raw) != size or not inflating.eof or inflating.unused_data:
        raise CodingError(f"a plane of its values does not hold {size} bytes")
    return raw
