"""Change the documents of a run's folder: result.json, run.json and those beside them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from chaos.counts import Count
from chaos.mutations import by_accident, json_text
from chaos.reading import Say, attempt, isolated
from winticket import report
from winticket.experiment import Experiment, conduct, load_source, plan, rewriting, transferred
from winticket.experiment import open as open_run
from winticket.experiment.documents import read_document
from winticket.experiment.masks import require_masks
from winticket.experiment.opening import document_of
from winticket.experiment.presenting import analyses_of
from winticket.places import ANALYSED, COMPARISON, CURVES, MASKS, RESULT, STARTED
from winticket.results import SCHEMA, Comparison, LearningCurve, Masks
from winticket.run import StoreError

Readers = tuple[Callable[[Path], Any], ...]

COMPARED = Path(__file__).parents[1] / "tests" / "experiment" / "frozen" / COMPARISON
NAMED = (ValueError, FileNotFoundError, StoreError)


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """Read `many` changed documents, as many of each kind."""
    with isolated(scratch):
        return documents(scratch, Random(seed), many, say)


def documents(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Documents of a small search, and a comparison: half of them are damaged, half have odd entries."""
    experiment = Experiment.of(
        "digits", model="lenet-12-8", density=(0.5,), steps=20, replicates=2, gate=False
    )
    conduct(experiment, store=folder / "runs", out=folder / "out", workers=0)
    out, question = folder / "out", plan(experiment).experiment.describe()
    moved = plan(transferred(experiment, lr=0.01)).experiment.describe()
    for name, asked in (("begun", question), ("moved", moved)):
        (folder / name).mkdir()
        asked_of = {"schema": SCHEMA, "experiment": asked, "store": str(folder / "runs")}
        (folder / name / STARTED).write_text(json.dumps(asked_of))
    compared = {**json.loads(COMPARED.read_text()), "schema": SCHEMA}
    (out / COMPARISON).write_text(json.dumps(compared))
    (out / ANALYSED).mkdir()
    (out / ANALYSED / "overlap.json").write_text(
        json.dumps({"name": "overlap", "options": {"arm": "ticket"}})
    )
    opened = open_run(out)
    notes: list[str] = []
    begun = {folder / name / STARTED: (lambda file: open_run(file.parent),) for name in ("begun", "moved")}
    beside: dict[Path, Readers] = {
        out / MASKS: (lambda file: rewriting._read(file, Masks, notes, require=require_masks),),
        out / CURVES: (
            lambda file: rewriting._read(file, list[LearningCurve], notes, require=rewriting.require_curves),
        ),
        out / COMPARISON: (lambda file: _screen(report.comparison_screen(read_document(file, Comparison))),),
        out / ANALYSED / "overlap.json": (lambda file: analyses_of(opened, file.parents[1]),),
    }
    kinds: tuple[tuple[str, Mapping[Path, Readers]], ...] = (
        ("result documents", {out / RESULT: (load_source, _final)}),
        ("run.json of unfinished runs", begun),
        ("masks, curves, comparisons and analyses of a folder", beside),
    )
    return [_changed(what, readers, rng, max(1, many // len(kinds)), say) for what, readers in kinds]


def _changed(what: str, readers: Mapping[Path, Readers], rng: Random, many: int, say: Say) -> Count:
    """Change one file after the other, and read it."""
    count, texts = Count(what), {path: path.read_text() for path in readers}
    for number in range(many):
        path = rng.choice(list(readers))
        text = texts[path]
        odd = json_text(text, rng).encode("utf-8", "surrogatepass")
        path.write_bytes(odd if number % 2 else by_accident(text.encode(), rng))
        count.tried += 1
        for read in readers[path]:
            attempt(count, number, partial(read, path), NAMED)
        path.write_text(text)
        if number % 1000 == 999:
            say(f"{what}: {number + 1} of {many}")
    return count


def _final(file: Path) -> str:
    return _screen(report.final_screen(document_of(file)))


def _screen(shown: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100).print(shown)
    return stream.getvalue()
