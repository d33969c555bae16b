"""Write the figures and the page of a finished run again, with the analyses that its store has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from winticket.experiment.analysing import plan_analyses
from winticket.experiment.folder import OutputFolder
from winticket.experiment.opened import Run
from winticket.outside import Unreadable, read_file, read_json
from winticket.places import CURVES, FIGURES, PAGE
from winticket.results import LearningCurve

LARGEST = 1 << 30
"""Most bytes of curves.json."""


def stored_analyses(run: Run) -> list[Any]:
    """The analyses of a run whose tables the store has, with their usual options, as the page shows them."""
    from winticket.report.analysed import Shown

    planned, shown = plan_analyses(run), []
    for one in planned.analyses:
        task = planned.tasks.get(one.name)
        if task is not None and run.store.has(task.key):
            table = run.store.get(task.key)
            shown.append(Shown(one, table, tuple(one.says(table)), None))
    return shown


def rewrite(run: Run) -> list[Path]:
    """Write figures and page of a finished run again; nothing is computed. Returns their paths.

    Raises ValueError for an unfinished run or unreadable curves, and OSError if the folder cannot be written.
    """
    from winticket import report

    if run.document is None:
        raise ValueError(
            f"the run in {run.folder} is unfinished, so it has no verdict to report; run the same command to finish it"
        )
    file = run.folder / CURVES
    try:
        curves = read_json(read_file(file, limit=LARGEST), list[LearningCurve], limit=LARGEST)
    except (OSError, Unreadable) as error:
        raise ValueError(f"{file} cannot be read ({error}); run the same search again to write it") from error
    with OutputFolder(run.folder).staged() as new:
        figures = report.draw_all(run.document, curves, new / FIGURES)
        page = report.write_page(run.document, curves, new / PAGE, analyses=stored_analyses(run))
        names = [path.relative_to(new) for path in (page, *figures)]
    return [run.folder / name for name in names]
