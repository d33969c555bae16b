"""Load the experiment behind a result document, to transfer its tickets."""

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

    The document may come from anybody, so `trust` names the modules that it may import and the datasets that it may
    fetch. Raises FileNotFoundError if there is no such file. Raises ValueError if the file is not a result document, or
    is the result of a transfer or a comparison, or a ticket (a single ticket cannot be judged). Warns with a
    RuntimeWarning if version, data or model have changed, so that the trainings would be computed again.

    >>> load_source("none.json")
    Traceback (most recent call last):
    FileNotFoundError: there is no none.json; give the result.json of a finished run...
    """
    file = result_file(Path(path))
    if file.suffix == ".safetensors":
        raise ValueError(_single_ticket(file))
    try:
        document = entries(file)
        if "rows" in document and "budget_steps" in document:
            raise _NoSourceError(
                f"{file} is the result of a comparison, in which each method found other tickets; run `winticket find` "
                "with one method and give its result.json"
            )
        search = converted(document, Searched)
        if search.experiment.get("source"):
            raise _NoSourceError(
                f"{file} is the result of a transfer; give the result of the run that found the tickets"
            )
        experiment = experiment_of(search.experiment, trust=trust, file=str(file))
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
            f"{file} is from another version, or its data or model have changed since then: its tickets will be "
            "searched for again",
            RuntimeWarning,
            stacklevel=2,
        )
    return experiment, search.store


class _NoSourceError(ValueError):
    """A document of winticket whose tickets cannot be transferred."""


def _single_ticket(path: Path) -> str:
    """The message for a ticket file in place of the result that it belongs to."""
    try:
        about = Ticket.load(path).about
    except TicketFileError as error:
        return f"{error}. A transfer takes the {RESULT} of a finished run, not a file of weights"
    result = path.with_name(RESULT)
    experiment = about.get("experiment")
    replicates = experiment.get("replicates") if isinstance(experiment, dict) else None
    number = f"all {replicates} replicates" if replicates else "all replicates"
    which = f"give {result}" if result.is_file() else f"give the {RESULT} of the run that found it"
    return (
        f"{path} is a single ticket, which cannot be judged: a verdict needs replicates, each with another ticket. To "
        f"transfer the tickets of {number}, {which}. To train this ticket alone, use your own training loop: "
        f"`with winticket.masked(model, winticket.Ticket.load({str(path)!r})): train(model)`"
    )
