"""The store: whole or not at all, checked byte by byte, refused before any harm where it could not work."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket.run import Damaged, Store, StoreError

KEY, OTHER = "ab" + "0" * 62, "cd" + "1" * 62


@pytest.fixture
def store(anywhere: Store) -> Store:
    return anywhere


def test_put_and_get(store: Store) -> None:
    assert not store.has(KEY)
    with pytest.raises(KeyError, match="has no result ab0"):
        store.get(KEY)
    store.put(KEY, {"w": torch.ones(2)}, {"fn": "m:f", "seconds": 1.5, "label": {"level": 2}, "when": "now"})
    assert store.has(KEY)
    assert store.get(KEY)["w"].tolist() == [1, 1]
    assert store.meta(KEY)["seconds"] == 1.5
    store.put(KEY, "another", {})  # what is there stays
    assert store.get(KEY)["w"].tolist() == [1, 1]


@pytest.mark.parametrize("typed", ["runs", "./runs", "runs/", "../runs", "memory://runs"])
def test_the_path_is_the_one_that_was_typed(typed: str) -> None:
    """Screens and documents print it, so that a user recognises it."""
    assert Store(typed).path == typed


def test_failures_and_partials(store: Store) -> None:
    assert store.failure(KEY) is None
    assert store.load_partial(KEY) is None
    store.put_failure(KEY, "Traceback: no", {"fn": "m:f"})
    store.save_partial(KEY, {"step": 1})
    store.save_partial(KEY, {"step": 2})
    failure = store.failure(KEY)
    assert failure is not None
    assert (failure.traceback, failure.meta) == ("Traceback: no", {"fn": "m:f"})
    assert store.load_partial(KEY) == {"step": 2}
    store.forget(KEY, "partial")
    store.forget(KEY, "partial")
    assert store.load_partial(KEY) is None
    store.put(KEY, 1, {})  # a result takes the failure's place
    assert store.failure(KEY) is None


def test_ls_and_bytes(store: Store) -> None:
    store.put(OTHER, 1, {"fn": "m:f", "seconds": 0.25, "label": {"arm": "ticket"}, "when": "2026-01-01"})
    store.put_failure(KEY, "no", {"fn": "m:g"})
    store.save_partial(KEY, 2)
    rows = store.ls()
    assert [(r.kind, r.key, r.fn, dict(r.label), r.seconds) for r in rows] == [
        ("result", OTHER, "m:f", {"arm": "ticket"}, 0.25),
        ("failure", KEY, "m:g", {}, None),
        ("partial", KEY, None, {}, None),
    ]
    assert rows[0].when == "2026-01-01"
    marker = len(json.dumps({"format": 2}))
    assert store.bytes() == sum(r.bytes for r in rows) + marker
    store.forget(KEY, "failure")
    assert [r.kind for r in store.ls()] == ["result", "partial"]


def test_equal_values_have_equal_digests(store: Store) -> None:
    store.put(KEY, torch.ones(3), {"seconds": 1})
    store.put(OTHER, torch.ones(3), {"seconds": 2})
    assert store.ls()[0].digest == store.ls()[1].digest


def test_verify_and_gc(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for key in (KEY, OTHER):
        store.put(key, torch.arange(100), {})
    store.save_partial(KEY, 1)
    store.put_failure("ef" + "2" * 62, "no", {})
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    host = "".join(c for c in os.uname().nodename if c.isalnum())
    (tmp_path / f"runs/tmp/{OTHER}.{host}-{int(dead.stdout)}-abcd").write_bytes(b"half")
    (tmp_path / f"runs/tmp/{OTHER}.{host}-{os.getpid()}-abcd").write_bytes(b"under way")
    old = tmp_path / f"runs/tmp/{OTHER}.elsewhere-1-abcd"
    old.write_bytes(b"old")
    assert [p.kind for p in store.verify()] == ["leftover"]
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    assert [p.kind for p in store.verify()] == ["leftover", "leftover"]

    file = tmp_path / f"runs/results/cd/{OTHER}.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    first = store.verify()[0]
    assert (first.kind, first.name) == ("damaged", f"results/cd/{OTHER}.safetensors")
    with pytest.raises(Damaged, match=r"results/cd/cd1+\.safetensors: damaged.*remove the file"):
        store.get(OTHER)

    told = store.gc(dry_run=True)
    assert sorted(r.why for r in told) == [
        "its task is finished",
        *["temporary file of a stopped writer"] * 2,
    ]
    assert store.load_partial(KEY) == 1
    assert store.gc() == told
    assert store.load_partial(KEY) is None
    assert store.gc() == []
    assert [r.why for r in store.gc(damaged=True)] == ["damaged"]
    assert [r.why for r in store.gc(failures=True)] == ["failures are to be tried again"]
    assert store.gc(keep={KEY}) == []
    assert [r.why for r in store.gc(keep=set())] == ["not to be kept"]
    assert store.ls() == []


def test_opening_creates_nothing_and_travelling_keeps_the_place(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("runs/deep")
    assert not store.has(KEY)
    assert store.ls() == []
    assert store.verify() == []
    assert store.gc() == []
    assert store.bytes() == 0
    assert list(tmp_path.iterdir()) == []
    store.put(KEY, 1, {})
    again = pickle.loads(pickle.dumps(store))
    monkeypatch.chdir("/")
    assert again.get(KEY) == 1


def test_foreign_newer_and_impossible_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is not empty and not a store"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="is a file; a store is a directory"):
        Store(tmp_path / "thesis.tex")
    newer = tmp_path / "newer"
    Store(newer).check_writable()
    (newer / "winticket-store.json").write_text('{"format": 4}')
    with pytest.raises(
        StoreError, match=r"made by a newer winticket \(format 4; this one knows up to 3\): upgrade"
    ):
        Store(newer)
    (newer / "winticket-store.json").write_text("{")
    with pytest.raises(StoreError, match=r"winticket-store\.json is damaged"):
        Store(newer)
    with pytest.raises(StoreError, match="nosuch"):
        Store("nosuch://bucket/runs")
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = Store(tmp_path / "file" / "runs")
    with pytest.raises(
        StoreError, match="cannot be written: Not a directory; check its disk space and permissions"
    ):
        below.check_writable()
    with pytest.raises(StoreError, match="cannot be written"):
        below.put(KEY, 1, {})
    with pytest.raises(StoreError, match=f"needs about {1 << 60} bytes, but"):
        Store(tmp_path / "new").check_writable(1 << 60)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def no_space(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(*args: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("trouble", [no_space, read_only])
def test_full_and_read_only_disks_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[..., None]
) -> None:
    message = os.strerror(errno.ENOSPC if trouble is no_space else errno.EROFS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", trouble)
        with pytest.raises(StoreError, match=message):
            Store(tmp_path / "a" / "runs").check_writable()
        with pytest.raises(StoreError, match=message):
            Store(tmp_path / "a" / "runs").put(KEY, 1, {})
    assert list(tmp_path.iterdir()) == []
    store = Store(tmp_path / "runs")
    store.put(KEY, 1, {})
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", trouble)
        with pytest.raises(StoreError, match=message):
            store.put(OTHER, 2, {})
    assert sorted(tmp_path.rglob("*")) == before
    assert store.verify() == []


def test_check_writable_leaves_an_empty_store(store: Store) -> None:
    store.check_writable()
    assert store.ls() == []
    assert Store(store.path).verify() == []


@pytest.mark.parametrize("count", [3, 300])
def test_many_keys_are_looked_up_as_each_one_is(tmp_path: Path, count: int) -> None:
    """Up to a hundred keys are looked up one by one, more by a listing; results and failures are told apart."""
    store = Store(tmp_path / "store")
    keys = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(count)]
    assert store.among(keys) == store.among(keys, "failure") == frozenset()
    for key in keys[::3]:
        store.put(key, 1, {})
    for key in keys[1::3]:
        store.put_failure(key, "it failed", {})
    store.put("f" * 64, 1, {})
    assert store.among(keys) == {key for key in keys if store.has(key)} == set(keys[::3])
    assert store.among(keys, "failure") == {key for key in keys if store.failure(key)} == set(keys[1::3])
