"""Run two commands at once on one store: both must succeed, and no training may run twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from chaos.commands import SEARCH, start, traceback_in
from chaos.counts import Count

FIND = ("find", "digits", *SEARCH, "--workers", "1", "--store", "runs", "--json")
TWO = (*FIND, "--replicates", "2")
PAIRS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "the same search": ((*TWO, "--out", "a"), (*TWO, "--out", "b")),
    "more replicates": ((*TWO, "--out", "a"), (*FIND, "--replicates", "4", "--out", "b")),
    "another level": ((*TWO, "--out", "a"), (*TWO, "--density", "0.1", "--out", "b")),
    "another control": ((*TWO, "--out", "a"), (*TWO, "--control", "signs", "--out", "b")),
    "one-shot and iterative": ((*TWO, "--out", "a"), (*TWO, "--method", "one-shot", "--out", "b")),
    "with gc": ((*TWO, "--out", "a"), ("store", "gc", "--store", "runs")),
    "with verify": ((*TWO, "--out", "a"), ("store", "verify", "--store", "runs")),
    "with ls": ((*TWO, "--out", "a"), ("store", "ls", "--store", "runs")),
}


def run(scratch: Path, seed: int, many: int, say: Callable[[str], None]) -> list[Count]:
    """Every pair, `many` / 100 times."""
    del seed
    count = Count("pairs of commands on one store")
    for again in range(max(1, many // 100)):
        for name, (one, two) in PAIRS.items():
            folder = scratch / f"pair-{again}-{name.replace(' ', '-')}"
            folder.mkdir(parents=True)
            if two[0] == "store":  # It needs an existing store.
                start(folder, "find", "digits", *SEARCH, "--replicates", "1", "--store", "runs").end()
            commands = [start(folder, *words) for words in (one, two)]
            ended = [command.end() for command in commands]
            count.tried += 1
            _judge(count, name, ended, folder)
            say(f"pairs: {name}")
    return [count]


def _judge(count: Count, name: str, ended: list[tuple[int | None, str, str]], folder: Path) -> None:
    for status, _, err in ended:
        if status != 0 or traceback_in(err):
            count.raw += 1
            count.notes.append(f"{name}: exit status {status}: {err[-300:]}")
    computed = sum(
        json.loads(out)["computed"] for status, out, _ in ended if status == 0 and out.startswith("{")
    )
    stored = len(list((folder / "runs" / "results").rglob("*.safetensors")))
    before = _alone(folder)
    if computed > stored - before:
        count.twice += computed - (stored - before)
        count.notes.append(f"{name}: {computed} trainings for {stored - before} results")
    if list((folder / "runs" / "claims").glob("*.json")):
        count.lost += 1
        count.notes.append(f"{name}: claims were left")


def _alone(folder: Path) -> int:
    """Number of results that the store had before the pair began."""
    reports = list((folder / "runs" / "reports").glob("*/result.json"))
    return sum(json.loads(path.read_text())["computed"] for path in reports)
