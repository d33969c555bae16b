"""Claims: of several runs on one store each task is computed by one, and none waits for ever for another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from run import jobs
from starting import Started
from winticket.run import Event, Store, StoreError, run, task
from winticket.run import claims as claiming
from winticket.run.claim_files import Claim, boot, claim_name
from winticket.run.claims import Claims, who_claims
from winticket.run.files import LocalFiles, host

KEY = "ab" + "0" * 62


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs")
    made.check_writable()
    return made


def read(store: Store) -> Claim:
    """The valid claim: that of the last generation."""
    last = max(store.claims()[KEY])
    return msgspec.json.decode(store.files.read(claim_name(KEY, last)), type=Claim)


def put(store: Store, claim: Claim, generation: int = 0) -> None:
    store.files.write(claim_name(KEY, generation), msgspec.json.encode(claim))


def dead_pid() -> int:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    return int(done.stdout)


def test_one_takes_and_the_other_sees_who_did(store: Store) -> None:
    one, two = Claims(store), Claims(store)
    assert one.take(KEY) is None
    assert one.take(KEY) is None  # its own
    other = two.take(KEY)
    assert other is not None
    assert other.who() == f"process {os.getpid()}"
    assert two.claimed([KEY])
    assert [claim.pid for claim in who_claims(store)[0].values()] == [os.getpid()]
    one.give_back(KEY)
    assert not two.claimed([KEY])
    assert two.take(KEY) is None
    one.give_back(KEY)  # no longer its own
    assert read(store).owner == two._me.owner
    two.close()
    one.close()
    assert store.claims() == {}


def test_a_claim_of_a_process_that_is_gone_is_anybodys_at_once(store: Store) -> None:
    mine = Claims(store)
    put(store, msgspec.structs.replace(mine._me, owner="gone", pid=dead_pid()))
    assert mine.take(KEY) is None
    assert read(store).owner == mine._me.owner
    mine.give_back(KEY, finished=True)
    assert store.claims() == {}
    mine.close()


def test_a_claim_from_elsewhere_expires_by_the_watchers_own_clock(store: Store) -> None:
    mine = Claims(store, expiry=0.3)
    theirs = Claim("them", "elsewhere", "another boot", 1)
    put(store, theirs)
    os.utime(store.files._path(f"claims/{KEY}.json"), (0, 0))  # type: ignore[attr-defined]  # a clock that is years off
    assert mine.take(KEY) == theirs
    time.sleep(0.2)
    put(store, msgspec.structs.replace(theirs, beat=1))  # renewed
    assert mine.claimed([KEY])
    time.sleep(0.2)
    assert mine.take(KEY) is not None
    time.sleep(0.2)
    assert not mine.claimed([KEY])
    assert mine.take(KEY) is None
    mine.close()


def test_a_held_claim_is_renewed_and_never_expires(store: Store) -> None:
    one, two = Claims(store, expiry=0.3), Claims(store, expiry=0.3)
    one.take(KEY)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        assert two.take(KEY) is not None
        time.sleep(0.05)
    assert read(store).beat >= 2
    one.close()
    two.close()


def test_an_expired_claim_is_taken_over_by_exactly_one(store: Store) -> None:
    for _ in range(20):
        put(store, Claim("gone", host(), boot(), dead_pid()))
        takers = [Claims(store) for _ in range(8)]
        start = threading.Barrier(len(takers))
        got: list[Claims] = []

        def take(taker: Claims, start: threading.Barrier = start, got: list[Claims] = got) -> None:
            start.wait()
            if taker.take(KEY) is None:
                got.append(taker)

        threads = [threading.Thread(target=take, args=(taker,)) for taker in takers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        for taker in takers:
            taker.close()


def test_who_lost_its_claim_neither_renews_nor_removes_the_new_one(store: Store) -> None:
    one = Claims(store, expiry=0.3)
    one.take(KEY)
    held = one._held[KEY]
    put(store, Claim("them", "elsewhere", "", 1), generation=1)
    held.renewed -= 1.0  # it was stopped for longer than the expiry
    one._renew_one(KEY, held)
    assert held.claim.beat == 0
    one.give_back(KEY)
    assert read(store).owner == "them"
    assert sorted(store.claims()[KEY]) == [0, 1]
    one.close()


def test_a_task_that_was_taken_over_and_given_up_is_anybodys(store: Store) -> None:
    put(store, Claim("gone", host(), boot(), dead_pid()))
    one, two, three = Claims(store), Claims(store), Claims(store)
    assert one.take(KEY) is None
    assert two.take(KEY) is not None
    one.give_back(KEY)
    assert sorted(store.claims()[KEY]) == [
        0,
        1,
        2,
    ]  # nothing is removed, or a third could begin at 0 beside a second
    assert not two.claimed([KEY])
    assert two.take(KEY) is None
    assert three.take(KEY) is not None
    assert [who_claims(store)[0][KEY].owner, three.claimed([KEY])[KEY].owner] == [two._me.owner] * 2
    two.give_back(KEY, finished=True)
    assert store.claims() == {}
    assert not three.claimed([KEY])


def test_a_task_is_given_up_without_a_look_at_the_clock(store: Store) -> None:
    """The clock may have stood still while the machine slept and another run took the task over."""
    one = Claims(store)
    one.take(KEY)
    put(store, Claim("them", "elsewhere", "", 1), generation=1)
    one.give_back(KEY)
    assert sorted(store.claims()[KEY]) == [0, 1]
    one.close()


def test_a_listing_that_shows_a_renewal_is_enough(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Claims(store, expiry=0.3), Claims(store, expiry=0.3)
    one.take(KEY)
    assert two.claimed([KEY])[KEY].owner == one._me.owner
    reads: list[str] = []
    read_file = store.files.read

    def counted(_self: object, name: str, **how: int) -> bytes:
        reads.append(name)
        return read_file(name, **how)

    monkeypatch.setattr(type(store.files), "read", counted)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert two.claimed([KEY, "cd" * 32]).keys() == {KEY}
        time.sleep(0.05)
    assert reads == []
    one.close()
    assert two.claimed([KEY]) == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"owner": 3}', b"[]", b"\xff"])
def test_a_damaged_claim_expires_and_is_no_error(store: Store, content: bytes) -> None:
    store.files.write(f"claims/{KEY}.json", content)
    mine = Claims(store, expiry=0.1)
    assert mine.take(KEY) is not None
    assert who_claims(store) == ({}, [])
    time.sleep(0.2)
    assert mine.take(KEY) is None
    mine.close()


def test_gc_clears_up_what_dead_processes_claimed_and_keeps_away_from_living_ones(store: Store) -> None:
    mine = Claims(store)
    mine.take(KEY)
    with pytest.raises(StoreError, match=rf"process {os.getpid()} is computing in store"):
        store.gc(keep=set())
    assert store.gc() == []
    mine.close()
    put(store, msgspec.structs.replace(mine._me, pid=dead_pid()))
    assert [removed.why for removed in store.gc()] == ["claim of a process that has ended"]
    assert store.claims() == {}


def test_gc_leaves_a_chain_that_a_worker_may_be_about_to_take_over(store: Store) -> None:
    other, mine = "cd" + "0" * 62, Claims(store)
    put(store, msgspec.structs.replace(mine._me, pid=dead_pid()))
    mine.take(other)  # somebody computes in this store
    assert store.gc() == []
    store.put(KEY, 1, {})  # now nobody will claim it again
    assert [removed.name for removed in store.gc()] == [claim_name(KEY)]
    mine.close()


def test_a_claim_that_is_a_link_is_refused_and_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "runs" / "claims").mkdir()
    (tmp_path / "runs" / "claims" / f"{KEY}.json").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="links inside a store are not followed"):
        Claims(store).take(KEY)
    assert (tmp_path / "precious").read_text() == "precious"


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from run import jobs
from winticket.run import local, run, task
def tell(event):
    print(event.kind, event.task.key, flush=True)
if __name__ == "__main__":
    tasks = [task(jobs.slow, number=n, seconds={seconds}) for n in range({count})]
    outcomes = run(tasks, {store!r}, crew=local({workers}), on_event=tell)
    print("computed", len(outcomes.computed), "reused", len(outcomes.reused))
"""


