"""Read the documents of earlier runs as data, check them, and turn their question into an `Experiment`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from winticket import schedules
from winticket.data import Reading, like_a_path
from winticket.data import names as names_of_data
from winticket.experiment.names import ROOMS, methods
from winticket.experiment.objectives import APART
from winticket.experiment.spec import CARRIED, RECIPE_FIELDS, Experiment
from winticket.importing import require_trust
from winticket.outside import Unreadable, converted, read_file, read_json
from winticket.places import exists_here
from winticket.results import Comparison, Row, Written, require_schema
from winticket.train.recipe import ADDED

T = TypeVar("T")
CAME_LATER: Mapping[str, Any] = {**ADDED, "precision_check": False, "reading": {}}
"""Choices that older documents lack, with what their runs did."""
LARGEST = 1 << 30
"""Most bytes of a document. A thousand replicates at a hundred levels take some hundred million."""


class Data(msgspec.Struct):
    """What is read about the data of a result."""

    fingerprint: str


class Searched(msgspec.Struct):
    """What is read of a search's result.json: the question, the store of its trainings, and their keys."""

    experiment: dict[str, Any]
    store: str
    keys: list[str]


class Started(msgspec.Struct):
    """What is read of a run that has not finished: the question and the store of its trainings."""

    experiment: dict[str, Any]
    store: str


class Reported(msgspec.Struct):
    """What is read of a report before a new one replaces it."""

    experiment: dict[str, Any]
    data: Data


class Compared(msgspec.Struct):
    """What is read of a comparison before a new one replaces it."""

    comparison: dict[str, Any]


class Kept(msgspec.Struct):
    """What `store gc --keep` reads: the keys of the trainings behind a document."""

    keys: list[str]


def read_document(file: str | os.PathLike[str], kind: type[T]) -> T:
    """Read a document as one of the types above, or whole as `winticket.results.Document` or `Comparison`.

    Raises OSError if the file cannot be read, OtherSchemaError if another version wrote it in another form, and
    ValueError, which names the entry, if its content is wrong.
    """
    data = read_file(file, limit=LARGEST)
    require_schema(read_json(data, Written, limit=LARGEST))
    return read_json(data, kind, limit=LARGEST)


def read_comparison(file: str | os.PathLike[str]) -> Comparison:
    """Read the document of a comparison whole. Errors as for `read_document`, and if it lacks a dense network."""
    document = read_document(file, Comparison)
    for equal in get_args(get_type_hints(Row)["equal"]):
        if not any(row["arm"] == "dense" and row["equal"] == equal for row in document["rows"]):
            raise Unreadable(
                f"{os.fspath(file)} is not a whole comparison: its rows lack the dense network at equal {equal}; run "
                "winticket compare again to write it anew"
            )
    return document


def entries(file: Path) -> Mapping[str, Any]:
    """The top-level entries of a JSON file, which show what kind of document it is. Errors as for `read_document`."""
    return read_document(file, dict[str, Any])


NAMING = ("model", "criterion", "allocate", "rewind", "pruning", "loss", "metric")
"""Choices that may be `package.module:name`: an `Experiment` imports these modules when it is constructed."""


def _in_its_room(choice: str, path: str) -> bool:
    """True if `path` names one of winticket's functions for this choice. Unreadable if it names anything else in it."""
    module, _, name = path.partition(":")
    if module.partition(".")[0] != "winticket":
        return False
    room = {**ROOMS, "pruning": schedules}.get(choice)
    if room is None or module != room.__name__ or name not in methods(room):
        raise Unreadable(f"{choice} is {path!r}, which is none of winticket's functions for it")
    return True


def why_not_here(data: str) -> str:
    """The end of a sentence about a dataset that is no built-in one and is not at a path, and what to do."""
    if like_a_path(data):
        return f"and there is nothing at that path from {Path.cwd()}; go to the folder in which the search was made"
    return (
        f"which is not on this machine and would be fetched from the Hub; to allow that, pass --trust {data} (in "
        f"Python trust=[{data!r}])"
    )


def experiment_of(described: Mapping[str, Any], *, trust: Sequence[str] = (), file: str = "it") -> Experiment:
    """The experiment that a document describes in the form of `Experiment.describe`.

    A document may come from anybody. So modules that it names are imported only if `trust` lists them, and a dataset
    that is neither built in nor a path on this machine is fetched only if `trust` lists it. `file` is for messages.
    Raises ValueError, which names the entry that is wrong.
    """
    described = {**CAME_LATER, **described}
    apart = [f for f in fields(Experiment) if f.name in APART]
    described = {**{f.name: f.default for f in apart}, **described}
    names = [f.name for f in fields(Experiment) if f.name not in ("recipe", *CARRIED)]
    lacking = [name for name in (*names, *RECIPE_FIELDS) if name not in described]
    if lacking:
        raise Unreadable(f"its experiment lacks {', '.join(lacking)}")
    for name in NAMING:
        if ":" in str(described[name]) and not _in_its_room(name, str(described[name])):
            require_trust(str(described[name]), trust, where=f"{file}: {name}")
    fetched = str(described["data"])
    if fetched not in names_of_data() and not exists_here(fetched) and fetched not in trust:
        raise ValueError(f"{file}: data is {fetched!r}, {why_not_here(fetched)}")
    choices = {name: described[name] for name in names}
    choices["reading"] = converted(choices["reading"], Reading)
    # These are null if densities replace the rate, or if the method does not take the option.
    choices = {k: v for k, v in choices.items() if k not in ("rate", "criterion", "rewind") or v is not None}
    choices["recipe"] = {name: described[name] for name in RECIPE_FIELDS}
    return converted(choices, Experiment)
