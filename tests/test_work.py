"""A plan in a store: workers that were started apart compute it together, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from starting import Started
from winticket import sparse
from winticket.cli import app
from winticket.cli.searches import _too_narrow
from winticket.experiment import Cost, Execution, Experiment, Plan, plan
from winticket.experiment.submitting import Job, compute, submit, submitted
from winticket.report.durations import run_time
from winticket.report.store_progress import progress_line, progress_of_store
from winticket.run import Inline, Pool, Store, StoreError
from winticket.run.claims import Claims, who_claims
from winticket.run.plans import Standing, Waiting, standing, standings
from winticket.sparse import breakeven
from winticket.text import console

SPEC = Path(__file__).parents[1] / "experiments" / "digits.py"
SMALL = ["--model", "lenet-20", "--steps", "60", "--levels", "2", "--replicates", "2", "--control", "random"]
SMALL += ["--no-gate", "--engine", "dense", "--evaluate-every", "60"]


def experiment() -> Experiment:
    return Experiment.of(
        "digits", model="lenet-20", steps=20, levels=2, replicates=2, stack=1, controls=(), gate=False
    )


def jobs(execution: Execution) -> tuple[Job, ...]:
    found = submitted(execution)
    assert not found.refused, found.refused
    return found.jobs


def typed(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == status, result.output
    return result.output


def digests(store: Path) -> dict[str, str | None]:
    return {row.key: row.digest for row in Store(store).ls() if row.kind == "result"}


def worker(store: Path, *options: str) -> Started:
    return Started("work", str(store), "--workers", "1", *options, folder=store.parent)


def test_the_answer_of_a_detached_command_has_no_secret(tmp_path: Path) -> None:
    store = f"local://{tmp_path}/runs?token=planted"
    said = typed("find", "digits", *SMALL, "--store", store, "--detach", "--json")
    assert json.loads(said)["tasks"] == 5
    assert "planted" not in said


def test_two_workers_compute_what_one_command_computes_bit_for_bit(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    said = typed("find", "digits", *SMALL, "--store", str(there), "--detach")
    assert "5 tasks" in said
    assert f"winticket work {there}" in said
    assert digests(there) == {}

    both = [worker(there, "--json", "--quiet") for _ in range(2)]
    answers = [each.communicate(timeout=180) for each in both]
    assert [each.returncode for each in both] == [0, 0], answers
    counts = [json.loads(out)["computed"] for out, _ in answers]
    assert sum(counts) == 5
    assert Store(there).claims() == {}

    document = json.loads(typed("find", "digits", *SMALL, "--store", str(there), "--json", "--quiet"))
    assert document["verdict"]["outcome"]
    typed("find", "digits", *SMALL, "--store", str(here), "--workers", "1", "--quiet")
    assert digests(there) == digests(here)
    assert "Every plan in" in typed("work", str(there))
    assert "5 of 5 tasks done" in typed("watch", str(there))


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_a_worker_that_is_told_to_stop_gives_its_task_back_with_its_state(tmp_path: Path) -> None:
    store = tmp_path / "runs"
    long = [
        "--model",
        "lenet-300-100",
        "--steps",
        "200000",
        "--levels",
        "1",
        "--replicates",
        "1",
        "--no-gate",
    ]
    typed(
        "find", "digits", *long, "--control", "none", "--engine", "dense", "--store", str(store), "--detach"
    )
    one = worker(store)
    until = time.monotonic() + 60
    while not Store(store).claims() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2.0)
    one.send_signal(signal.SIGUSR1)
    _, said = one.communicate(timeout=60)
    assert one.returncode == 128 + signal.SIGUSR1, said
    assert "stopped after 0 tasks" in said.lower()
    assert Store(store).claims() == {}
    assert len(Store(store).keys("partial")) == 1
    ((_, how_far),) = standings(Store(store))
    assert [len(each) for each in (how_far.done, how_far.computing, how_far.ready, how_far.blocked)] == [
        0,
        0,
        1,
        1,
    ]


def test_a_plan_is_written_once_and_computed_by_whoever_takes_it(tmp_path: Path) -> None:
    execution = Execution(store=Store(tmp_path / "runs"), crew=Inline())
    planned = plan(experiment())
    assert submit(planned, execution).name == submit(planned, execution).name
    (job,) = jobs(execution)
    assert [task.key for task in job.tasks] == [task.key for task in planned.tasks.values()]
    (outcomes,) = compute([job])
    assert (len(outcomes.computed), outcomes.left) == (6, 0)
    assert jobs(execution) == ()
    ((_, how_far),) = standings(execution.store)
    assert how_far.over()


def test_a_worker_leaves_when_others_have_all_that_is_ready(tmp_path: Path) -> None:
    execution = Execution(store=Store(tmp_path / "runs"), crew=Inline())
    planned = plan(experiment())
    submit(planned, execution)
    other = Claims(execution.store)
    ((_, how_far),) = standings(execution.store)
    for listed in how_far.ready:
        assert other.take(listed.key) is None
    ((_, how_far),) = standings(execution.store)
    assert progress_line([(execution.store.plans(Waiting)[0], how_far)]) == (
        "0 of 6 tasks done, 2 being computed by 1 process, 4 waiting"
    )
    (outcomes,) = compute(jobs(execution), leave=0.3)
    assert (len(outcomes.computed), outcomes.left) == (0, 6)
    other.close()


def test_data_in_a_folder_are_found_by_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 400)
    monkeypatch.chdir(tmp_path / "texts")
    execution = Execution(store=Store(tmp_path / "runs"), crew=Inline())
    asked = Experiment.of("book.txt", steps=2, levels=1, replicates=1, controls=(), gate=False)
    submit(plan(asked), execution)
    monkeypatch.chdir(tmp_path)
    assert len(jobs(execution)) == 1
    (tmp_path / "texts" / "book.txt").write_text("the quick brown fox jumps over the lazy cat. " * 400)
    (refused,) = submitted(execution).refused
    assert "the data, or the code of your own model or functions, differ" in refused


def test_a_plan_of_another_version_or_form_is_refused(tmp_path: Path) -> None:
    execution = Execution(store=Store(tmp_path / "runs"), crew=Inline())
    made = submit(plan(experiment()), execution)
    others = tuple(msgspec.structs.replace(each, key=each.key[::-1]) for each in made.tasks)
    other = msgspec.structs.replace(made, name="0" * 16, winticket="99.0", tasks=others)
    execution.store.put_plan(other.name, other)
    work = submitted(execution)
    assert [job.waiting.name for job in work.jobs] == [made.name]  # the other plan does not stand in its way
    assert re.search(
        r"winticket 99\.0 wrote it .*: install winticket 99\.0 .*remove plans/0+\.json", work.refused[0]
    )
    execution.store.files.remove(f"plans/{other.name}.json")
    execution.store.put_plan(other.name, msgspec.structs.replace(other, question={"text": "?"}))
    assert "was written by another winticket (99.0)" in submitted(execution).refused[0]
    said = typed("work", str(tmp_path / "runs"), "--workers", "1", status=1)
    assert "6 tasks computed here" in said
    assert "was written by another winticket" in typed("work", str(tmp_path / "runs"), status=2)


def test_a_plan_that_was_changed_or_made_up_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    made = submit(plan(experiment()), Execution(store=store, crew=Inline()))
    file = tmp_path / "runs" / "plans" / f"{made.name}.json"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"lenet-20", b"lenet-21"))
    with pytest.raises(StoreError, match="its content does not match its digest"):
        standings(store)
    assert [problem.kind for problem in store.verify()] == ["damaged"]
    with pytest.raises(StoreError, match="its content does not match its digest"):
        store.gc(set())
    assert store.gc(dry_run=True) == []
    assert [removed.why for removed in store.gc(damaged=True, dry_run=True)] == ["damaged"]
    file.write_bytes(whole)
    file.rename(file.with_name("0" * 16 + ".json"))
    with pytest.raises(StoreError, match="holds the plan of another name"):
        standings(store)
    file.with_name("0" * 16 + ".json").unlink()
    cyclic = msgspec.to_builtins(msgspec.structs.replace(made.tasks[0], needs=(3,)))
    heavy = msgspec.to_builtins(msgspec.structs.replace(made.tasks[0], weight=-1.0))
    for tasks, why in (([heavy], "has the weight -1"), ([cyclic] * 4, "needs a task that is not before it")):
        fields = msgspec.to_builtins(made) | {"tasks": tasks}
        store.put_plan(made.name, msgspec.defstruct("Any", list(fields))(**fields))
        with pytest.raises(StoreError, match=why):
            standings(store)
        store.files.remove(f"plans/{made.name}.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["work", "{tmp}/nowhere"], "there is no store at"),
        (["work", "{tmp}/empty"], "has no plan; write one into it by"),
        (["work", "{tmp}/empty", "--leave", "-1"], "--leave is -1; give seconds, 0 or more"),
        (["work", "{tmp}/empty", "--workers", "0"], "workers is 0"),
        (["watch", "{tmp}/empty"], "has no plan"),
        (["find", "digits", "--detach", "--workers", "3"], "belong to winticket work"),
        (["find", "digits", "--detach", "--out", "{tmp}/out"], "leave them out with --detach"),
        (["run", str(SPEC), "--detach", "--plan"], "--plan only shows what would run"),
        (["find", "digits", "--detach", "--ray", "local"], "leave out either --detach or --ray"),
        (["find", "digits", "--detach", "--dask", "local"], "leave out either --detach or --ray"),
        (["find", "digits", "--detach", "--store", "memory://here"], "where no worker can see a plan"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_computed(
    words: list[str], message: str, tmp_path: Path
) -> None:
    Store(tmp_path / "empty").check_writable()
    said = typed(*(word.format(tmp=tmp_path) for word in words), status=2)
    assert message in " ".join(said.split())


def test_plans_are_kept_while_unfinished_and_cleaned_up_after(tmp_path: Path) -> None:
    execution = Execution(store=Store(tmp_path / "runs"), crew=Inline())
    submit(plan(experiment()), execution)
    assert execution.store.gc() == []
    compute(jobs(execution))
    assert [removed.why for removed in execution.store.gc()] == ["plan that is done"]
    assert execution.store.plans(Waiting) == []


def test_a_plan_that_is_too_narrow_for_the_processes_says_so() -> None:
    def note(planned: Plan) -> str | None:
        work = {task.key: 30.0 for task in planned.tasks.values()}
        price = Cost(9, 0, 0, 900, seconds=500.0, bytes=1, workers=2, work=work)
        return _too_narrow(price, planned)

    one_stack = experiment().but(stack=2, controls=())
    said = note(plan(one_stack))
    assert said is not None
    assert "will train about 50 % of the time" in said
    assert "--stack 1 makes more stacks" in said
    assert note(plan(one_stack.but(stack=1))) is None
    assert note(plan(one_stack.but(controls=("reinit", "random"), levels=6))) is None


def test_the_screen_says_how_busy_the_processes_were() -> None:
    document: Any = {"seconds": 130.0, "computed": 9, "reused": 0, "processes": {"count": 2, "busy": 0.876}}
    assert run_time(document) == "2 min 10 s; 2 processes, training 88 % of the time"
    assert run_time(document | {"seconds": 5.0}) == "5.0 s"


def test_workers_on_machines_of_one_kind_measure_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = Execution(store=Store(tmp_path / "runs"), crew=Inline())
    submit(plan(experiment()), execution)
    monkeypatch.setenv("WINTICKET_CACHE", str(tmp_path / "one machine"))
    breakeven._tuning.cache_clear()
    compute(jobs(execution))
    measured = execution.store.measurements()
    assert len(measured) >= (not sparse.missing)

    monkeypatch.setenv("WINTICKET_CACHE", str(tmp_path / "another"))
    breakeven._tuning.cache_clear()
    monkeypatch.setattr(breakeven, "measure", lambda *_: pytest.fail("it is known"))
    submit(plan(experiment().but(seed=1)), execution)
    (outcomes,) = compute(jobs(execution))
    assert len(outcomes.computed) == 6
    kept = {file.name: file.read_bytes() for file in (tmp_path / "another" / "break-even").glob("*.json")}
    assert kept == measured
    breakeven.adopt({"../../evil.json": b"{}"}, over=True)
    assert not list(tmp_path.rglob("evil.json"))
    breakeven._tuning.cache_clear()


def test_a_failed_plan_is_no_success_and_can_be_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    made = submit(plan(experiment()), Execution(store=store, crew=Inline()))
    first = made.tasks[0]
    for listed in made.tasks:
        if listed.label["arm"] == "dense":
            store.put_failure(listed.key, "Traceback: it is Monday", {"when": "2026-11-23"})
    said = typed("work", str(tmp_path / "runs"), status=1)
    assert "2 failed" in said
    assert (
        store.gc() == store.gc(failures=True, dry_run=True)[:0]
    )  # the plan stays as long as it can be tried again
    assert len(store.plans(Waiting)) == 1
    said = typed("work", str(tmp_path / "runs"), "--retry-failed", "--workers", "1", "--quiet")
    assert "6 tasks computed here" in said
    assert store.failure(first.key) is None


def test_a_store_that_cannot_be_written_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    submit(plan(experiment()), Execution(store=Store(tmp_path / "runs"), crew=Inline()))
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(tmp_path / "runs" / "tmp", ignore_errors=True)
    (tmp_path / "runs" / "tmp").symlink_to(tmp_path / "elsewhere")
    assert "links inside a store are not followed" in typed("work", str(tmp_path / "runs"), status=2)


def test_of_workers_that_measure_at_once_the_first_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sparse.missing:
        pytest.skip("without kernels nothing is measured")
    execution = Execution(store=Store(tmp_path / "runs"), crew=Inline())
    submit(plan(experiment()), execution)
    monkeypatch.setenv("WINTICKET_CACHE", str(tmp_path / "cache"))
    breakeven._tuning.cache_clear()
    other: dict[str, bytes] = {}

    def late(store: Store, name: str, content: bytes) -> None:
        """Another worker was faster, and has come to another break-even."""
        told = json.loads(content)
        told["break_even"] = 0.123
        other[name] = json.dumps(told).encode()
        store.files.create(f"machines/{name}", other[name])

    monkeypatch.setattr(Store, "put_measurement", late)
    compute(jobs(execution))
    kept = {file.name: file.read_bytes() for file in (tmp_path / "cache" / "break-even").glob("*.json")}
    assert other
    assert {name: kept[name] for name in other} == other
    breakeven._tuning.cache_clear()


def states(how_far: Standing) -> list[int]:
    fields = ("done", "failed", "computing", "skipped", "ready", "blocked")
    return [len(getattr(how_far, name)) for name in fields]


def test_how_far_a_plan_is_by_hand(tmp_path: Path) -> None:
    made = submit(plan(experiment()), Execution(store=Store(tmp_path / "runs"), crew=Inline()))
    dense, first, second = (  # of the first replicate: the dense network, and its tickets of two levels
        next(t.key for t in made.tasks if (t.label["arm"], t.label["level"], t.label["first"]) == (*which, 0))
        for which in (("dense", 0), ("ticket", 1), ("ticket", 2))
    )
    assert states(standing(made, (), (), {})) == [0, 0, 0, 0, 2, 4]
    assert states(standing(made, [dense], (), {})) == [1, 0, 0, 0, 2, 3]
    assert states(standing(made, [dense], [first], {})) == [1, 1, 0, 1, 1, 2]
    claim = Claims(Store(tmp_path / "runs"))._me
    assert states(standing(made, [dense], (), {first: claim})) == [1, 0, 1, 0, 1, 3]
    assert states(standing(made, [second], (), {})) == [
        3,
        0,
        0,
        0,
        1,
        2,
    ]  # the other two are no longer needed
    screen = console()
    screen.width = 80
    with screen.capture() as shown:
        screen.print(progress_of_store([(made, standing(made, [dense], (), {first: claim}))]))
    assert "lenet-20 on digits" in shown.get()
    assert f"process {os.getpid()}" in shown.get()
    assert "ticket, level 1, replicate 1" in shown.get()


def test_no_claim_is_left_by_a_pool(tmp_path: Path) -> None:
    execution = Execution(store=Store(tmp_path / "runs"), crew=Pool(2))
    submit(plan(experiment()), execution)
    compute(jobs(execution))
    assert who_claims(execution.store) == ({}, [])


def test_what_a_plan_needs_travels_with_it_and_changes_no_key(tmp_path: Path) -> None:
    plain, stated = tmp_path / "plain", tmp_path / "stated"
    typed("find", "digits", *SMALL, "--store", str(plain), "--detach")
    typed("find", "digits", *SMALL, "--store", str(stated), "--detach", "--needs", "memory=900TB")
    (one,), (other,) = (Store(store).plans(Waiting) for store in (plain, stated))
    assert [listed.key for listed in one.tasks] == [listed.key for listed in other.tasks]
    assert "needs" not in one.question
    assert all(listed.memory > 100 << 20 for listed in one.tasks)
    said = typed("work", str(stated), "--workers", "1", status=1)
    assert "5 left to other workers" in said
    assert said.count("use a larger machine") == 2  # once when it began, once at the end
    assert json.loads(typed("work", str(stated), "--workers", "1", "--json", "--quiet", status=1))["unfit"]
    assert digests(stated) == {}


def test_a_search_on_a_machine_that_lacks_what_was_stated_is_refused_before_it_begins(tmp_path: Path) -> None:
    said = typed(
        "find", "digits", *SMALL, "--store", str(tmp_path / "runs"), "--needs", "memory=900TB", status=2
    )
    assert "cannot be computed on this machine" in said
    assert not (tmp_path / "runs" / "results").exists()
    said = typed("find", "digits", *SMALL, "--needs", "memory=lots", status=2)
    assert "memory=8GB" in said


def test_a_search_that_only_an_estimate_takes_for_too_large_is_warned_of_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winticket.run.fitting.free_memory", lambda: 64 << 20)
    said = typed("find", "digits", *SMALL, "--store", str(tmp_path / "runs"), "--workers", "1")
    assert "may not fit this machine" in said
    assert len(digests(tmp_path / "runs")) == 5


def test_plan_says_how_much_memory_the_largest_training_needs(tmp_path: Path) -> None:
    options = ["digits", *SMALL, "--store", str(tmp_path), "--machines", "2", "--cores-per-machine", "3"]
    assert "of memory in each process" in " ".join(typed("plan", *options).split())
    said = json.loads(typed("plan", *options, "--json"))
    assert said["cluster"]["memory"] == 3 * said["cost"]["memory"] > 3 * (300 << 20)
