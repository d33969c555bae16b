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
    total = hashlib.sha256(f"text {length} {SHARES};".encode() + _bytes(file))
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
    least = int(np.ceil((length + 1) / min(SHARES.values())))
    if len(points) < least:
        raise ValueError(
            f"{file} has {len(points)} characters, but needs at least {least}, since its parts are cut into windows of "
            f"{length}"
        )
    if len(characters) < 2:
        raise ValueError(f"{file} is one character throughout, so there is nothing to learn")
    sizes = {split: int(share * len(points)) for split, share in SHARES.items()}
    ends = {"train": len(points) - sum(sizes.values()), **sizes}
    splits, begin = {}, 0
    for split, size in ends.items():
        splits[split] = _windows(torch.from_numpy(numbers[begin : begin + size].astype(np.int64)), length)
        begin += size
    return Decoded(splits, tuple(chr(point) for point in characters), 1.0, target="tokens")


def _windows(part: torch.Tensor, length: int) -> Split:
    count = (len(part) - 1) // length
    cut = count * length
    return Split(part[:cut].view(count, length).clone(), part[1 : cut + 1].view(count, length).clone())


def _points(file: Path) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """The code points of a text. Raises ValueError if it is not UTF-8."""
    try:
        text = _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}); convert it first") from error
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error}); check its permissions") from error
