"""Files at URLs: the same behaviour everywhere, exclusive creation, faults waited out or told, and no secret shown."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import botocore.exceptions
import msgspec
import pytest
import torch

from run import jobs
from winticket.run import Damaged, RunError, Store, StoreError, run, task
from winticket.run import faults as judging
from winticket.run.claim_files import Claim, boot
from winticket.run.claims import Claims
from winticket.run.faults import Asking, judge, secrets_around
from winticket.run.files import Files, host
from winticket.run.remote import RemoteFiles, files_at

from .buckets import Proxy
from .conftest import SECRET

KEY = "ab" + "0" * 62


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and limits a hundredth as long, so that tests of them take no minute."""
    monkeypatch.setattr(judging, "FIRST_PAUSE", judging.FIRST_PAUSE / 100)
    monkeypatch.setattr(judging, "SECONDS", 1.5)
    monkeypatch.setattr(judging, "FIRST_SECONDS", 0.5)


def first(*faults: str) -> Callable[[str, str, int], str | None]:
    """These faults happen to the first requests, and then none."""
    left = iter(faults)
    return lambda method, path, number: next(left, None)


def always(fault: str) -> Callable[[str, str, int], str]:
    return lambda method, path, number: fault


@pytest.fixture
def files(place: str) -> Files:
    return files_at(place)


def test_files_do_the_same_everywhere(files: Files) -> None:
    assert files.top() == []
    assert files.entries("claims") == []
    assert not files.exists("claims/a")
    with pytest.raises(FileNotFoundError):
        files.read("claims/a")
    files.remove("claims/a")
    files.write("claims/a", b"one")
    files.write("claims/a", b"two!")
    files.write("claims/deep/b", b"")
    assert files.read("claims/a") == b"two!"
    assert files.read("claims/a", first=2) == b"tw"
    assert files.read("claims/a", first=100) == b"two!"
    assert files.read("claims/deep/b") == files.read("claims/deep/b", first=1) == b""
    assert files.exists("claims/a")
    assert files.exists("claims/deep/b")
    assert not files.exists("claims/deep/bb")
    assert [(e.name, e.bytes, e.plain) for e in files.entries("claims")] == [
        ("claims/a", 4, True),
        ("claims/deep/b", 0, True),
    ]
    assert [e.name for e in files.entries("claims/deep")] == ["claims/deep/b"]
    assert [name for name in files.top() if name != "tmp"] == ["claims"]
    files.remove("claims/a")
    assert not files.exists("claims/a")


