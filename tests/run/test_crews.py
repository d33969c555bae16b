"""One suite for every executor: same values, same failures, nothing computed twice, stops that can go on."""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from winticket.run import (
    Conditions,
    Crew,
    Event,
    ExecutorCrew,
    Inline,
    Interrupted,
    Pool,
    RunError,
    Store,
    StoreError,
    Task,
    TaskFailed,
    derive,
    local,
    run,
    task,
)
from winticket.run.pool import PoolWorkers

from . import jobs
from .crews import CREWS, EVERY_CREW, PROCESSES


def plan() -> tuple[Task, list[Task]]:
    """Three chains that share roots, and their sum."""
    roots = [task(jobs.plant, seed=i, size=40) for i in range(2)]
    ends = []
    for rate in (0.1, 0.2, 0.3):
        mixed = derive(jobs.add, derive(jobs.scale, roots[0], by=0.5), roots[1])
        ends.append(task(jobs.grow, task(jobs.grow, mixed, rate=rate)))
    return task(jobs.total, *ends), ends


def files(folder: Path) -> dict[str, tuple[int, int]]:
    found = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


@EVERY_CREW
def test_values_are_those_of_plain_calls(crew: Crew, tmp_path: Path) -> None:
    top, ends = plan()
    threads = torch.get_num_threads()
    events: list[Event] = []
    outcomes = run([top, *ends], tmp_path, crew=crew, on_event=events.append)
    assert torch.get_num_threads() == threads

    torch.set_num_threads(1)
    roots = [jobs.plant(seed=i, size=40) for i in range(2)]
    by_hand = [jobs.grow(jobs.grow(roots[0] * 0.5 + roots[1], rate=r)) for r in (0.1, 0.2, 0.3)]
    torch.set_num_threads(threads)
    assert all(torch.equal(outcomes.value(e), hand) for e, hand in zip(ends, by_hand, strict=True))
    assert outcomes.value(top) == jobs.total(*by_hand)
    assert len(outcomes.computed) == 9
    assert Counter(e.kind for e in events) == {"started": 9, "finished": 9}
    assert outcomes.value(derive(jobs.add, ends[0], 1.0)).equal(by_hand[0] + 1.0)

    before = files(tmp_path)
    again = run([top], tmp_path, crew=crew, on_event=events.append)
    assert (again.computed, len(again.reused)) == ((), 9)
    assert files(tmp_path) == before
    about = Store(tmp_path).meta(top.key)
    assert about["fn"] == f"{jobs.__name__}:total"
    assert about["environment"]["threads"] == 1  # type: ignore[index, call-overload]


def test_executors_give_the_same_bits(tmp_path: Path) -> None:
    top, ends = plan()
    digests = []
    for name, crew in CREWS.items():
        run([top, *ends, task(jobs.dice)], tmp_path / name, crew=crew)
        digests.append({row.key: row.digest for row in Store(tmp_path / name).ls()})
    assert all(each == digests[0] for each in digests)


