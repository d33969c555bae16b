"""Files appear whole or not at all, whoever writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from winticket.atomic import create_file, filling, remove_unfinished, replace_file, replacing, require_empty


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


def _fill(folder: Path) -> None:
    with filling(folder) as new:
        (new / "one").write_bytes(b"1")
        (new / "two").write_bytes(b"2")


@pytest.mark.parametrize("kind", ["new", "empty", "link", "here"])
def test_a_folder_gets_all_files_wherever_it_is(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the working directory, and a link to a folder, which can be neither removed nor renamed over."""
    folder = tmp_path / "folder"
    if kind != "new":
        folder.mkdir()
    if kind == "link":
        folder = tmp_path / "link"
        folder.symlink_to(tmp_path / "folder")
    if kind == "here":
        monkeypatch.chdir(folder)
        folder = Path()
    before = folder.stat().st_ino if folder.is_dir() else None
    require_empty(folder)
    _fill(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["one", "two"]
    assert before in (None, folder.stat().st_ino)
    assert {one.name for one in tmp_path.iterdir()} <= {"folder", "link"}
    with pytest.raises(ValueError, match="is there already"):
        require_empty(folder)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_not_finished_leaves_nothing(tmp_path: Path, *, there: bool) -> None:
    folder = tmp_path / "folder"
    if there:
        folder.mkdir()

    def stopped() -> None:
        with filling(folder) as new:
            (new / "one").write_bytes(b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.rglob("*")) == ([folder] if there else [])


def test_what_a_killed_process_left_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "folder" / ".new").mkdir(parents=True)
    (tmp_path / "folder" / ".new" / "half").write_bytes(b"")
    require_empty(tmp_path / "folder")
    _fill(tmp_path / "folder")
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == ["one", "two"]


def test_a_file_is_no_folder_to_fill(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ValueError, match="is there already"):
        require_empty(tmp_path / "file")


def test_halves_of_files_are_removed_and_nothing_else(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in (".notes.tmp", "a.1.01234567.tmp", ".a.x.01234567.tmp", "a")]
    for file in mine:
        file.write_bytes(b"mine")
    with replacing(tmp_path / "a") as new:
        new.write_bytes(b"half")
        remove_unfinished(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted(mine)
        new.write_bytes(b"again")