def test_the_first_to_create_wins_and_a_later_one_changes_nothing(files: Files) -> None:
    assert files.create("claims/a", b"mine")
    assert not files.create("claims/a", b"theirs")
    assert not files.create("claims/a", b"mine")  # also with the same bytes
    assert files.read("claims/a") == b"mine"
    files.remove("claims/a")
    assert files.create("claims/a", b"theirs")
    files.check_create()
    assert [e.name for e in files.entries()] == ["claims/a"]


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_of_many_that_create_at_once_one_wins(kind: str, s3: str, proxy: Proxy) -> None:
    url = s3 if kind == "s3" else f"memory://{uuid4()}"
    for number in range(5):
        start = threading.Barrier(8)
        won: list[int] = []

        def create(
            who: int, number: int = number, start: threading.Barrier = start, won: list[int] = won
        ) -> None:
            mine = files_at(url)
            start.wait()
            if mine.create(f"claims/{number}", str(who).encode()):
                won.append(who)

        threads = [threading.Thread(target=create, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(who).encode() for who in won] == [files_at(url).read(f"claims/{number}")]


def test_what_another_client_wrote_is_seen_at_once(s3: str) -> None:
    mine = files_at(s3)
    assert mine.entries("claims") == []
    assert not mine.exists("claims/a")
    import fsspec

    theirs = fsspec.filesystem("s3", skip_instance_cache=True)  # a client with its own connections and caches
    theirs.pipe_file(f"{s3}/claims/a", b"theirs")
    assert mine.exists("claims/a")
    assert [entry.name for entry in mine.entries("claims")] == ["claims/a"]
    assert mine.top() == ["claims"]


def test_listings_go_on_after_the_first_thousand(s3: str) -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    root = s3.removeprefix("s3://bucket/")
    kept: Any = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(1100):
        kept.put_object("bucket", f"{root}/claims/{number:064x}.json", b"{}")
    kept.put_object("bucket", f"{root}/claims/", b"")  # as consoles keep folders
    names = [entry.name for entry in files_at(s3).entries("claims")]
    assert names == [f"claims/{number:064x}.json" for number in range(1100)]


@pytest.mark.parametrize("fault", ["503", "500", "drop", "hang"])
def test_faults_that_pass_are_waited_out(fault: str, s3: str, proxy: Proxy, hasty: None) -> None:
    store = Store(s3)
    burst = ("hang",) if fault == "hang" else (fault, fault, fault)
    proxy.fault = first(*burst)
    store.put(KEY, 1, {})
    proxy.fault = first(*burst)
    assert store.get(KEY) == 1
    proxy.fault = first(*burst)
    assert [row.key for row in store.ls()] == [KEY]
    proxy.fault = first(*burst)
    store.forget(KEY, "result")
    assert not store.has(KEY)


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_faults_that_stay_are_told_after_a_bounded_time(
    fault: str, s3: str, proxy: Proxy, hasty: None
) -> None:
    store = Store(s3)
    store.put(KEY, 1, {})
    proxy.fault = always(fault)
    proxy.requests.clear()
    began = time.monotonic()
    with pytest.raises(
        StoreError, match=rf"store {s3} cannot be read: .*; tried \d+ times in .*what was stored is kept"
    ):
        store.get(KEY)
    assert time.monotonic() - began < 10
    assert 2 < proxy.count() <= 2 * judging.TRIES  # aiohttp repeats a request on a line that was closed
    proxy.forget()
    assert store.get(KEY) == 1


def test_a_create_whose_answer_was_lost_is_known_for_ones_own(s3: str, proxy: Proxy, hasty: None) -> None:
    files = files_at(s3)
    proxy.fault = first("lose")
    assert files.create("claims/a", b"mine")
    proxy.fault = first("lose", "lose", "503", "500")
    assert files.create("claims/c", b"mine")
    files.write("claims/b", b"theirs")
    proxy.fault = first("drop", "503")  # nothing was done, and another was faster
    assert not files.create("claims/b", b"mine")
    assert not files.create("claims/b", b"theirs")
    assert files.read("claims/b") == b"theirs"


def test_servers_that_ignore_the_condition_are_refused_before_any_compute(s3: str, proxy: Proxy) -> None:
    proxy.fault = always("deaf")
    done: list[str] = []
    with pytest.raises(StoreError, match=r"cannot keep two writers apart.*If-None-Match"):
        run([task(jobs.plant, seed=0)], s3, on_event=lambda event: done.append(event.kind))
    assert done == []
    proxy.forget()
    assert files_at(s3).entries() == []


def gone(*_: object, **options: object) -> None:
    raise FileNotFoundError("bucket")


def test_probes_that_cannot_be_removed_are_told(s3: str, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: "AccessDenied" if method == "DELETE" else None
    with pytest.raises(StoreError, match=r"cannot be written: .*You may not\.; check the credentials"):
        Store(s3).check_writable()


def test_a_file_system_without_exclusive_creation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.registry import register_implementation

    class Plain(MemoryFileSystem):  # type: ignore[misc]
        protocol = "plain"
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
            super().pipe_file(path, value)

    register_implementation("plain", Plain, clobber=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plain, "pipe_file", gone)
        with pytest.raises(StoreError, match="cannot be written: there is no such place; make the bucket"):
            Store("plain://runs").files.write("results/a", b"")
    store = Store("plain://runs")
    with pytest.raises(
        StoreError, match=r"cannot keep two writers apart \(a file could be created twice\).*s3://"
    ):
        store.check_writable()
    assert Store("plain://runs").ls() == []
    store.put(KEY, 1, {})  # by hand, and by nobody else
    assert store.get(KEY) == 1


@pytest.mark.parametrize(
    "code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"]
)
def test_refused_credentials_are_told_at_once(code: str, s3: str, proxy: Proxy) -> None:
    proxy.fault = always(code)
    with pytest.raises(
        StoreError, match=r"cannot be read: .*You may not.*; check the credentials .*AWS_ACCESS_KEY_ID"
    ):
        Store(s3)
    assert proxy.count() == 1


def test_a_bucket_that_is_not_there_and_a_host_that_is_unknown_are_told_at_once(
    s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"store s3://nobucket/x cannot be read: .*make the bucket first"):
        Store("s3://nobucket/x")
    assert proxy.count() == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nobody.invalid")
    began = time.monotonic()
    with pytest.raises(
        StoreError, match=r"nobody\.invalid.*; check the address, and the variable AWS_ENDPOINT_URL"
    ):
        Store(s3)
    assert time.monotonic() - began < 8


def test_addresses_that_would_be_misread_are_refused_without_their_secrets() -> None:
    for url, said in {
        "s3://": "names no bucket",
        "s3://name:hidden-word@bucket/runs": "credentials come from the environment",
        "s3://bucket/runs?token=hidden-word": "credentials come from the environment",
        "simplecache::s3://bucket/runs": "answer from a cache",
    }.items():
        with pytest.raises(StoreError, match=said) as told:
            Store(url)
        assert "hidden-word" not in str(told.value)
    with pytest.raises(StoreError, match="gcsfs"):
        Store("gs://bucket/runs")


class Boto(Exception):  # noqa: N818
    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class Google(Exception):  # noqa: N818
    def __init__(self, code: int) -> None:
        super().__init__(f"error, {code}")
        self.code = code


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (FileNotFoundError("x"), "missing"),
        (FileExistsError("x"), "exists"),
        (Boto("NoSuchBucket"), "no bucket"),
        (Boto("ConditionalRequestConflict", 409), "passing"),
        (Boto("", 503), "passing"),
        (Boto("PermanentRedirect", 301), "region"),
        (Boto("InvalidRange", 416), "empty"),
        (Google(503), "passing"),
        (Google(401), "denied"),
        (OSError("Forbidden: b/x\nno"), "denied"),
        (PermissionError("no"), "denied"),
        (TimeoutError(), "passing"),
        (ConnectionResetError(), "passing"),
        (OSError(5, "bad disk"), "other"),
        (ValueError("no such option"), "other"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://h"), "passing"),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="http://h"), "passing"),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://h"), "passing"),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="http://h"), "passing"),
        (botocore.exceptions.NoCredentialsError(), "denied"),
        (botocore.exceptions.ProfileNotFound(profile="x"), "denied"),
        (botocore.exceptions.ParamValidationError(report="no"), "other"),
    ],
)
def test_what_errors_mean(error: Exception, meaning: str) -> None:
    assert judge(error).meaning == meaning
    wrapped = OSError("wrapped")
    wrapped.__cause__ = error
    if meaning not in ("other", "denied"):
        assert judge(wrapped).meaning == meaning


