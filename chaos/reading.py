"""Read changed files in a folder of their own: an attempt gives a value or a named error within seconds."""

from __future__ import annotations

import contextlib
import os
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos.counts import Count
from winticket.run import StoreError

SLOW = 10.0  # Seconds after which reading a file counts as a hang.
MEMORY = (
    3 << 30
)  # Bytes of address space that reading may add to what the process has; without them, it counts as raw.
Say = Callable[[str], None]


@contextlib.contextmanager
def isolated(folder: Path) -> Iterator[None]:
    """Within the block, use a separate cache and working directory, and ignore warnings about odd files.

    Memory is bounded by MEMORY, so that a small file that asks for gigabytes is counted, and does not end the machine.
    """
    before, cache, limits = (
        Path.cwd(),
        os.environ.get("WINTICKET_CACHE"),
        resource.getrlimit(resource.RLIMIT_AS),
    )
    os.environ["WINTICKET_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, limits[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        os.chdir(before)
        if cache is None:
            del os.environ["WINTICKET_CACHE"]
        else:
            os.environ["WINTICKET_CACHE"] = cache


def attempt(count: Count, number: int, read: Callable[[], Any], named: tuple[type[Exception], ...]) -> Any:
    """The value of `read`, or None if it raises a named error. Any other error counts as raw."""
    began = time.monotonic()
    try:
        return read()
    except named as error:
        if isinstance(error, (KeyError, UnicodeError)) and not isinstance(error, StoreError):
            _raw(count, number, error)
    except BaseException as error:  # noqa: BLE001 - every error is counted
        _raw(count, number, error)
    finally:
        if time.monotonic() - began > SLOW:
            count.raw += 1
            count.notes.append(f"{count.what}, number {number}: took {time.monotonic() - began:.0f} s")
    return None


def _raw(count: Count, number: int, error: BaseException) -> None:
    count.raw += 1
    count.notes.append(f"{count.what}, number {number}: {type(error).__name__}: {str(error)[:200]}")
