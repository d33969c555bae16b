"""Write the page of a run that is under way, and renew it until the run has finished."""

from __future__ import annotations

from pathlib import Path

from winticket.experiment.folder import OutputFolder
from winticket.experiment.opened import Run
from winticket.experiment.sofar import SoFar
from winticket.places import PAGE, PROGRESS


class Watched:
    """A run that is looked at again and again. Each look reads only the trainings that are new.

    refresh  seconds after which a browser reloads the page
    """

    def __init__(self, run: Run, *, refresh: int | None = None) -> None:
        self.run, self.refresh = run, refresh
        self.so_far = SoFar(run)
        self.finished = -1

    def look(self) -> str | None:
        """Write the page if a training has finished since the last look; returns how far the run is, None if as before.

        StoreError or OSError if the store cannot be read or the page not be written.
        """
        from winticket.report import progress_page

        document, curves = self.so_far.read()
        if document["finished"] == self.finished:
            return None
        self.finished = document["finished"]
        self._write(progress_page(document, curves, refresh=self.refresh))
        return f"{document['finished']:,} of {document['planned']:,} trainings"

    def finish(self) -> Path:
        """Replace the page by one that leads to the report, and return the report's path."""
        from winticket.report import finished_page

        self._write(finished_page(PAGE))
        return self.run.folder / PAGE

    def _write(self, html: str) -> None:
        with OutputFolder(self.run.folder).staged() as new:
            (new / PROGRESS).write_text(html, encoding="utf-8")


def write_progress(run: Run) -> Path:
    """Write the page of an unfinished run once, and return its path. Errors as for `Watched.look`."""
    Watched(run).look()
    return run.folder / PROGRESS