@EVERY_CREW
def test_only_what_is_new_is_computed(crew: Crew, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = task(jobs.note, str(log), name="first")
    second = task(jobs.note, str(log), name="second", before=None)
    run([first], tmp_path / "runs", crew=crew)
    third = task(jobs.noted_after, first, str(log), name="third")
    outcomes = run([second, third], tmp_path / "runs", crew=crew)
    assert sorted(log.read_text().split()) == ["first", "second", "third"]
    assert outcomes.reused == (first.key,)
    # With the result in the store, what it was made from is not needed again.
    Store(tmp_path / "runs").forget(first.key, "result")
    outcomes = run([third], tmp_path / "runs", crew=crew)
    assert (outcomes.computed, outcomes.reused) == ((), (third.key,))


@EVERY_CREW
def test_failures_are_kept_skipped_and_counted(crew: Crew, tmp_path: Path) -> None:
    bad = task(jobs.fail, why="it is Monday")
    child = task(jobs.grow, derive(jobs.scale, bad, by=2.0))
    grandchild = task(jobs.total, child, task(jobs.plant, seed=0))
    others = [task(jobs.leave), task(jobs.unstorable), task(jobs.add, (1,), derive(jobs.add, (1,), (1, 2)))]
    events: list[Event] = []
    outcomes = run([grandchild, *others], tmp_path, crew=crew, on_event=events.append)
    assert outcomes.failed.keys() == {t.key for t in (bad, *others)}
    assert outcomes.skipped == {child.key: bad.key, grandchild.key: bad.key}
    assert len(outcomes.computed) == 1
    assert "it is Monday" in outcomes.failed[bad.key]
    assert "SystemExit: 3" in outcomes.failed[others[0].key]
    assert "builtins.object, which is not stored" in outcomes.failed[others[1].key]
    assert "stacks of different lengths [1, 2]" in outcomes.failed[others[2].key]
    assert Counter(e.kind for e in events)["skipped"] == 2
    with pytest.raises(TaskFailed, match=r"was skipped.*\n(.*\n)*.*it is Monday"):
        outcomes.value(grandchild)
    with pytest.raises(TaskFailed, match=r"failed:\nTraceback"):
        outcomes.value(bad)
    assert not outcomes.ok(derive(jobs.scale, child, by=1.0))

    again = run([grandchild], tmp_path, crew=crew, on_event=events.append)
    assert again.computed == ()
    assert again.failed.keys() == {bad.key}
    assert again.skipped == outcomes.skipped
    assert [e.earlier for e in events if e.kind == "failed" and e.task == bad] == [False, True]


@EVERY_CREW
def test_retry_failed(crew: Crew, tmp_path: Path) -> None:
    hindrance = tmp_path / "hindrance"
    hindrance.touch()
    shaky = task(jobs.fail_while, str(hindrance))
    top = task(jobs.add, shaky, "!")
    assert run([top], tmp_path / "runs", crew=crew).failed.keys() == {shaky.key}
    hindrance.unlink()
    assert run([top], tmp_path / "runs", crew=crew).failed.keys() == {shaky.key}
    outcomes = run([top], tmp_path / "runs", crew=crew, retry_failed=True)
    assert outcomes.value(top) == "fine!"
    assert Store(tmp_path / "runs").failure(shaky.key) is None


@EVERY_CREW
def test_steps_over_stacks(crew: Crew, tmp_path: Path) -> None:
    whole = task(jobs.stack, count=3)
    holed = task(jobs.stack_with_loss, count=3)
    tens = derive(jobs.add, whole, 10)  # the second input is repeated
    summed = task(jobs.pair, derive(jobs.add, tens, holed), derive(jobs.add, holed, (100, 200, 300)))
    value = run([summed], tmp_path, crew=crew).value(summed)
    lost = jobs.Lost("replicate 1")
    assert value == ((10, lost, 14), (100, lost, 302))


@EVERY_CREW
def test_dataclass_values_and_functions_as_options(crew: Crew, tmp_path: Path) -> None:
    from functools import partial

    kept = task(jobs.keep, size=4)
    targets = [
        task(jobs.size_of, kept),
        task(jobs.apply, 2.0, fn=jobs.double),
        task(jobs.apply, 2.0, fn=partial(jobs.triple, by=5.0)),
        task(jobs.positional_only, 1.0),
        task(jobs.table, {"a": [task(jobs.apply, 2.0, fn=jobs.double), 1.0]}),
    ]
    outcomes = run(targets, tmp_path, crew=crew)
    assert not outcomes.failed
    assert [outcomes.value(t) for t in targets] == [4, 4.0, 10.0, 4.0, {"a": 5.0}]
    assert outcomes.value(kept).about == {"size": 4, 3: (None, float("inf"))}


def test_every_worker_has_one_thread(tmp_path: Path) -> None:
    counts = [
        run([task(jobs.threads)], tmp_path / name, crew=crew).value(task(jobs.threads))
        for name, crew in CREWS.items()
    ]
    assert counts == [1] * len(CREWS)


@EVERY_CREW
def test_a_value_from_memory_is_as_one_from_the_store(crew: Crew, tmp_path: Path) -> None:
    # Strides decide the order of sums, so they must not depend on whether the value was still in memory.
    made = task(jobs.turned)
    judged = task(jobs.lies_in_order, made)
    outcomes = run([judged], tmp_path, crew=crew)
    assert outcomes.value(judged) is True
    assert outcomes.value(made).tolist() == [[0, 3], [1, 4], [2, 5]]


@EVERY_CREW
def test_what_tasks_print_is_kept_off_stdout(
    crew: Crew, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run([task(jobs.speak)], tmp_path, crew=crew)
    assert "spoken" not in capfd.readouterr().out


def test_global_random_state_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run([task(jobs.dice)], tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_longest_remaining_chain_goes_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    short = [task(jobs.note, str(log), name=f"short{i}", weight=2.0) for i in range(2)]
    chain = task(jobs.note, str(log), name="long0", weight=2.0)
    for name, weight in (("long1", 2.0), ("long2", 1.0)):
        chain = task(jobs.noted_after, chain, str(log), name=name, weight=weight)
    run([*short, chain], tmp_path / "runs")
    assert log.read_text().split() == ["long0", "long1", "short0", "short1", "long2"]


@EVERY_CREW
def test_stop_keeps_the_checkpoint_and_goes_on_from_it(crew: Crew, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    # Tasks of an executor look for the request once a second.
    steps = 200 if isinstance(crew, ExecutorCrew) else 60
    long = task(jobs.count_up, str(counter), steps=steps, pause=0.02)
    blocked = task(jobs.add, long, ())

    with pytest.raises(Interrupted, match=r"stopped after 0 tasks, with 2 to do; .* resumes from there"):
        run(
            [blocked],
            tmp_path / "runs",
            crew=crew,
            stop=counter.exists,
            checkpoint_seconds=99,
        )
    reached = int(counter.read_text())
    store = Store(tmp_path / "runs")
    saved = store.load_partial(long.key)
    assert 0 < reached < steps
    assert abs(saved["step"] - reached) <= 1
    outcomes = run([blocked], store, crew=crew)
    assert outcomes.value(long) == (steps, [0, saved["step"]])
    assert [row.kind for row in store.ls()] == ["result", "result"]


@EVERY_CREW
def test_damaged_checkpoint_is_ignored(crew: Crew, tmp_path: Path) -> None:
    counting = task(jobs.count_up, str(tmp_path / "counter"), steps=3)
    store = Store(tmp_path / "runs")
    store.save_partial(counting.key, {"step": 2, "starts": []})
    (file,) = (tmp_path / "runs" / "partial").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-2] + b"xx")
    assert run([counting], store, crew=crew).value(counting) == (3, [0])


def test_checkpoint_when_due(tmp_path: Path) -> None:
    counting = task(jobs.count_up, str(tmp_path / "counter"), steps=3)
    seen = []
    store = Store(tmp_path / "runs")

    def hear(event: Event) -> None:
        seen.append((event.kind, event.step, store.load_partial(counting.key)))

    run([counting], store, checkpoint_seconds=0.0, on_event=hear)
    # Progress is told at the first step and, within the fifth of a second, not again before the last.
    first, last = {"step": 0, "starts": [0]}, {"step": 2, "starts": [0]}
    assert seen[:2] == [("started", None, None), ("progress", 0, first)]
    assert seen[-2:] == [("progress", 3, last), ("finished", None, None)]


@EVERY_CREW
def test_full_disk_and_lost_memory_abort_and_are_no_failures(crew: Crew, tmp_path: Path) -> None:
    full, greedy = task(jobs.fill_disk), task(jobs.exhaust)
    with pytest.raises(RunError, match=r"jobs:fill_disk.* cannot be finished: .*No space left"):
        run([full], tmp_path, crew=crew)
    with pytest.raises(RunError, match=r"jobs:exhaust.* cannot be finished: MemoryError.*fewer workers"):
        run([greedy], tmp_path, crew=crew)
    assert Store(tmp_path).ls() == []


@EVERY_CREW
@pytest.mark.parametrize(
    ("job", "why"), [(jobs.exhaust, "asked for too much"), (jobs.fill_disk, "No space left")]
)
def test_a_shared_plan_goes_on_without_what_cannot_be_computed_here(
    crew: Crew, job: Callable[[], None], why: str, tmp_path: Path
) -> None:
    greedy = task(job)
    after, other = task(jobs.add, greedy, ()), task(jobs.plant, seed=0)
    events: list[Event] = []
    outcomes = run([after, other], tmp_path, crew=crew, on_event=events.append, shared=True)
    assert (outcomes.computed, outcomes.left, outcomes.failed) == ((other.key,), 2, {})
    (left,) = [event for event in events if event.kind == "left"]
    assert left.task == greedy
    assert why in (left.text or "")
    assert outcomes.impossible == (greedy.key,)
    assert Store(tmp_path).claims() == {}


@PROCESSES
def test_a_shared_plan_goes_on_without_the_task_that_kills_its_worker(crew: Crew, tmp_path: Path) -> None:
    deadly, other = task(jobs.die), task(jobs.plant, seed=0)
    outcomes = run([deadly, other], tmp_path, crew=crew, shared=True)
    assert (outcomes.computed, outcomes.left) == ((other.key,), 1)


def test_disk_that_fills_up_during_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = task(jobs.grow, task(jobs.grow, task(jobs.plant, seed=0)))
    real, calls = os.fsync, iter(range(100))

    def fsync(number: int) -> None:
        if next(calls) >= 4:  # probe, marker, two results
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StoreError, match=r"jobs:grow.* No space left on device.*running again resumes"):
            run([chain], tmp_path)
    store = Store(tmp_path)
    assert [row.kind for row in store.ls()] == ["result", "result"]
    assert store.verify() == []
    assert len(run([chain], store).computed) == 1


@EVERY_CREW
def test_bad_store_is_told_before_any_compute(crew: Crew, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = tmp_path / "log"
    with pytest.raises(StoreError, match="cannot be written"):
        run([task(jobs.note, str(log), name="x")], tmp_path / "file" / "runs", crew=crew)
    with pytest.raises(StoreError, match="needs about"):
        run([task(jobs.note, str(log), name="x")], tmp_path / "runs", crew=crew, need_bytes=1 << 60)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@EVERY_CREW
def test_damaged_input_aborts_with_its_name(crew: Crew, tmp_path: Path) -> None:
    root = task(jobs.plant, seed=0)
    run([root], tmp_path)
    (file,) = (tmp_path / "results").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"jobs:grow.*results/.*truncated or damaged.*remove the file"):
        run([task(jobs.grow, root)], tmp_path, crew=crew)
    assert [p.kind for p in Store(tmp_path).verify()] == ["damaged"]
    assert not list((tmp_path).rglob("failures"))


@PROCESSES
def test_a_killed_worker_is_replaced_once(crew: Crew, tmp_path: Path) -> None:
    events: list[Event] = []
    once = task(jobs.die_first, str(tmp_path / "died"))
    outcomes = run([once, task(jobs.plant, seed=0)], tmp_path / "runs", crew=crew, on_event=events.append)
    assert outcomes.value(once) == "survived"
    how = (
        "killed by signal SIGKILL"
        if isinstance(crew, Pool)
        else "BrokenProcessPool|KilledWorker|WorkerCrashed"
    )
    retried = [(e.task, e.text or "") for e in events if e.kind == "retried"]
    assert [bool(re.match(how, text)) for at, text in retried if at == once] == [True]
    # A pool of the standard library gives up all that it computes.
    assert len(retried) == 1 or "BrokenProcessPool" in retried[0][1]
    with pytest.raises(RunError, match=rf"died twice \(({how}).*\) over .*jobs:die.*fewer workers"):
        run([task(jobs.die)], tmp_path / "runs", crew=crew)
    assert all(row.kind == "result" for row in Store(tmp_path / "runs").ls())


def test_memory_store_is_for_this_process_alone() -> None:
    planned = task(jobs.plant, seed=0)
    with pytest.raises(ValueError, match="use workers=0"):
        run([planned], "memory://for-this-process/runs", crew=Pool(1))
    with pytest.raises(ValueError, match="workers is -1"):
        local(-1)
    with pytest.raises(ValueError, match="workers is 0"):
        Pool(0)
    assert (local(0), local(2)) == (Inline(), Pool(2))
    assert run([planned], "memory://for-this-process/runs").computed == (planned.key,)


@EVERY_CREW
def test_error_in_the_listener_ends_the_run(crew: Crew, tmp_path: Path) -> None:
    def hear(event: Event) -> None:
        raise LookupError("in the listener")

    with pytest.raises(LookupError, match="in the listener"):
        run([task(jobs.plant, seed=0)], tmp_path, crew=crew, on_event=hear)


def test_workers_leave_in_order(tmp_path: Path) -> None:
    """What a library registered for the end of its process is done, also where that takes a moment."""
    once = task(jobs.cleaned_up_after, path=str(tmp_path / "clean"), seconds=1.0)
    assert run([once], tmp_path / "store", crew=Pool(1)).value(once) != os.getpid()
    assert (tmp_path / "clean").exists()


@pytest.mark.parametrize(("failing", "goes"), [(2, True), (99, False)])
def test_a_fork_server_that_was_killed_is_started_again_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, goes: bool
) -> None:
    left = [failing]
    start_one = PoolWorkers._start_one

    def start(self: PoolWorkers) -> int:
        if left[0]:
            left[0] -= 1
            raise EOFError("unexpected EOF")
        return start_one(self)

    monkeypatch.setattr(PoolWorkers, "_start_one", start)
    planted = task(jobs.plant, seed=3)
    if goes:
        assert run([planted], tmp_path, crew=Pool(1)).ok(planted)
    else:
        with pytest.raises(RunError, match=r"no worker process can be started \(EOFError: unexpected EOF\)"):
            run([planted], tmp_path, crew=Pool(1))


