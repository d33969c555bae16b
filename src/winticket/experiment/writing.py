"""Write the outputs of a run: result.json, curves.json, the ticket, figures and page."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winticket.experiment import outcome, outcome_trainings
from winticket.experiment.execution import Execution
from winticket.experiment.finished import Finished, about_of, build_of, trained
from winticket.experiment.folder import OutputFolder
from winticket.experiment.judging import verdict_of
from winticket.experiment.masks import network_of
from winticket.experiment.opened import Run
from winticket.experiment.plan import Plan
from winticket.experiment.presenting import Numbers, analyses_of, dump, present, write_document
from winticket.experiment.runs import Runs, Trained, collect
from winticket.experiment.trained_network import TrainedNetwork
from winticket.experiment.watching import lead_to_report
from winticket.places import ANALYSED, CURVES, FIGURES, MASKS, PAGE, PROGRESS, RESULT, STARTED, TICKET
from winticket.results import SCHEMA, Document, Judged, LearningCurve, Masks, SavedTicket, Verdict
from winticket.run import Outcomes
from winticket.text import cleaned, without_secrets
from winticket.ticket import Ticket
from winticket.version import __version__


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run. docs/result.md lists every key of `document` and `curves`.

    document  the result document, as `--json` prints it
    curves    the learning curve of every training that finished
    ticket    the saved ticket; None if every ticket failed
    outcomes  which trainings were computed and which were reused
    finished  the run behind it: its plan and its store
    """

    document: Document
    curves: list[LearningCurve]
    ticket: Ticket | None
    outcomes: Outcomes
    finished: Finished

    def __repr__(self) -> str:
        verdict, ticket = self.document["verdict"], self.document["ticket"]
        return f"Result({verdict['outcome']!r}, density={verdict['density']}, ticket={ticket!r}): {verdict['reason']}"

    @property
    def verdict(self) -> Verdict:
        """The verdict of the document: outcome, density, reason and more."""
        return self.document["verdict"]

    def trained(
        self,
        *,
        arm: str = "ticket",
        level: int | None = None,
        density: float | None = None,
        replicate: int | None = None,
    ) -> TrainedNetwork:
        """A network of this run at the end of its training, from the store: `result.trained().ship("folder")`.

        By default the saved ticket's. arm: as "dense" or "reinit". level: its number, or `density` for the level with
        the nearest one. replicate: from 0, by default the one with the best validation accuracy. Raises ValueError for
        what the run does not have, and StoreError if the store no longer has the training.
        """
        return trained(self.finished, arm=arm, level=level, density=density, replicate=replicate)


def write_started(planned: Plan, execution: Execution, folder: Path) -> None:
    """Write to `folder` what the run asks and where its trainings are, so that it can be opened before it finishes."""
    begun = {
        "winticket": __version__,
        "schema": SCHEMA,
        "experiment": planned.experiment.describe(),
        "store": without_secrets(execution.store.path),
    }
    with OutputFolder(folder).staged() as new:
        dump(new / STARTED, cleaned(begun))


def write(planned: Plan, execution: Execution, folder: Path, outcomes: Outcomes, *, began: float) -> Result:
    """Judge the stored trainings and write everything to `folder`: first the numbers, then figures and page.

    If something cannot be drawn, the document's `unwritten` names it with the reason, and everything else is written.
    """
    outcomes.require()
    store = execution.store
    runs = collect(planned, store)
    judged = outcome.document(runs, verdict_of(runs, store))
    chosen = outcome_trainings.best(runs, judged)
    ticket = None if chosen is None else _ticket(runs, judged, *chosen)
    saved = None if chosen is None else _saved(runs, judged, *chosen)
    curves: list[LearningCurve] = _without_nan(outcome_trainings.curves(runs))
    document = _document(runs, judged, saved, outcomes, execution=execution, folder=folder)
    output = OutputFolder(folder)
    # What this program named itself is trusted.
    trust = (planned.setup.model.partition(":")[0], planned.experiment.data)
    _write_numbers(output, (document, curves, runs.masks, ticket), began=began)
    known = folder / ANALYSED  # a first run has no analyses, and planning them takes a moment
    analyses = analyses_of(Run(document, planned, store, folder, trust), folder) if known.is_dir() else []
    numbers = Numbers(document, curves, runs.masks, analyses)
    document = present(output, numbers, elapsed=lambda: _since(began))
    write_document(output, document)
    if (folder / PROGRESS).exists():  # from `winticket watch`, which may have ended before the run
        lead_to_report(folder, document)
    (folder / STARTED).unlink(missing_ok=True)
    return Result(document, curves, ticket, outcomes, Finished(document, planned, store, trust))


