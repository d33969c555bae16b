"""An executor as a crew: what it needs of its processes, what becomes of it when it breaks, and how it ends."""

from __future__ import annotations

import math
import os
import pickle
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from starting import Started
from winticket.alive import alive
from winticket.run import Event, ExecutorCrew, Interrupted, RunError, Store, StoreError, run, task
from winticket.run.stops import StopFile, Stopping, abandoned_stops, asked_to_stop
from winticket.run.submitted import Settings, compute
from winticket.version import __version__

from . import jobs
from .crews import processes, threads
from .test_kill import wait_gone

PLANTED = task(jobs.plant, seed=1, size=3)


class Changed(ThreadPoolExecutor):
    """Threads that stand for processes of another machine: `change` is done to what they are sent."""

    change: Callable[[list[Any]], None]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        sent = list(args)
        type(self).change(sent)
        return super().submit(fn, *sent)


def stops(store: Path) -> list[str]:
    return [p.name for p in (store / "stops").iterdir()]


@pytest.mark.parametrize("other_store", [False, True])
def test_a_machine_that_does_not_see_the_store_makes_none(tmp_path: Path, other_store: bool) -> None:
    """There, the path of the store is a folder that does not exist, or the folder of another store."""
    there = tmp_path / "there"
    if other_store:
        Store(there).check_writable()

    class OtherMachine(Changed):
        @staticmethod
        def change(sent: list[Any]) -> None:
            settings: Settings = pickle.loads(sent[2])
            conditions = replace(pickle.loads(settings.conditions), store=Store(there))
            sent[2] = pickle.dumps(replace(settings, conditions=pickle.dumps(conditions)))

    before = sorted(there.rglob("*"))
    words = rf"on host .*{there} is not visible.*file system that all machines share, or in an object store"
    with pytest.raises(StoreError, match=words):
        run([PLANTED], tmp_path / "here", crew=ExecutorCrew(OtherMachine, 1))
    assert sorted(there.rglob("*")) == before
    assert there.exists() == other_store
    assert Store(tmp_path / "here").ls() == []
    assert stops(tmp_path / "here") == []


def test_another_version_of_winticket_computes_nothing(tmp_path: Path) -> None:
    class OtherVersion(Changed):
        @staticmethod
        def change(sent: list[Any]) -> None:
            sent[1] = "0.0.9"

    log = tmp_path / "log"
    with pytest.raises(RunError, match=rf"host .* has winticket {__version__}, and the run uses 0\.0\.9"):
        run([task(jobs.note, str(log), name="x")], tmp_path / "s", crew=ExecutorCrew(OtherVersion, 1))
    assert not log.exists()


class Untouched:
    """An executor without `shutdown` whose futures end with an error, or which takes no tasks."""

    made = 0
    refuses = False
    error: BaseException | None = None

    def __init__(self) -> None:
        type(self).made += 1

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        if self.refuses:
            raise RuntimeError("cannot schedule new futures")
        future: Future[Any] = Future()
        if self.error is None:
            future.cancel()
        else:
            future.set_exception(self.error)
        return future


def test_an_executor_that_takes_no_task_is_made_anew_three_times(tmp_path: Path) -> None:
    class Refusing(Untouched):
        refuses = True

    with pytest.raises(
        RunError, match=r"broke 3 times without .*RuntimeError: cannot schedule.*fewer workers"
    ):
        run([PLANTED], tmp_path, crew=ExecutorCrew(Refusing, 1))
    assert Refusing.made == 3
    assert stops(tmp_path) == []


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ModuleNotFoundError("No module named 'winticket'"), "No module named 'winticket'.*can be imported"),
        (OSError("lost\nthe worker"), r"died twice \(OSError: lost\) over"),
        (None, r"died twice \(CancelledError: cancelled\) over"),
    ],
)
def test_what_a_future_raises_says_how_it_was_lost(
    tmp_path: Path, raised: BaseException | None, message: str
) -> None:
    class Losing(Untouched):
        error = raised

    heard: list[Event] = []
    with pytest.raises(RunError, match=message):
        run([PLANTED], tmp_path, crew=ExecutorCrew(Losing, 1), on_event=heard.append)
    assert [e.kind for e in heard].count("retried") == (0 if isinstance(raised, ImportError) else 1)
    assert Store(tmp_path).ls() == []


def test_an_executor_may_say_itself_that_it_is_broken(tmp_path: Path) -> None:
    """As Ray's does when Ray has ended on this machine: the task is computed by the next executor."""

    class FirstLosesItself(ThreadPoolExecutor):
        made = 0

        def __init__(self) -> None:
            super().__init__(1)
            type(self).made += 1
            self.first = self.made == 1

        def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
            return super().submit(math.sqrt, -1.0) if self.first else super().submit(fn, *args)

        def broken(self, error: BaseException) -> bool:
            return isinstance(error, ValueError)

    heard: list[Event] = []
    assert run([PLANTED], tmp_path, crew=ExecutorCrew(FirstLosesItself, 1), on_event=heard.append).ok(PLANTED)
    assert FirstLosesItself.made == 2
    assert [e.kind for e in heard] == ["started", "retried", "started", "finished"]


def test_an_executor_that_cannot_be_made(tmp_path: Path) -> None:
    def make() -> Executor:
        raise LookupError("no queue of that name")

    with pytest.raises(RunError, match=r"no executor can be had \(LookupError: no queue of that name\)"):
        run([PLANTED], tmp_path, crew=ExecutorCrew(make, 1))
    assert stops(tmp_path) == []


def test_what_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="workers is 0; it is the number of tasks at once"):
        ExecutorCrew(threads, 0)
    with pytest.raises(ValueError, match=r"this process's memory.*use workers=0"):
        run([PLANTED], "memory://executors", crew=ExecutorCrew(threads, 1))


