"""The forecast for a cluster: against hand-made cases, the run's own schedule, and a cluster on a simulated clock."""

from __future__ import annotations

import heapq
import math
import random
from itertools import pairwise
from pathlib import Path

import pytest
from chaos.cluster import Cluster, Conditions, facts, stacks

from winticket.run import Store, Task, run, task
from winticket.run.cluster import CLOSE, Work
from winticket.run.files import LocalFiles
from winticket.run.requests import CHECKPOINT, CLAIM, OPEN, RENEWAL, RESULT, START, WRITE, listings, requests
from winticket.run.schedule import Schedule


def drawn(seed: int, count: int = 40) -> tuple[list[Task], dict[str, float]]:
    """Tasks that need some of the earlier ones, and the seconds of each."""
    draw = random.Random(seed)
    tasks: list[Task] = []
    for number in range(count):
        needs = draw.sample(tasks, min(len(tasks), draw.randrange(3)))
        tasks.append(task("operator:add", number, needs, weight=float(draw.randrange(1, 9))))
    return tasks, {t.key: t.weight * draw.uniform(0.5, 2) for t in tasks}


def as_work(tasks: list[Task], seconds: dict[str, float]) -> Work:
    needs = {t.key: [need.key for need in t.inputs[1] if isinstance(need, Task)] for t in tasks}  # type: ignore[attr-defined]
    return Work(seconds, needs, {t.key: t.weight for t in tasks})


def scheduled(tasks: list[Task], seconds: dict[str, float], workers: int, store: Store) -> float:
    """The time that the executor's schedule takes, one worker being given a task whenever it is free."""
    schedule = Schedule(tasks, store, lambda event: None, retry=False)
    free, running, now = list(range(workers)), list[tuple[float, int, str]](), 0.0
    while schedule.ready or running:
        while schedule.ready and free:
            worker = heapq.heappop(free)
            key = schedule.take(worker).key
            heapq.heappush(running, (now + seconds[key], worker, key))
        now, worker, key = heapq.heappop(running)
        schedule.finish(key, None, reused=False)
        heapq.heappush(free, worker)
    return now


@pytest.mark.parametrize("seed", range(8))
def test_the_makespan_is_that_of_the_runs_own_schedule(seed: int, tmp_path: Path) -> None:
    tasks, seconds = drawn(seed)
    work = as_work(tasks, seconds)
    longest = {t.key: 0.0 for t in tasks}
    for t in tasks:  # inputs come first
        before = [longest[key] for key in work.needs[t.key]]
        longest[t.key] = seconds[t.key] + max(before, default=0.0)
    assert work.critical_seconds == pytest.approx(max(longest.values()))
    assert all(before in work.needs[after] for before, after in pairwise(work.critical_path))
    for workers in (1, 2, 3, 7, 50):
        makespan = work.makespan(workers)
        assert makespan == scheduled(tasks, seconds, workers, Store(tmp_path / "none"))
        least = max(work.critical_seconds, work.total / workers)
        most = work.total / workers + (1 - 1 / workers) * work.critical_seconds  # Graham's bound
        assert least * (1 - 1e-9) <= makespan <= most * (1 + 1e-9)
    enough = work.enough(2)
    limit = (1 + CLOSE) * work.critical_seconds
    assert work.makespan(2 * enough) <= limit
    assert enough == 1 or work.makespan(2 * (enough - 1)) > limit


def test_two_stacks_of_three_levels_by_hand() -> None:
    """Each stack: dense 4 s, tickets 2 s, 1 s, 1 s in a chain of 8 s; two rivals of 1 s at the last level."""
    seconds, needs = dict[str, float](), dict[str, list[str]]()
    for stack in "ab":
        chain = [f"{stack}{level}" for level in range(4)]
        seconds |= dict(zip(chain, (4.0, 2.0, 1.0, 1.0), strict=True)) | {f"{stack}x": 1.0, f"{stack}y": 1.0}
        needs |= {after: [before] for before, after in pairwise(chain)}
        needs |= {f"{stack}x": [chain[2]], f"{stack}y": [chain[2]]}
    work = Work(seconds, needs)
    assert (work.total, work.critical_seconds) == (20.0, 8.0)
    # One worker: 20. Two: a stack each, 10. Three: at 7 s six tasks of 1 s are ready, so 9. Six: 8.
    assert [work.makespan(workers) for workers in (1, 2, 3, 6, 60)] == [20, 10, 9, 8, 8]
    assert (work.enough(1), work.enough(2), work.enough(64)) == (6, 3, 1)
    # With 12 s of start before, 9 s instead of 8 s are within 5 %: 21 of 20.
    assert work.enough(1, start=12.0) == 3
    assert Work({"a": 0.0}, {}).enough(1) == 1
    with pytest.raises(ValueError, match="2 tasks wait for each other in a circle"):
        Work({"a": 1.0, "b": 1.0}, {"a": ["b"], "b": ["a"]}).makespan(1)


