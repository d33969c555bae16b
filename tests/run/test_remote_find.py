"""The command on an object store: the same numbers as on a disk, its errors before any compute, and no secret kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from starting import INLINE, Started
from winticket.cli import main
from winticket.experiment import execution
from winticket.run import Store
from winticket.run import faults as judging
from winticket.run.remote import files_at

from .buckets import Proxy

QUICK = [
    *("digits", "--model", "lenet-20-10", "--steps", "20", "--evaluate-every", "10"),
    *("--levels", "1", "--replicates", "1", "--stack", "1", "--no-gate"),
]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, undrawn: None
) -> Command:
    """Runs the command in this process, in an empty folder; gives its exit status and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execution, "processes", lambda: 0)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["winticket", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def test_a_search_on_an_object_store_has_the_numbers_of_one_on_a_disk_and_keeps_no_secret(
    s3: str, proxy: Proxy, command: Command, tmp_path: Path
) -> None:
    said = []
    for where, workers in ((s3, ("--workers", "2")), ("runs", ())):
        status, out, err = command("find", *QUICK, "--store", where, *workers, "--json")
        assert status == 0, err
        said += [out, err]
    there, here = Store(s3), Store("runs")
    digests = {row.key: row.digest for row in there.ls()}
    assert digests == {row.key: row.digest for row in here.ls()}
    assert len(digests) >= 3
    assert there.verify() == here.verify() == []
    assert json.loads(said[0])["verdict"] == json.loads(said[2])["verdict"]
    for words in (("store", "ls"), ("store", "verify"), ("store", "gc"), ("plan", *QUICK)):
        status, out, err = command(*words, "--store", s3)
        assert status == 0, err
        said += [out, err]

    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    kept += [files_at(s3).read(entry.name) for entry in files_at(s3).entries()]
    assert len(kept) > 10
    assert not any(b"planted" in data for data in kept)
    assert not any("planted" in text for text in said)


def test_two_workers_on_an_object_store_have_the_numbers_of_one_command_on_a_disk(
    s3: str, command: Command, tmp_path: Path
) -> None:
    plan = (*QUICK, "--engine", "dense", "--replicates", "2")  # the later one counts
    assert command("find", *plan, "--store", s3, "--detach")[0] == 0
    # Each computes in its own process; what a worker's processes do to a store is in the tests of claims and of `work`.
    words = ("work", s3, "--json", "--quiet")
    both = [Started(*words, folder=tmp_path, program=INLINE) for _ in range(2)]
    said = [each.communicate(timeout=180)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    digests = {row.key: row.digest for row in Store(s3).ls()}
    assert sum(json.loads(each)["computed"] for each in said) == len(digests)
    assert Store(s3).claims() == {}
    assert command("find", *plan, "--store", "runs")[0] == 0
    assert digests == {row.key: row.digest for row in Store("runs").ls()}


def test_what_cannot_work_is_told_before_anything_is_computed(
    s3: str, proxy: Proxy, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(store: str) -> str:
        status, out, err = command("find", *QUICK, "--store", store)
        assert (status, out) == (2, "")
        assert "Traceback" not in err
        assert "planted" not in err
        assert list(tmp_path.iterdir()) == []
        return " ".join(err.split())

    assert "Error: store s3://nobucket/x cannot be read:" in (told := refused("s3://nobucket/x"))
    assert "make the bucket first" in told
    assert "which s3:// does not read" in refused("s3://planted-name:planted-word@bucket/x")
    proxy.fault = lambda method, path, number: "AccessDenied" if method == "PUT" else None
    assert "cannot be written: PermissionError: You may not.; check the credentials" in refused(s3)
    proxy.fault = lambda method, path, number: "deaf"
    assert "cannot keep two writers apart" in refused(s3)
    monkeypatch.setattr(judging, "FIRST_SECONDS", 0.5)
    proxy.fault = lambda method, path, number: "503"
    assert "reduce your request rate.; tried" in refused(s3)
