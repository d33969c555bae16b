"""Arrow tables in the Hub's layout: which column holds images, which labels, and the bytes in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winticket.data.content import SPLITS, Encoded, Unread

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")

# What files and splits are called, as the Hub reads them.
_CALLED = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_called(word: str) -> str | None:
    """The split that a file, folder or split name stands for; None if it stands for none."""
    return next((split for split, words in _CALLED.items() if word.lower() in words), None)


@dataclass(frozen=True)
class Columns:
    """The two columns used, and the class names where the file declares them."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


def columns(schema: Any, *, origin: str) -> Columns:
    """Columns of an Arrow schema: by the declared feature types, else by Arrow type and name.

    Raises ValueError where there is no image or no label column, or several that could be it.
    """
    declared = _features(schema)
    images = [
        name
        for name in schema.names
        if declared.get(name, {}).get("_type") == "Image" or _holds_bytes(schema.field(name).type)
    ]
    labels = [name for name in schema.names if declared.get(name, {}).get("_type") == "ClassLabel"]
    labels = labels or [name for name in schema.names if name in LABEL_NAMES]
    image = _the_one(images, IMAGE_NAMES, kind="image", schema=schema, origin=origin)
    label = _the_one(labels, LABEL_NAMES, kind="label", schema=schema, origin=origin)
    if not _is_class(schema.field(label).type):
        raise ValueError(
            f"column {label!r} of {origin} holds {schema.field(label).type}; labels are whole numbers or "
            "text, one for each image"
        )
    names = declared.get(label, {}).get("names")
    return Columns(image, label, tuple(str(name) for name in names) if names else None)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """The feature types that `datasets` writes into a schema's metadata; empty where it has not."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
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


def _the_one(found: Sequence[str], names: Sequence[str], *, kind: str, schema: Any, origin: str) -> str:
    if len(found) == 1:
        return found[0]
    if usual := [name for name in names if name in found]:
        return usual[0]
    there = ", ".join(f"{name} ({schema.field(name).type})" for name in schema.names)
    if found:
        raise ValueError(
            f"{origin} has {len(found)} columns that could hold the {kind}s: {', '.join(found)}; "
            f"name the one to use {names[0]!r}"
        )
    raise ValueError(
        f"{origin} has no {kind} column; it has {there or 'no columns'}. Images are encoded bytes (PNG, "
        f"JPEG, ...), labels a ClassLabel or a column named {', '.join(LABEL_NAMES)}"
    )


def unread(schema: Any, read: Mapping[str, Callable[[list[str]], Any]], *, origin: str) -> Unread:
    """A source of Arrow tables; `read[split]([column, ...])` gives that split's table.

    A validation or test split whose labels are all withheld (-1 or null) counts as absent.
    """
    used = columns(schema, origin=origin)
    splits = {}
    for split in SPLITS:
        if split in read:
            table = read[split]([used.image, used.label])
            labels = table.column(used.label).to_pylist()
            if split != "train" and labels and all(label in (None, -1) for label in labels):
                continue
            splits[split] = Encoded(_Images(table.column(used.image)), labels, f"{split} of {origin}")
    return Unread(splits, used.class_names, used.image, used.label)


@dataclass(frozen=True)
class _Images:
    """The encoded images of an Arrow column, one at a time."""

    column: Any

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
                yield _fetched(path) if image is None and path else image


def _fetched(path: str) -> bytes | None:
    """The bytes of an image that a table only points to; None where there is no such file."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as opened:
            data: bytes = opened.read()
            return data
    except (OSError, ValueError):
        return None