def test_credentials_of_every_kind_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-value")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:pass-word@host")
    monkeypatch.setenv("FSSPEC_S3_SECRET", "fsspec-value")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    found = secrets_around(
        {"key": "key-value", "anon": False, "client_kwargs": {"aws_secret_access_key": "deep-value"}}
    )
    assert {"token-value", "pass-word", "fsspec-value", "key-value", "deep-value"} <= set(found)
    assert "us-east-1" not in found


@pytest.mark.parametrize("fault", ["503", "drop", "AccessDenied", "InvalidAccessKeyId", "endpoint"])
def test_no_message_shows_a_secret(
    fault: str, s3: str, proxy: Proxy, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = f"wrong: {SECRET}, planted-name-of-the-account, planted-token"
    monkeypatch.setattr(
        "run.buckets.DENIED", f"<Error><Code>%s</Code><Message>{echo}</Message></Error>".encode()
    )
    monkeypatch.setattr(
        "run.buckets.SLOW_DOWN", f"<Error><Code>SlowDown</Code><Message>{echo}</Message></Error>".encode()
    )
    monkeypatch.setenv("AWS_SESSION_TOKEN", "planted-token")
    if fault == "endpoint":
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url.replace("//", "//planted-user:planted-password@"))
    else:
        proxy.fault = always(fault)
    with pytest.raises(StoreError) as told:
        Store(s3)
    for shown in (str(told.value), "".join(traceback.format_exception(told.value))):
        assert "planted-" not in shown
    if fault in ("AccessDenied", "503"):
        assert "wrong: ***, ***, ***" in str(told.value)


def test_a_store_travels_as_its_address_and_finds_its_configuration_again(s3: str) -> None:
    store = Store(s3)
    store.put(KEY, 1, {})
    data = pickle.dumps(store)
    assert b"planted" not in data
    assert len(data) < 200
    assert pickle.loads(data).get(KEY) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes are forked")
