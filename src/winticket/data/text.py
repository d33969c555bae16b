"""Plain text, character by character: windows of text; the class of each character is the next character."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from winticket.data.content import Decoded, Split
from winticket.data.local import IMAGE_ENDINGS, files_within

ENDING = ".txt"
LENGTH = 64
"""The default number of characters in a window."""
SHARES = {"validation": 0.1, "test": 0.1}
"""Shares of the text, from its end; the rest, before them, is for training."""


def find(path: Path) -> Path | None:
    """The text file at a path, or the only one in a folder there. None if the path holds other data.

    Raises ValueError for a folder with several text files.
    """
    if path.is_file():
        return path if path.suffix.lower() == ENDING else None
    files = files_within(path)
    texts = [file for file in files if file.suffix.lower() == ENDING]
    if not texts or any(file.suffix.lower() in (".parquet", *IMAGE_ENDINGS) for file in files):
        return None
    if len(texts) > 1:
        first = ", ".join(file.relative_to(path).as_posix() for file in texts[:5])
        raise ValueError(f"{path} holds {len(texts)} text files ({first}); give one of them")
    return texts[0]


def digest(file: Path, *, length: int = LENGTH, alphabet: Path | None = None) -> str:
    """SHA-256 (hexadecimal) of a text file's bytes, of the way it is cut, and of another text's characters."""
    total = hashlib.sha256(f"text {length} {SHARES};".encode() + read(file))
    if alphabet is not None:
        total.update(b";alphabet " + np.unique(_points(alphabet)).tobytes())
    return total.hexdigest()


def decode(file: Path, *, length: int = LENGTH, alphabet: Path | None = None) -> Decoded:
    """A text as three consecutive parts (training, validation, test), each cut into windows that do not overlap.

    x [N, length] are characters as int64 numbers, ranked by code point among all characters of the text; y [N, length]
    are the characters that follow them. Parts do not overlap, and the rest of a part after its last whole window is
    dropped. With `alphabet`, characters are numbered among those of that text instead, as weights that were trained on
    it expect. Raises ValueError if the text is not UTF-8, too short, one character throughout, or has a character that
    the alphabet lacks.
    """
    points = _points(file)
    characters, numbers = np.unique(points, return_inverse=True)
    if alphabet is not None and len(points):
        own, characters = characters, np.unique(_points(alphabet))
        if len(lacking := np.setdiff1d(own, characters)):
            shown = ", ".join(
                [*(repr(chr(point)) for point in lacking[:8]), *(["..."] if len(lacking) > 8 else [])]
            )
            raise ValueError(
                f"{file} has {len(lacking)} characters that {alphabet} lacks: {shown}; "
                "replace or remove them, or pretrain on a text that has them"
            )
        numbers = np.searchsorted(characters, points)
    splits = parted(torch.from_numpy(numbers.astype(np.int64)), length, what=f"{file}", units="characters")
    if len(characters) < 2:
        raise ValueError(f"{file} is one character throughout, so there is nothing to learn")
    return Decoded(splits, tuple(chr(point) for point in characters), 1.0, target="tokens")


def parted(numbers: torch.Tensor, length: int, *, what: str, units: str) -> dict[str, Split]:
    """A text's characters or tokens, int64 [N], as three consecutive parts that are cut into windows of `length`.

    Raises ValueError, which calls the text `what` and its numbers `units`, if a part would have no window.

    >>> [part.x.tolist() for part in parted(torch.arange(20), 1, what="a text", units="characters").values()][1:]
    [[[16]], [[18]]]
    """
    least = int(np.ceil((length + 1) / min(SHARES.values())))
    if len(numbers) < least:
        raise ValueError(
            f"{what} has {len(numbers)} {units}, but needs at least {least}, since its parts are cut into windows of "
            f"{length}"
        )
    sizes = {split: int(share * len(numbers)) for split, share in SHARES.items()}
    ends = {"train": len(numbers) - sum(sizes.values()), **sizes}
    splits, begin = {}, 0
    for split, size in ends.items():
        splits[split] = windows(numbers[begin : begin + size], length)
        begin += size
    return splits


def windows(part: torch.Tensor, length: int) -> Split:
    """The windows of int64 numbers [N] that do not overlap, and for each number the one after it.

    >>> windows(torch.arange(6), 2).y.tolist()
    [[1, 2], [3, 4]]
    """
    count = max(len(part) - 1, 0) // length
    cut = count * length
    return Split(part[:cut].view(count, length).clone(), part[1 : cut + 1].view(count, length).clone())


def _points(file: Path) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """The code points of a text. Raises ValueError if it is not UTF-8."""
    return np.frombuffer(decoded_text(file).encode("utf-32-le"), dtype="<u4")


def decoded_text(file: Path) -> str:
    """The text of a file, without the mark that some editors put first. Raises ValueError if it is not UTF-8."""
    try:
        return read(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}); convert it first") from error


def read(file: Path) -> bytes:
    """The bytes of a text. Raises ValueError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error}); check its permissions") from error