def _document(
    runs: Runs,
    judged: Judged,
    saved: SavedTicket | None,
    outcomes: Outcomes,
    *,
    execution: Execution,
    folder: Path,
) -> Document:
    """The complete document of a run before anything is drawn."""
    document: Document = {
        "winticket": __version__,
        "schema": SCHEMA,
        "experiment": judged["experiment"],
        "data": judged["data"],
        "verdict": judged["verdict"],
        "levels": judged["levels"],
        "dense_doubled": judged["dense_doubled"],
        "precision_effect": judged.get("precision_effect"),
        "network": network_of(runs.plan),
        "costs": judged["costs"],
        "failures": judged["failures"],
        "store": without_secrets(execution.store.path),
        "engine": execution.engine,
        "results": str(folder / RESULT),
        "report": None,
        "ticket": str(folder / TICKET) if saved else None,
        "saved_ticket": saved,
        "curves": str(folder / CURVES),
        "masks": str(folder / MASKS),
        "environment": dict(runs.environments[0]) if runs.environments else {},
        "keys": sorted(runs.plan.keys()),
        "computed": len(outcomes.computed),
        "reused": len(outcomes.reused),
        "figures": [],
        "seconds": 0.0,
    }
    if "metric" in judged:
        document["metric"] = judged["metric"]
    if outcomes.computed and outcomes.seconds:
        count = max(execution.workers, 1)
        busy = round(min(outcomes.busy / (count * outcomes.seconds), 1.0), 3)
        document["processes"] = {"count": count, "busy": busy}
    if len(runs.environments) > 1:
        document["verdict"]["warnings"].append(
            f"the trainings were computed in {len(runs.environments)} different environments (versions, device or "
            "threads), so their last digits are not comparable"
        )
    clean: Document = cleaned(_without_nan(document))
    return clean


def _write_numbers(
    output: OutputFolder,
    numbers: tuple[Document, list[LearningCurve], Masks | None, Ticket | None],
    *,
    began: float,
) -> None:
    """Replace the files of an earlier run by the numbers of this one: document, curves, masks and ticket."""
    from winticket import report  # It imports matplotlib, which is slow.

    document, curves, masks, ticket = numbers
    drawn = [f"{FIGURES}/{name}.{kind}" for name in report.FIGURE_NAMES for kind in report.FIGURE_KINDS]
    with output.staged(instead_of=(PAGE, TICKET, CURVES, MASKS, *drawn)) as new:
        if ticket:
            ticket.save(new / TICKET)
        dump(new / CURVES, curves, indent=None)
        if masks is not None:
            dump(new / MASKS, masks, indent=None)
        dump(new / RESULT, document | {"seconds": _since(began)})


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _ticket(runs: Runs, judged: Judged, level: int, replicate: int) -> Ticket:
    """The ticket with everything that is needed to train it again, and its accuracies in this run."""
    ticket, entry = runs.tickets[level], runs.by_cell[level, "ticket"][replicate]
    assert isinstance(entry, Trained)
    assert ticket.seeds.replicate == replicate
    about = about_of(runs.plan, judged, ticket, level=level, last=entry.curve.last())
    return dataclasses.replace(ticket, about=about)


def _saved(runs: Runs, judged: Judged, number: int, replicate: int) -> SavedTicket:
    """The document's entry for the saved ticket: its replicate (from 0, as in `failures`) and its accuracies."""
    level, entry = judged["levels"][number], runs.by_cell[number, "ticket"][replicate]
    arm = level["arms"]["ticket"]
    assert isinstance(entry, Trained)
    assert arm["accuracy"] is not None  # At least this training has finished.
    last = entry.curve.last()
    return {
        "density": level["density"],
        "level": number,
        "replicate": replicate,
        "replicates": len(arm["accuracies"]) - arm["failed"],
        "chosen": "best validation accuracy at the last step",
        "validation_accuracy": last["validation_accuracy"],
        "test_accuracy": last["test_accuracy"],
        "mean_test_accuracy": arm["accuracy"],
        "build": build_of(runs.plan, runs.tickets[number]),
    }


def _without_nan(value: Any) -> Any:
    """The value with None for numbers that are not finite, since JSON has no such numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value
