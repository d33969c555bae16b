"""The experiment that a result document speaks of, to go on from."""

import json
import os
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from winticket.experiment.plan import plan
from winticket.experiment.spec import RECIPE_FIELDS, Experiment
from winticket.places import RESULT, result_file
from winticket.ticket import Ticket, TicketFileError
from winticket.train import Recipe


def load_source(path: str | os.PathLike[str]) -> tuple[Experiment, str]:
    """The experiment of a result.json, or of the one in a folder, and the store that has its trainings.

    FileNotFoundError where there is none. ValueError where the file is no result document, one of a transfer or a
    comparison, or a ticket: one alone cannot be judged. A RuntimeWarning says where the same experiment has other
    trainings today (another version, data or model), which would be computed.
    """
    file = result_file(Path(path))
    if file.suffix == ".safetensors":
        raise ValueError(_alone(file))
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if "rows" in document and "budget_steps" in document:
            raise _NoSourceError(
                f"{file} is the result of a comparison, whose methods each found tickets of their own; run "
                "`winticket find` with the method that you mean and give its result.json"
            )
        found, store, keys = document["experiment"], str(document["store"]), set(document["keys"])
        recipe = Recipe(**{name: _fixed(found[name]) for name in RECIPE_FIELDS})
        names = [f.name for f in fields(Experiment) if f.name not in ("recipe", "rate")]
        # A rate that densities were said in place of is not told.
        rate = {} if found["rate"] is None else {"rate": found["rate"]}
        own: dict[str, Any] = {name: _fixed(found[name]) for name in names}
        for name in ("criterion", "rewind"):  # which not every method takes
            if own[name] is None:
                del own[name]
    except _NoSourceError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not a result document of this version ({type(error).__name__}: {error}); give the result.json "
            "of a finished run"
        ) from error
    if found.get("source"):
        raise ValueError(f"{file} is the result of a transfer; give that of the run that found the tickets")
    experiment = Experiment(recipe=recipe, **own, **rate)
    if {t.key for t in plan(experiment).tasks.values()} != keys:
        warnings.warn(
            f"{file} was made by another version, or its data or model have changed since: its tickets are found anew",
            RuntimeWarning,
            stacklevel=2,
        )
    return experiment, store


class _NoSourceError(ValueError):
    """A document of ours that tickets cannot be carried over from."""


def _alone(path: Path) -> str:
    """What there is to say of a ticket that was given in place of the result that it belongs to."""
    try:
        about = Ticket.load(path).about
    except TicketFileError as error:
        return f"{error}. Tickets are carried over from the {RESULT} of a finished run, not from a file of weights"
    beside = path.with_name(RESULT)
    found = about.get("experiment")
    replicates = found.get("replicates") if isinstance(found, dict) else None
    number = f"all {replicates} replicates" if replicates else "all replicates"
    which = f"give {beside}" if beside.is_file() else f"give the {RESULT} of the run that found it"
    return (
        f"{path} is one ticket, and one alone cannot be judged: a verdict is over replicates, each with a ticket of "
        f"its own. To carry over those of {number}, {which}. To train this one by itself, do it in a loop of your own: "
        f"`with winticket.masked(model, winticket.Ticket.load({str(path)!r})): train(model)`"
    )


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
