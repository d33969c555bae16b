"""What an unfinished run has so far: counts, accuracies and curves of the trainings that have finished."""

from __future__ import annotations

from collections.abc import Mapping

from winticket.experiment.masks import network_of
from winticket.experiment.opened import Run
from winticket.experiment.outcome import data_of
from winticket.experiment.outcome_measured import measured
from winticket.experiment.outcome_trainings import curve_row
from winticket.experiment.plan import BESIDE, Cell
from winticket.experiment.runs import Replicate, Trained, collect
from winticket.experiment.scored_on import scored_on
from winticket.objective import ACCURACY
from winticket.results import SCHEMA, ArmSoFar, LearningCurve, Unfinished
from winticket.text import cleaned, without_secrets
from winticket.version import __version__


class SoFar:
    """Reads the finished trainings of a run, each once; ask it again later and it reads only what is new.

    A failure is read again every time, since a run that retries it may have forgotten it or have a result instead.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.results: dict[Cell, tuple[Replicate, ...]] = {}
        self.entries: dict[Cell, tuple[Replicate, ...]] = {}
        self.last: str | None = None

    def read(self) -> tuple[Unfinished, list[LearningCurve]]:
        """What there is now: the document, and the curves of what has finished. StoreError if it cannot be read."""
        plan, store = self.run.plan, self.run.store
        failed: dict[Cell, tuple[Replicate, ...]] = {}
        for cell, task in plan.tasks.items():
            if cell in self.results:
                continue
            if store.has(task.key):
                self.results[cell] = collect(plan, store, only=[cell]).by_cell[cell[:2]]
                when = store.meta(task.key).get("when")
                self.last = max(filter(None, (self.last, None if when is None else str(when))), default=None)
            elif store.failure(task.key) is not None:
                failed[cell] = collect(plan, store, only=[cell]).by_cell[cell[:2]]
        self.entries = {**self.results, **failed}
        return self._document(), self._curves()

    def _document(self) -> Unfinished:
        run, plan = self.run, self.run.plan
        over = scored_on(plan)
        levels: dict[int, dict[str, ArmSoFar]] = {}
        for (level, arm), entries in self._by_cell().items():
            levels.setdefault(level, {})[arm] = {
                **measured(entries, over),
                "planned": run.replicates,
                "finished": len(entries),
            }
        document: Unfinished = {
            "winticket": __version__,
            "schema": SCHEMA,
            "experiment": plan.experiment.describe(),
            "data": data_of(plan),
            "network": network_of(plan),
            "store": without_secrets(run.store.path),
            "folder": str(run.folder),
            "planned": plan.replicates(list(plan.tasks)),
            "finished": sum(len(entries) for entries in self.entries.values()),
            "last": self.last,
            "levels": [
                {"density": run.densities[level], "arms": arms} for level, arms in sorted(levels.items())
            ],
            "missing": list(run.missing()),
        }
        if over.scale != ACCURACY:
            document["metric"] = over.entry()
        clean: Unfinished = cleaned(document)
        return clean

    def _by_cell(self) -> Mapping[tuple[int, str], list[Replicate]]:
        """The finished replicates of every planned arm at every level; an empty list for none."""
        found: dict[tuple[int, str], list[Replicate]] = {}
        for cell in self.run.plan.tasks:
            if cell[1] not in BESIDE:
                found.setdefault(cell[:2], []).extend(self.entries.get(cell, ()))
        return found

    def _curves(self) -> list[LearningCurve]:
        rows: list[LearningCurve] = []
        for (level, arm, first), entries in self.entries.items():
            if arm in BESIDE:
                continue
            for number, entry in enumerate(entries, first):
                if isinstance(entry, Trained):
                    rows.append(
                        curve_row(entry.curve, arm=arm, density=self.run.densities[level], replicate=number)
                    )
        return rows
