"""Files appear whole or not at all, whoever writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from winticket.atomic import create_file, replace_file, replacing


def full_disk(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_file(path, b"old")

    def stopped() -> None:
        with replacing(path) as new:
            new.write_bytes(b"half")
            assert path.read_bytes() == b"old"
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    replace_file(path, b"old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


@pytest.mark.parametrize("links", [True, False])
def test_the_first_of_several_creates_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*paths: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a"
    assert create_file(path, b"first")
    assert not create_file(path, b"second")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"first", [path])