def start(tmp_path: Path, *, count: int = 6, seconds: float = 0.3, workers: int = 1) -> Started:
    store, tests = str(tmp_path / "runs"), str(Path(__file__).parents[1])
    script = SCRIPT.format(tests=tests, store=store, count=count, seconds=seconds, workers=workers)
    return Started(folder=tmp_path, program=script)


def finished(command: Started) -> tuple[list[str], int]:
    """The keys that a command computed, and how many it found done."""
    out, _ = command.communicate(timeout=120)
    assert command.returncode == 0, out
    lines = [line.split() for line in out.splitlines()]
    return [key for kind, key, *_ in lines if kind == "finished"], int(lines[-1][3])


@pytest.mark.parametrize("workers", [0, 1])
def test_two_commands_do_every_task_once(tmp_path: Path, workers: int) -> None:
    one, two = (start(tmp_path, workers=workers) for _ in range(2))
    (first, first_reused), (second, second_reused) = finished(one), finished(two)
    assert len(set(first) & set(second)) == 0
    assert len(first) + len(second) == 6
    assert (first_reused, second_reused) == (len(second), len(first))
    assert Store(tmp_path / "runs").claims() == {}


def test_another_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    one = start(tmp_path, count=1, seconds=60.0)
    assert one.line(timeout=60).startswith("started")
    store, seen = Store(tmp_path / "runs"), []

    def tell(event: Event) -> None:
        seen.append(event.kind)
        if event.kind == "elsewhere":
            assert event.text == f"process {one.pid}"
            one.send_signal(signal.SIGKILL)
            one.communicate(timeout=60)

    def give_up() -> bool:  # it is ours now, and takes a minute
        return "started" in seen

    with pytest.raises(KeyboardInterrupt):
        run([task(jobs.slow, number=0, seconds=60.0)], store, on_event=tell, stop=give_up)
    assert seen == ["elsewhere", "started"]
    assert who_claims(store)[0] == {}
    store.gc()
    assert store.claims() == {}


