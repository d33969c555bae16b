"""Ray and Dask: each is started once here, and a part of the conformance suite runs on it, with a search.

What executors have in common is in `test_crews.py` and `test_futures.py`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

import undrawn
from undrawn import undraw
from winticket.experiment import Execution, Experiment, Result, conduct
from winticket.run import Crew, Event, ExecutorCrew, Store, dask_crew, on_dask, on_ray, ray_crew, run, task
from winticket.run.on_dask import DaskExecutor, OnDask
from winticket.run.on_ray import OnRay, RayExecutor

from . import jobs, test_crews

SEARCHED: dict[str, Any] = {
    "model": "lenet-20-10",
    "steps": 30,
    "levels": 1,
    "replicates": 2,
    "stack": 2,
    "validation": 150,
    "test": 200,
    "gate": False,
}
PART: list[Callable[[Crew, Path], None]] = [
    test_crews.test_values_are_those_of_plain_calls,
    test_crews.test_only_what_is_new_is_computed,
    test_crews.test_failures_are_kept_skipped_and_counted,
    test_crews.test_dataclass_values_and_functions_as_options,
    test_crews.test_full_disk_and_lost_memory_abort_and_are_no_failures,
    test_crews.test_stop_keeps_the_checkpoint_and_goes_on_from_it,
    test_crews.test_parts_are_handed_over_or_computed_alone,
    test_crews.test_context_reaches_the_functions_that_take_it_and_no_key,
    test_crews.test_a_crew_can_be_opened_again_and_pickled,
]


@contextmanager
def no_process_is_left() -> Iterator[None]:
    """Within, processes may be started, all of which have to be gone afterwards."""
    before = set(psutil.Process().children(recursive=True))
    yield
    _, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=10)
    # Two of `multiprocessing` serve this process until it ends.
    commands = [" ".join(process.cmdline()) for process in left if process.is_running()]
    assert [c for c in commands if ".resource_tracker" not in c and ".forkserver" not in c] == []


def passes_the_suite(crew: ExecutorCrew, folder: Path) -> None:
    for part in PART:
        (folder / part.__name__).mkdir(parents=True)
        part(crew, folder / part.__name__)


def survives_a_kill(crew: ExecutorCrew, folder: Path, *, how: str) -> None:
    """Of two tasks under way, the one whose process dies is computed once more, from its checkpoint."""
    folder.mkdir()
    dying = task(jobs.die_halfway, str(folder / "died"), steps=6)
    others = [task(jobs.slow, number=i, seconds=0.2) for i in range(3)]
    heard: list[Event] = []
    outcomes = run([dying, *others], folder / "runs", crew=crew, on_event=heard.append, checkpoint_seconds=0)
    assert outcomes.value(dying) == (6, [0, 3])
    assert [outcomes.value(other) for other in others] == [0, 1, 2]
    assert [(e.task, (e.text or "").partition(":")[0]) for e in heard if e.kind == "retried"] == [
        (dying, how)
    ]
    assert {row.kind for row in Store(folder / "runs").ls()} == {"result"}


def test_a_port_that_is_not_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would wait for it for minutes: one that says nothing, and one that closes the line."""
    monkeypatch.setattr(on_ray, "_REACH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match=rf"no Ray cluster answers at '{address}' \(timed out\)"):
            ray_crew(address, 2)
        server.accept()[0].close()

        def close_the_next() -> None:
            server.accept()[0].close()

        closing = threading.Thread(target=close_the_next)
        closing.start()
        with pytest.raises(
            ValueError, match=r"\((what answers is no server of Ray|Connection reset by peer)\)"
        ):
            ray_crew(address, 2)
        closing.join()


def measured(result: Result) -> dict[str, Any]:
    """What was measured, without what depends on where and when."""
    document: Any = result.document
    return {name: document[name] for name in ("verdict", "levels", "failures", "keys")}


Found = tuple[dict[str, str | None], dict[str, Any]]


def found(folder: Path, **options: Any) -> Found:
    """The digests of what a search stored, and what was measured."""
    execution = Execution.local(folder / "runs", workers=2, **options)
    assert execution.workers == 2
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        result = conduct(Experiment.of("digits", **SEARCHED), execution, out=folder / "out")
    return {row.key: row.digest for row in Store(folder / "runs").ls()}, measured(result)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What a search by two processes of this machine finds: the dense network, the ticket and its two controls."""
    of_a_pool = found(tmp_path_factory.mktemp("pool"))
    assert len(of_a_pool[0]) == 4
    return of_a_pool


def test_ray_computes_plans(tmp_path: Path, pool: Found) -> None:
    with no_process_is_left():
        ours = RayExecutor(OnRay(None, 2))  # the crew below uses this connection, and leaves it open
        try:
            passes_the_suite(ray_crew(None, 2), tmp_path)
            survives_a_kill(ray_crew(None, 2), tmp_path / "kill", how="WorkerCrashedError")
            assert found(tmp_path / "find", ray="local") == pool
        finally:
            ours.shutdown()


def test_dask_computes_plans(tmp_path: Path, pool: Found) -> None:
    with no_process_is_left():
        ours = DaskExecutor(OnDask(None, 2))
        assert ours._cluster is not None
        address = ours._cluster.scheduler_address
        try:
            assert dask_crew(address) == ExecutorCrew(OnDask(address, 2), 2)
            passes_the_suite(dask_crew(address), tmp_path)
            survives_a_kill(dask_crew(address), tmp_path / "kill", how="KilledWorker")
            assert found(tmp_path / "find", dask=address) == pool
            answers_with_one_document(tmp_path, "--dask", address)
        finally:
            ours.shutdown()


def answers_with_one_document(folder: Path, *options: str) -> None:
    words = ["find", "digits", "--json", "--store", str(folder / "command"), "--no-gate", *options]
    words += ["--model", "lenet-10", "--steps", "10", "--levels", "1", "--replicates", "2"]
    command = [sys.executable, "-c", undrawn.COMMAND, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failures"] == []


def silent_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ray": "127.0.0.1:{port}"}, r"no Ray cluster answers at '127.0.0.1:\d+' \(Connection refused\)"),
        ({"ray": "head"}, "'head' is not an address of Ray; write host:port, auto or local"),
        ({"ray": ""}, "'' is not an address of Ray"),
        ({"dask": "head"}, "'head' is not an address of a Dask scheduler; write tcp://host:port, or local"),
        ({"ray": "local", "dask": "local"}, "give --ray local or --dask local, not both"),
        ({"ray": "local", "workers": 0}, "workers is 0; it is the number of tasks at once"),
        ({"dask": "local", "store": "memory://clusters"}, "this process's memory"),
    ],
)
def test_what_cannot_be_is_refused_before_any_compute(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    port = silent_port()
    typed = {name: v.format(port=port) if isinstance(v, str) else v for name, v in options.items()}
    given: dict[str, Any] = {"store": tmp_path / "runs", **typed}
    with pytest.raises(ValueError, match=reason):
        Execution.local(**given)
    assert not (tmp_path / "runs").exists()


def test_a_scheduler_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "_REACH_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:\d+'.*`dask scheduler`"
    ):
        dask_crew(f"tcp://127.0.0.1:{silent_port()}", 2)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("make", "package"), [(ray_crew, "ray"), (dask_crew, "distributed")])
def test_a_missing_package_is_named_with_its_extra(
    make: Callable[[], Crew], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else object())
    with pytest.raises(
        ValueError, match=r"not installed; install it with: pip install 'winticket\[(ray|dask)\]'"
    ):
        make()