def test_the_makespan_by_hand() -> None:
    # a (3) and b (1) begin; c (2) needs b, d (4) needs a and c: b 0-1, c 1-3, a 0-3, d 3-7.
    seconds, needs = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}, {"c": ["b"], "d": ["a", "c"]}
    assert [Work(seconds, needs).makespan(workers) for workers in (1, 2)] == [10.0, 7.0]
    # d (4) beside a (3), then c after a at 3-5, b after d at 4-5
    assert Work(seconds, {}).makespan(2) == 5.0
    assert Work({"d": 4.0}, needs).makespan(2) == 4.0  # what is done is waited for no longer
    assert Work({}, needs).makespan(2) == 0.0


def test_requests_are_at_least_those_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write is one request, as on an object store. The forecast may not be less, nor twice as much."""
    count = 0

    def counting(name: str, each: int) -> None:
        call = getattr(LocalFiles, name)

        def counted(self: LocalFiles, *args: object, **more: object) -> object:
            nonlocal count
            count += each
            return call(self, *args, **more)

        monkeypatch.setattr(LocalFiles, name, counted)

    for name in ("exists", "read", "create", "remove", "entries", "top"):
        counting(name, 1)
    counting("write", WRITE)
    chain: list[Task] = []
    for number in range(30):
        chain.append(task("operator:add", number, chain[-1] if chain else 0))
    run([chain[-1]], Store(tmp_path / "store"))
    seconds = {t.key: 0.01 for t in chain}
    inputs = {t.key: int(number > 0) for number, t in enumerate(chain)}
    forecast = requests(seconds, inputs, processes=1, makespan=0.3)
    assert count <= forecast.total <= 2 * count


def test_requests_by_hand() -> None:
    """Tasks of 12 s and 4 s on two processes for 12 s: 24 s less 16 s are idle, so one more look of three requests."""
    counted = requests({"a": 12.0, "b": 4.0}, {"b": 2}, processes=2, makespan=12.0, beside=1)
    assert counted.reads == 2 * OPEN + 2
    assert counted.writes == 3 * RESULT + CHECKPOINT  # a checkpoint after 10 s
    assert counted.claims == 2 * CLAIM
    assert counted.renewals == 2 * RENEWAL  # after 5 and 10 s
    assert listings(2, 2) == 3
    assert counted.looks == 2 * (START + 2) + (2 + 1) * 3
    assert counted.total == counted.reads + counted.writes + counted.claims + counted.renewals + counted.looks


@pytest.mark.parametrize(("workers", "levels"), [(10, 3), (60, 3), (60, 9)])
def test_the_forecast_is_close_to_a_simulated_cluster(workers: int, levels: int) -> None:
    work, conditions = stacks(600, levels), Conditions(workers, spread=0.02)
    happened = facts(work, conditions, Cluster(work, conditions, seed=1).run())
    assert happened["ratio"] == pytest.approx(1.0, abs=0.05)
    counted, told = happened["requests per task"], happened["forecast requests per task"]
    assert isinstance(told, float)
    assert counted == pytest.approx(told, rel=0.1)
    assert (happened["begun again"], happened["taken over"], happened["late claims per task"]) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_every_task_is_finished_although_processes_die_and_stall(seed: int) -> None:
    work = stacks(600, 3)
    conditions = Conditions(60, deaths=200.0, stalls=0.02)
    cluster = Cluster(work, conditions, seed)
    outcome = cluster.run()
    assert outcome.deaths > 40
    assert outcome.stalls > 3
    assert cluster.done == set(work.seconds)
    assert outcome.expired.total() > 30
    for key, times in outcome.computed.items():
        assert 1 <= times <= 1 + outcome.expired[key]
    # A death costs what was trained since the last checkpoint, which is at most 10 s; a stall, a whole training.
    assert outcome.trained / work.total < 1.2


def test_processes_that_all_want_the_first_task_are_in_each_others_way() -> None:
    work = stacks(600, 3)
    by_rule = {
        rule: Cluster(work, Conditions(60, rule, again=rule != "first"), seed=0).run()
        for rule in ("alone", "first", "held8:4")
    }
    collisions = {rule: outcome.collisions / len(work.seconds) for rule, outcome in by_rule.items()}
    assert collisions["alone"] > 10
    assert collisions["first"] > 1
    assert collisions["held8:4"] < 0.2
    assert by_rule["held8:4"].seconds < 0.7 * by_rule["alone"].seconds
    assert math.isclose(by_rule["alone"].trained, by_rule["held8:4"].trained, rel_tol=0.02)