def test_sigterm_ends_what_a_task_started(tmp_path: Path) -> None:
    """A worker leaves SIGTERM to its parent, which gets it too; what the task started does not."""
    ended = task(jobs.ends_a_program_and_a_copy)
    assert run([ended], tmp_path, crew=Pool(1)).value(ended) == [-signal.SIGTERM, -signal.SIGTERM]


@EVERY_CREW
def test_parts_are_handed_over_or_computed_alone(crew: Crew, tmp_path: Path) -> None:
    """Whatever is wanted of a task on its way changes no key of its; what it does not hand over is computed."""
    whole = task(jobs.squares, until=9, hand_over=True)
    parts = [task(jobs.square, whole, at=at) for at in (2, 3)]
    heard: list[Event] = []
    outcomes = run([whole, *parts], tmp_path / "a", crew=crew, on_event=heard.append)
    assert [outcomes.value(part) for part in parts] == [["handed over", 4], ["handed over", 9]]
    assert sorted(outcomes.computed) == sorted(t.key for t in (whole, *parts))
    assert outcomes.reused == ()
    ends = [event.worker is None for event in heard if event.kind == "finished"]
    assert sorted(ends) == [False, True, True]
    # Asked for later, when the whole is there; and of a whole that hands nothing over.
    later = task(jobs.square, whole, at=5)
    assert run([later], tmp_path / "a", crew=crew).value(later) == ["alone", 25]
    silent = task(jobs.squares, until=9, hand_over=False)
    alone = task(jobs.square, silent, at=2)
    assert run([alone], tmp_path / "b", crew=crew).value(alone) == ["alone", 4]


