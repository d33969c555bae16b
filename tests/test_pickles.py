"""Nothing is ever unpickled: a pickle in place of any file that winticket reads is refused, and runs nothing."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from chaos.networks import small_network

import winticket
from winticket.data import cache, find_dataset
from winticket.experiment import load_source
from winticket.outside import Unreadable
from winticket.run import Store, StoreError
from winticket.ship import load, load_maps
from winticket.ship.predicting import InputError, Predictor
from winticket.ship.web import network_of
from winticket.sparse import breakeven
from winticket.sparse.choices import Shape
from winticket.ticket import Ticket, TicketFileError

KEY = "ab" + "0" * 62
_called: list[str] = []
_hears = [False]


def _hear(event: str, arguments: Any) -> None:
    """Python raises this event for every class or function that an unpickler looks up, in C as well."""
    if event == "pickle.find_class" and _hears[0]:
        _called.append(".".join(map(str, arguments[-2:])))


sys.addaudithook(_hear)


@contextmanager
def nothing_unpickled() -> Iterator[None]:
    _called.clear()
    _hears[0] = True
    try:
        yield
    finally:
        _hears[0] = False
    assert _called == []


class Evil:
    """Unpickling it writes a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def pickles(mark: Path) -> Iterator[bytes]:
    """Pickles of all protocols, and what torch.save writes now and wrote before."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps([1, Evil(mark)], protocol)
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save({"w": torch.ones(3), "evil": Evil(mark)}, stream, _use_new_zipfile_serialization=zipped)
        yield stream.getvalue()


def _stored(file: Path) -> Any:
    """A store's result that is that file."""
    store = Store(file.parent / "store")
    if not store.exists():
        store.put(KEY, 1, {})
    (result,) = (file.parent / "store" / "results").rglob("*.safetensors")
    result.write_bytes(file.read_bytes())
    return store.get(KEY)


READERS: dict[str, tuple[str, Callable[[Path], Any], tuple[type[Exception], ...]]] = {
    "ticket": ("ticket.safetensors", Ticket.load, (TicketFileError,)),
    "compact file": ("network.safetensors", load, (ValueError,)),
    "folder for the Hub": ("model.safetensors", lambda file: load(file.parent), (ValueError,)),
    "index maps": ("network.maps.safetensors", load_maps, (Unreadable,)),
    "page": ("page.html", lambda file: network_of(file.read_text("latin-1")), (Unreadable,)),
    "result": ("result.json", load_source, (ValueError,)),
    "unfinished run": ("run.json", lambda file: winticket.open(file.parent), (ValueError,)),
    "store": ("any", _stored, (StoreError,)),
    "parquet": ("data.parquet", find_dataset, (ValueError,)),
    "text": ("data.txt", find_dataset, (ValueError,)),
    "request": ("body", lambda file: Predictor(small_network())(file.read_bytes()), (InputError,)),
}
SAID = {"ticket", "compact file", "folder for the Hub", "index maps", "store"}
"""What says of a pickle of protocol 2 or later, or a zip archive of torch's, what it is."""


@pytest.mark.parametrize("kind", READERS)
def test_a_pickle_in_place_of_a_file_is_refused_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    name, read, named = READERS[kind]
    for number, content in enumerate(pickles(tmp_path / "mark")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        with nothing_unpickled(), pytest.raises(named) as refused:
            read(folder / name)
        assert not isinstance(refused.value, (KeyError, UnicodeError))
        if kind in SAID and content[:1] in (b"\x80", b"P"):
            assert "pickle" in str(refused.value)
    assert not (tmp_path / "mark").exists()


def test_a_pickle_among_pictures_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate(pickles(tmp_path / "mark")):
        for label in ("a", "b"):
            file = tmp_path / str(number) / label / "1.png"
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
        with nothing_unpickled(), pytest.raises(ValueError, match=r"1\.png"):
            find_dataset(tmp_path / str(number))
    assert not (tmp_path / "mark").exists()


def test_a_pickle_in_a_cache_counts_as_nothing(tmp_path: Path) -> None:
    shape = Shape(rows=30, columns=40, stack=2, batch=8, threads=1)
    for content in pickles(tmp_path / "mark"):
        (tmp_path / "cached").write_bytes(content)
        with nothing_unpickled():
            assert cache.read(tmp_path / "cached") is None
            assert breakeven._read(tmp_path / "cached", shape, ["portable"]) is None
    assert not (tmp_path / "mark").exists()


def test_unpickling_would_be_noticed(tmp_path: Path) -> None:
    content = next(pickles(tmp_path / "mark"))
    with pytest.raises(AssertionError), nothing_unpickled():
        pickle.loads(content)
    assert (tmp_path / "mark").exists()
