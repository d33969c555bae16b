"""Open the folder of a finished run: its document, its plan and its store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from winticket.experiment.documents import experiment_of, read_document
from winticket.experiment.finished import Finished
from winticket.experiment.plan import plan
from winticket.experiment.spec import Experiment
from winticket.outside import Unreadable
from winticket.places import result_file
from winticket.results import Document, OtherSchemaError
from winticket.run import Store


def open_run(
    path: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None, trust: Sequence[str] = ()
) -> Finished:
    """The finished run of a result.json, or of the one in a folder.

    `store` has its trainings (default: the one that the document names). The document may come from anybody, so `trust`
    names the modules that it may import, the datasets that it may fetch and the store's URL that it may open. Raises
    FileNotFoundError if there is no such file or store, and ValueError if it is not the result of a search or transfer,
    or something is not trusted.
    """
    file = result_file(Path(path))
    try:
        document = read_document(file, Document)
    except OtherSchemaError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    except (OSError, Unreadable) as error:
        raise ValueError(
            f"{file} is not the result of a search or transfer by this version ({error}); give the result.json of a "
            "finished run, or its folder"
        ) from error
    question: Mapping[str, Any] = document["experiment"]
    planned = plan(_experiment(question, trust, str(file)))
    opened = Store(os.fspath(store) if store else existing_store(document["store"], file, trust))
    return Finished(document, planned, opened, tuple(trust))


def _experiment(question: Mapping[str, Any], trust: Sequence[str], file: str) -> Experiment:
    """The experiment of a document; a transfer's with its source."""
    experiment = experiment_of(question, trust=trust, file=file)
    if not question.get("source"):
        return experiment
    source = experiment_of(question["source"], trust=trust, file=file)
    return replace(experiment, source=source, carried=tuple(question["carried"]))


def existing_store(store: str, result: Path, trust: Sequence[str] = ()) -> str:
    """The store that a result names. FileNotFoundError if it is missing, since everything would be computed again."""
    if "://" in store and store not in trust:
        raise ValueError(
            f"{result} names the store {store!r}, and this command would connect to it; if you know that store, pass "
            f"it with --store or add --trust {store}"
        )
    if not Store(store).exists():
        raise FileNotFoundError(
            f"store {store!r}, which {result} names, not found: pass its path, or the path of a new one, with --store"
        )
    return store
