"""Draw a run's figures and its page from its numbers: when it finishes, and again whenever that is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winticket.experiment.analysing import Analysable, stored_analyses
from winticket.experiment.folder import OutputFolder
from winticket.outside import Unreadable, read_file, read_json
from winticket.places import ANALYSED, FIGURES, PAGE, RESULT
from winticket.results import Document, LearningCurve, Masks
from winticket.run import StoreError
from winticket.text import cleaned, visible

if TYPE_CHECKING:
    from winticket.report.analysed import Shown

MOST = 1 << 28
"""Bytes of a file of an analysis."""


@dataclass(frozen=True)
class Numbers:
    """What figures and page are drawn from.

    document  the result document; curves: of every finished training
    masks     what the tickets keep; None if that is not known
    analyses  what is known of why they win
    """

    document: Document
    curves: Sequence[LearningCurve]
    masks: Masks | None = None
    analyses: Sequence[Shown] = ()


def present(
    output: OutputFolder, numbers: Numbers, *, elapsed: Callable[[], float], whole: bool = False
) -> Document:
    """Write figures and page; returns the document with their paths. Either may fail: the document then says so.

    elapsed  seconds that the run has taken, asked before the page is written
    whole    whether to keep what is there, and raise ValueError, if anything cannot be drawn
    """
    from winticket import report  # It imports matplotlib, which is slow.

    unwritten: dict[str, str] = {}
    figures: list[Path] = []

    def failed(name: str, error: Exception) -> None:
        if whole and not isinstance(error, OSError):
            raise ValueError(f"{name} cannot be drawn ({type(error).__name__}: {error})") from error
        if whole:
            raise error
        unwritten[name] = visible(f"{type(error).__name__}: {error}")

    old = [f"{FIGURES}/{name}.{kind}" for name in report.FIGURE_NAMES for kind in report.FIGURE_KINDS]
    masks = numbers.masks
    try:
        with output.staged(instead_of=old) as new:
            figures = report.draw_all(
                numbers.document, numbers.curves, new / FIGURES, masks=masks, failed=failed
            )
    except Exception as error:  # noqa: BLE001 - a drawing library may raise anything
        figures = []
        failed("figures", error)
    document = numbers.document.copy()
    document.pop("unwritten", None)
    document["report"] = str(output.path / PAGE)
    document["figures"] = [str(output.path / FIGURES / path.name) for path in figures]
    document["seconds"] = elapsed()
    try:
        with output.staged() as new:
            report.write_page(document, numbers.curves, new / PAGE, masks=masks, analyses=numbers.analyses)
    except Exception as error:  # noqa: BLE001 - a drawing library may raise anything
        document["report"] = None
        failed("report", error)
    if unwritten:
        document["unwritten"] = unwritten
    clean: Document = cleaned(document)
    return clean


def write_document(output: OutputFolder, document: Document) -> None:
    """Replace the folder's result.json."""
    with output.staged() as new:
        dump(new / RESULT, document)


def dump(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write JSON. ValueError for a number that is not finite."""
    path.write_text(json.dumps(value, indent=indent, allow_nan=False), encoding="utf-8")


def analyses_of(run: Analysable, folder: Path) -> list[Shown]:
    """The analyses whose tables the run's store has, with the options that were last given; nothing is computed.

    Empty if the store cannot be read: the page is then without them.
    """
    from winticket.report.analysed import Shown

    options = _last_options(folder / ANALYSED)
    try:
        made = stored_analyses(run, options=options)
    except (StoreError, OSError, ValueError):
        return []
    return [
        Shown(one.analysis, one.table, one.sentences, one.reason, options.get(one.analysis.name, {}))
        for one in made
    ]


def _last_options(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """By analysis, the options of the files that `winticket analyse` has left in a folder."""
    found: dict[str, Mapping[str, Any]] = {}
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            read = read_json(read_file(file, limit=MOST), dict[str, Any], limit=MOST)
        except (OSError, Unreadable, ValueError):
            continue
        name, options = read.get("name"), read.get("options")
        if isinstance(name, str) and isinstance(options, dict) and options:
            found[name] = options
    return found
