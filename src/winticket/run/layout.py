"""What a store consists of: the names of its files, the types of its JSON, and the rows that list its entries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

import msgspec

from winticket.outside import Unreadable
from winticket.run.files import Entry, is_temporary
from winticket.run.keys import Json, canonical_text

FORMAT = 3
MARKER = "winticket-store.json"
LOOKS = "looks"
CLAIMS = "claims"
STOPS = "stops"
PLANS = "plans"
MACHINES = "machines"
REPORTS = "reports"  # default folder of `experiment`'s reports; a store does not touch what is in it
Kind = Literal["result", "failure", "partial"]
FOLDERS: dict[Kind, str] = {"result": "results", "failure": "failures", "partial": "partial"}
ENDINGS: dict[Kind, str] = {"result": "safetensors", "failure": "json", "partial": "safetensors"}
_OURS = re.compile(
    r"(?:results|partial)/(?P<a>[0-9a-f]{2})/(?P=a)[0-9a-f]{62}\.safetensors"
    r"|failures/(?P<b>[0-9a-f]{2})/(?P=b)[0-9a-f]{62}\.json"
    r"|looks/[^/]+/[^/]+\.json|claims/[0-9a-f]{64}(?:-[1-9][0-9]{0,5})?\.json|plans/[0-9a-f]{16}\.json"
    r"|machines/[0-9a-f]{24}\.json|stops/[0-9a-f]{16}\.json|winticket-store\.json"
)
_KEY = re.compile(r"[0-9a-f]{64}")


class Marker(msgspec.Struct):
    format: int


class Failed(msgspec.Struct):
    traceback: str
    meta: dict[str, Any]
    key: str
    digest: str


class Look(msgspec.Struct):
    """The entries of a look that later verdicts need."""

    name: str
    look: int
    when: int
    replicates: int
    margin_pp: float
    alpha: float
    claimed: list[float]
    paths: list[str]


@dataclass(frozen=True)
class Failure:
    """A task that raised: its traceback, and the notes kept with it."""

    traceback: str
    meta: Mapping[str, Json]


@dataclass(frozen=True)
class Row:
    """One entry of a store. `seconds` and `when` (ISO 8601, UTC) are None if they were not recorded."""

    kind: Kind
    key: str
    fn: str | None
    label: Mapping[str, Json]
    seconds: float | None
    bytes: int
    when: str | None
    digest: str | None  # sha256 of the value alone; equal digests are equal values


@dataclass(frozen=True)
class Problem:
    """Something that verify found.

    kind    "damaged": not what was written, or a link; "leftover": a temporary file of a stopped writer; "foreign": a
            file that no store writes, so no command touches it
    """

    kind: Literal["damaged", "leftover", "foreign"]
    name: str
    reason: str


@dataclass(frozen=True)
class Removed:
    name: str
    bytes: int
    why: str


def digest_of(*parts: Json | Mapping[str, Json]) -> str:
    """SHA-256 of the parts as JSON. Raises Unreadable for nesting deeper than in any file that a store writes."""
    try:
        return hashlib.sha256(canonical_text(cast("Json", list(parts))).encode()).hexdigest()
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None


def row_of(kind: Kind, key: str, entry: Entry, meta: Mapping[str, Any], digest: str | None) -> Row:
    when = meta.get("when")
    if when is None and entry.modified is not None:
        when = datetime.fromtimestamp(entry.modified, UTC).isoformat(timespec="seconds")
    return Row(
        kind, key, meta.get("fn"), meta.get("label") or {}, meta.get("seconds"), entry.bytes, when, digest
    )


def name_of(kind: Kind, key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key; a key has 64 hexadecimal digits")
    return f"{FOLDERS[kind]}/{key[:2]}/{key}.{ENDINGS[kind]}"


def key_of(entry: Entry) -> str:
    return entry.name.rpartition("/")[2].rpartition(".")[0]


def is_store_file(name: str) -> bool:
    """True if a store writes files of this name."""
    return _OURS.fullmatch(name) is not None or is_temporary(name)
