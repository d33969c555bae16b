"""Real processes, really killed: what was finished stays as it is, what goes on gives the same numbers."""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket.alive import alive
from winticket.run import Event, Interrupted, Store, Task, local, run, task

from . import jobs

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for left-over processes in /proc")
HERE = Path(__file__).parent


def plan() -> list[Task]:
    """Six chains of four short tasks."""
    ends = []
    for seed in range(6):
        at = task(jobs.plant, seed=seed, size=60)
        for level in range(3):
            at = task(jobs.grow, task(jobs.grow, at, rate=0.1 + 0.1 * level))
        ends.append(at)
    return ends


def program(line: Connection, store: str, workers: int) -> None:
    """A process of its own that runs the plan and tells the processes it started."""

    def hear(_event: Event) -> None:
        line.send([child.pid for child in multiprocessing.active_children()])

    run(plan(), store, crew=local(workers), on_event=hear)


def start_program(store: Path, *, workers: int) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "winticket.run.serve"])  # as run() does, whoever comes first
    ours, theirs = context.Pipe()
    process = context.Process(target=program, args=(theirs, str(store), workers))
    process.start()
    theirs.close()
    return process, ours


def start_script(store: Path, what: str, *, workers: int) -> subprocess.Popen[str]:
    """A script as newcomers write it, without a guard, in a process group as a terminal makes it."""
    root = HERE.parents[jobs.__name__.count(".") - 1]
    text = f"""
import multiprocessing, sys
sys.path.insert(0, {str(root)!r})
from {jobs.__name__.rpartition(".")[0]} import jobs
from winticket.run import Interrupted, local, run, task
def hear(event):
    print(event.kind, *[p.pid for p in multiprocessing.active_children()], flush=True)
try:
    run({what}, {str(store)!r}, crew=local({workers}), on_event=hear)
except Interrupted as stopped:
    print("INTERRUPTED", stopped, flush=True)
    sys.exit(130)
"""
    script = store.with_suffix(".py")
    script.write_text(text)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def wait_gone(pids: set[int], seconds: float) -> set[int]:
    until = time.monotonic() + seconds
    while (left := {pid for pid in pids if alive(pid)}) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def results(store: Path) -> dict[str, tuple[int, int]]:
    found = (store / "results").rglob("*.safetensors")
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def kill_somewhere(store: Path, chance: random.Random, *, workers: int) -> bool:
    """Starts the program and kills it at some moment; whether it was still at work."""
    process, line = start_program(store, workers=workers)
    pids: set[int] = set()
    with contextlib.suppress(EOFError):
        for _ in range(chance.randrange(2, 20)):
            pids.update(line.recv())
        time.sleep(chance.random() * 0.02)
    process.kill()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    process.close()
    line.close()
    assert wait_gone(pids, 10) == set()
    return killed


@pytest.mark.parametrize(("workers", "kills"), [(0, 6), (2, 3)])
def test_kill_at_random_moments_and_go_on(workers: int, kills: int, tmp_path: Path) -> None:
    run(plan(), tmp_path / "whole")
    expected = {row.key: row.digest for row in Store(tmp_path / "whole").ls()}
    store, chance, killed = tmp_path / "runs", random.Random(workers), 0
    for _ in range(kills):
        before = results(store)
        killed += kill_somewhere(store, chance, workers=workers)
        assert before.items() <= results(store).items()  # the same files, not files that look the same
    assert killed >= 2
    before = results(store)
    outcomes = run(plan(), store, crew=local(workers))
    assert len(outcomes.computed) == len(expected) - len(before)
    assert before.items() <= results(store).items()
    assert {row.key: row.digest for row in Store(store).ls()} == expected
    Store(store).gc()
    assert Store(store).verify() == []
    assert not any((store / "tmp").iterdir())


TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir")


def short(path: str) -> list[Task]:
    """Two tasks, and one that is put aside at each of three steps."""
    first = task(jobs.plant, seed=1, size=20)
    return [task(jobs.grow, first), task(jobs.count_up, path, steps=3)]


