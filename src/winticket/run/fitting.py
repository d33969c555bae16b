"""What a task needs of a machine, what a machine has, and what is said if the one is more than the other.

None of this is part of a key: it decides where a task is computed, and no number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from winticket.run.task import Task

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", re.IGNORECASE)
_HOW = "give gpu, or memory and an amount such as memory=8GB"


@dataclass(frozen=True)
class Needs:
    """What every task of a run needs of the machine that computes it, as its user says.

    memory  bytes for a worker process; None: as the plan estimates for each task (`Task.memory`)
    gpu     whether it has to be computed on a GPU

    >>> Needs.of(["gpu", "memory=8GB"])
    Needs(memory=8000000000, gpu=True)
    >>> Needs.of(["memory=8"])
    Traceback (most recent call last):
    ValueError: needs has 'memory=8', whose amount is no number with MB, GB, TB, MiB, GiB or TiB, as memory=8GB
    """

    memory: int | None = None
    gpu: bool = False

    @classmethod
    def of(cls, words: Iterable[str]) -> Needs:
        """The needs as they are typed: "gpu" and "memory=8GB". Raises ValueError for other words."""
        memory, gpu = None, False
        for word in words:
            name, _, amount = word.partition("=")
            if word == "gpu":
                gpu = True
            elif name == "memory" and amount:
                memory = _bytes(word, amount)
            else:
                raise ValueError(f"needs has {word!r}; {_HOW}")
        return cls(memory, gpu)

    def words(self) -> list[str]:
        """The same as typed, so that `Needs.of` reads it.

        >>> Needs(memory=2**30).words()
        ['memory=1024MiB']
        """
        amount = [] if self.memory is None else [f"memory={-(-self.memory // 2**20)}MiB"]
        return ["gpu"] * self.gpu + amount


def _bytes(word: str, amount: str) -> int:
    match = _SIZE.fullmatch(amount)
    units = {unit.lower(): size for unit, size in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise ValueError(
            f"needs has {word!r}, whose amount is no number with {', '.join([*_UNITS][:-1])} or {[*_UNITS][-1]}, as "
            "memory=8GB"
        )
    size = round(float(match[1]) * units[match[2].lower()])
    if not size:
        raise ValueError(f"needs has {word!r}, but every task needs some memory")
    return size


@dataclass(frozen=True)
class Machine:
    """What a machine has for each worker process.

    processes  how many there are
    memory     bytes for each of them; None if it is not known, which is taken to be enough
    gpu        whether they compute on a GPU
    """

    processes: int
    memory: int | None
    gpu: bool


def this_machine(processes: int) -> Machine:
    """What this machine has for each of so many processes (0: the calling one).

    Memory is what is free now, or what is left of the least limit of a control group (a container, a batch job), shared
    evenly. It is not known outside Linux.

    >>> this_machine(2).processes
    2
    """
    import torch

    share = max(processes, 1)
    memory = free_memory()
    return Machine(share, None if memory is None else memory // share, torch.cuda.is_available())


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that processes here may still take; None if the system does not say. `root` is where its files are."""
    known = [_available(root / "proc/meminfo"), *_left_by_groups(root)]
    return min((bytes_ for bytes_ in known if bytes_ is not None), default=None)


def _available(file: Path) -> int | None:
    """MemAvailable of the kernel: free memory, and what can be reclaimed without swapping."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(file), re.MULTILINE)
    return None if match is None else int(match[1]) << 10


def _left_by_groups(root: Path) -> list[int]:
    """What each control group of this process, of version 1 or 2, has left of its limit.

    A group's limit holds for the groups within it, so those above count as well. A container may see its own group at
    the top.
    """
    left = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, kinds, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not kinds:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = Path(path.lstrip("/"))
        left += [
            free for each in (inner, *inner.parents) if (free := _left(mount / each, *names)) is not None
        ]
    return left


def _left(group: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """Bytes that a control group may still take; None if it has no limit."""
    most, now = _read(group / limit).strip(), _read(group / used).strip()
    if not (most.isdecimal() and now.isdecimal()):  # "max", or no such file
        return None
    cache = re.search(rf"^{reclaimable} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
    return max(int(most) - int(now) + (int(cache[1]) if cache else 0), 0)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def bytes_needed(task: Task, needs: Needs) -> int:
    """Bytes that the process which computes a task needs: as its user says, else as estimated; 0 if unknown."""
    return task.memory if needs.memory is None else needs.memory


def fits(task: Task, needs: Needs, machine: Machine) -> bool:
    """Whether a machine has what a task needs, as far as both are known.

    Estimates are of trainings on a CPU, whose tensors a GPU has in memory of its own; so there, they do not count.
    """
    if needs.gpu and not machine.gpu:
        return False
    estimated = needs.memory is None
    if machine.memory is None or (estimated and machine.gpu):
        return True
    return bytes_needed(task, needs) <= machine.memory


def why_not(tasks: Sequence[Task], needs: Needs, machine: Machine) -> str | None:
    """What those of the tasks that do not fit need, what the machine has, and what to do; None if all fit.

    >>> from winticket.run import task
    >>> large = task("operator:add", 1, 2, memory=3 << 30)
    >>> why_not([large], Needs(), Machine(processes=2, memory=2 << 30, gpu=False))
    'it is estimated to need 3.0 GiB of memory, and here are 2.0 GiB for each of 2 processes; use --workers 1, ...'
    """
    large = [task for task in tasks if not fits(task, needs, machine)]
    if not large:
        return None
    if needs.gpu and not machine.gpu:
        return "it needs a GPU (--needs gpu), and PyTorch finds none here; use a machine that has one"
    wanted, have = max(bytes_needed(task, needs) for task in large), machine.memory or 0
    verb = "is estimated to need" if needs.memory is None else "needs"
    here = f"{gibibytes(have)} of memory" if machine.processes == 1 else f"{gibibytes(have)}"
    here = f"here are {here}" + (
        f" for each of {machine.processes} processes" if machine.processes > 1 else ""
    )
    fewer = machine.processes * have // wanted if wanted else 0
    remedy = f"use --workers {fewer}, or " if machine.processes > 1 and fewer else "use "
    other = ", or state what it needs as --needs memory=4GB if the estimate is wrong" * (needs.memory is None)
    return f"it {verb} {gibibytes(wanted)} of memory, and {here}; {remedy}a larger machine{other}"


@dataclass(frozen=True)
class Unfit:
    """The tasks that need more than a machine has, by key, and why, in one sentence for all of them."""

    keys: frozenset[str]
    why: str


def unfit_of(tasks: Sequence[Task], needs: Needs, machine: Machine | None) -> Unfit | None:
    """Those of the tasks that do not fit a machine; None if all do, or if the machine is not known."""
    why = None if machine is None else why_not(tasks, needs, machine)
    if machine is None or why is None:
        return None
    return Unfit(frozenset(task.key for task in tasks if not fits(task, needs, machine)), why)


def gibibytes(count: int) -> str:
    """Bytes of memory as people read them: 0.4 GiB, 12 GiB."""
    size = count / 2**30
    return f"{size:.1f} GiB" if size < 10 else f"{size:.0f} GiB"
