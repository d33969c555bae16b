"""Documents that runs left: read as data, checked, and turned into an Experiment or refused in words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from winticket import schedules
from winticket.data import names as names_of_data
from winticket.experiment.names import ROOMS, methods
from winticket.experiment.spec import CARRIED, RECIPE_FIELDS, Experiment
from winticket.importing import require_trust
from winticket.outside import Unreadable, converted, read_file, read_json
from winticket.results import Written, require_schema
from winticket.train.recipe import ADDED

T = TypeVar("T")
LARGEST = 1 << 30
"""Bytes of a document; that of a thousand replicates at a hundred levels has some hundred million."""


class Data(msgspec.Struct):
    """What a result says of its data."""

    fingerprint: str


class Searched(msgspec.Struct):
    """What is read of a search's result.json: the question, where its trainings are, which they are."""

    experiment: dict[str, Any]
    store: str
    keys: list[str]


class Reported(msgspec.Struct):
    """What is compared before a report is renewed."""

    experiment: dict[str, Any]
    data: Data


class Compared(msgspec.Struct):
    """The same of a comparison's compare.json."""

    comparison: dict[str, Any]


class Kept(msgspec.Struct):
    """What `store gc --keep` reads: the keys of the trainings that a document speaks of."""

    keys: list[str]


def read_document(file: str | os.PathLike[str], kind: type[T]) -> T:
    """A document as one of the types above, or whole as `winticket.results.Document` or `Comparison`.

    Errors: OSError; OtherSchemaError for a document that another version wrote in another form; ValueError that says
    what is wrong inside.
    """
    data = read_file(file, limit=LARGEST)
    require_schema(read_json(data, Written, limit=LARGEST))
    return read_json(data, kind, limit=LARGEST)


def entries(file: Path) -> Mapping[str, Any]:
    """The names at the top of a JSON file, for telling what kind of document it is. Errors as for `read_document`."""
    return read_document(file, dict[str, Any])


NAMING = ("model", "criterion", "allocate", "rewind", "pruning")
"""Choices that may be `package.module:name`, so that an experiment imports modules when it is made."""


def _in_its_room(choice: str, path: str) -> bool:
    """Whether a path names one of winticket's functions for this choice. Unreadable if it names another of them."""
    module, _, name = path.partition(":")
    if module.partition(".")[0] != "winticket":
        return False
    room = {**ROOMS, "pruning": schedules}.get(choice)
    if room is None or module != room.__name__ or name not in methods(room):
        raise Unreadable(f"{choice} is {path!r}, which is none of winticket's functions for that")
    return True


def experiment_of(
    described: Mapping[str, Any], *, trust: Sequence[str] = (), where: str = "it"
) -> Experiment:
    """The experiment of a question as `Experiment.describe` gives it. ValueError, with the entry that is wrong.

    A document is data from outside: modules that it names are imported only if they are among those in `trust`, and a
    dataset that is neither built in nor a path here is fetched only then. `where` is the file, for the message.
    """
    described = {**ADDED, **described}  # documents written before an option came lack it
    names = [f.name for f in fields(Experiment) if f.name not in ("recipe", *CARRIED)]
    lacking = [name for name in (*names, *RECIPE_FIELDS) if name not in described]
    if lacking:
        raise Unreadable(f"its experiment says nothing of {', '.join(lacking)}")
    for name in NAMING:
        if ":" in str(described[name]) and not _in_its_room(name, str(described[name])):
            require_trust(str(described[name]), trust, where=f"{where}: {name}")
    fetched = str(described["data"])
    if fetched not in names_of_data() and not Path(fetched).expanduser().exists() and fetched not in trust:
        raise ValueError(
            f"{where}: data is {fetched!r}, which is not here and would be fetched from the Hub; if you want that, say "
            f"so: --trust {fetched} (in Python trust=[{fetched!r}])"
        )
    choices = {name: described[name] for name in names}
    # Null: a rate in place of which densities were given, and what a method does not take.
    choices = {k: v for k, v in choices.items() if k not in ("rate", "criterion", "rewind") or v is not None}
    choices["recipe"] = {name: described[name] for name in RECIPE_FIELDS}
    return converted(choices, Experiment)
