"""Killed, stopped and started again: no finished training runs twice, and the numbers are those of one quiet run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from starting import Started
from winticket import report
from winticket.experiment import Experiment, conduct
from winticket.run import Event, Interrupted, Store

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for left-over processes in /proc")

KILLS = 20
CHOICES: dict[str, Any] = {
    "model": "lenet-20-10",
    "steps": 40,
    "evaluate_every": 5,
    "levels": 8,
    "replicates": 4,
    "stack": 2,
    "rate": 0.3,
}
WORDS = ["find", "digits", *(f"--{name.replace('_', '-')}={value}" for name, value in CHOICES.items())]

# Everything is imported once; each start is a fork of that, in a process group of its own. Trainings are computed in
# that process and put aside often, so that a kill mostly finds one that was under way.
TEMPLATE = """
import os, sys
import torch, torch._dynamo
import winticket.cli, winticket.judge, winticket.report, winticket.experiment.execution as execution
torch.set_num_threads(1)
execution.processes = lambda: 0
execution.Execution.__init__.__kwdefaults__["checkpoint_seconds"] = 0.02
winticket.report.draw_all = lambda *_, **__: []
winticket.report.write_page = lambda *_, **__: None
from winticket.experiment import Experiment, conduct
small = Experiment.of("digits", model="lenet-20-10", steps=4, levels=1, replicates=2)
conduct(small, store="memory://warm", out="warm", workers=0)  # which has the data and the last of torch read
while sys.stdin.readline():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["winticket", *sys.argv[1:]]
        try:
            winticket.cli.main()
        except SystemExit as left:
            os._exit(left.code or 0)
        finally:
            sys.stderr.flush()
        os._exit(99)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Template:
    """Starts the command again and again without importing everything again."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.errors = (folder / "stderr").open("w+")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", TEMPLATE, *words],
            stdin=pipe, stdout=pipe, stderr=self.errors, text=True, cwd=folder,
        )  # fmt: skip

    def start(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self._number()

    def status(self) -> int:
        """Waits for the end of what was started."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            pytest.fail(f"the template ended: {self.errors.read()}")
        return int(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The document of a run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_all", lambda *_, **__: [])
        patch.setattr(report, "write_page", lambda *_, **__: None)
        store = tmp_path_factory.mktemp("quiet")
        yield numbers(conduct(Experiment.of("digits", **CHOICES), store=store, workers=0).document)


def numbers(document: Any) -> dict[str, Any]:
    told = {
        name: document[name] for name in ("verdict", "levels", "dense_doubled", "failures", "keys", "data")
    }
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain


def results(store: Path) -> dict[str, tuple[int, int]]:
    found = (store / "results").rglob("*.safetensors")
    return {p.stem: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def in_group(group: int) -> list[str]:
    """Living processes of a process group."""
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z" and int(fields[2]) == group:
                alive.append(entry.name)
    return alive


def kill_group(group: int) -> None:
    """Ends every process of the group at once, and waits until none is left."""
    os.killpg(group, signal.SIGKILL)
    wait_gone(group)


def wait_gone(group: int) -> None:
    until = time.monotonic() + 10
    while in_group(group) and time.monotonic() < until:
        time.sleep(0.005)
    assert in_group(group) == []


def wait_for_more(store: Path, count: int, *, seconds: float = 60.0) -> None:
    """Until the store has more results than `count`."""
    until = time.monotonic() + seconds
    while len(results(store)) <= count and time.monotonic() < until:
        time.sleep(0.005)


def document_in(store: Path) -> Any:
    (found,) = store.rglob("result.json")
    return json.loads(found.read_text())


def test_killed_at_twenty_moments(quiet: dict[str, Any], tmp_path: Path) -> None:
    store, chance = tmp_path / "runs", random.Random(2019)
    template = Template(tmp_path, [*WORDS, "--store", str(store), "--quiet"])
    killed, partials = 0, 0
    while killed < KILLS:
        before = results(store)
        group = template.start()
        if chance.random() < 0.5:
            time.sleep(chance.random() * 0.3)  # while it starts, plans, or trains its first
        else:
            wait_for_more(store, len(before))
            time.sleep(chance.random() * 0.1)
        kill_group(group)
        assert template.status() == -signal.SIGKILL, (
            "it was done before it could be killed: give it more to do"
        )
        killed += 1
        assert before.items() <= results(store).items()  # the very same files
        partials += any((store / "partial").rglob("*.safetensors"))
    before = results(store)
    assert 0 < len(before) < len(quiet["keys"])
    assert partials > 0  # some kills found a training that had been put aside
    template.start()
    assert template.status() == 0
    template.close()
    document = document_in(store)
    assert before.items() <= results(store).items()
    assert (document["reused"], document["computed"]) == (len(before), len(quiet["keys"]) - len(before))
    assert numbers(document) == quiet
    Store(store).gc()
    assert Store(store).verify() == []
    assert not any((store / "tmp").iterdir())


def test_the_command_with_workers_killed_as_a_group(quiet: dict[str, Any], tmp_path: Path) -> None:
    """The real thing, in all its processes: main, its tracker of resources, the server that forks, two workers."""
    store, chance = tmp_path / "runs", random.Random(7)
    command = [sys.executable, "-m", "winticket", *WORDS, "--store", str(store), "--workers", "2", "--quiet"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    wait_for_more(store, 0)
    time.sleep(chance.random() * 0.5)
    assert len(in_group(process.pid)) >= 5
    kill_group(process.pid)
    assert process.communicate()[1] == b""
    assert process.returncode == -signal.SIGKILL
    before = results(store)
    assert 0 < len(before) < len(quiet["keys"])
    result = conduct(Experiment.of("digits", **CHOICES), store=store, workers=0)
    assert len(result.outcomes.computed) == len(quiet["keys"]) - len(before)
    assert before.items() <= results(store).items()
    assert numbers(result.document) == quiet


LONG = {**CHOICES, "steps": 20_000, "evaluate_every": 20, "levels": 1, "replicates": 1, "gate": False}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_ctrl_c_says_how_to_go_on_and_loses_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """A training of half a minute is interrupted; what is put aside is there, and whatever starts goes on from it.

    Ctrl-C meets the command as people start it.
    """
    store = tmp_path / "runs"
    words = [
        "find",
        "digits",
        *(f"--{n.replace('_', '-')}={v}" for n, v in LONG.items() if n != "gate"),
        "--no-gate",
    ]
    words += ["--store", str(store), "--workers", "1"]
    process: Started | subprocess.Popen[str]
    if number == signal.SIGINT:
        command, pipe = [sys.executable, "-m", "winticket", *words], subprocess.PIPE
        process = subprocess.Popen(command, start_new_session=True, stderr=pipe, stdout=pipe, text=True)
    else:  # without an estimate and its seconds, and as loud about a signal
        process = Started(*words, "--quiet", folder=tmp_path)
    until = time.monotonic() + 60
    # Main, its tracker of resources, the server that forks, and the worker.
    while len(in_group(process.pid)) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.5)
    os.killpg(process.pid, number)  # as a terminal does, and a cluster's queue
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "")
    assert "Traceback" not in err
    assert "Stopped after 0 tasks, with 4 to do" in err
    assert "the same call resumes from there" in err
    wait_gone(process.pid)
    (row,) = Store(store).ls()
    assert row.kind == "partial"
    assert not list(store.rglob("result.json"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_goes_on_inside_bit_for_bit(
    workers: int, quiet: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the midst of a training, again and again; each call gets some steps further."""
    monkeypatch.setattr(report, "draw_all", lambda *_, **__: [])
    monkeypatch.setattr(report, "write_page", lambda *_, **__: None)
    experiment = Experiment.of(
        "digits",
        **{
            **CHOICES,
            "levels": 1,
            "steps": 100,
            "evaluate_every": 10,
            "gate": False,
            "flip": True,
            "crop": 1,
        },
    )
    # In a process of its own as well: in this one, earlier tests have chosen kernels for shapes of their own, which may
    # be those of this network, and another instruction set adds up in another order.
    whole = conduct(experiment, store=tmp_path / "whole", workers=workers)
    store, seen = tmp_path / "runs", [0]

    def hear(event: Event) -> None:
        if event.kind == "progress" and event.step is not None and event.step > seen[-1] and event.step < 90:
            seen.append(event.step)
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(2):
        with pytest.raises(Interrupted, match="resumes from there"):
            conduct(experiment, store=store, workers=workers, watch=hear, checkpoint_seconds=0.0)
        assert [row.kind for row in Store(store).ls() if row.kind == "partial"]
    result = conduct(experiment, store=store, workers=workers, checkpoint_seconds=0.0)
    assert numbers(result.document) == numbers(whole.document)
    assert result.curves == whole.curves
    Store(store).gc()
    assert {row.kind for row in Store(store).ls()} == {"result"}
    digests = [{row.key: row.digest for row in Store(at).ls()} for at in (store, tmp_path / "whole")]
    assert digests[0] == digests[1]
