"""Functions for the plans of these tests: a worker imports them by name."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, ClassVar

import torch

from winticket.run import Checkpoint, Parts, Report, part_of


@dataclass(frozen=True)
class Setup:
    width: int
    path: str = "here"

    def key_fields(self) -> dict[str, object]:
        return {"width": self.width}


@dataclass(frozen=True)
class Plain:
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)


@dataclass
class Melting:
    rate: float = 0.5


@dataclass(frozen=True)
class Kept:
    __storable__: ClassVar[bool] = True
    weight: torch.Tensor
    about: dict[str, object]


@dataclass(frozen=True)
class Lost:
    __storable__: ClassVar[bool] = True
    failed_replicate: ClassVar[bool] = True
    reason: str


def plant(*, seed: int, size: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, size, generator=generator)


def grow(before: torch.Tensor, *, rate: float = 0.1) -> torch.Tensor:
    return torch.tanh(before @ before.T * rate)


def scale(before: torch.Tensor, *, by: float) -> torch.Tensor:
    return before * by


def how(number: int, *, context: dict[str, object]) -> list[object]:
    return [number, context]


def total(*parts: torch.Tensor) -> float:
    return float(sum(part.sum() for part in parts))


def table(parts: dict[str, list[float]]) -> dict[str, float]:
    return {name: sum(numbers) for name, numbers in parts.items()}


def add(left: Any, right: Any) -> Any:
    return left + right


def pair(left: Any, right: Any) -> tuple[Any, Any]:
    return left, right


def stack(*, count: int) -> tuple[int, ...]:
    return tuple(range(count))


def stack_with_loss(*, count: int) -> tuple[int | Lost, ...]:
    return tuple(Lost(f"replicate {i}") if i == 1 else i for i in range(count))


def fail(_before: object = None, *, why: str = "no") -> None:
    raise ValueError(f"cannot: {why}")


def fail_while(path: str) -> str:
    if Path(path).exists():
        raise ValueError("not yet")
    return "fine"


def leave() -> None:
    raise SystemExit(3)


def unstorable() -> object:
    return object()


def dice() -> tuple[float, list[float]]:
    return random.random(), torch.rand(3).tolist()


def turned() -> torch.Tensor:
    return torch.arange(6.0).reshape(2, 3).T


def lies_in_order(before: torch.Tensor) -> bool:
    return before.is_contiguous()


def speak() -> None:
    print("spoken")  # noqa: T201
    os.system("echo shouted")


def threads() -> int:
    return torch.get_num_threads()


def note(path: str, *, name: str, before: object = None) -> str:
    """Leaves a line in a file for every time that it really runs."""
    with Path(path).open("a") as file:
        file.write(f"{name}\n")
    return name


def noted_after(_before: object, path: str, *, name: str, pause: float = 0.0) -> str:
    time.sleep(pause)
    return note(path, name=name)


def die_first(path: str) -> str:
    """Kills its own process unless the file is there already."""
    if Path(path).exists():
        return "survived"
    Path(path).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


def die(*, number: int = 0) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exhaust() -> None:
    raise MemoryError("asked for too much")


def fill_disk() -> None:
    raise OSError(28, "No space left on device")


def count_up(
    path: str, *, steps: int, pause: float = 0.0, checkpoint: Checkpoint, report: Report
) -> tuple[int, list[int]]:
    """Counts, saving when due; gives the count and the steps at which it started."""
    saved = checkpoint.load() or {"step": 0, "starts": []}
    step, starts = saved["step"], [*saved["starts"], saved["step"]]
    while step < steps:
        if checkpoint.due():
            checkpoint.save({"step": step, "starts": starts})
        report(step, steps)
        step += 1
        time.sleep(pause)
        Path(path).write_text(str(step))
    report(steps, steps)
    return step, starts


def sleep(*, seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def apply(value: float, *, fn: Callable[[float], float]) -> float:
    return fn(value)


def double(value: float) -> float:
    return 2 * value


def triple(value: float, *, by: float = 3.0) -> float:
    return by * value


def positional_only(value: float, shift: float = 1.0, /, *, by: float = 2.0) -> float:
    return (value + shift) * by


def keep(*, size: int) -> Kept:
    return Kept(torch.arange(size), {"size": size, 3: (None, float("inf"))})  # type: ignore[dict-item]


def size_of(kept: Kept) -> int:
    return len(kept.weight)


def cleaned_up_after(*, path: str, seconds: float) -> int:
    """Leaves work for this process's orderly end, as libraries that hold semaphores do."""

    def clean_up() -> None:
        time.sleep(seconds)
        Path(path).touch()

    Finalize(None, clean_up, exitpriority=10)
    return os.getpid()


def slow(*, number: int, seconds: float, report: Report | None = None) -> int:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if report is not None:
            report(0, 1)
        time.sleep(min(left, 0.02))
    return number


FAILED: list[float] = []


def fail_slowly(*, seconds: float) -> None:
    FAILED.append(seconds)
    time.sleep(seconds)
    raise ValueError("no")


def ends_a_program_and_a_copy() -> list[int]:
    """A task may start processes and end them: statuses of a program and of a forked copy, both terminated."""
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    copy = os.fork()
    if not copy:
        time.sleep(60)
        os._exit(0)
    os.kill(copy, signal.SIGTERM)
    return [program.wait(), os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])]


def squares(*, until: int, hand_over: bool, on_the_way: Parts | None = None) -> int:
    """A long task that passes values that others may want; `hand_over` says whether it does what it is asked for."""
    for number, options in enumerate(on_the_way.wanted if on_the_way else ()):
        if on_the_way and hand_over:
            on_the_way.keep(number, ["handed over", options["at"] ** 2])
    return until**2


@part_of(0)
def square(whole: int, *, at: int) -> list[str | int]:
    return ["alone", at**2]


def variable(*, name: str) -> str:
    return os.environ[name]


def die_halfway(path: str, *, steps: int, checkpoint: Checkpoint, report: Report) -> tuple[int, list[int]]:
    """Counts, saving when due, and kills its process half-way, the first time; gives what `count_up` gives."""
    saved = checkpoint.load() or {"step": 0, "starts": []}
    step, starts = saved["step"], [*saved["starts"], saved["step"]]
    while step < steps:
        if checkpoint.due():
            checkpoint.save({"step": step, "starts": starts})
        report(step, steps)
        if step == steps // 2:
            die_first(path)
        step += 1
    return step, starts


def pid_and_sleep(path: str, *, seconds: float) -> float:
    """Leaves the number of its process in a file, and does not report."""
    Path(path).write_text(str(os.getpid()))
    return sleep(seconds=seconds)
