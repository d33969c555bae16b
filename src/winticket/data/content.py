"""What a source holds: its splits before decoding (Encoded, Unread) and after (Split, Decoded)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Report = Callable[[int, int], None]
"""Progress: (images decoded so far, images in all)."""

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Examples x [N, ...] and their classes y [N], int64; of text, tokens x [N, T] and the next ones y [N, T]."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Encoded:
    """One split as files hold it; None stands for a missing value.

    `origin` names the split in messages, `files` each image where it is a file of its own.
    """

    images: Iterable[bytes | None]
    labels: Sequence[object]
    origin: str
    files: tuple[str, ...] | None = None

    def place(self, row: int) -> str:
        """Where an image is, for messages."""
        return self.files[row] if self.files else f"row {row} of {self.origin}"


@dataclass(frozen=True)
class Unread:
    """A source found but not decoded; `class_names` is None where only the labels themselves tell."""

    splits: Mapping[str, Encoded]
    class_names: tuple[str, ...] | None
    image_column: str | None
    label_column: str | None
    points: bool = False  # whether there are images that the source does not hold, but says where they are


@dataclass(frozen=True)
class Decoded:
    """All that a source holds, as tensors, with nothing drawn or normalised yet.

    x is uint8 [N, C, H, W] and is divided by `scale` before normalisation; a float32 x is used as it is, and so is an
    int64 one, which is text: numbers of the `class_names`. Without `divide`, normalisation subtracts the training mean
    and leaves the unit.
    `validation` and `test` are the sizes wanted where the source has no such split; None: the common rule.
    """

    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    scale: float
    image_column: str | None = None
    label_column: str | None = None
    validation: int | None = None
    test: int | None = None
    divide: bool = True
    lasting: bool = (
        True  # whether it may be kept under what its source holds: not if that only points to images
    )

    @property
    def tokens(self) -> bool:
        """Whether examples are text, each token with the next one as its class."""
        return self.splits["train"].y.ndim == 2

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of every split's name, types, shapes and bytes, and of how they are normalised.

        Class names do not count, nor do the sizes wanted of splits that are yet to be drawn.
        """
        digest = hashlib.sha256(f"scale {self.scale!r}, divide {self.divide!r};".encode())
        for name in SPLITS:
            if name in self.splits:
                for tensor in (self.splits[name].x, self.splits[name].y):
                    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
                    digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()
