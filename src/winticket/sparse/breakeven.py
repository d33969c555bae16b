"""What was measured of each layer's shape on this machine, once, and remembered: see `measuring`.

The density below which a layer is faster sparse, the instruction sets of its products and the blocks of its operands
are kept in the user's cache folder, one file for each shape. So all processes of a run, and a resumed run, make the
same choice. A different choice would change numbers in the last bits.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import msgspec
import torch

from winticket.atomic import create_file, replace_file
from winticket.outside import Unreadable, read_file, read_json
from winticket.places import cache_folder
from winticket.sparse.choices import PROBES, Choice, Shape, Times, Tuning
from winticket.sparse.measuring import measure
from winticket.sparse.native import instruction_sets, kernels

REVISION = 6
"""Raised when measurements of earlier kernels no longer hold."""


class _Measured(msgspec.Struct):
    break_even: float
    choices: tuple[Choice, ...]
    times: Times


def tuning(shape: Shape) -> Tuning:
    """The break-even of a shape and its fastest ways, which the kernels take in this process from now on.

    The first call for a shape measures it, unless the cache folder has the result. If nothing can be kept there, each
    process measures a break-even for itself; but then it computes as without measurement, since workers that differ in
    their choices would differ in their results' last bits. If an instruction set is forced for all products, that set
    alone is measured.

    >>> len(tuning(Shape(rows=8, columns=8, stack=1, batch=4, threads=1)).blocks(0.5))  # forward, by input
    2
    """
    if kernels is None:
        return Tuning(shape, 0.0)
    return _tuning(shape, kernels.forced())


@lru_cache(maxsize=1024)
def _tuning(shape: Shape, forced: str) -> Tuning:
    sets = [forced] if forced else instruction_sets()
    conditions = _conditions(shape, sets)
    digest = sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:24]
    file = _folder() / f"{digest}.json"
    known = _read(file, shape, sets) or _remember(file, measure(shape, sets), conditions, sets)
    if not forced:
        known.register()
    _used.add(file.name)
    return known


_used: set[str] = set()
"""The files of the measurements that this process has used."""


def _folder() -> Path:
    return cache_folder() / "break-even"


def measurements() -> dict[str, bytes]:
    """The measurements that this process has used, as files by their names, for other machines like this one.

    A name stands for the layer's shape, the processor, the kernels and torch's version.
    """
    kept = {}
    for name in sorted(_used):
        with contextlib.suppress(OSError, Unreadable):
            kept[name] = read_file(_folder() / name, limit=_LARGEST)
    return kept


def adopt(others: Mapping[str, bytes], *, over: bool = False) -> None:
    """Keep measurements of another machine like this one, as files by their names, unless there are any here.

    With `over`, they replace this machine's own. Each is checked when it is used; one that cannot be right is measured
    again. What cannot be kept is passed over, since it only saves time.
    """
    keep = replace_file if over else create_file
    for name, content in others.items():
        if _NAME.fullmatch(name) and len(content) <= _LARGEST:
            with contextlib.suppress(OSError):
                _folder().mkdir(parents=True, exist_ok=True)
                keep(_folder() / name, content)
    if over and others:
        _tuning.cache_clear()


_NAME = re.compile(r"[0-9a-f]{24}\.json")
_LARGEST = 1 << 16  # bytes


def _read(file: Path, shape: Shape, sets: Sequence[str]) -> Tuning | None:
    try:
        read = read_json(read_file(file, limit=_LARGEST), _Measured)
    except (OSError, Unreadable):
        return None
    sound = all(choice.suits(shape, sets) for choice in read.choices)
    sound = sound and read.times.sound() and 0 <= read.break_even <= 1
    if not sound or tuple(c.density for c in read.choices) != PROBES:
        return None
    return Tuning(shape, read.break_even, read.choices, read.times)


def _conditions(shape: Shape, sets: Sequence[str]) -> dict[str, object]:
    """All that a measurement depends on."""
    machine = {"processor": _processor(), "torch": torch.__version__, "kernels": list(sets)}
    return {**asdict(shape), **machine, "revision": REVISION}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _remember(file: Path, mine: Tuning, conditions: dict[str, object], sets: Sequence[str]) -> Tuning:
    """Write a measurement unless another process has written one, and return what the file then holds.

    If it cannot be written, no other process will come to the same choices: the break-even alone is returned.
    """
    if mine.times is None:
        raise AssertionError(f"nothing was measured of {mine.shape}")
    measured = _Measured(mine.break_even, mine.choices, mine.times)
    content = json.dumps({**conditions, **msgspec.to_builtins(measured)}).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not create_file(file, content) and _read(file, mine.shape, sets) is None:
            replace_file(file, content)  # the file was damaged
    except OSError:
        pass
    return _read(file, mine.shape, sets) or Tuning(mine.shape, mine.break_even, times=mine.times)