def test_one_that_was_stopped_for_longer_than_the_expiry_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "EXPIRY", 0.5)
    one = start(tmp_path, count=1, seconds=1.0, workers=0)
    assert one.line(timeout=60).startswith("started")
    one.send_signal(signal.SIGSTOP)
    kinds: list[str] = []
    slow = task(jobs.slow, number=0, seconds=1.0)
    outcomes = run([slow], tmp_path / "runs", on_event=lambda event: kinds.append(event.kind))
    assert [kind for kind in kinds if kind != "progress"] == ["elsewhere", "started", "finished"]
    assert outcomes.value(slow) == 0
    one.send_signal(signal.SIGCONT)
    keys, reused = finished(one)
    assert len(keys) + reused == 1
    assert Store(tmp_path / "runs").get(slow.key) == 0
    assert Store(tmp_path / "runs").verify() == []


def test_failures_of_another_command_are_heard_of_and_not_tried_again(tmp_path: Path) -> None:
    bad = task(jobs.fail_slowly, seconds=0.5)
    results = []

    def go() -> None:
        results.append(run([bad], tmp_path / "runs"))

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [list(result.failed) for result in results] == [[bad.key]] * 2
    assert len(jobs.FAILED) == 1


def test_a_crowd_of_runs_seldom_tries_what_another_has_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of six runs that take every task in order would try nearly all of them: five attempts in vain per task."""
    tasks = [task(jobs.slow, number=number, seconds=0.02) for number in range(90)]
    in_vain: list[str] = []
    take = Claims.take

    def counted(self: Claims, key: str) -> Claim | None:
        other = take(self, key)
        if other is not None:
            in_vain.append(key)
        return other

    monkeypatch.setattr(Claims, "take", counted)
    computed: list[str] = []
    Store(tmp_path / "runs").check_writable()

    def go() -> None:
        computed.extend(run(tasks, tmp_path / "runs").computed)

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(computed) == sorted(each.key for each in tasks)  # every task once
    assert len(in_vain) < len(tasks)


def test_a_claim_far_away_is_read_only_if_it_is_not_renewed(store: Store) -> None:
    store.remote = True
    put(store, Claim("gone", host(), boot(), dead_pid()))
    mine = Claims(store, expiry=0.6)
    assert mine.claimed([KEY])[KEY].who() == "another worker"
    time.sleep(0.3)
    assert mine.claimed([KEY]) == {}  # read now: its process has ended
    assert mine.take(KEY) is None
    mine.close()


def test_a_renewal_under_way_does_not_bring_a_claim_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, write = Claims(store, expiry=0.06), type(store.files).write

    def slow(self: LocalFiles, name: str, data: bytes) -> None:
        time.sleep(0.05)
        write(self, name, data)

    monkeypatch.setattr(LocalFiles, "write", slow)
    for number in range(15):
        mine.take(KEY)
        time.sleep(0.01 + 0.004 * number)
        mine.give_back(KEY)
        time.sleep(0.06)
        assert store.claims() == {}
    mine.close()


def test_a_retried_failure_is_retried_by_one_run_of_several(tmp_path: Path) -> None:
    bad = task(jobs.fail_slowly, seconds=0.3)
    run([bad], tmp_path / "runs")
    before = len(jobs.FAILED)
    results = []

    def go() -> None:
        results.append(run([bad], tmp_path / "runs", retry_failed=True))

    threads = [threading.Thread(target=go) for _ in range(3)]
    time.sleep(1.0)  # failures are told apart by the second in which they were stored
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [list(result.failed) for result in results] == [[bad.key]] * 3
    assert len(jobs.FAILED) == before + 1


def test_a_run_that_rests_after_a_lost_race_does_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winticket.run.executor._LEAST_REST", 0.8)
    store = Store(tmp_path / "runs")
    tasks = [task(jobs.slow, number=number, seconds=0.01) for number in range(8)]
    other = Claims(store)
    store.check_writable()
    taken = iter(tasks)
    take = Claims.take

    def raced(self: Claims, key: str) -> Claim | None:
        """The other run takes whatever this one is about to take, three times."""
        if self is not other and (next(taken, None) in tasks[:3]):
            take(other, key)
        return take(self, key)

    monkeypatch.setattr(Claims, "take", raced)
    outcomes = run(tasks, store, leave=0.0)
    assert (len(outcomes.computed), outcomes.left) == (5, 3)
    other.close()
