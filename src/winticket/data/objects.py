"""Data that are objects of Python, not files: written to the cache folder once, under the hash of their content."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.atomic import replace_file
from winticket.places import VARIABLE, cache_folder

Data = str | os.PathLike[str] | object
"""What names or holds data: see `as_path`."""
FOLDER = "objects"


def as_path(data: object, *, cache: Path | None = None) -> str | os.PathLike[str]:
    """A name or path as it is; any other data as the path of a file that holds them.

    Other data are (X, y): two arrays or tensors (see docs/data.md for their shapes); a data frame of pandas or polars,
    an arrow table, or a Hugging Face dataset, whose label is a column; or a map-style `torch.utils.data.Dataset` of
    pairs of example and label. They are written once to the folder "objects" in `cache` (else $WINTICKET_CACHE, else
    the platform's cache folder), as an npz or parquet file that is named by the hash of its content. So worker
    processes and resumed runs find them, and equal data are the same file.

    Raises TypeError for anything else, ValueError for data that cannot be written as such a file, and OSError if the
    folder cannot be written.

    >>> as_path("digits")
    'digits'
    """
    if isinstance(data, str | os.PathLike):
        return data
    folder = (cache or cache_folder()) / FOLDER
    table = _table(data)
    if table is not None:
        return _written(_parquet(table), folder, "frame", ".parquet")
    x, y = _pair(data) if isinstance(data, tuple | list) else _items(data)
    if len(x) != len(y):
        raise ValueError(f"X has {len(x)} examples, but y has {len(y)} labels; each example needs one")
    buffer = io.BytesIO()
    np.savez(buffer, x=x, y=y)
    return _written(buffer.getvalue(), folder, "arrays", ".npz")


def _written(content: bytes, folder: Path, label: str, ending: str) -> Path:
    path = folder / f"{label}-{hashlib.sha256(content).hexdigest()[:16]}{ending}"
    if not path.is_file() or path.read_bytes() != content:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise OSError(
                f"the data cannot be kept in {folder} ({error}); set ${VARIABLE} to another folder"
            ) from error
    return path


def _table(data: object) -> Any | None:
    """The arrow table of a data frame or Hugging Face dataset; None for anything else."""
    import pyarrow as pa

    package = type(data).__module__.partition(".")[0]
    frame: Any = data
    try:
        if isinstance(data, pa.Table):
            return data
        if package == "pandas" and type(data).__name__ == "DataFrame":
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        if package == "polars" and type(data).__name__ == "DataFrame":
            return frame.to_arrow()
        if package == "datasets" and type(data).__name__ == "Dataset":
            return frame.with_format("arrow")[:]
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValueError(
            f"the data frame cannot be written as a table ({error}); make its columns alike"
        ) from error
    if package == "datasets" or (package in ("pandas", "polars") and type(data).__name__ != "DataFrame"):
        raise TypeError(
            f"{type(data).__name__} of {package} is no table; give one split of a dataset, or a DataFrame "
            "with the label "
            "as a column"
        )
    return None


def _parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(
            f"the data frame cannot be written as a table ({error}); change these columns"
        ) from error
    return buffer.getvalue()


def _pair(data: Sequence[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(data) != 2:
        raise TypeError(
            f"data are a {type(data).__name__} of {len(data)} parts; give (X, y), examples and labels"
        )
    return _array(data[0], "X"), _array(data[1], "y")


def _items(data: object) -> tuple[NDArray[Any], NDArray[Any]]:
    """All examples and labels of a map-style dataset."""
    items: Any = data
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or isinstance(
        data, dict | bytes | np.ndarray
    ):
        raise TypeError(
            f"data are a {type(data).__name__}; give a name or path, (X, y), a data frame, or a map-style dataset of "
            "pairs (iterable datasets: collect them into arrays first)"
        )
    examples, labels = [], []
    for number in range(len(items)):
        item = items[number]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise TypeError(
                f"item {number} of the dataset is a {type(item).__name__}; give a dataset of pairs of example and label"
            )
        examples.append(_array(item[0], f"example {number}"))
        labels.append(_array(item[1], f"label {number}"))
        for word, parts in (("example", examples), ("label", labels)):
            if parts[number].shape != parts[0].shape:
                raise ValueError(
                    f"{word} {number} of the dataset has shape {list(parts[number].shape)}, {word} 0 has "
                    f"{list(parts[0].shape)}; all must have one shape"
                )
    if not examples:
        raise ValueError("the dataset has no items; give one with examples")
    return np.stack(examples), np.stack(labels)


def _array(value: Any, what: str) -> NDArray[Any]:
    """An array of numbers or text from a tensor, array, number or list."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{what} is no array of equal rows ({error}); make its rows alike") from error
    if array.dtype == object and array.size and all(isinstance(one, str) for one in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "biufUS":
        raise TypeError(
            f"{what} holds {array.dtype}; give arrays or tensors of numbers, and labels as numbers or text"
        )
    return array
