"""The content of a dataset: its splits before decoding (Encoded, Unread) and after (Split, Decoded)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Report = Callable[[int, int], None]
"""Called with progress: (images decoded so far, images in all)."""

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Examples x [N, ...] and their classes y [N], int64. For text, tokens x [N, T] and the next tokens y [N, T].

    >>> import torch
    >>> Split(torch.zeros(2, 3), torch.tensor([0, 1])).y
    tensor([0, 1])
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Encoded:
    """One split as it is stored; None means a missing value.

    `origin` names the split in messages. `files` names each image, if images are separate files.
    """

    images: Iterable[bytes | None]
    labels: Sequence[object]
    origin: str
    files: tuple[str, ...] | None = None

    def location(self, row: int) -> str:
        """The file of an image, or its row, for messages."""
        return self.files[row] if self.files else f"row {row} of {self.origin}"


@dataclass(frozen=True)
class Unread:
    """A dataset that is opened but not decoded; `class_names` is None if only the labels name the classes."""

    splits: Mapping[str, Encoded]
    class_names: tuple[str, ...] | None
    image_column: str | None
    label_column: str | None
    points: bool = False  # whether the table holds paths instead of some of its images


@dataclass(frozen=True)
class Decoded:
    """The whole dataset as tensors, before any split is drawn or normalised.

    x is uint8 [N, C, H, W], which is divided by `scale` before normalisation; or float32, which is used unchanged; or
    int64, which is text: indices into `class_names`, also used unchanged. Without `divide`, normalisation only
    subtracts the training mean. `validation` and `test` are the sizes of splits that the dataset does not have (None:
    the general default).
    """

    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    scale: float
    image_column: str | None = None
    label_column: str | None = None
    validation: int | None = None
    test: int | None = None
    divide: bool = True
    lasting: bool = True  # whether the cache may keep it: not if the files only point to the images

    @property
    def tokens(self) -> bool:
        """True if examples are text, each token's class being the next token."""
        return self.splits["train"].y.ndim == 2

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of every split's name, dtypes, shapes and bytes, and of how they are normalised.

        It does not depend on class names, nor on the sizes of splits that are yet to be drawn.
        """
        digest = hashlib.sha256(f"scale {self.scale!r}, divide {self.divide!r};".encode())
        for name in SPLITS:
            if name in self.splits:
                for tensor in (self.splits[name].x, self.splits[name].y):
                    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
                    digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()