def test_one_task_at_a_time_in_a_process(tmp_path: Path) -> None:
    """Two threads would share the global random state and the number of threads."""
    began = time.monotonic()
    run([task(jobs.slow, number=i, seconds=0.3) for i in range(2)], tmp_path, crew=ExecutorCrew(threads, 2))
    assert time.monotonic() - began >= 0.6


def test_a_process_that_dies_half_way_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    dying = task(jobs.die_halfway, str(tmp_path / "died"), steps=6)
    heard: list[Event] = []
    outcomes = run(
        [dying],
        tmp_path / "s",
        crew=ExecutorCrew(processes, 1),
        checkpoint_seconds=0,
        on_event=heard.append,
    )
    assert outcomes.value(dying) == (6, [0, 3])
    assert [e.kind for e in heard] == ["started", "retried", "started", "finished"]
    assert [row.kind for row in Store(tmp_path / "s").ls()] == ["result"]


def test_a_task_that_does_not_report_is_ended_with_its_process(tmp_path: Path) -> None:
    file, began = tmp_path / "pid", time.monotonic()
    sleeping = task(jobs.pid_and_sleep, str(file), seconds=60.0)
    with pytest.raises(Interrupted):
        run([sleeping], tmp_path / "s", crew=ExecutorCrew(processes, 1), stop=file.exists, grace=0.5)
    assert time.monotonic() - began < 20
    assert wait_gone({int(file.read_text())}, 5) == set()
    assert stops(tmp_path / "s") == []


def script(folder: Path, what: str) -> Started:
    """A program of its own, in a process group as a terminal makes it, with a pool of the standard library."""
    root = Path(__file__).parents[jobs.__name__.count(".")]
    text = f"""
import sys
sys.path.insert(0, {str(root)!r})
from {__package__} import crews, jobs
from winticket.run import ExecutorCrew, Interrupted, run, task
if __name__ == "__main__":
    try:
        run({what}, {str(folder / "runs")!r}, crew=ExecutorCrew(crews.processes, 2))
    except Interrupted as stopped:
        print("INTERRUPTED", stopped, flush=True)
        sys.exit(130)
"""
    return Started(folder=folder, program=text)


def started(files: list[Path]) -> None:
    until = time.monotonic() + 60
    while not all(f.exists() and f.read_text() for f in files):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_ctrl_c_saves_and_leaves_no_process(tmp_path: Path) -> None:
    counters = [tmp_path / str(i) for i in range(2)]
    what = f"[task(jobs.count_up, {str(tmp_path)!r} + f'/{{i}}', steps=2000, pause=0.02) for i in range(2)]"
    program = script(tmp_path, what)
    started(counters)
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (130, "")
    assert "INTERRUPTED stopped after 0 tasks, with 2 to do" in out
    assert [row.kind for row in Store(tmp_path / "runs").ls()] == ["partial", "partial"]
    assert stops(tmp_path / "runs") == []


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for left-over processes in /proc")
def test_processes_end_with_the_program_that_was_killed(tmp_path: Path) -> None:
    files = [tmp_path / str(i) for i in range(2)]
    what = f"[task(jobs.pid_and_sleep, {str(tmp_path)!r} + f'/{{i}}', seconds=60.0) for i in range(2)]"
    program = script(tmp_path, what)
    started(files)
    pids = {int(f.read_text()) for f in files}
    assert all(map(alive, pids))
    program.send_signal(signal.SIGKILL)
    program.communicate(timeout=60)
    assert wait_gone(pids, 20) == set()


def test_the_file_of_a_run_in_its_store(tmp_path: Path) -> None:
    """It asks to stop when its content says so, and when it has gone; a damaged file says nothing."""
    store = Store(tmp_path)
    file = StopFile(store)
    file.ask()  # before there is one
    assert asked_to_stop(store, file.run) is None
    file.write()
    stopping = Stopping(store, file.run)
    path = tmp_path / "stops" / f"{file.run}.json"
    assert [p.kind for p in store.verify()] == []
    path.write_text("{")
    assert asked_to_stop(store, file.run) is False
    assert not stopping()
    file.ask()
    assert not stopping()  # it has looked less than a second ago
    time.sleep(1.05)
    assert stopping()
    gone = Stopping(store, file.run)
    file.remove()
    time.sleep(1.05)
    assert gone()
    assert not path.exists()


def test_gc_removes_the_files_of_runs_that_have_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()  # as every run does
    old, new = StopFile(store), StopFile(store)
    for file in (old, new):
        file.write()
    an_hour = time.time() - 3700
    os.utime(tmp_path / "stops" / f"{old.run}.json", (an_hour, an_hour))
    assert [e.name for e in abandoned_stops(store)] == [f"stops/{old.run}.json"]
    assert [(r.name, r.why) for r in store.gc()] == [
        (f"stops/{old.run}.json", "file of a run that has ended")
    ]
    assert stops(tmp_path) == [f"{new.run}.json"]
    (tmp_path / "stops" / "mine.txt").touch()
    assert [(p.kind, p.name) for p in store.verify()] == [("foreign", "stops/mine.txt")]


def test_compute_refuses_in_words_what_it_cannot_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    file = StopFile(store)
    file.write()
    from winticket.importing import known
    from winticket.run.desk import Conditions
    from winticket.run.submitted import this_process

    settings = pickle.dumps(Settings(pickle.dumps(Conditions(store)), known(), (), file.run, this_process()))
    message = compute(PLANTED.key, __version__, settings, b"cnowhere\nthing\n.")
    assert (message.said, message.cause) == ("aborted", "import")
    assert message.text is not None
    assert "ModuleNotFoundError: No module named 'nowhere'" in message.text
