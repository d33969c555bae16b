"""Run the command under each fault of `fault_list`, check its messages, and run it again without the fault."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.commands import Command, numbers, start, traceback_in
from chaos.counts import Count
from chaos.fault_list import FAULTS, FIND, Fault

_NETS = '''"""A user's network that makes the trouble that the environment names."""

import os
import subprocess
import sys

from torch import nn


def build(input_shape, classes):
    trouble = os.environ.get("TROUBLE")
    if trouble == "prints":
        print("a model's own words")
        sys.stdout.flush()
        os.write(1, b"and words that C wrote\\n")
    if trouble == "forks" and not (child := os.fork()):
        os._exit(0)
    elif trouble == "forks":
        os.waitpid(child, 0)
    if trouble == "starts a program":
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    if trouble == "closes descriptors":
        os.closerange(3, 256)
    if trouble == "exits":
        sys.exit(3)
    if trouble == "prints into a broken pipe":
        raise BrokenPipeError(32, "Broken pipe")
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 20), nn.ReLU(), nn.Linear(20, classes))
'''


def run(scratch: Path, seed: int, many: int, say: Callable[[str], None]) -> list[Count]:
    """Every fault, `many` / 100 times."""
    del seed
    count = Count("faults of the machine, the surroundings and a user's model")
    for again in range(max(1, many // 100)):
        undisturbed: dict[tuple[str, ...], Any] = {}
        for number, (name, fault) in enumerate(FAULTS.items()):
            place = scratch / f"fault-{again}-{number}"
            folder = place / fault.folder if fault.folder else place
            if fault.words not in undisturbed:
                calm = place.with_name(f"calm-{again}-{len(undisturbed)}")
                _furnish(calm)
                status, out, err = start(calm, *FIND, *fault.words).end()
                assert status == 0, err
                undisturbed[fault.words] = numbers(out)
            _furnish(folder)
            count.tried += 1
            _judge(count, name, fault, folder)
            if fault.mend:
                fault.mend(folder)
            _again(count, name, folder, fault, undisturbed[fault.words])
            say(f"faults: {name}")
    return [count]


def _judge(count: Count, name: str, fault: Fault, folder: Path) -> None:
    command = start(
        folder, *FIND, *fault.words, environment=fault.environment, before=fault.before, out=fault.out
    )
    acting = threading.Thread(target=fault.act, args=(folder, command)) if fault.act else None
    if acting:
        acting.start()
    status, out, err = command.end()
    if acting:
        acting.join()
    if status not in fault.status or traceback_in(err) or (status and not err.strip()):
        count.raw += 1
        count.notes.append(f"{name}: exit status {status}: {err[-400:] or 'and no message'}")
    if status == 0 and fault.out is None and not _one_document(out):
        count.raw += 1
        count.notes.append(f"{name}: stdout is not one JSON document: {out[:200]}")
    if left := command.left():
        count.raw += 1
        count.notes.append(f"{name}: {len(left)} processes outlived it")


def _again(count: Count, name: str, folder: Path, fault: Fault, undisturbed: Any) -> None:
    """Check that the same command without the fault gives the numbers of an undisturbed run."""
    command: Command = start(folder, *FIND, *fault.words)
    status, out, err = command.end()
    if status != 0:
        count.lost += 1
        count.notes.append(f"{name}, and then again: exit status {status}: {err[-400:]}")
    elif numbers(out) != undisturbed:
        count.silent += 1
        count.notes.append(f"{name}, and then again: other numbers than undisturbed")
    elif json.loads(out)["failures"]:
        count.silent += 1
        count.notes.append(f"{name}, and then again: failures that the training did not cause")


def _one_document(out: str) -> bool:
    try:
        json.loads(out)
    except ValueError:
        return False
    return True


def _furnish(folder: Path) -> None:
    """Write a folder of small pictures, which a fault can remove, and the network."""
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
    (folder / "nets.py").write_text(_NETS)
    if sys.platform != "win32":
        os.sync()
