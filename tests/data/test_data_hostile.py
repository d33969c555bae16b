"""Data from strangers: nothing is fetched, nothing outside is read, no program starts, nothing is dropped silently."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image

from winticket.data import find_dataset, images, sources
from winticket.data.sources import decoded

Pictures = Callable[[int], list[bytes]]


def pointing(path: Path, places: Sequence[str]) -> Path:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": None, "path": place} for place in places], type=struct)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": rows, "label": [n % 2 for n in range(len(places))]}), path)
    return path


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and the paths that were asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    running.server_close()


def test_a_table_has_nothing_fetched(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    url, asked = server
    with pytest.raises(ValueError, match=r"points to the image 'http.*which is outside"):
        find_dataset(pointing(tmp_path / "d" / "t.parquet", [f"{url}/{n}.png" for n in range(4)]))
    assert asked == []


@pytest.mark.parametrize(
    "place", ["/dev/zero", "/etc/hostname", "../secret.png", "file:///etc/hostname", "link/0.png"]
)
def test_a_table_has_nothing_read_that_lies_outside(tmp_path: Path, pictures: Pictures, place: str) -> None:
    (tmp_path / "secret.png").write_bytes(pictures(1)[0])
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0.png").write_bytes(pictures(1)[0])
    table = pointing(tmp_path / "d" / "t.parquet", [place] * 4)
    (tmp_path / "d" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="only images inside a dataset's own folder are read"):
        find_dataset(table)


def test_a_pipe_inside_is_refused_at_once(tmp_path: Path) -> None:
    table = pointing(tmp_path / "d" / "t.parquet", ["pipe.png"] * 4)
    os.mkfifo(tmp_path / "d" / "pipe.png")
    with pytest.raises(ValueError, match="which is a pipe"):
        find_dataset(table)


def test_relative_paths_start_at_the_dataset_and_not_where_one_happens_to_be(
    tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    table = pointing(tmp_path / "d" / "t.parquet", [f"{n}.png" for n in range(4)])
    for n, data in enumerate(pictures(4)):
        (table.parent / f"{n}.png").write_bytes(data)
    other = tmp_path / "other"
    other.mkdir()
    for n, data in enumerate(pictures(5)[1:]):
        (other / f"{n}.png").write_bytes(data)
    monkeypatch.chdir(other)
    with pytest.warns(RuntimeWarning, match="points to images"):
        first = find_dataset(table).fingerprint
    # And what it points to is never taken from the cache once it has changed.
    (table.parent / "0.png").write_bytes(pictures(9)[8])
    forget()
    with pytest.warns(RuntimeWarning, match="points to images"):
        assert find_dataset(table).fingerprint != first


def test_a_picture_is_known_by_its_content_and_no_program_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(buffer, "EPS")
    for n in range(4):
        file = tmp_path / "d" / ("a", "b")[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getvalue())
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match="cannot be decoded"):
        find_dataset(tmp_path / "d")


def test_pictures_that_do_not_fit_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(buffer, "PNG")
    for n in range(40):
        file = tmp_path / "d" / ("a", "b")[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getvalue())
    monkeypatch.setattr(images, "memory", lambda: 1 << 32)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"40 images of 13000×13000 pixels.* need 6 GiB or more as numbers"):
        find_dataset(tmp_path / "d")


def test_linked_folders_inside_are_followed_and_others_refused(
    tmp_path: Path, pictures: Pictures, forget: Callable[[], None]
) -> None:
    data = tmp_path / "d"
    for n, content in enumerate(pictures(8)):
        file = data / "train" / ("cat", "dog")[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (data / "train" / "wolf").symlink_to(data / "train" / "dog")
    assert decoded(data).class_names == ("cat", "dog", "wolf")
    forget()
    (data / "train" / "wolf").unlink()
    (data / "train" / "loop").symlink_to(data)
    with pytest.raises(ValueError, match="a link to a folder that it lies in"):
        find_dataset(data)
    (data / "train" / "loop").unlink()
    (tmp_path / "outside").mkdir()
    (data / "test").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="outside the dataset; copy it here, or give that folder"):
        find_dataset(data)


def test_data_that_are_no_file_are_not_left_out_in_silence(tmp_path: Path, pictures: Pictures) -> None:
    for n, content in enumerate(pictures(4)):
        file = tmp_path / "d" / ("a", "b")[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "d" / "a" / "x.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"x\.png is a link that leads nowhere"):
        find_dataset(tmp_path / "d")
    (tmp_path / "d" / "a" / "x.png").unlink()
    os.mkfifo(tmp_path / "d" / "a" / "y.png")
    with pytest.raises(ValueError, match=r"y\.png is not a regular file"):
        find_dataset(tmp_path / "d")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        find_dataset(tmp_path / "pipe")


def test_a_doubled_column_is_told(tmp_path: Path, pictures: Pictures) -> None:
    table = pa.table([pictures(4), [0, 1, 0, 1], [0, 1, 0, 1]], names=["image", "label", "label"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="several columns of the same name: label"):
        find_dataset(tmp_path / "t.parquet")


def test_a_folder_called_like_a_dataset_of_the_hub_is_not_read_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ylecun" / "mnist").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is a folder ylecun/mnist here"):
        find_dataset("mnist")


def test_a_cache_file_whose_names_were_changed_is_not_believed(
    tmp_path: Path, pictures: Pictures, own_cache: Path, forget: Callable[[], None]
) -> None:
    for n, content in enumerate(pictures(4)):
        file = tmp_path / "d" / ("a", "b")[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    find_dataset(tmp_path / "d")
    (kept,) = own_cache.glob("*.safetensors")
    content = kept.read_bytes()
    assert b'[\\"a\\", \\"b\\"]' in content
    kept.write_bytes(content.replace(b'[\\"a\\", \\"b\\"]', b'[\\"b\\", \\"a\\"]'))
    forget()
    assert decoded(tmp_path / "d").class_names == ("a", "b")
    assert sources.names()
