"""Small sources made by the tests, and a cache of their own for every test."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from winticket.data import sources, splits

Encode = Callable[..., bytes]
WriteParquet = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    cache = tmp_path / "cache"
    monkeypatch.setenv("WINTICKET_CACHE", str(cache))
    forget()
    yield cache
    forget()


def forget() -> None:
    """As a new process would: nothing decoded in memory."""
    sources._RECENT.clear()
    splits._LOADED.clear()


@pytest.fixture(name="forget")
def forget_fixture() -> Callable[[], None]:
    return forget


@pytest.fixture
def encode() -> Encode:
    def encode(pixels: NDArray[Any], *, format: str = "PNG", mode: str | None = None) -> bytes:  # noqa: A002
        image = Image.fromarray(pixels)
        buffer = io.BytesIO()
        (image.convert(mode) if mode else image).save(buffer, format)
        return buffer.getvalue()

    return encode


@pytest.fixture
def write_parquet() -> WriteParquet:
    def write(
        path: Path,
        images: Sequence[bytes | None],
        labels: Sequence[object] | None,
        *,
        classes: Sequence[str] | None = ("no", "yes"),
        image: str = "image",
        label: str = "label",
        declared: bool = True,
    ) -> Path:
        """The Hub's layout: images as structs of bytes and path, feature types in the schema's metadata."""
        columns: dict[str, Any] = {image: [{"bytes": data, "path": None} for data in images]}
        features: dict[str, Any] = {image: {"_type": "Image"}}
        if labels is not None:
            columns[label] = labels
            if classes is not None:
                features[label] = {"names": list(classes), "_type": "ClassLabel"}
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table(
            {name: pa.array(rows, type=struct if name == image else None) for name, rows in columns.items()}
        )
        if declared:
            about = {"huggingface": json.dumps({"info": {"features": features}})}
            table = table.replace_schema_metadata(about)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return path

    return write


@pytest.fixture
def pictures(encode: Encode) -> Callable[..., list[bytes]]:
    def pictures(count: int, *, size: tuple[int, ...] = (4, 5), seed: int = 0) -> list[bytes]:
        """PNGs of random pixels; size is (height, width) or (height, width, 3)."""
        pixels = np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)
        return [encode(one) for one in pixels]

    return pictures


@pytest.fixture
def small(tmp_path: Path, write_parquet: WriteParquet, pictures: Callable[..., list[bytes]]) -> Path:
    """A folder with 40 training and 10 test rows, 4x5 grey, two classes."""
    folder = tmp_path / "small"
    write_parquet(folder / "train-00000-of-00001.parquet", pictures(40), [row % 2 for row in range(40)])
    write_parquet(
        folder / "test-00000-of-00001.parquet", pictures(10, seed=1), [row % 2 for row in range(10)]
    )
    return folder