def test_a_forked_process_begins_anew(s3: str) -> None:
    script = f"""
import os, sys
from winticket.run import Store
store = Store({s3!r})
store.put({KEY!r}, 1, {{}})
child = os.fork()
if child == 0:
    os._exit(0 if store.get({KEY!r}) == 1 and Store({s3!r}).has({KEY!r}) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=True)


def test_two_commands_on_an_object_store_do_every_task_once(s3: str, proxy: Proxy) -> None:
    tasks = [task(jobs.slow, number=n, seconds=0.1) for n in range(6)]
    done: list[tuple[str, ...]] = []
    threads = [threading.Thread(target=lambda: done.append(run(tasks, s3).computed)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*done)) == sorted(t.key for t in tasks)
    assert Store(s3).verify() == []
    assert {e.name.partition("/")[0] for e in files_at(s3).entries()} == {"results", "winticket-store.json"}


def test_a_run_waits_out_bursts_and_one_that_is_given_up_loses_nothing(
    s3: str, proxy: Proxy, hasty: None
) -> None:
    tasks = [task(jobs.plant, seed=seed) for seed in range(4)]
    proxy.fault = lambda method, path, number: "503" if number % 3 == 0 else None
    assert len(run(tasks[:2], s3).computed) == 2
    proxy.fault = lambda method, path, number: "503" if tasks[3].key in path and method == "PUT" else None
    with pytest.raises((StoreError, RunError), match="cannot be"):
        run([tasks[2], tasks[3]], s3)
    proxy.forget()
    again = run(tasks, s3)
    assert (len(again.computed), len(again.reused)) == (1, 3)


def dead() -> int:
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    return int(done.stdout)


def test_claims_on_an_object_store_are_held_by_one_and_taken_over_by_one(s3: str, proxy: Proxy) -> None:
    store = Store(s3)
    store.check_writable()
    one, two = Claims(store), Claims(Store(s3))
    assert one.take(KEY) is None
    other = two.take(KEY)
    assert other is not None
    assert other.pid == os.getpid()
    one.give_back(KEY)
    assert two.take(KEY) is None
    two.close()
    assert store.claims() == {}
    for _ in range(3):
        gone = Claim("gone", host(), boot(), dead())
        store.files.write(f"claims/{KEY}.json", msgspec.json.encode(gone))
        takers, start = [Claims(store) for _ in range(4)], threading.Barrier(4)
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
        got[0].give_back(KEY, finished=True)
        for taker in takers:
            taker.close()
        assert store.claims() == {}
    one.close()


def test_what_was_changed_and_what_is_foreign_is_named_everywhere(anywhere: Store) -> None:
    other = "ab" + "1" * 62
    anywhere.put(KEY, torch.arange(100), {})
    anywhere.put_failure("ef" + "2" * 62, "no", {})
    name = f"results/ab/{KEY}.safetensors"
    data = anywhere.files.read(name)
    foreign = ["results/ab/notes.safetensors", "failures/x.json", "tmp/notes.txt"]
    for one in foreign:
        anywhere.files.write(one, b"precious")
    anywhere.files.write(f"results/ab/{other}.safetensors", data)
    assert sorted(p.name for p in anywhere.verify() if p.kind == "foreign") == sorted(foreign)
    assert [p.name for p in anywhere.verify() if p.kind == "damaged"] == [f"results/ab/{other}.safetensors"]
    with pytest.raises(Damaged, match="it is the file of task ab0000000000, not of this task"):
        anywhere.get(other)
    anywhere.files.write(name, data[:-3] + bytes([data[-3] ^ 4]) + data[-2:])
    with pytest.raises(Damaged, match="damaged"):
        anywhere.get(KEY)
    removed = anywhere.gc(damaged=True, failures=True)
    assert sorted(r.why for r in removed) == ["damaged", "damaged", "failures are to be tried again"]
    assert anywhere.ls() == []
    assert all(anywhere.files.read(one) == b"precious" for one in foreign)


def test_requests_per_task_stay_few(s3: str, proxy: Proxy) -> None:
    tasks = [task(jobs.plant, seed=seed, size=2) for seed in range(30)]
    store = Store(s3)
    store.check_writable()
    proxy.forget()
    run(tasks[:1], store)
    one = proxy.count()
    run(tasks, store)
    proxy.forget()
    outcomes = run(tasks, store)
    outcomes.require()
    assert len(outcomes.reused) == 30
    assert proxy.count() <= 4
    assert one <= 20
    proxy.forget()
    Store(s3)
    assert proxy.count() == 1


def test_the_marker_of_a_remote_store_is_looked_for_every_few_seconds(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(s3)
    store.put(KEY, 1, {})
    files = files_at(s3)
    for entry in files.entries():
        files.remove(entry.name)
    store.require()
    monkeypatch.setattr("winticket.run.shelf._PRESENT", 0.0)
    with pytest.raises(StoreError, match="is gone"):
        store.put(KEY, 1, {})


def test_other_file_systems_write_aside_and_move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = RemoteFiles(f"local://{tmp_path}/runs")
    seen: list[str] = []
    fs = files._fs
    move = fs.mv

    def mv(old: str, new: str) -> None:
        seen.append(old)
        move(old, new)

    monkeypatch.setattr(fs, "mv", mv)
    files.write("results/a", b"one")
    files.write("results/a", b"two")
    assert files.read("results/a") == b"two"
    assert all("/tmp/a." in old for old in seen)
    assert len(seen) == 2
    assert [entry.name for entry in files.entries()] == ["results/a"]


def test_a_secret_is_hidden_before_a_message_is_cut() -> None:
    """Cut first, the beginning of the secret would be shown."""
    asking = Asking("s3://bucket/runs", {"secret": "planted-secret-of-thirty-letters"})

    def refuse() -> None:
        raise PermissionError("x" * 270 + " planted-secret-of-thirty-letters " + "y" * 90)

    with pytest.raises(StoreError) as told:
        asking("be read", refuse)
    assert "x" * 100 in str(told.value)
    assert "planted" not in str(told.value)
    assert len(str(told.value)) < 600
