"""The experiment that a result document speaks of, to go on from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from winticket.experiment.documents import Searched, entries, experiment_of
from winticket.experiment.plan import plan
from winticket.experiment.spec import Experiment
from winticket.outside import Unreadable, converted
from winticket.places import RESULT, result_file
from winticket.results import OtherSchemaError
from winticket.ticket import Ticket, TicketFileError


def load_source(path: str | os.PathLike[str], *, trust: Sequence[str] = ()) -> tuple[Experiment, str]:
    """The experiment of a result.json, or of the one in a folder, and the store that has its trainings.

    `trust` names modules and datasets that the document may have imported and fetched, since it may come from anybody.
    FileNotFoundError where there is none. ValueError where the file is no result document, one of a transfer or a
    comparison, or a ticket: one alone cannot be judged. A RuntimeWarning says where the same experiment has other
    trainings today (another version, data or model), which would be computed.
    """
    file = result_file(Path(path))
    if file.suffix == ".safetensors":
        raise ValueError(_alone(file))
    try:
        document = entries(file)
        if "rows" in document and "budget_steps" in document:
            raise _NoSourceError(
                f"{file} is the result of a comparison, whose methods each found tickets of their own; run "
                "`winticket find` with the method that you mean and give its result.json"
            )
        search = converted(document, Searched)
        if search.experiment.get("source"):
            raise _NoSourceError(
                f"{file} is the result of a transfer; give that of the run that found the tickets"
            )
        experiment = experiment_of(search.experiment, trust=trust, where=str(file))
    except (_NoSourceError, FileNotFoundError):
        raise
    except OtherSchemaError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    except (OSError, Unreadable) as error:
        raise ValueError(
            f"{file} is not a result document of this version ({error}); give the result.json of a finished run"
        ) from error
    if set(plan(experiment).keys()) != set(search.keys):
        warnings.warn(
            f"{file} was made by another version, or its data or model have changed since: its tickets are found anew",
            RuntimeWarning,
            stacklevel=2,
        )
    return experiment, search.store


class _NoSourceError(ValueError):
    """A document of ours that tickets cannot be carried over from."""


def _alone(path: Path) -> str:
    """What there is to say of a ticket that was given in place of the result that it belongs to."""
    try:
        about = Ticket.load(path).about
    except TicketFileError as error:
        return f"{error}. Tickets are carried over from the {RESULT} of a finished run, not from a file of weights"
    beside = path.with_name(RESULT)
    experiment = about.get("experiment")
    replicates = experiment.get("replicates") if isinstance(experiment, dict) else None
    number = f"all {replicates} replicates" if replicates else "all replicates"
    which = f"give {beside}" if beside.is_file() else f"give the {RESULT} of the run that found it"
    return (
        f"{path} is one ticket, and one alone cannot be judged: a verdict is over replicates, each with a ticket of "
        f"its own. To carry over those of {number}, {which}. To train this one by itself, do it in a loop of your own: "
        f"`with winticket.masked(model, winticket.Ticket.load({str(path)!r})): train(model)`"
    )
