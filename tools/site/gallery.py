"""Draws the site's gallery: figures of a real run, each with what it says and the command that makes it.

Run it as `python -m tools.site.gallery`, or `make docs`. It shows runs/digits, as `make ticket` and
`winticket analyse runs/digits` leave it. Without these it makes a small run of its own, once, in two or three minutes.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import winticket
from winticket.analyse import Analysis
from winticket.experiment import Execution, Run
from winticket.experiment.rewriting import stored_analyses
from winticket.outside import read_file, read_json
from winticket.places import CURVES
from winticket.report.analysed import Shown, drawn
from winticket.report.captions import captions
from winticket.report.figures import figures
from winticket.report.ink import LIGHT
from winticket.report.reading import question_of, sentences
from winticket.report.saving import image
from winticket.report.titles import headline
from winticket.results import Document, LearningCurve
from winticket.table import Table

ROOT = Path(__file__).parents[2]
FULL = Path("runs") / "digits"
OUT = Path("build") / "gallery"
SMALL: dict[str, Any] = {"replicates": 5, "steps": 400, "levels": 8, "rate": 0.35}
"""Options of the small run: large enough for intervals, small enough for a build."""
LARGEST = 1 << 30


@dataclass(frozen=True)
class Item:
    """A figure and what stands with it."""

    title: str
    """Of its section; empty for a further figure of the section before."""
    file: str
    sentence: str
    command: str


def small_run(folder: Path) -> Run:
    """The small run with its analyses; what the store of an earlier build has is computed no more."""
    how = Execution.local(str(folder / "store"))
    shutil.rmtree(folder / "run", ignore_errors=True)  # a run with other options would not be overwritten
    winticket.find("digits", out=folder / "run", store=folder / "store", **SMALL)
    run = winticket.open(folder / "run")
    run.analyse(execution=how)
    return run


def is_analysed(run: Path) -> bool:
    """Whether a finished run and its analyses are in a folder."""
    return (run / "result.json").exists() and any((run / "analyses").glob("*.csv"))


def of_the_search(run: Run, document: Document, out: Path, command: str) -> Iterator[Item]:
    """The figures of the page of a run."""
    curves = read_json(read_file(run.folder / CURVES, limit=LARGEST), list[LearningCurve], limit=LARGEST)
    below = captions(document)
    for name, draw in figures(document, curves).items():
        figure, _ = draw(LIGHT)
        (out / f"{name}.svg").write_bytes(image(figure, "svg", letters=True))
        yield Item(name.replace("_", " ").capitalize(), f"{name}.svg", below[name], command)


def of_analyses(shown: Sequence[Shown], out: Path, folder: str, subtitle: str) -> Iterator[Item]:
    """The figures of every analysis that has rows to draw; only the first of each has its own heading."""
    for one in shown:
        for number in drawable(one.analysis, one.table):
            name = f"{one.analysis.name}{f'-{number + 1}' if number else ''}.svg"
            figure = drawn(one.analysis, one.table, number=number, subtitle=subtitle)
            (out / name).write_bytes(image(figure, "svg", letters=True))
            lines = one.analysis.lines[number]
            also = f"From the same table: {lines.y_label}, against {lines.x_label}."
            sentence = also if number else " ".join(one.sentences)
            command = f"winticket analyse {folder} {one.analysis.name}"
            yield Item("" if number else one.analysis.title, name, sentence, command)


def drawable(one: Analysis, table: Table) -> list[int]:
    """The figures for which the table has rows."""
    return [number for number, lines in enumerate(one.lines) if table.where(**dict(lines.where)).values]


def page(run: Run, out: Path, *, folder: str, command: str) -> str:
    """Draw the figures of a finished run into `out`, and return what follows docs/gallery.md."""
    document = run.document
    if document is None:
        raise ValueError(f"the run in {run.folder} is unfinished: it has no verdict to show")
    question = question_of(document)
    setup = run.plan.setup
    subtitle = f"{setup.data} · {setup.model} · mean, 95 % t interval"
    analyses = list(of_analyses(stored_analyses(run), out, folder, subtitle))
    text = [
        f"**The run.** `{command}`: {question['replicates']} replicates. {headline(document)}. "
        f"{' '.join(sentences(document))}\n",
        "## The search\n",
        *map(entry, of_the_search(run, document, out, command)),
        "## Analyses\n",
        *map(entry, analyses),
    ]
    return "\n".join(text)


def entry(item: Item) -> str:
    """The Markdown of an item."""
    heading = f"### {item.title}\n\n" if item.title else ""
    figure = f"![{item.title or item.sentence}](gallery/{item.file}){{ loading=lazy }}"
    return f"{heading}[{figure}](gallery/{item.file})\n\n{item.sentence}\n\n```\n{item.command}\n```\n"


def command_of(options: dict[str, Any], folder: str) -> str:
    """What one types for a search on digits with these options."""
    typed = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    return " ".join(["winticket find digits", *typed, "--out", shlex.quote(folder)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", type=Path, default=ROOT / FULL, help="a finished run on digits with its analyses"
    )
    parser.add_argument("--out", type=Path, default=ROOT / OUT, help="the folder to draw into")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("*.svg"):
        old.unlink()
    if is_analysed(given.run):
        run, folder, options = winticket.open(given.run), FULL.as_posix(), dict[str, Any]()
    else:
        run, folder, options = small_run(given.out), "runs/small", SMALL
    text = page(run, given.out, folder=folder, command=command_of(options, folder))
    (given.out / "figures.md").write_text(text)


if __name__ == "__main__":
    main()
