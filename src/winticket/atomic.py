"""Files and folders that appear whole or not at all: written under another name, then renamed or linked."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".new"
"""The name of a folder in another while it is written, or the end of its name beside it."""


@contextlib.contextmanager
def replacing(path: Path, *, aside: Path | None = None) -> Iterator[Path]:
    """Yield a path to write to; when the block ends, the file takes the place of `path`.

    No reader sees half a file. If the block raises, or the disk is full, `path` stays as it was and nothing is left.
    `aside` is the path to write to (default: a hidden sibling); it must be on the same file system.
    """
    aside = aside or _sibling(path)
    try:
        yield aside
        with aside.open("r+b") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes, *, aside: Path | None = None) -> None:
    """Put `content` at `path`, whole or not at all, as `replacing` does."""
    with replacing(path, aside=aside) as new, new.open("xb") as stream:
        stream.write(content)


def create_file(path: Path, content: bytes, *, aside: Path | None = None) -> bool:
    """Put `content` at `path` unless there is a file. True for exactly one of several that try at once."""
    aside = aside or _sibling(path)
    try:
        with aside.open("xb") as stream:
            stream.write(content)
        try:
            os.link(aside, path)  # unlike a rename it fails if there is a file, and the new one appears whole
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            try:
                with path.open("xb") as stream:
                    stream.write(content)
            except FileExistsError:
                return False
        return True
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to; when the block ends, its files are in `folder`, which is made if it is not there.

    If the block raises, nothing is left. A folder that is there stays the same one, which may be a mount point or a
    working directory; it gets the files one after the other. A new one appears whole.
    """
    folder = folder.resolve()
    there = folder.is_dir()
    new = folder / UNFINISHED if there else folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if there:
            for file in sorted(new.iterdir()):
                file.replace(folder / file.name)
            new.rmdir()
        else:
            new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def require_empty(folder: Path) -> None:
    """Raise ValueError if a folder that is to be written is a file, or has anything in it."""
    others = any(one.name != UNFINISHED for one in folder.iterdir()) if folder.is_dir() else folder.exists()
    if others:
        raise ValueError(f"{folder} is there already; give a new folder (--out)")


def remove_unfinished(folder: Path) -> None:
    """Remove the halves of files that killed processes have left in a folder to which nobody else writes."""
    for file in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.[0-9a-f]{8}\.tmp", file.name):
            file.unlink(missing_ok=True)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
