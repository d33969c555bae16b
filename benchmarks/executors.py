"""What an executor adds to a task: tasks per second that compute nothing, and operations of the store per task.

Every crew computes the same n additions of two numbers, with two tasks at once except for `inline`. A round has a new
store and a new crew. Seconds to the first result contain the start of its processes; tasks per second count from there
on. Medians of the rounds, with the range in parentheses. Operations of the store are counted in all processes in runs
of their own: those of 60 tasks less those of 20, over 40.

    python benchmarks/executors.py [--tasks 300] [--rounds 3] [--only inline --only Ray]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

from counting import CountingStore

from winticket.run import Crew, Event, ExecutorCrew, Inline, Pool, dask_crew, ray_crew, run, task
from winticket.version import __version__

PRELOAD = ["torch", "winticket.run.serve", "winticket.run.submitted"]


def process_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return ProcessPoolExecutor(2, mp_context=context)


CREWS: dict[str, Callable[[], Crew]] = {
    "inline": Inline,
    "Pool": lambda: Pool(2),
    "ProcessPoolExecutor": lambda: ExecutorCrew(process_pool, 2),
    "Ray": lambda: ray_crew(None, 2),
    "Dask": lambda: dask_crew(None, 2),
}


def timed(crew: Crew, tasks: int) -> tuple[float, float]:
    """Seconds to the first result, and tasks per second from there on."""
    ends: list[float] = []

    def hear(event: Event) -> None:
        if event.kind == "finished":
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        planned = [task("operator:add", number, 1) for number in range(tasks)]
        began = time.perf_counter()
        outcomes = run(planned, Path(folder) / "runs", crew=crew, on_event=hear)
    assert len(outcomes.computed) == tasks
    return ends[0] - began, (tasks - 1) / (ends[-1] - ends[0])


def operations(crew: Crew, tasks: int) -> Counter[str]:
    """Operations of the store in a run, by name."""
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        counts.mkdir()
        store = CountingStore(str(Path(folder) / "runs"), str(counts))
        run([task("operator:add", number, 1) for number in range(tasks)], store, crew=crew)
        return Counter({note.name: note.stat().st_size for note in counts.iterdir()})


def described(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=CREWS)
    typed = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "ray", "distributed"))
    print(
        f"winticket {__version__}, Python {platform.python_version()}, {versions}; {os.cpu_count()} cores; "
        f"{typed.tasks} tasks, {typed.rounds} rounds\n"
    )
    print("| crew | first result after, s | tasks per second | store operations per task |")
    print("|---|---|---|---|")
    for name in typed.only or CREWS:
        rounds = [timed(CREWS[name](), typed.tasks) for _ in range(typed.rounds)]
        more, fewer = operations(CREWS[name](), 60), operations(CREWS[name](), 20)
        each = {operation: (more[operation] - fewer[operation]) / 40 for operation in sorted(more)}
        listed = ", ".join(f"{count:.1f} {operation}" for operation, count in each.items() if count >= 0.05)
        print(
            f"| {name} | {described([r[0] for r in rounds], 1)} | {described([r[1] for r in rounds], 0)} "
            f"| {sum(each.values()):.1f}: {listed} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
