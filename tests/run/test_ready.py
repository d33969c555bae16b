"""The order in which tasks start: the same as by looking at every ready task, and fast with ten thousand of them."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from winticket.run import Store, Task, task
from winticket.run.ready import Ready
from winticket.run.schedule import Schedule


def test_one_of_the_first_few_is_taken_and_the_others_stay(tmp_path: Path) -> None:
    tasks = [task("operator:add", number, 0, weight=float(9 - number)) for number in range(6)]
    schedule = Schedule(tasks, Store(tmp_path), lambda _event: None, retry=False)
    taken = Counter[str]()
    for _ in range(200):
        chosen = schedule.take(0, among=3)
        taken[chosen.key] += 1
        schedule.put_back(chosen.key)
        assert len(schedule.ready) == 6
    assert set(taken) == {each.key for each in tasks[:3]}
    assert min(taken.values()) > 30


@pytest.mark.parametrize("seed", range(20))
def test_tasks_start_as_if_all_were_compared(seed: int) -> None:
    """Against the rule itself: longest chain first, then most inputs at hand, then the plan's order."""
    draw = random.Random(seed)
    path = {f"t{number}": float(draw.randrange(4)) for number in range(60)}
    rank = {key: position for position, key in enumerate(path)}
    made = {key: Counter(draw.choices(range(3), k=draw.randrange(4))) for key in path}
    hands: dict[str, Counter[int]] = {}
    ready = Ready(path)
    waiting = list(path)
    draw.shuffle(waiting)
    popped: list[str] = []
    for _ in range(400):
        act = draw.random()
        if waiting and act < 0.5:
            key = waiting.pop()
            hands[key] = made[key]
            ready.add(key, hands[key])
            ready.add(key, hands[key])  # without effect
        elif hands and act < 0.6:
            key = draw.choice(sorted(hands))
            ready.remove(key)
            del hands[key]
            waiting.append(key)
        elif hands:
            worker = draw.randrange(3)
            wanted = min(hands, key=lambda key: (-path[key], -hands[key][worker], rank[key]))
            assert ready.pop(worker) == wanted
            del hands[wanted]
            popped.append(wanted)
            if draw.random() < 0.3:
                waiting.append(wanted)
        assert len(ready) == len(hands)
        assert list(ready) == sorted(hands, key=rank.__getitem__)
        assert all(key in ready for key in hands)
    assert len(popped) > 50
    while hands:
        del hands[ready.pop(0)]
    with pytest.raises(IndexError):
        ready.pop(0)
    with pytest.raises(KeyError):
        ready.remove("t0")


def chains(count: int, length: int) -> list[Task]:
    """Chains of tasks: each but the first needs the one before it."""
    made: list[Task] = []
    for chain in range(count):
        value: Task | int = chain
        for number in range(length):
            value = task("operator:add", value, number, label={"chain": chain})
            made.append(value)
    return made


def test_a_worker_goes_on_with_the_chain_that_it_has_in_memory(tmp_path: Path) -> None:
    schedule = Schedule(chains(3, 3), Store(tmp_path / "none"), lambda event: None, retry=False)
    hands = {worker: schedule.take(worker) for worker in (0, 1, 2)}
    assert [task.label["chain"] for task in hands.values()] == [0, 1, 2]
    for worker in (2, 0, 1):
        schedule.finish(hands[worker].key, 1.0, reused=False)
    assert [schedule.take(worker).label["chain"] for worker in (1, 2, 0)] == [1, 2, 0]


def test_ten_thousand_tasks_are_handed_out_at_once() -> None:
    path = {f"t{number}": float(number % 5) for number in range(10_000)}
    ready = Ready(path)
    begun = time.process_time()
    for number, key in enumerate(path):
        ready.add(key, Counter([number % 7]))
    popped = [ready.pop(number % 7) for number in range(len(path))]
    assert sorted(popped, key=path.__getitem__, reverse=True) == popped
    assert time.process_time() - begun < 3  # 0.1 s; comparing all that are ready takes minutes
