"""Files that appear whole or not at all: written under another name, then renamed or linked."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


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


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
