"""Arrow tables in the Hub's layout: the columns of images and labels, and the bytes in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winticket.data.content import SPLITS, Encoded, Unread
from winticket.outside import Unreadable, read_file, read_json
from winticket.text import nearest

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")

_LARGEST = 1 << 30  # bytes of an image file

# Names of files and splits, as the Hub reads them.
_CALLED = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_called(word: str) -> str | None:
    """The split that a file, folder or split name means; None if it means none."""
    return next((split for split, words in _CALLED.items() if word.lower() in words), None)


@dataclass(frozen=True)
class Columns:
    """The two columns used, and the class names if the file declares them."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


def columns(schema: Any, *, origin: str, label: Sequence[str] = ()) -> Columns:
    """The columns of an Arrow schema, by declared feature type, else by Arrow type and name.

    Raises ValueError if there is no image or no label column, or if several columns could be it.
    """
    declared = features_of(schema)
    images = [
        name
        for name in schema.names
        if declared.get(name, {}).get("_type") == "Image" or _holds_bytes(schema.field(name).type)
    ]
    labels = [name for name in schema.names if declared.get(name, {}).get("_type") == "ClassLabel"]
    labels = labels or [name for name in schema.names if name in LABEL_NAMES]
    if label:
        if len(label) > 1 or label[0] not in schema.names:
            raise ValueError(
                "images have one column of labels, and --label names "
                f"{', '.join(label)}{nearest(label[0], schema.names)}"
                f"; {origin} has {', '.join(schema.names)}"
            )
        labels = list(label)
    image = _the_one(images, IMAGE_NAMES, kind="image", schema=schema, origin=origin)
    one = _the_one(labels, LABEL_NAMES, kind="label", schema=schema, origin=origin)
    if not _is_class(schema.field(one).type):
        raise ValueError(
            f"column {one!r} of {origin} holds {schema.field(one).type}; labels must be whole numbers or "
            "text, one for each image"
        )
    names = declared.get(one, {}).get("names")
    return Columns(image, one, tuple(str(name) for name in names) if names else None)


def holds_images(schema: Any) -> bool:
    """True if a column of an Arrow schema holds encoded images, or is declared to."""
    declared = features_of(schema)
    return any(
        declared.get(name, {}).get("_type") == "Image" or _holds_bytes(schema.field(i).type)
        for i, name in enumerate(schema.names)
    )


def features_of(schema: Any) -> dict[str, dict[str, Any]]:
    """The feature types that `datasets` writes into a schema's metadata; empty if there are none."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = read_json(text, dict[str, Any])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (Unreadable, KeyError, TypeError, AttributeError):
        return {}


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_class(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests)


def _the_one(candidates: Sequence[str], names: Sequence[str], *, kind: str, schema: Any, origin: str) -> str:
    """The only candidate, or else the first of `names` among them."""
    if len(candidates) == 1:
        return candidates[0]
    if usual := [name for name in names if name in candidates]:
        return usual[0]
    if candidates:
        raise ValueError(
            f"{origin} has {len(candidates)} columns that could hold the {kind}s: {', '.join(candidates)}; "
            f"name the one to use {names[0]!r}"
        )
    present = ", ".join(f"{name} ({schema.field(name).type})" for name in schema.names)
    raise ValueError(
        f"{origin} has no {kind} column; it has {present or 'no columns'}. Images must be encoded bytes (PNG, "
        f"JPEG, ...), labels a ClassLabel or a column named {', '.join(LABEL_NAMES)}"
    )


def unread(
    schema: Any,
    read: Mapping[str, Callable[[list[str]], Any]],
    *,
    origin: str,
    folders: Sequence[Path],
    label: Sequence[str] = (),
) -> Unread:
    """A dataset of Arrow tables; `read[split]([column, ...])` returns that split's table.

    A validation or test split whose labels are all withheld (-1 or null) counts as absent. A table may hold paths
    instead of images; they must lie in one of `folders`, and relative paths start from the first.
    """
    if doubled := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ValueError(
            f"{origin} has several columns of the same name: {', '.join(doubled)}; write each column once"
        )
    used = columns(schema, origin=origin, label=label)
    splits, points = {}, False
    for split in SPLITS:
        if split in read:
            table = read[split]([used.image, used.label])
            try:
                labels = table.column(used.label).to_pylist()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"the labels of {split} of {origin} are not valid text ({error}); write the file again"
                ) from error
            if split != "train" and labels and all(label in (None, -1) for label in labels):
                continue
            images = _Images(table.column(used.image), tuple(folders), f"{split} of {origin}")
            points = points or images.points()
            splits[split] = Encoded(images, labels, f"{split} of {origin}")
    return Unread(splits, used.class_names, used.image, used.label, points)


@dataclass(frozen=True)
class _Images:
    """The encoded images of an Arrow column, one at a time."""

    column: Any
    folders: tuple[Path, ...]
    origin: str

    def points(self) -> bool:
        """True if the column holds paths instead of some of its images."""
        import pyarrow as pa
        import pyarrow.compute as pc

        return any(
            pa.types.is_struct(chunk.type)
            and chunk.type.get_field_index("path") >= 0
            and pc.struct_field(chunk, "bytes").null_count > 0
            for chunk in self.column.chunks
        )

    def __iter__(self) -> Iterator[bytes | None]:
        import pyarrow as pa
        import pyarrow.compute as pc

        for chunk in self.column.chunks:
            if not pa.types.is_struct(chunk.type):
                yield from chunk.to_pylist()
                continue
            has_path = chunk.type.get_field_index("path") >= 0
            data = pc.struct_field(chunk, "bytes").to_pylist()
            paths = pc.struct_field(chunk, "path").to_pylist() if has_path else [None] * len(data)
            for image, path in zip(data, paths, strict=True):
                yield self._fetched(path) if image is None and path else image

    def _fetched(self, path: str) -> bytes | None:
        """The bytes of an image that a table only points to; None if there is no such file.

        Raises ValueError for anything outside the dataset's folder: a table must not decide which of this machine's
        files are read, nor what is downloaded.
        """
        file = Path(os.path.abspath(self.folders[0] / path)) if "://" not in path else None  # noqa: PTH100
        real = None if file is None else file.resolve()
        if real is None or not any(real.is_relative_to(folder.resolve()) for folder in self.folders):
            raise ValueError(
                f"{self.origin} points to the image {path!r}, which is outside {self.folders[0]}; only images inside a "
                "dataset's own folder are read; copy them into it, or write their bytes into the table"
            )
        try:
            return read_file(real, limit=_LARGEST)
        except Unreadable as error:
            raise ValueError(f"{self.origin} points to {path!r}, which is {error}") from error
        except OSError:
            return None
