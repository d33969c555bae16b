"""Draw the figures and the page of a finished run again, from the numbers in its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from winticket.experiment.documents import LARGEST
from winticket.experiment.folder import OutputFolder
from winticket.experiment.masks import Kept, network_of, plane, require_masks
from winticket.experiment.opened import Run
from winticket.experiment.opening import document_of, open  # noqa: A004 - winticket.open
from winticket.experiment.presenting import Numbers, analyses_of, dump, present, write_document
from winticket.outside import Unreadable, read_file, read_json
from winticket.places import CURVES, MASKS, PAGE, RESULT, TICKET, result_file
from winticket.results import Document, LearningCurve, Masks
from winticket.run import StoreError
from winticket.text import cleaned, visible

T = TypeVar("T")
LARGEST_MASKS = 1 << 26
"""Most bytes of masks.json."""


@dataclass(frozen=True)
class Rewritten:
    """What became of a rewritten report.

    document  with the paths of what was written
    notes     what could not be shown, and why
    """

    document: Document
    notes: tuple[str, ...]


def rewrite(
    path: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None, trust: Sequence[str] = ()
) -> Rewritten:
    """Write the figures and the page of a finished run again; nothing is computed.

    They are made of the folder's result.json, curves.json and masks.json, and of the analyses that the run's store has.
    Without the store, or without `trust` in what the document names, the page has what the folder alone gives, and
    `notes` says what it lacks. Arguments as for `winticket.open`.

    Raises FileNotFoundError if there is no finished run, ValueError if its document cannot be read or drawn, and
    OSError if the folder cannot be written. Then the run has kept its result, its page and all of its figures.
    """
    file = result_file(Path(path))
    folder, notes = file.parent, list[str]()
    document = relocated(document_of(file), folder)
    run = _opened(file, store, trust, notes)
    curves = _read(folder / CURVES, list[LearningCurve], notes, require=require_curves) or []
    unread = [] if run is not None else notes
    masks = _read(folder / MASKS, Masks, unread, limit=LARGEST_MASKS, require=require_masks)
    masks = None if masks is None else cleaned(masks)
    output = OutputFolder(folder)
    if run is not None:
        document = _with_network(document, run)
        masks = masks or _masks_of(run, notes)
    if masks is not None and not (folder / MASKS).is_file():
        with output.staged() as new:
            dump(new / MASKS, masks, indent=None)
        document["masks"] = str(folder / MASKS)
    seconds = document["seconds"]
    analyses = [] if run is None else analyses_of(run, folder)
    numbers = Numbers(document, curves, masks, analyses)
    document = present(output, numbers, elapsed=lambda: seconds, whole=True)
    write_document(output, document)
    return Rewritten(document, tuple(notes))


def relocated(document: Document, folder: Path) -> Document:
    """The document with the present paths of its own files: a run's folder may have moved.

    >>> document = {"results": "old/result.json", "report": "old/report.html", "ticket": None}
    >>> relocated(document, Path("new"))["report"]
    'new/report.html'
    """
    old, moved = Path(document["results"]).parent, document.copy()
    if old == folder:
        return moved
    moved["results"] = str(folder / RESULT)
    if document.get("report") is not None:
        moved["report"] = str(folder / PAGE)
    if document.get("ticket") is not None:
        moved["ticket"] = str(folder / TICKET)
    if document.get("curves") is not None:
        moved["curves"] = str(folder / CURVES)
    if document.get("masks") is not None:
        moved["masks"] = str(folder / MASKS)
    moved["figures"] = [
        str(folder / Path(figure).relative_to(old)) if Path(figure).is_relative_to(old) else figure
        for figure in document.get("figures", ())
    ]
    return moved


def _opened(
    file: Path, store: str | os.PathLike[str] | None, trust: Sequence[str], notes: list[str]
) -> Run | None:
    try:
        return open(file, store=store, trust=trust)
    except (FileNotFoundError, ValueError, StoreError) as error:
        notes.append(f"The page is written without analyses, since the run cannot be opened: {error}")
        return None


def _read(
    file: Path, kind: type[T], notes: list[str], *, limit: int = LARGEST, require: Callable[[T], object]
) -> T | None:
    """The content of one of the folder's files; None, with a note, if it cannot be read or is none of a run."""
    try:
        content = read_json(read_file(file, limit=limit), kind, limit=limit)
        require(content)
        return content
    except (OSError, Unreadable, ValueError) as error:
        notes.append(f"The page lacks what {file.name} would show, since that file cannot be read: {error}")
        return None


def require_curves(curves: Sequence[LearningCurve]) -> None:
    """Refuse curves that no run writes. ValueError says what is wrong."""
    if strange := next((name for name in {curve["arm"] for curve in curves} if visible(name) != name), None):
        raise ValueError(f"an arm is called {visible(strange)!r}")
    for curve in curves:
        lengths = {len(values) for values in curve.values() if isinstance(values, list)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError("a curve has lists that are empty or not of the same length")
    if len({tuple(curve["step"]) for curve in curves}) > 1:
        raise ValueError("curves are not measured at the same steps")


def _with_network(document: Document, run: Run) -> Document:
    """The document with the network's size, which older documents lack."""
    whole = document.copy()
    whole.setdefault("network", network_of(run.plan))
    return whole


def _masks_of(run: Run, notes: list[str]) -> Masks | None:
    """What the tickets keep, counted in the store: older folders have no masks.json."""
    kept = Kept(plane(run.plan.setup, run.plan.question.eligible))
    try:
        for training in run.trainings("ticket"):
            kept.add(training.level, training.mask)
    except (StoreError, OSError) as error:
        notes.append(f"The page lacks what the masks would show, since the store cannot be read: {error}")
        return None
    return kept.means(run.densities, network_of(run.plan)) if kept.count else None
