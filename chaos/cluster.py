"""A cluster on a clock that only counts: processes claim tasks of a shared store, train, checkpoint, stall and die.

It compares the forecast of `winticket plan --machines` (winticket/run/cluster.py, requests.py) with what happens, and
ways of choosing the next task. Every request takes a random time, and takes effect at its end; what a process has
listed may be out of date when it claims. A process's claim is renewed until it dies or stalls, and another process may
take it over once it has seen no renewal for 30 s.

    python -m chaos.cluster [--tasks 10000] [--workers 1000] [--chooses held8:4 first] [--deaths 1800] [--seed 0]
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

from winticket.run.cluster import Work
from winticket.run.requests import (
    CHECKPOINT,
    CHECKPOINT_SECONDS,
    CLAIM,
    LISTED,
    LOOK_SECONDS,
    OPEN,
    RENEWAL,
    RENEWAL_SECONDS,
    RESULT,
    START,
    Requests,
    in_sequence,
    listings,
    requests,
)

START_SECONDS = 3.0
"""Until a process has imported what it needs."""

EXPIRY = 30.0
RESTART = 60.0
"""Seconds until a process that died has a successor."""
SHORT = 0.5
"""Seconds until a process lists again, if others were faster."""
STALL = 45.0
"""Seconds for which a stalled process does nothing, longer than the expiry."""
Steps = Generator[float, None, None]
"""A process: it yields the seconds that pass until it goes on."""


@dataclass(frozen=True)
class Conditions:
    """What happens on the cluster.

    workers   processes, each of which computes one task at a time
    chooses   which of the listed tasks a process tries to claim: "first"; "random:W" for one of the first W; "held8:W"
              for one of the first W or an eighth as many as are claimed, whichever is more; "near:W" for one of the
              first W or all whose chains are at most a tenth shorter than the longest; "own:W" for its own position
              among the first W; "alone" for the first that it has not tried, without any listing while one is ready
    tries     how many of the listed tasks a process tries to claim before it lists them again
    again     whether the claims are listed once more after the results, so that what is listed is up to date
    patience  factor by which a process that was too late for all of them waits longer each time
    spread    standard deviation of the logarithm of a task's time, relative to its forecast
    deaths    mean seconds between the deaths of a process; infinite for none
    stalls    share of tasks during which the process stalls
    """

    workers: int
    chooses: str = "held8:4"
    tries: int = 2
    again: bool = True
    patience: float = 2.0
    latency: tuple[float, float] = (0.02, 0.1)
    spread: float = 0.1
    deaths: float = math.inf
    stalls: float = 0.0


@dataclass
class Claim:
    """A claim of a task. It is renewed until `last`; its process knows nothing of another's claim thereafter."""

    owner: int
    last: float = math.inf


@dataclass
class Outcome:
    """What happened: seconds, and how often."""

    seconds: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)
    computed: Counter[str] = field(default_factory=Counter)
    """By task, how often its training began."""
    expired: Counter[str] = field(default_factory=Counter)
    """By task, how often its claim was taken over."""
    collisions: int = 0
    """Claims of tasks that another process held."""
    late: int = 0
    """Claims of tasks that were finished already."""
    deaths: int = 0
    stalls: int = 0
    trained: float = 0.0
    """Seconds of training, repeated ones included."""