@EVERY_CREW
def test_context_reaches_the_functions_that_take_it_and_no_key(crew: Crew, tmp_path: Path) -> None:
    how = task(jobs.how, 2)
    outcomes = run([how], tmp_path / "a", crew=crew, context={"engine": "dense"})
    assert outcomes.value(how) == [2, {"engine": "dense"}]
    assert run([how], tmp_path / "b", crew=crew).value(how) == [2, {}]
    assert how.options == {}
    with pytest.raises(TypeError, match="context is supplied by the worker"):
        task(jobs.how, 2, context={})


@EVERY_CREW
def test_a_crew_can_be_opened_again_and_pickled(crew: Crew, tmp_path: Path) -> None:
    same = pickle.loads(pickle.dumps(crew))
    assert same == crew
    for number in range(2):
        planted = task(jobs.plant, seed=number)
        assert run([planted], tmp_path, crew=same).computed == (planted.key,)


def test_workers_see_the_environment_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that forks them was started before, by the first pool."""
    run([task(jobs.plant, seed=0)], tmp_path / "first", crew=Pool(1))
    monkeypatch.setenv("WINTICKET_TEST_WORD", "later")
    said = task(jobs.variable, name="WINTICKET_TEST_WORD")
    assert run([said], tmp_path / "second", crew=Pool(1)).value(said) == "later"


@EVERY_CREW
def test_a_crew_offers_no_more_workers_than_are_asked_for(crew: Crew, tmp_path: Path) -> None:
    """Whoever asks for none has nothing to give, and would look through the store for an idle worker."""
    store = Store(tmp_path)
    store.check_writable()
    workers = crew.open(Conditions(store), tasks=3, stopping=lambda: False)
    try:
        assert [len(workers.free(count)) for count in (0, 1, 0)] == [0, 1, 0]
    finally:
        workers.close(lambda _worker, _message: None, 0.0)
