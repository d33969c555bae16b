"""The content of a dataset: its splits before decoding (Encoded, Unread) and after (Split, Decoded)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Report = Callable[[int, int], None]
"""Called with progress: (images decoded so far, images in all)."""

SPLITS = ("train", "validation", "test")

Target = Literal["classes", "numbers", "labels", "positions", "tokens"]
"""What an example's answer is: one of some classes; real numbers; 0 or 1 for each of several labels; a class at every
position; or the next token at every position."""

Task = Literal["classification", "regression", "multi-label", "segmentation"]
"""What users call a target, in the order of `Target`."""


@dataclass(frozen=True)
class Split:
    """Examples x [N, ...] and their answers y: classes int64 [N], or whatever the target is (`Target`).

    Numbers and labels (0 or 1) are float32 [N, K]. Classes of positions are int64 [N, H, W]. For text, x [N, T] are
    tokens and y [N, T] the next tokens.

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

    x is uint8 [N, C, H, W], which is divided by `scale` before normalisation; or floating-point, which is used
    unchanged unless it is `scaled`; or int64, which is text: indices into `class_names`, also used unchanged. Without
    `divide`, normalisation of uint8 only subtracts the training mean. `validation` and `test` are the sizes of splits
    that the dataset does not have (None: the general default).

    scaled         for each feature of a table, or channel of signals and images, whether it is standardised; None: none
    fill           what replaces missing values (NaN): "mean" or "median" of the training split; None: there are none
    feature_names  names of a table's features, after categories are encoded
    vocabulary     the number of tokens, if they are those of a tokenizer and have no names here; else 0
    target_names   names of the K numbers or labels of each example
    groups         the group of each training row, int64 [N], if no group may be in two splits
    moments        the rank in time of each training row, int64 [N], if the last ones are for testing
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
    target: Target = "classes"
    vocabulary: int = 0
    target_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    scaled: tuple[bool, ...] | None = None
    fill: Literal["mean", "median"] | None = None
    groups: Tensor | None = None
    moments: Tensor | None = None

    @property
    def tokens(self) -> bool:
        """True if examples are text, each token's class being the next token."""
        return self.target == "tokens"

    @property
    def outputs(self) -> int:
        """The number of outputs that a network needs: classes, or numbers or labels of an example."""
        return self.vocabulary or len(self.class_names) or len(self.target_names)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of every split's name, dtypes, shapes and bytes, and of how they are normalised.

        It includes the kind of target, and the groups or the order in time by which splits are drawn. It does not
        depend on names, nor on the sizes of splits that are yet to be drawn.
        """
        digest = hashlib.sha256(f"scale {self.scale!r}, divide {self.divide!r};".encode())
        if self.target not in ("classes", "tokens"):  # Of these two, dtype and shape tell.
            digest.update(f"target {self.target};".encode())
        if self.scaled is not None:
            digest.update(f"scaled {self.scaled!r}, fill {self.fill!r};".encode())
        for word, rows in (("groups", self.groups), ("moments", self.moments)):
            if rows is not None:
                digest.update(f"{word};".encode())
                digest.update(rows.contiguous().numpy().data)
        for name in SPLITS:
            if name in self.splits:
                for tensor in (self.splits[name].x, self.splits[name].y):
                    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
                    digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()