def program_that_dies(store: str, beside: str, at: int) -> None:
    """Runs the plan, and is gone the moment it touches the store for the `at`-th time, half-way through a file too."""
    touches = itertools.count(1)
    opened = Path.open

    def touch() -> None:
        if next(touches) == at:
            os._exit(9)

    class Halves(io.BufferedWriter):
        def write(self, data: Any, /) -> int:
            half = len(data) // 2
            written = super().write(data[:half])
            self.flush()
            touch()
            written += super().write(data[half:])
            self.flush()
            touch()
            return written

    def open_in_halves(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode not in ("xb", "wb"):
            return opened(path, mode, *rest, **options)
        return Halves(io.FileIO(path, mode.removesuffix("b")))

    def hear(event: str, details: tuple[object, ...]) -> None:
        if event in TOUCHES and str(details[0]).startswith(store):
            touch()

    Path.open = open_in_halves  # type: ignore[method-assign, assignment]
    sys.addaudithook(hear)
    run(short(beside), store, checkpoint_seconds=0)


def test_kill_at_every_touch_of_the_store(tmp_path: Path) -> None:
    """Nothing is done before its last byte is kept: each file is whole or not there, and what goes on ends the same."""
    beside = str(tmp_path / "counted")
    plan = short(beside)
    grown, counted = (target.key for target in plan)
    run(plan, tmp_path / "whole")
    whole = Store(tmp_path / "whole")
    expected = {row.key: row.digest for row in whole.ls() if row.kind == "result"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "winticket.run.serve"])
    found = set()
    for at in range(1, 500):
        Path(beside).unlink(missing_ok=True)
        store = tmp_path / str(at)
        process = context.Process(target=program_that_dies, args=(str(store), beside, at))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == 9
        done = {p.stem for p in (store / "results").rglob("*.safetensors")}
        assert all(problem.kind == "leftover" for problem in Store(store).verify() if store.exists())
        found.add(frozenset(done))
        assert len(run(plan, store).computed) == len(expected) - len(done)
        assert torch.equal(Store(store).get(grown), whole.get(grown))
        assert Store(store).get(counted)[0] == 3  # from wherever it started
    assert at > 20
    assert sorted(map(len, found)) == [0, 1, 2, 3]  # how many results there were when it died


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_saves_and_says_how_to_go_on(workers: int, tmp_path: Path) -> None:
    what = f"[task(jobs.count_up, {str(tmp_path)!r} + f'/{{i}}', steps=500, pause=0.02) for i in range(2)]"
    script = start_script(tmp_path / "runs", what, workers=workers)
    assert script.stdout is not None
    pids: set[int] = set()
    while not any((tmp_path / str(i)).exists() for i in range(2)):
        pids.update(map(int, script.stdout.readline().split()[1:]))
    began = time.monotonic()
    os.killpg(script.pid, signal.SIGINT)
    out, err = script.communicate(timeout=20)
    assert time.monotonic() - began < 8
    assert (script.returncode, err) == (130, "")
    assert "INTERRUPTED stopped after 0 tasks, with 2 to do" in out
    assert wait_gone(pids, 10) == set()
    rows = Store(tmp_path / "runs").ls()
    assert rows
    assert {row.kind for row in rows} == {"partial"}


def test_a_guarded_script_may_define_its_own_functions_and_values(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(f"""
from dataclasses import dataclass
from winticket.run import local, run, task
@dataclass(frozen=True)
class Setup:
    width: int = 3
def area(setup, *, height=2):
    return setup.width * height
if __name__ == "__main__":
    planned = task(area, Setup(), height=5)
    first = task("math:sqrt", 4.0)
    outcomes = run([first, planned], {str(tmp_path / "runs")!r}, crew=local(1))
    print(outcomes.value(planned), outcomes.value(first))
""")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("15 2.0\n", "")


@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_ends_tasks_that_do_not_report(workers: int, tmp_path: Path) -> None:
    asked = threading.Event()

    def hear(event: Event) -> None:
        if event.kind == "started":
            threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            asked.set()

    began = time.monotonic()
    with pytest.raises(Interrupted):
        run([task(jobs.sleep, seconds=60.0)], tmp_path, crew=local(workers), on_event=hear, grace=1.0)
    assert asked.is_set()
    assert time.monotonic() - began < 15
    assert multiprocessing.active_children() == []
    assert Store(tmp_path).ls() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_workers_that_are_killed_frozen_and_stopped_finish_their_plan() -> None:
    """A few rounds of `make chaos`; in a process of its own, which forks the workers."""
    command = [sys.executable, "-m", "chaos", "--only", "workers", "--many", "0.015", "--seed", "3"]
    ended = subprocess.run(
        command, cwd=HERE.parents[1], capture_output=True, text=True, timeout=180, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| 3 | 0 | 0 | 0 | 0 |" in ended.stdout
