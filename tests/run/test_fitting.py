"""What tasks need and machines have: read from the system's files, compared, and said in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from winticket.run import Event, Inline, Machine, Needs, Pool, Store, Task, fits, run, task, why_not
from winticket.run.fitting import free_memory, this_machine

from . import jobs

GIB = 1 << 30


def sized(gibibytes: float, seed: int = 0) -> Task:
    return task(jobs.plant, seed=seed, memory=int(gibibytes * GIB))


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ([], Needs()),
        (["gpu"], Needs(gpu=True)),
        (["memory=8GB"], Needs(memory=8 * 10**9)),
        (["memory=1.5GiB", "gpu"], Needs(memory=3 << 29, gpu=True)),
        (["memory=500 mb"], Needs(memory=500 * 10**6)),
    ],
)
def test_needs_are_read_as_typed_and_come_back_from_their_words(words: list[str], needs: Needs) -> None:
    assert Needs.of(words) == needs
    again = Needs.of(needs.words())
    assert again.gpu == needs.gpu
    assert (again.memory or 0) - (needs.memory or 0) in range(1 << 20)  # rounded up to a MiB


@pytest.mark.parametrize(
    "word", ["gpus", "memory", "memory=", "memory=8", "memory=8Gb/s", "memory=0GB", "cores=2"]
)
def test_other_needs_are_refused_with_an_example(word: str) -> None:
    with pytest.raises(ValueError, match=r"needs has .*memory"):
        Needs.of([word])


def test_memory_is_no_part_of_a_key_and_travels_with_a_task() -> None:
    import pickle

    large, small = sized(5), sized(0)
    assert large.key == small.key
    assert pickle.loads(pickle.dumps(large)).memory == 5 * GIB


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable:    4194304 kB\n"}
V2 = {
    "proc/self/cgroup": "0::/jobs/mine\n",
    "sys/fs/cgroup/memory.max": "max\n",
    "sys/fs/cgroup/memory.current": "77\n",
    "sys/fs/cgroup/jobs/memory.max": f"{2 * GIB}\n",
    "sys/fs/cgroup/jobs/memory.current": f"{GIB}\n",
    "sys/fs/cgroup/jobs/memory.stat": f"anon 5\ninactive_file {GIB // 2}\nactive_file 7\n",
    "sys/fs/cgroup/jobs/mine/memory.max": "max\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,memory:/batch\n3:pids:/\n",
    "sys/fs/cgroup/memory/batch/memory.limit_in_bytes": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory/batch/memory.usage_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/batch/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 4}\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        (MEMINFO, 4 * GIB),
        (V2, 3 * GIB // 2),  # the limit of the group above: 2 GiB, of which 1 - 1/2 are in use
        (V1, 5 * GIB // 4),
        ({**MEMINFO, **V2}, 3 * GIB // 2),
        ({**MEMINFO, **V1, "proc/self/cgroup": "5:cpu:/batch\n"}, 4 * GIB),
    ],
    ids=["nothing", "kernel", "version 2", "version 1", "the least", "no memory group"],
)
def test_free_memory_is_the_least_that_kernel_and_groups_leave(
    files: dict[str, str], free: int | None, tmp_path: Path
) -> None:
    assert free_memory(system(tmp_path, files)) == free


def test_processes_share_a_machine_evenly() -> None:
    one, four = this_machine(1).memory, this_machine(4).memory
    assert one is not None  # Linux, as the tests' machines
    assert four is not None
    assert four < one / 2


def test_what_fits() -> None:
    here = Machine(processes=2, memory=2 * GIB, gpu=False)
    assert fits(sized(2), Needs(), here)
    assert not fits(sized(2.1), Needs(), here)
    assert fits(sized(9), Needs(memory=GIB), here)  # what the user states replaces the estimate
    assert not fits(sized(0), Needs(memory=3 * GIB), here)
    assert not fits(sized(0), Needs(gpu=True), here)
    assert fits(sized(9), Needs(gpu=True), Machine(1, 2 * GIB, gpu=True))  # an estimate is of the CPU
    assert not fits(sized(0), Needs(memory=3 * GIB), Machine(1, 2 * GIB, gpu=True))
    assert fits(sized(9), Needs(), Machine(2, None, gpu=False))


def test_the_sentence_names_need_machine_and_remedy() -> None:
    here = Machine(processes=4, memory=2 * GIB, gpu=False)
    assert why_not([sized(1)], Needs(), here) is None
    assert why_not([sized(1), sized(3)], Needs(), here) == (
        "it is estimated to need 3.0 GiB of memory, and here are 2.0 GiB for each of 4 processes; use --workers 2, "
        "or a larger machine, or state what it needs as --needs memory=4GB if the estimate is wrong"
    )
    assert why_not([sized(1)], Needs(memory=40 * GIB), Machine(1, 2 * GIB, gpu=False)) == (
        "it needs 40 GiB of memory, and here are 2.0 GiB of memory; use a larger machine"
    )
    assert "a GPU" in (why_not([sized(1)], Needs(gpu=True), here) or "")


@pytest.mark.parametrize("crew", [Inline(), Pool(2)], ids=["inline", "pool"])
def test_a_shared_plan_leaves_what_does_not_fit_before_it_begins(crew: Inline | Pool, tmp_path: Path) -> None:
    large, other = sized(1 << 20), sized(0.001, seed=1)
    after = task(jobs.grow, large)
    events: list[Event] = []
    outcomes = run([after, other], tmp_path, crew=crew, on_event=events.append, shared=True)
    assert (outcomes.computed, outcomes.left, outcomes.impossible) == ((other.key,), 2, (large.key,))
    assert "larger machine" in (outcomes.unfit or "")
    assert [event.kind for event in events if event.task == large] == ["unfit"]
    assert Store(tmp_path).claims() == {}
    # Elsewhere there is room: the rest is computed, and what follows from it here.
    run([large], tmp_path, crew=Inline())
    done = run([after, other], tmp_path, crew=crew, shared=True)
    assert (done.computed, done.left, done.unfit) == ((after.key,), 0, None)


def test_a_run_of_its_own_computes_what_only_an_estimate_takes_for_too_large(tmp_path: Path) -> None:
    assert len(run([sized(1 << 20)], tmp_path).computed) == 1


def test_a_worker_leaves_although_others_compute_what_does_not_fit_it(tmp_path: Path) -> None:
    large = sized(1 << 20)
    store = Store(tmp_path)
    store.check_writable(0)
    from winticket.run.claims import Claims

    other = Claims(store)
    try:
        assert other.take(large.key) is None
        outcomes = run([large], tmp_path, shared=True)
        assert (outcomes.left, outcomes.computed) == (1, ())
        assert "larger machine" in (outcomes.unfit or "")
        assert [*store.claims()] == [large.key]  # the other's work is unharmed
    finally:
        other.close()
