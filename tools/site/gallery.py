"""Lays out the site's gallery: figures of a real run, each with what it says and the command that makes it.

Run it as `python -m tools.site.gallery`, or `make docs`. It shows runs/digits, as `make ticket` and
`winticket analyse runs/digits` leave it. Without these it makes a small run by the same commands, once, in one to three
minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import winticket
from winticket.analyse import ANALYSES
from winticket.experiment import Experiment, Run
from winticket.report.captions import captions
from winticket.report.reading import question_of, sentences
from winticket.report.titles import headline
from winticket.results import Document

ROOT = Path(__file__).parents[2]
FULL = Path("runs") / "digits"
OUT = Path("build") / "gallery"
SMALL = "--replicates 5 --steps 400 --levels 8 --rate 0.35"
"""Options of the small run: large enough for intervals, small enough for a build."""


@dataclass(frozen=True)
class Item:
    """A figure and what stands with it."""

    title: str
    """Of its section; empty for a further figure of the section before."""
    file: str
    sentence: str
    command: str


def small_run(folder: Path) -> Path:
    """Make the small run and its analyses. What the store of an earlier build has is not computed again."""
    run, store = folder / "run", folder / "store"
    shutil.rmtree(run, ignore_errors=True)  # a run with other options would not be overwritten
    for arguments in (
        ["find", "digits", *SMALL.split(), "--store", str(store), "--out", str(run)],
        ["analyse", str(run)],
    ):
        command = [sys.executable, "-m", "winticket", *arguments, "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def is_the_usual(run: Path) -> bool:
    """Whether a folder has the finished search of `winticket find digits`, without options, and its analyses."""
    if not ((run / "result.json").exists() and any((run / "analyses").glob("*.json"))):
        return False
    return winticket.open(run).plan.experiment == Experiment.of("digits")


def of_the_search(run: Run, document: Document, out: Path, command: str) -> Iterator[Item]:
    """The figures of the page of a run."""
    for name, caption in captions(document).items():
        picture = run.folder / "figures" / f"{name}.svg"
        if picture.exists():
            shutil.copy(picture, out)
            yield Item(name.replace("_", " ").capitalize(), picture.name, caption, command)


def of_analyses(run: Run, out: Path, folder: str) -> Iterator[Item]:
    """The figures of every analysis in the run's folder; only the first of each has its own heading."""
    for name, analysis in ANALYSES.items():
        file = run.folder / "analyses" / f"{name}.json"
        if not file.exists():
            continue
        said = " ".join(json.loads(file.read_text(encoding="utf-8"))["sentences"])
        for number, lines in enumerate(analysis.lines):
            picture = file.with_name(f"{name}{f'-{number + 1}' if number else ''}.svg")
            if picture.exists():
                shutil.copy(picture, out)
                also = f"From the same table: {lines.y_label}, against {lines.x_label}."
                title, sentence = ("", also) if number else (analysis.title, said)
                yield Item(title, picture.name, sentence, f"winticket analyse {folder} {name}")


def page(run: Run, out: Path, *, folder: str, command: str) -> str:
    """Copy the figures of a finished run to `out`, and return what follows docs/gallery.md."""
    document = run.document
    if document is None:
        raise ValueError(f"the run in {run.folder} is unfinished: it has no verdict to show")
    text = [
        f"**The run.** `{command}`: {question_of(document)['replicates']} replicates. {headline(document)}. "
        f"{' '.join(sentences(document))}\n",
        "## The search\n",
        *map(entry, of_the_search(run, document, out, command)),
        "## Analyses\n",
        *map(entry, of_analyses(run, out, folder)),
    ]
    return "\n".join(text)


def entry(item: Item) -> str:
    """The Markdown of an item."""
    heading = f"### {item.title}\n\n" if item.title else ""
    figure = f"![{item.title or item.sentence}](gallery/{item.file}){{ loading=lazy }}"
    return f"{heading}[{figure}](gallery/{item.file})\n\n{item.sentence}\n\n```\n{item.command}\n```\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", type=Path, default=ROOT / FULL, help="a finished run on digits with its analyses"
    )
    parser.add_argument("--out", type=Path, default=ROOT / OUT, help="the folder of the gallery")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("*.svg"):
        old.unlink()
    full = is_the_usual(given.run)
    run, folder, options = (
        (given.run, "runs/digits", []) if full else (small_run(given.out), "runs/small", [SMALL])
    )
    command = " ".join(["winticket find digits", *options, "--out", folder])
    (given.out / "figures.md").write_text(
        page(winticket.open(run), given.out, folder=folder, command=command)
    )


if __name__ == "__main__":
    main()
