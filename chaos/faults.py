"""What machines do: folders that vanish, limits that are reached, backends and terminals that lack something."""

from __future__ import annotations

import json
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.commands import SEARCH, Command, numbers, start, traceback_in
from chaos.counts import Count

FIND = (
    "find",
    "data",
    *SEARCH,
    "--replicates",
    "2",
    "--workers",
    "1",
    "--store",
    "runs",
    "--out",
    "out",
    "--json",
)
Act = Callable[[Path, Command], None]


@dataclass(frozen=True)
class Fault:
    """`act` is done while the command runs; `before` in its process; the same command without them has to end well."""

    act: Act | None = None
    before: Callable[[], None] | None = None
    environment: Mapping[str, str] | None = None
    status: tuple[int, ...] = (1,)
    mend: Callable[[Path], None] | None = None


def _after_a_result(folder: Path, command: Command) -> None:
    while command.process.poll() is None and not any((folder / "runs" / "results").glob("*/*")):
        time.sleep(0.02)


def _remove_store(folder: Path, command: Command) -> None:
    _after_a_result(folder, command)
    shutil.rmtree(folder / "runs", ignore_errors=True)


def _move_store(folder: Path, command: Command) -> None:
    _after_a_result(folder, command)
    (folder / "runs").rename(folder / "elsewhere")


def _remove_results(folder: Path, command: Command) -> None:
    _after_a_result(folder, command)
    shutil.rmtree(folder / "runs" / "results", ignore_errors=True)


def _hide_data(folder: Path, command: Command) -> None:
    while command.process.poll() is None and not (folder / "runs" / "winticket-store.json").exists():
        time.sleep(0.005)
    (folder / "data").rename(folder / "away")


def _limit(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


def _show_data(folder: Path) -> None:
    if (folder / "away").exists():
        (folder / "away").rename(folder / "data")


def _show_store(folder: Path) -> None:
    shutil.rmtree(folder / "runs", ignore_errors=True)
    if (folder / "elsewhere").exists():
        (folder / "elsewhere").rename(folder / "runs")


FAULTS: dict[str, Fault] = {
    "the store is removed": Fault(_remove_store),
    "the store is moved": Fault(_move_store, mend=_show_store),
    "the results are removed": Fault(_remove_results),
    "the data are away": Fault(_hide_data, status=(0, 1), mend=_show_data),
    "files may not grow": Fault(before=_limit(resource.RLIMIT_FSIZE, 3000), status=(1, 2)),
    "few files may be open": Fault(before=_limit(resource.RLIMIT_NOFILE, 12)),
    "too little memory to begin": Fault(before=_limit(resource.RLIMIT_AS, 500 << 20)),
    "a notebook's backend": Fault(environment={"MPLBACKEND": "module://matplotlib_inline.gone"}, status=(0,)),
    "a terminal without Unicode": Fault(
        environment={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}, status=(0,)
    ),
}


def run(scratch: Path, seed: int, many: int, say: Callable[[str], None]) -> list[Count]:
    """Every fault, `many` times over a hundred."""
    del seed
    count = Count("faults of the machine")
    wanted = None
    for again in range(max(1, many // 100)):
        for name, fault in {"nothing": Fault(status=(0,)), **FAULTS}.items():
            folder = scratch / f"fault-{again}-{name.replace(' ', '-')}"
            _data(folder)
            command = start(folder, *FIND, environment=fault.environment, before=fault.before)
            acting = threading.Thread(target=fault.act, args=(folder, command)) if fault.act else None
            if acting:
                acting.start()
            status, out, err = command.end()
            if acting:
                acting.join()
            if name == "nothing":
                wanted = numbers(out)
                continue
            count.tried += 1
            _judge(count, name, fault, (status, err), command)
            if fault.mend:
                fault.mend(folder)
            _again(count, name, folder, wanted)
            say(f"faults: {name}")
    return [count]


def _judge(count: Count, name: str, fault: Fault, ended: tuple[int | None, str], command: Command) -> None:
    status, err = ended
    if status not in fault.status or traceback_in(err) or (status and not err.strip()):
        count.raw += 1
        count.notes.append(f"{name}: exit status {status}: {err[-400:] or 'and not a word'}")
    if left := command.left():
        count.raw += 1
        count.notes.append(f"{name}: {len(left)} processes lived on")


def _again(count: Count, name: str, folder: Path, wanted: Any) -> None:
    """The same command without the fault has to give what it gives undisturbed."""
    status, out, err = start(folder, *FIND).end()
    if status != 0:
        count.lost += 1
        count.notes.append(f"{name}, and then again: exit status {status}: {err[-400:]}")
    elif numbers(out) != wanted:
        count.silent += 1
        count.notes.append(f"{name}, and then again: other numbers than undisturbed")
    elif json.loads(out)["failures"]:
        count.silent += 1
        count.notes.append(f"{name}, and then again: failures that the training did not cause")


def _data(folder: Path) -> None:
    """A folder of small pictures, so that there is something that can be away."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(120):
        label = number % 2
        pixels = draw.integers(0, 120, (8, 8), np.uint8)
        pixels[:, 4 * label : 4 * label + 4] += 100
        file = folder / "data" / "ab"[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    os.sync()
