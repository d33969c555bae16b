"""Encoded images and labels -> uint8 and int64 tensors; errors name the row that cannot be used, and why."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from winticket.data.content import Decoded, Encoded, Report, Split, Unread

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_REPORT_EVERY = 1000
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""The image formats that are read, by Pillow's names. Content decides, not the file name; other formats are refused,
since some start programs (EPS)."""

Pixels = NDArray[np.uint8]


def decode(unread: Unread, *, size: tuple[int, int] | None = None, report: Report | None = None) -> Decoded:
    """Decode every split: to grey if all images are grey, else to RGB throughout (transparency is dropped).

    Images are resized to `size` (height, width) by bilinear interpolation with antialiasing, if it is given.

    Raises ValueError for images that cannot be decoded or that differ in size, and for labels that are missing,
    are not classes, or are all the same class.
    """
    labels, names = _classes({name: split.labels for name, split in unread.splits.items()}, unread)
    total = sum(len(split.labels) for split in unread.splits.values())
    done = 0
    pixels: dict[str, Pixels] = {}
    first: tuple[str, tuple[int, ...]] | None = None
    for name, split in unread.splits.items():

        def progress(rows: int, *, before: int = done) -> None:
            if report is not None:
                report(before + rows, total)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_memory` says more
            pixels[name] = _stack(_one_by_one(split, size), len(split.labels), first=first, progress=progress)
        first = first or (split.location(0), pixels[name].shape[1:3])
        done += len(split.labels)
    channels = max(block.shape[3] for block in pixels.values())
    splits = {name: Split(_channels_first(block, channels), labels[name]) for name, block in pixels.items()}
    _check_variation(splits["train"].x, unread.splits["train"].origin)
    return Decoded(splits, names, 255.0, unread.image_column, unread.label_column, lasting=not unread.points)


def _check_variation(x: Tensor, origin: str) -> None:
    for channel in range(x.shape[1]):
        lowest, highest = x[:, channel].aminmax()
        if lowest == highest:
            raise ValueError(
                f"channel {channel} of all images in {origin} has the same value {int(lowest)}, so there is "
                "nothing to learn from it; check how the images were written, or convert them to grey"
            )


def _one_by_one(split: Encoded, size: tuple[int, int] | None) -> Iterator[tuple[str, Pixels]]:
    for row, data in enumerate(split.images):
        count = len(split.labels) if size is None else 1  # Only one at a time has its own size.
        pixels = _pixels(data, split.location(row), of=count)
        yield split.location(row), pixels if size is None else resized(pixels, size)


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 [H, W, C] with C = 1 or 3, resized to (height, width).

    Bilinear, as Pillow does it: when an image shrinks, the triangle of weights widens, so that nothing is skipped.
    """
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    new = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return new[:, :, None] if pixels.shape[2] == 1 else new


def _pixels(data: bytes | None, location: str, *, of: int) -> Pixels:
    """One encoded image -> [H, W, 1] or [H, W, 3].

    Raises ValueError, before it decodes the image, if `of` images of this size do not fit into memory.
    """
    if not data:
        raise ValueError(f"{location} holds no image bytes; remove it or write the image into it")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_memory(image.size, of, location)
            image.load()
            # Cameras store a photograph as the sensor saw it, and note how to rotate it.
            upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
            if upright.mode in _GREY:
                return np.asarray(upright if upright.mode == "L" else upright.convert("L"))[:, :, None]
            if upright.mode in _COLOUR:
                if "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
            mode = upright.mode
    except _TooLargeError as error:
        raise ValueError(str(error)) from None
    except _UNREADABLE as error:
        why = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(
            f"{location}: the image cannot be decoded ({why}; {len(data)} bytes that begin with {data[:8]!r}); "
            "repair or remove it"
        ) from error
    raise ValueError(
        f"{location}: the image has pixels of mode {mode!r}, but only 8-bit grey and colour images can be used; "
        "convert it first"
    )


class _TooLargeError(Exception):
    """Images that need more memory than the machine has."""


def _check_memory(size: tuple[int, int], count: int, location: str) -> None:
    need, available = count * size[0] * size[1], memory()
    if available is not None and need > available:
        raise _TooLargeError(
            f"{count} images of {size[0]}×{size[1]} pixels, such as {location}, need {need / 2**30:.0f} GiB or more as "
            f"numbers, but this machine has {available / 2**30:.0f} GiB of memory; make them smaller"
        )


def memory() -> int | None:
    """This machine's memory in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _stack(
    images: Iterator[tuple[str, Pixels]],
    count: int,
    *,
    first: tuple[str, tuple[int, ...]] | None,
    progress: Callable[[int], None],
) -> Pixels:
    """All images of a split in one array [N, H, W, C]."""
    block: Pixels | None = None
    row = -1
    for row, (location, image) in enumerate(images):
        first = first or (location, image.shape[:2])
        if image.shape[:2] != first[1]:
            raise ValueError(
                f"images differ in size: {location} is {_size(image.shape)}, {first[0]} is {_size(first[1])}; "
                "all images must have one size; resize them with --size, such as --size "
                f"{min(first[1][0], image.shape[0])}x{min(first[1][1], image.shape[1])}"
            )
        if block is None:
            block = _empty((count, *image.shape))
        elif image.shape[2] > block.shape[3]:
            block = np.repeat(block, 3, axis=3)
        block[row] = image
        if (row + 1) % _REPORT_EVERY == 0 or row + 1 == count:
            progress(row + 1)
    assert block is not None
    assert row + 1 == count
    return block


def _empty(shape: tuple[int, ...]) -> Pixels:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError) as error:
        raise ValueError(
            f"{shape[0]} images of {_size(shape[1:])} do not fit into memory; make them smaller"
        ) from error


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]} pixels"


def _channels_first(block: Pixels, channels: int) -> Tensor:
    if block.shape[3] < channels:
        block = np.repeat(block, channels, axis=3)
    return torch.from_numpy(np.ascontiguousarray(block.transpose(0, 3, 1, 2)))


def _classes(
    labels: Mapping[str, Sequence[object]], unread: Unread
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels as class numbers 0..K-1, and the K class names; labels without names are numbered in sorted order."""
    for name, values in labels.items():
        # With declared classes, the Hub writes -1 for a withheld label; without, -1 may be a class.
        absent = (None,) if unread.class_names is None else (None, -1)
        _check_labels(values, absent, unread.splits[name].origin)
    seen = {value for values in labels.values() for value in values}
    if unread.class_names is not None:
        numbers: dict[object, int] = {number: number for number in range(len(unread.class_names))}
        names = unread.class_names
        if strange := sorted(seen - set(numbers), key=str):
            raise ValueError(
                f"label {strange[0]!r} in column {unread.label_column!r} is not among the {len(names)} "
                f"declared classes 0..{len(names) - 1}; correct the labels or the declaration"
            )
    else:
        numbers = _numbered(seen, unread.label_column)
        names = tuple(str(value) for value in numbers)
    if len(only := set(labels["train"])) < 2:
        raise ValueError(
            f"all {len(labels['train'])} rows of {unread.splits['train'].origin} have the same label, "
            f"{only.pop()!r}; classification needs at least two classes"
        )
    return {
        name: torch.tensor([numbers[value] for value in values], dtype=torch.int64)
        for name, values in labels.items()
    }, names


def _numbered(seen: set[object], column: str | None) -> dict[object, int]:
    """The number of each undeclared label: its position in sorted order."""
    numbers = sorted(value for value in seen if isinstance(value, int))
    words = sorted(value for value in seen if isinstance(value, str))
    if len(seen) not in (len(numbers), len(words)):
        kinds = " and ".join(sorted({type(value).__name__ for value in seen}))
        raise ValueError(
            f"column {column!r} holds {kinds} values; labels must be all whole numbers or all text"
        )
    order: Sequence[object] = numbers or words
    return {value: number for number, value in enumerate(order)}


def _check_labels(values: Sequence[object], absent: tuple[object, ...], origin: str) -> None:
    if not values:
        raise ValueError(f"{origin} has no rows; give a dataset with images and labels")
    missing = [row for row, value in enumerate(values) if value in absent]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(values)} labels are missing in {origin} (the first is in row "
            f"{missing[0]}); remove those rows or label them"
        )
