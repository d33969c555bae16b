"""Open the folder of a run, finished or not: its document, its plan and its store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from winticket.experiment.documents import Started, experiment_of, read_document
from winticket.experiment.finished import Finished
from winticket.experiment.opened import Run
from winticket.experiment.plan import plan
from winticket.experiment.spec import Experiment
from winticket.outside import Unreadable, converted
from winticket.places import RESULT, STARTED, result_file
from winticket.results import Document, OtherSchemaError
from winticket.run import Store


def open(  # noqa: A001 - winticket.open, as gzip.open
    path: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None, trust: Sequence[str] = ()
) -> Run:
    """Read a run again: `run = winticket.open("runs/digits")`.

    path   folder of a run, or its result.json; a run that is unfinished, or was stopped, has a folder as well
    store  has its trainings (default: the one that the document names)
    trust  the document may come from anybody, so these are the modules that it may import, the datasets that it may
           fetch and the store's URL that it may open

    Raises FileNotFoundError if there is no such run or store, StoreError if there is something else in the store's
    place, and ValueError if it is not a search or transfer, or something is not trusted.

    >>> from tempfile import TemporaryDirectory
    >>> import winticket
    >>> with TemporaryDirectory() as folder:
    ...     options = {"model": "lenet-20", "steps": 20, "levels": 2, "replicates": 2, "workers": 0}
    ...     _ = winticket.find("digits", store=folder + "/store", out=folder + "/out", **options)
    ...     run = winticket.open(folder + "/out")
    ...     run.training("ticket", level=1, replicate=0).mask.density("fc1.weight")
    0.8
    """
    file, document, question, where = found(Path(path))
    planned = plan(experiment_asked(question, trust, str(file)))
    opened = Store(os.fspath(store) if store else existing_store(where, file, trust))
    return Run(document, planned, opened, file.parent, tuple(trust))


def open_run(
    path: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None, trust: Sequence[str] = ()
) -> Finished:
    """The finished run of a result.json, or of the one in a folder; arguments and errors as for `winticket.open`."""
    file = result_file(Path(path))
    run = open(file, store=store, trust=trust)
    assert run.document is not None
    return Finished(run.document, run.plan, run.store, run.trust)


def found(path: Path) -> tuple[Path, Document | None, Mapping[str, Any], str]:
    """The file that describes a run, its document (None if it is unfinished), its question and its store.

    A run that was started again and stopped is unfinished only if it asks for more than the finished one did.
    """
    started = path / STARTED
    if not started.is_file():
        document = document_of(result_file(path))
        return result_file(path), document, document["experiment"], document["store"]
    question, store = _started(started)
    if (path / RESULT).is_file():
        document = document_of(path / RESULT)
        if document["experiment"] == question:
            return path / RESULT, document, question, document["store"]
    return started, None, question, store


def _started(file: Path) -> tuple[Mapping[str, Any], str]:
    """The question and the store of a run that has not finished."""
    try:
        begun = read_document(file, Started)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} does not say what its run asks ({error}); run the same command again"
        ) from error
    return begun.experiment, begun.store


def question_started(file: Path) -> Mapping[str, Any] | None:
    """What the run asks whose run.json this is; None if the file is gone. ValueError if it cannot be read."""
    try:
        return _started(file)[0]
    except ValueError:
        if file.exists():
            raise
        return None  # the run has removed it meanwhile


def document_of(file: Path) -> Document:
    """The document of a finished search or transfer. ValueError, which says what to do, if it is none."""
    try:
        return read_document(file, Document)
    except OtherSchemaError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    except (OSError, Unreadable) as error:
        raise ValueError(
            f"{file} is not the result of a search or transfer by this version ({error}); give the result.json of a "
            "finished run, or its folder"
        ) from error


def experiment_asked(question: Mapping[str, Any], trust: Sequence[str], file: str) -> Experiment:
    """The experiment of a document; a transfer's with its source. Arguments and errors as for `experiment_of`."""
    experiment = experiment_of(question, trust=trust, file=file)
    if not question.get("source"):
        return experiment
    source = experiment_of(converted(question["source"], dict[str, Any]), trust=trust, file=file)
    carried = converted(question.get("carried"), tuple[int, ...])
    if not carried or any(a >= b for a, b in pairwise((0, *carried))) or carried[-1] > source.levels:
        raise Unreadable(
            f"its tickets are of the levels {list(carried)[:9]}, of {source.levels} of its source"
        )
    return replace(experiment, source=source, carried=carried)


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
