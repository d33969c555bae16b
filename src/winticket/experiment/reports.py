"""Existing reports: one of the same experiment is renewed, one of another experiment is never overwritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winticket.experiment.documents import Compared, Reported, read_document
from winticket.places import CURVES, PAGE, RESULT, TICKET
from winticket.results import OtherSchemaError, Question

GROWS = frozenset({"carried", "controls", "density", "gate", "levels", "methods", "replicates"})
"""What an experiment may be given more of and still be the same one, whose report then says more."""
NO_MATTER = frozenset({"arms", "data", "engine", "stack"})
"""Follows from the rest or moves no result; data are the same if their examples are."""
COMPARISON = "compare.json"
_SHOWN = 3


def require_own_report(folder: Path, described: Question, *, fingerprint: str) -> None:
    """ValueError if the folder's report is of another experiment than the one described, so that none is lost.

    The same experiment, also with more levels, densities, replicates or controls, renews its report. `fingerprint` is
    the data's.
    """
    file = folder / RESULT
    advice = "give another folder with --out, or remove this one"
    if not file.is_file():
        _require_none(folder, (PAGE, TICKET, CURVES), without=RESULT)
        return
    try:
        document = read_document(file, Reported)
        reported = document.experiment
        differ = _differences(reported, described)
        if document.data.fingerprint != fingerprint:
            changed = "the data have changed since"
            other = f"data is {reported.get('data')} there and {described['data']} here"
            differ.insert(0, changed if reported.get("data") == described["data"] else other)
    except OtherSchemaError as error:
        raise ValueError(_unread(folder, RESULT, error)) from error
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"the output folder {str(folder)!r} has a {RESULT} that is no result of a search ({error}); {advice}"
        ) from error
    if differ:
        more = f"; and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        raise ValueError(
            f"the output folder {str(folder)!r} holds the report of another experiment ({'; '.join(differ[:_SHOWN])}"
            f"{more}); {advice}"
        )


def require_own_comparison(folder: Path, here: Mapping[str, Any]) -> None:
    """As `require_own_report` for a folder of comparisons; `here` is what they are known by (`compare.identity`)."""
    file = folder / COMPARISON
    if not file.is_file():
        _require_none(folder, ("compare.csv", "compare.png", "compare.svg"), without=COMPARISON)
        return
    advice = "give another folder with --out, or remove this one"
    try:
        document = read_document(file, Compared)
        differ = _differences(document.comparison, here)
    except OtherSchemaError as error:
        raise ValueError(_unread(folder, COMPARISON, error)) from error
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"the output folder {str(folder)!r} has a {COMPARISON} of another kind or version ({error}); {advice}"
        ) from error
    if differ:
        raise ValueError(
            f"the output folder {str(folder)!r} holds another comparison ({'; '.join(differ[:_SHOWN])}); {advice}"
        )


def _unread(folder: Path, name: str, error: OtherSchemaError) -> str:
    return (
        f"the output folder {str(folder)!r} has a {name} that cannot be compared with this run: {error}, or give "
        "another folder with --out"
    )


def _require_none(folder: Path, names: Sequence[str], *, without: str) -> None:
    """ValueError for files of these names: without the document that goes with ours, they are somebody's own."""
    strange = [name for name in names if (folder / name).exists()]
    if strange:
        raise ValueError(
            f"the output folder {str(folder)!r} has a {' and a '.join(strange)} and no {without} that says whose, so "
            "it would be lost; give another folder with --out, or move that away"
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], *, within: str = "") -> list[str]:
    """Why the two are not one experiment, in words. Choices that one of them does not know are left out."""
    differ = []
    if bool(there.get("source")) != bool(here.get("source")):
        return ["tickets that were carried over on one side, and a search on the other"]
    for name in there:
        if name in NO_MATTER or name not in here or there[name] == here[name]:
            continue
        if isinstance(there[name], Mapping) and isinstance(here[name], Mapping):
            differ += _differences(there[name], here[name], within=f"{name} ")
        elif name not in GROWS or not _is_more(here[name], there[name]):
            words = f"{within}{name.replace('_', ' ')}"
            differ.append(f"{words} is {_text(there[name])} there and {_text(here[name])} here")
    return differ


def _is_more(here: Any, there: Any) -> bool:
    return set(there) <= set(here) if isinstance(there, list) else bool(here >= there)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not given" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
