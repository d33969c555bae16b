"""Write the page of a run that is under way, and renew it until the run has finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winticket.experiment.folder import OutputFolder
from winticket.experiment.opened import Run
from winticket.experiment.opening import document_of, found, question_started
from winticket.experiment.sofar import SoFar
from winticket.places import PAGE, PROGRESS, RESULT, STARTED
from winticket.results import Document, LearningCurve, Unfinished


class OtherQuestionError(ValueError):
    """Another question has been asked in the folder since."""


class Watched:
    """A run that is looked at again and again. Each look reads only the trainings that are new.

    refresh  seconds after which a browser reloads the page
    """

    def __init__(self, run: Run, *, refresh: int | None = None) -> None:
        self.run, self.refresh = run, refresh
        self.question: Mapping[str, Any] = found(run.folder)[2]
        self.so_far = SoFar(run)
        self.seen: tuple[Unfinished, Sequence[LearningCurve]] | None = None

    def ended(self) -> Document | None:
        """The document of the run if it has finished and its page is there; None while it goes on.

        A run writes its numbers before its page, and removes run.json last. Raises FileNotFoundError if folder or run
        are gone, OtherQuestionError if the folder asks something else now, and ValueError if it cannot be read.
        """
        folder = self._folder()
        begun = question_started(
            folder / STARTED
        )  # before the result, which is complete once this file is gone
        document = document_of(folder / RESULT) if (folder / RESULT).is_file() else None
        if begun is None and document is None:
            raise FileNotFoundError(
                f"the run in {folder} is gone: the folder has neither {STARTED} nor {RESULT}"
            )
        asked = document["experiment"] if document is not None else None
        if (asked if begun is None else begun) != self.question:
            raise OtherQuestionError(f"another question has been asked in {folder} since")
        if begun is None:
            return document
        drawn = document is not None and document["report"] is not None and (folder / PAGE).is_file()
        return document if drawn and asked == self.question else None

    def look(self) -> str | None:
        """Write the page if anything is new since the last look; returns how far the run is, None if as before.

        StoreError or OSError if the store cannot be read or the page not be written.
        """
        document, curves = self.so_far.read()
        if self.seen is not None and document == self.seen[0]:
            return None
        self.seen = document, curves
        self._draw(refresh=self.refresh)
        return f"{document['finished']:,} of {document['planned']:,} trainings"

    def leave(self) -> None:
        """Write what was last seen once more, without reloading, since nobody will renew it. Errors as for `ended`."""
        try:
            over = self.ended() is not None
        except OtherQuestionError:  # the page is no longer this run's
            raise
        except (OSError, ValueError):  # whatever is wrong with the run, the page must not go on reloading
            over = False
        if not over and self.seen is not None:
            self._draw(refresh=None)
        if self.ended() is not None:  # perhaps meanwhile, so what was written is old
            self.finish()

    def finish(self) -> Path | None:
        """Replace the page by one that leads to the report, and return the report's path; None if it was not drawn."""
        document = document_of(self._folder() / RESULT)
        lead_to_report(self.run.folder, document)
        return None if document["report"] is None else self.run.folder / PAGE

    def _folder(self) -> Path:
        """The run's folder. FileNotFoundError if it is gone: it is never made again."""
        if not self.run.folder.is_dir():
            raise FileNotFoundError(f"the run's folder is gone: {self.run.folder}")
        return self.run.folder

    def _draw(self, *, refresh: int | None) -> None:
        from winticket.report import progress_page

        assert self.seen is not None
        html = progress_page(*self.seen, refresh=refresh)
        _write(self._folder(), html)


def lead_to_report(folder: Path, document: Document) -> None:
    """Replace the page of a run that has finished, so that it leads to the report."""
    from winticket.report import finished_page

    _write(folder, finished_page(None if document["report"] is None else PAGE))


def _write(folder: Path, html: str) -> None:
    with OutputFolder(folder).staged() as new:
        (new / PROGRESS).write_text(html, encoding="utf-8")


def write_progress(run: Run) -> Path:
    """Write the page of an unfinished run once, and return its path. Errors as for `Watched.look` and `ended`."""
    watched = Watched(run)
    watched.look()
    if watched.ended() is not None:  # meanwhile
        watched.finish()
    return run.folder / PROGRESS
