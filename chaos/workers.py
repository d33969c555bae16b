"""Kill, freeze and stop workers of one plan at random moments; the plan must be done, and no task twice for nothing.

The workers are what `winticket work` is below its command line (`winticket.run.run` on a shared store), as processes
that are forked from this one, so that hundreds of rounds take minutes. Their claims expire after `EXPIRY` seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos.counts import Count
from winticket.run import Checkpoint, Event, Report, Store, Task, task
from winticket.run import claims as claiming
from winticket.run import run as compute
from winticket.run.claims import who_claims

REVISION = 1
EXPIRY = 1.0
WORKERS = 3
PATIENCE = 60.0  # seconds after which a round counts as hanging
Say = Callable[[str], None]


def count_up(
    *before: int, number: int, steps: int, checkpoint: Checkpoint | None = None, report: Report | None = None
) -> int:
    """A task that takes `steps` hundredths of a second and goes on from its checkpoint."""
    done = (checkpoint.load() if checkpoint else None) or 0
    for step in range(done, steps):
        time.sleep(0.01)
        if checkpoint and checkpoint.due():
            checkpoint.save(step + 1)
        if report:
            report(step + 1, steps)
    return number + sum(before)


def plan(rng: Random) -> tuple[list[Task], list[int]]:
    """Some chains of tasks over common roots, and the values that they have."""
    numbers = [rng.randrange(1000) for _ in range(3)]
    roots = [task(count_up, number=number, steps=rng.randrange(5, 30)) for number in numbers]
    ends, values = [], []
    for chain in range(3):
        link, value = roots[chain], numbers[chain]
        for _ in range(rng.randrange(1, 4)):
            number, other = rng.randrange(1000), rng.randrange(3)
            link = task(count_up, link, roots[other], number=number, steps=rng.randrange(5, 30))
            value += number + numbers[other]
        ends.append(link)
        values.append(value)
    return ends, values


@dataclass
class Fleet:
    """The workers of one round."""

    tasks: list[Task]
    store: str
    log: Path
    pids: list[int] = field(default_factory=list)
    frozen: set[int] = field(default_factory=set)
    hit: int = 0
    """How many workers have been killed, or frozen for longer than a claim lasts."""

    def start(self) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            with contextlib.suppress(BaseException):
                status = _work(self.tasks, self.store, self.log)
            os._exit(status)
        self.pids.append(pid)

    def reap(self) -> list[int]:
        """Forget the workers that have ended; their exit statuses (negative: killed by that signal)."""
        statuses = []
        for pid in list(self.pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.pids.remove(pid)
                self.frozen.discard(pid)
                statuses.append(os.waitstatus_to_exitcode(status))
        return statuses

    def hurt(self, rng: Random) -> None:
        """Do something to one worker: kill it, freeze it, wake it, or ask it to stop."""
        if not self.pids:
            return
        pid = rng.choice(self.pids)
        if pid in self.frozen:
            self.frozen.discard(pid)
            os.kill(pid, signal.SIGCONT)
            return
        how = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1))
        os.kill(pid, how)
        self.hit += how != signal.SIGUSR1
        if how == signal.SIGSTOP:
            self.frozen.add(pid)

    def wake(self) -> None:
        for pid in self.frozen:
            os.kill(pid, signal.SIGCONT)
        self.frozen.clear()


def _work(tasks: list[Task], store: str, log: Path) -> int:
    """One worker: compute with the others, and log every task that was computed here."""
    stopped: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: stopped.append(number))

    def hear(event: Event) -> None:
        if event.kind == "finished":
            with log.open("a") as file:
                file.write(event.task.key + "\n")

    try:
        compute(tasks, store, on_event=hear, stop=lambda: bool(stopped), checkpoint_seconds=0.05)
    except KeyboardInterrupt:
        return 0
    return 0


def hurt(fleet: Fleet, rng: Random, disturb: Callable[[Random], None] | None = None) -> None:
    """Start workers, disturb them for a while and then leave them to finish; those that hang stay in `fleet.pids`."""
    for _ in range(WORKERS):
        fleet.start()
    for _ in range(rng.randrange(2, 7)):
        time.sleep(rng.uniform(0.02, 0.4))
        fleet.hurt(rng)
        if disturb is not None:
            disturb(rng)
        fleet.reap()
        if len(fleet.pids) < WORKERS:
            fleet.start()
    if rng.random() < 0.3:  # the frozen stay so until the others have taken over
        time.sleep(1.5 * EXPIRY)
    fleet.wake()
    fleet.start()
    until = time.monotonic() + PATIENCE
    while fleet.pids and time.monotonic() < until:
        fleet.reap()
        time.sleep(0.02)


def judge(count: Count, what: str, fleet: Fleet, values: list[int]) -> None:
    """Compare what a round has left with what it should have."""
    for pid in fleet.pids:
        count.raw += 1
        count.notes.append(f"{what}: worker {pid} hangs")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    store = Store(fleet.store)
    for end, value in zip(fleet.tasks, values, strict=True):
        got = store.get(end.key) if store.has(end.key) else None
        if got != value:
            count.silent += got is not None
            count.lost += got is None
            count.notes.append(f"{what}: {got} instead of {value}")
    if held := who_claims(store)[0]:
        count.lost += 1
        count.notes.append(f"{what}: {len(held)} claims are stuck")
    if problems := [problem for problem in store.verify() if problem.kind != "leftover"]:
        count.silent += 1
        count.notes.append(f"{what}: {problems[0]}")
    # A task may be computed again for each worker that was killed or frozen while it had it.
    again = sum(times - 1 for times in Counter(fleet.log.read_text().split()).values())
    if again > fleet.hit:
        count.twice += again - fleet.hit
        count.notes.append(f"{what}: {again} tasks were computed again, after {fleet.hit} workers were hurt")


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """`many` rounds on stores in folders."""
    count, usual = Count("workers of one plan: killed, frozen, stopped"), claiming.EXPIRY
    claiming.EXPIRY = EXPIRY
    try:
        for number in range(many):
            one_round(count, scratch / f"round-{number}", None, Random(f"{seed} {number}"))
            if number % 20 == 19:
                say(f"workers: {number + 1} of {many} rounds")
    finally:
        claiming.EXPIRY = usual
    return [count]


def one_round(
    count: Count,
    folder: Path,
    store: str | None,
    rng: Random,
    disturb: Callable[[Random], None] | None = None,
) -> None:
    """A plan, its workers, and what became of both; the store is in the folder if none is named."""
    folder.mkdir(parents=True)
    tasks, values = plan(rng)
    fleet = Fleet(tasks, store or str(folder / "runs"), folder / "log")
    fleet.log.touch()
    hurt(fleet, rng, disturb)
    count.tried += 1
    judge(count, folder.name, fleet, values)