class Cluster:
    """The store, the processes, and the clock."""

    def __init__(self, work: Work, conditions: Conditions, seed: int) -> None:
        self.work, self.conditions = work, conditions
        self.draw = random.Random(seed)
        self.needs = {key: [n for n in work.needs.get(key, ()) if n in work.seconds] for key in work.seconds}
        self.after: dict[str, list[str]] = {key: [] for key in work.seconds}
        for key, needs in self.needs.items():
            for need in needs:
                self.after[need].append(key)
        chains = work.chains
        self.place = {key: (-chains[key], rank) for rank, key in enumerate(work.seconds)}
        self.key_at = {place: key for key, place in self.place.items()}
        # What a listing shows of the moment: ready tasks without a claim, in order, and claims that lapse.
        self.waiting = {key: len(needs) for key, needs in self.needs.items()}
        self.open = sorted(self.place[key] for key, count in self.waiting.items() if not count)
        self.claims: dict[str, Claim] = {}
        self.lapsing: dict[str, Claim] = {}
        self.done: set[str] = set()
        self.saved: dict[str, float] = {}
        spread = conditions.spread
        self.factor = {key: math.exp(self.draw.gauss(-spread * spread / 2, spread)) for key in work.seconds}
        self.now = 0.0
        self.outcome = Outcome()
        self._events: list[tuple[float, int, Process]] = []
        self._count = 0

    def run(self) -> Outcome:
        for number in range(self.conditions.workers):
            self.start(number, self.draw.uniform(0, START_SECONDS))
        while self._events and len(self.done) < len(self.work.seconds):
            self.now, _, process = heapq.heappop(self._events)
            process.step()
        if len(self.done) < len(self.work.seconds):
            raise AssertionError(f"{len(self.work.seconds) - len(self.done)} tasks were never computed")
        self.outcome.seconds = self.now
        return self.outcome

    def start(self, number: int, after: float) -> None:
        mean = self.conditions.deaths
        dies = self.now + after + (self.draw.expovariate(1 / mean) if mean < math.inf else math.inf)
        kind = Alone if self.conditions.chooses == "alone" else Process
        self.wake(kind(self, number, dies), after)

    def wake(self, process: Process, after: float) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + after, self._count, process))

    def request(self, purpose: str, count: int = 1) -> float:
        """Seconds that requests take one after the other."""
        self.outcome.requests[purpose] += count
        low, high = self.conditions.latency
        if count > 4:  # the sum of many is nearly their mean
            return count * (low + high) / 2
        return sum(self.draw.uniform(low, high) for _ in range(count))

    def listing(self, names: int) -> float:
        return self.request("looks", max(1, -(-names // LISTED)))

    def claim(self, key: str, process: Process, expired: Claim | None) -> bool:
        """Create the claim's file, of the next generation if a claim has `expired`; False if another has done so."""
        if self.claims.get(key) is not expired:
            return False
        mine = Claim(process.number, process.dies)
        if expired is None:
            self._shut(key)
        else:
            self.outcome.expired[key] += 1
            self.lapsing.pop(key, None)
        self.claims[key] = mine
        if mine.last < math.inf:
            self.lapsing[key] = mine
        return True

    def _shut(self, key: str) -> None:
        at = bisect_left(self.open, self.place[key])
        if at < len(self.open) and self.open[at] == self.place[key]:
            del self.open[at]

    def release(self, key: str, process: Process) -> None:
        claim = self.claims.get(key)
        if claim is not None and claim.owner == process.number:
            del self.claims[key]
            self.lapsing.pop(key, None)
            if key not in self.done:
                insort(self.open, self.place[key])

    def finish(self, key: str) -> None:
        if key in self.done:
            return
        self.done.add(key)
        for following in self.after[key]:
            self.waiting[following] -= 1
            if not self.waiting[following]:
                insort(self.open, self.place[following])


class Process:
    """A process that lists the claims before it chooses, and the results after them."""

    def __init__(self, cluster: Cluster, number: int, dies: float) -> None:
        self.cluster, self.number, self.dies = cluster, number, dies
        self.seen: dict[str, tuple[Claim, float]] = {}
        self._steps = self.life()

    def step(self) -> None:
        """Go on, unless the process has died by now; then another starts after a while."""
        cluster = self.cluster
        if cluster.now >= self.dies:
            cluster.outcome.deaths += 1
            self._steps.close()
            cluster.start(self.number + cluster.conditions.workers, RESTART)
            return
        after = next(self._steps, None)
        if after is not None:
            cluster.wake(self, min(after, max(self.dies - cluster.now, 0.0)))

    def life(self) -> Steps:
        cluster = self.cluster
        yield cluster.request("looks", START)
        pause = SHORT
        while True:
            yield cluster.listing(len(cluster.claims))
            listed = self.listed()
            yield cluster.listing(len(cluster.done))
            if cluster.conditions.again:
                yield cluster.listing(len(cluster.claims))
                listed = self.listed()
            for key, expired in listed:
                mine = yield from self.take(key, expired)
                if mine:
                    pause = SHORT
                    yield from self.compute(key)
                    break
            else:
                # Some time apart, so that those who found nothing do not come back together.
                yield cluster.draw.uniform(0.5, 1.5) * (pause if listed else LOOK_SECONDS)
                pause = min(pause * cluster.conditions.patience, LOOK_SECONDS)

    def listed(self) -> list[tuple[str, Claim | None]]:
        """The tasks to try, in turn: those without a valid claim, as far as this process can see."""
        cluster = self.cluster
        rule, _, number = cluster.conditions.chooses.partition(":")
        width, tries = int(number or 1), cluster.conditions.tries
        if rule.startswith("held"):
            width = max(width, len(cluster.claims) // int(rule[4:]))
        if rule == "near":
            longest = -cluster.open[0][0] if cluster.open else 0.0
            width = max(width, bisect_left(cluster.open, (-0.9 * longest, 0)))
        free: list[tuple[tuple[float, int], Claim | None]] = [
            (place, None) for place in cluster.open[: max(width, tries)]
        ]
        for key, claim in cluster.lapsing.items():
            if cluster.now < claim.last:
                continue
            if self.seen.get(key, (None, 0.0))[0] is not claim:
                self.seen[key] = claim, cluster.now
            elif cluster.now - self.seen[key][1] > EXPIRY:
                free.append((cluster.place[key], claim))
        free.sort(key=lambda item: item[0])
        if rule == "own":
            at = self.number % max(1, min(width, len(free)))
            free = free[at:] + free[:at]
        elif rule != "first":
            free = cluster.draw.sample(free[:width], min(tries, len(free), width))
        return [(cluster.key_at[place], claim) for place, claim in free[:tries]]

    def take(self, key: str, expired: Claim | None) -> Generator[float, None, bool]:
        """Claim a task, and look whether it is finished already; False if this process is not to compute it."""
        cluster = self.cluster
        yield cluster.request("claims", 2)
        if not cluster.claim(key, self, expired):
            cluster.outcome.collisions += 1
            yield cluster.request("claims")  # whose it is
            return False
        yield cluster.request("claims", 2)
        if key in cluster.done:
            cluster.outcome.late += 1
            yield cluster.request("claims")
            cluster.release(key, self)
            return False
        return True

    def compute(self, key: str) -> Steps:
        """Train from the last checkpoint on, and store the result."""
        cluster = self.cluster
        yield cluster.request("reads", OPEN + len(cluster.needs[key]))
        whole = cluster.work.seconds[key] * cluster.factor[key]
        done = cluster.saved.get(key, 0.0)
        cluster.outcome.computed[key] += 1
        if cluster.draw.random() < cluster.conditions.stalls:
            yield from self._stall(key)
        while done < whole:
            part = min(CHECKPOINT_SECONDS, whole - done)
            begun = cluster.now
            try:
                yield part
            finally:  # also if the process dies meanwhile
                cluster.outcome.trained += cluster.now - begun
            done += part
            cluster.outcome.requests["renewals"] += RENEWAL * int(part / RENEWAL_SECONDS)
            if done < whole:
                cluster.outcome.requests["writes"] += CHECKPOINT
                cluster.saved[key] = max(done, cluster.saved.get(key, 0.0))
        yield cluster.request("writes", RESULT)
        cluster.finish(key)
        yield cluster.request("claims", CLAIM - 4)
        cluster.release(key, self)

    def _stall(self, key: str) -> Steps:
        """Do nothing for longer than the expiry; the claim is not renewed in that time."""
        cluster = self.cluster
        cluster.outcome.stalls += 1
        claim = cluster.claims[key]
        claim.last = cluster.now
        cluster.lapsing[key] = claim
        yield STALL
        if cluster.claims.get(key) is claim:
            claim.last = self.dies
            if claim.last == math.inf:
                cluster.lapsing.pop(key, None)


class Alone(Process):
    """A process that knows of others' work only what its own claims come across, and tries every task itself."""

    def __init__(self, cluster: Cluster, number: int, dies: float) -> None:
        self.count = {key: len(needs) for key, needs in cluster.needs.items()}
        self.ready = sorted(cluster.place[key] for key, count in self.count.items() if not count)
        self.elsewhere: set[str] = set()
        super().__init__(cluster, number, dies)

    def life(self) -> Steps:
        cluster = self.cluster
        yield cluster.request("looks", START)
        looked = cluster.now
        while self.ready or self.elsewhere:
            if cluster.now - looked >= LOOK_SECONDS or not self.ready:
                looked = cluster.now
                yield from self._look()
            if not self.ready:
                yield LOOK_SECONDS
                continue
            key = cluster.key_at[heapq.heappop(self.ready)]
            mine = yield from self.take(key, self._expired(key))
            if mine:
                yield from self.compute(key)
            if key in cluster.done:
                self._note(key)
            else:
                self.elsewhere.add(key)

    def _expired(self, key: str) -> Claim | None:
        seen = self.seen.get(key)
        return seen[0] if seen and self.cluster.now - seen[1] > EXPIRY else None

    def _note(self, key: str) -> None:
        for following in self.cluster.after[key]:
            self.count[following] -= 1
            if not self.count[following]:
                heapq.heappush(self.ready, self.cluster.place[following])

    def _look(self) -> Steps:
        """List the claims, and ask for the result of each task that has lost its own."""
        cluster = self.cluster
        yield cluster.listing(len(cluster.claims))
        for key in sorted(self.elsewhere):
            claim = cluster.claims.get(key)
            if claim is not None:
                if cluster.now >= claim.last and self.seen.get(key, (None, 0))[0] is not claim:
                    self.seen[key] = claim, cluster.now
                if self._expired(key) is not claim:
                    continue
            yield cluster.request("looks")
            self.elsewhere.discard(key)
            if key in cluster.done:
                self._note(key)
            else:
                heapq.heappush(self.ready, cluster.place[key])


def stacks(tasks: int, levels: int, seconds: float = 30.0) -> Work:
    """About so many tasks in the shape of a search: a dense training per stack, the gate, and three arms per level."""
    each, needs = dict[str, float](), dict[str, list[str]]()
    for stack in range(max(1, round(tasks / (2 + 3 * levels)))):
        before = f"{stack} dense"
        each[before], needs[before] = seconds, []
        each[f"{stack} gate"], needs[f"{stack} gate"] = 2 * seconds, []
        for level in range(1, levels + 1):
            cost = seconds * (0.2 + 0.8 * 0.8**level)
            for arm in ("ticket", "reinit", "random"):
                key = f"{stack} {arm} {level}"
                each[key], needs[key] = cost, [before]
                if arm == "random":
                    needs[key] = [before]
            before = f"{stack} ticket {level}"
    return Work(each, needs)


def forecast(work: Work, conditions: Conditions) -> tuple[float, Requests]:
    """What `winticket plan --machines` says, with this store's mean latency: seconds, and requests."""
    each, workers = sum(conditions.latency) / 2, conditions.workers
    inputs = {key: len(needs) for key, needs in work.needs.items()}
    looks = listings(len(work.seconds), workers)
    longer = {key: s + each * (in_sequence(inputs[key]) + looks) for key, s in work.seconds.items()}
    makespan = START_SECONDS + Work(longer, work.needs).makespan(workers)
    return makespan, requests(work.seconds, inputs, processes=workers, makespan=makespan)


def facts(work: Work, conditions: Conditions, outcome: Outcome) -> Mapping[str, object]:
    """What happened beside what was forecast."""
    count = len(work.seconds)
    seconds, counted = forecast(work, conditions)
    repeated = [key for key, times in outcome.computed.items() if times > 1 + outcome.expired[key]]
    return {
        "chooses": conditions.chooses,
        "tasks": count,
        "workers": conditions.workers,
        "seconds": round(outcome.seconds, 1),
        "forecast": round(seconds, 1),
        "ratio": round(outcome.seconds / seconds, 3),
        "requests per task": round(outcome.requests.total() / count, 1),
        "forecast requests per task": round(counted.total / count, 1),
        "by purpose": {name: round(n / count, 2) for name, n in sorted(outcome.requests.items())},
        "collisions per task": round(outcome.collisions / count, 3),
        "late claims per task": round(outcome.late / count, 3),
        "deaths": outcome.deaths,
        "stalls": outcome.stalls,
        "taken over": outcome.expired.total(),
        "begun again": outcome.computed.total() - count,
        "begun again without an expired claim": len(repeated),
        "trained / forecast": round(outcome.trained / work.total, 3),
    }


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--chooses", nargs="+", default=["held8:4"])
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--again", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--patience", type=float, default=2.0)
    parser.add_argument("--spread", type=float, default=0.1)
    parser.add_argument("--deaths", type=float, default=math.inf)
    parser.add_argument("--stalls", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    work = stacks(asked.tasks, asked.levels)
    for rule in asked.chooses:
        names = ("tries", "again", "patience", "spread", "deaths", "stalls")
        conditions = Conditions(asked.workers, rule, **{name: getattr(asked, name) for name in names})
        begun = time.perf_counter()
        outcome = Cluster(work, conditions, asked.seed).run()
        told = facts(work, conditions, outcome)
        sys.stdout.write(json.dumps(told) + f"  ({time.perf_counter() - begun:.1f} s)\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
