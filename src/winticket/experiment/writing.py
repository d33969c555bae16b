"""What a run leaves behind: result.json, curves.json, the ticket, figures and page."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from winticket.experiment import outcome
from winticket.experiment.execution import Execution
from winticket.experiment.folder import OutputFolder
from winticket.experiment.judging import verdict_of
from winticket.experiment.plan import Plan
from winticket.experiment.runs import collect, trajectory
from winticket.places import CURVES, FIGURES, PAGE, RESULT, TICKET
from winticket.run import Outcomes, Store
from winticket.text import cleaned, visible, without_secrets
from winticket.ticket import Ticket, Trajectory
from winticket.version import __version__


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves: the result document (as `--json` prints it), the curves, and the ticket to go on with."""

    document: Mapping[str, Any]
    curves: list[dict[str, Any]]
    ticket: Ticket | None
    outcomes: Outcomes

    def __repr__(self) -> str:
        verdict, ticket = self.document["verdict"], self.document["ticket"]
        return f"Result({verdict['outcome']!r}, density={verdict['density']}, ticket={ticket!r}): {verdict['reason']}"

    @property
    def verdict(self) -> Mapping[str, Any]:
        verdict: Mapping[str, Any] = self.document["verdict"]
        return verdict


def write(planned: Plan, execution: Execution, folder: Path, outcomes: Outcomes, *, began: float) -> Result:
    """Judge the stored trainings, and write everything to `folder`: the numbers first, then what draws them.

    What cannot be drawn is named in the document's `unwritten`, with the reason; the rest is there.
    """
    from winticket import report  # draws with matplotlib, which takes its time to import

    outcomes.require()
    store = execution.store
    runs = collect(planned, store)
    judged = outcome.document(runs, verdict_of(runs, store))
    curves = _without_nan(outcome.curves(runs))
    chosen = outcome.best(runs, judged)
    ticket = _ticket(planned, store, judged, chosen) if chosen else None
    environments = _environments(planned, store)
    document: dict[str, Any] = {
        "winticket": __version__,
        **judged,
        "store": without_secrets(store.path),
        "engine": execution.engine,
        "results": str(folder / RESULT),
        "report": str(folder / PAGE),
        "ticket": str(folder / TICKET) if ticket else None,
        "saved_ticket": _saved(judged, ticket) if ticket else None,
        "curves": str(folder / CURVES),
        "environment": environments[0] if environments else {},
        "keys": sorted(planned.keys()),
        "computed": len(outcomes.computed),
        "reused": len(outcomes.reused),
    }
    if len(environments) > 1:
        document["verdict"]["warnings"].append(
            f"the trainings were computed in {len(environments)} different environments (versions, device or threads), "
            "so their last digits are not comparable"
        )
    document = cleaned(_without_nan(document))
    place = OutputFolder(folder)
    drawn = tuple(f"{FIGURES}/{name}.{kind}" for name in report.FIGURE_NAMES for kind in report.FIGURE_KINDS)
    with place.staged(instead_of=(PAGE, TICKET, CURVES, *drawn)) as new:
        if ticket:
            ticket.save(new / TICKET)
        _dump(new / CURVES, curves, indent=None)
        _dump(new / RESULT, {**document, "report": None, "figures": [], "seconds": _since(began)})
    # The numbers are safe. What draws them may fail, each thing for itself, and is then made by the same command.
    unwritten: dict[str, str] = {}

    def failed(name: str, error: Exception) -> None:
        unwritten[name] = visible(f"{type(error).__name__}: {error}")

    try:
        with place.staged() as new:
            document["figures"] = report.draw_all(document, curves, new / FIGURES, failed=failed)
    except OSError as error:
        document["figures"] = []
        failed("figures", error)
    document["figures"] = [str(folder / FIGURES / path.name) for path in document["figures"]]
    document["seconds"] = _since(began)
    try:
        with place.staged() as new:
            report.write_page(document, curves, new / PAGE)
    except Exception as error:  # noqa: BLE001 - whatever a library says of what is in the document
        document["report"] = None
        failed("report", error)
    if unwritten:
        document["unwritten"] = unwritten
    document = cleaned(document)
    with place.staged() as new:
        _dump(new / RESULT, document)
    return Result(document, curves, ticket, outcomes)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _dump(path: Path, value: Any, *, indent: int | None = 1) -> None:
    path.write_text(json.dumps(value, indent=indent, allow_nan=False), encoding="utf-8")


def _ticket(planned: Plan, store: Store, judged: Mapping[str, Any], chosen: tuple[int, int]) -> Ticket:
    """The ticket with all that it takes to train it again, and what became of it here."""
    level, replicate = chosen
    path: Trajectory = trajectory(planned, store, level=level, arm="ticket", replicate=replicate)
    setup, last = planned.setup, path.curve.last()
    loaded = setup.dataset(torch.device("cpu"), replicate)
    about: dict[str, Any] = {
        "model": setup.model,
        "init": setup.init,
        "input_shape": list(setup.input_shape),
        "classes": setup.classes,
        # What `winticket.models.build` takes to make a network that the ticket fits.
        "build": {
            "name": setup.model,
            "input_shape": list(setup.input_shape),
            "classes": setup.classes,
            "generator_seed": path.ticket.seeds.derive("init"),
            "init": setup.init,
            "tokens": setup.tokens,
        },
        "recipe": dataclasses.asdict(setup.recipe),
        "data": {
            "name": setup.data,
            "fingerprint": setup.fingerprint,
            "split_seed": setup.split_seed(replicate),
            "own_split": setup.own_split,
            "validation": len(loaded.validation.y),
            "test": len(loaded.test.y),
            "mean": list(loaded.mean),
            "std": list(loaded.std),
        },
        "experiment": planned.experiment.describe(),
        "level": level,
        "verdict": {k: judged["verdict"][k] for k in ("outcome", "density", "reason")},
        "validation_accuracy": last["validation_accuracy"],
        "test_accuracy": last["test_accuracy"],
    }
    return dataclasses.replace(path.ticket, about=about)


def _saved(judged: Mapping[str, Any], ticket: Ticket) -> dict[str, Any]:
    """Whose ticket is saved, and its own accuracies beside the mean; `replicate` counts from 0 as in `failures`."""
    level = judged["levels"][ticket.about["level"]]
    arm = level["arms"]["ticket"]
    return {
        "density": level["density"],
        "level": ticket.about["level"],
        "replicate": ticket.seeds.replicate,
        "replicates": len(arm["accuracies"]) - arm["failed"],
        "chosen": "best validation accuracy at the last step",
        "validation_accuracy": ticket.about["validation_accuracy"],
        "test_accuracy": ticket.about["test_accuracy"],
        "mean_test_accuracy": arm["accuracy"],
        "build": ticket.about["build"],
    }


def _environments(planned: Plan, store: Store) -> list[dict[str, Any]]:
    """The different environments that the plan's results were computed in, the most recent one first."""
    found: dict[str, dict[str, Any]] = {}
    metas = [store.meta(t.key) for t in planned.tasks.values() if store.has(t.key)]
    for meta in sorted(metas, key=lambda m: str(m.get("when")), reverse=True):
        seen: Any = meta.get("environment") or {}
        found.setdefault(json.dumps(seen, sort_keys=True), dict(seen))
    return list(found.values())


def _without_nan(value: Any) -> Any:
    """The same with null for what was not measured or is not finite, since JSON has no other word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value
