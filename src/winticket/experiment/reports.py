"""Guard existing reports: the same experiment may renew its report, but another one never overwrites it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winticket.experiment.documents import Compared, Reported, read_document
from winticket.places import COMPARISON, CURVES, MASKS, PAGE, RESULT, TICKET
from winticket.results import OtherSchemaError, Question

GROWS = frozenset(
    {"carried", "controls", "density", "gate", "levels", "methods", "precision_check", "replicates"}
)
"""Choices that may grow while the experiment stays the same; its report is then extended."""
NO_MATTER = frozenset({"arms", "data", "engine", "stack"})
"""Choices that follow from others or change no result. The fingerprint decides whether data are the same."""
_SHOWN = 3


def require_same_experiment(folder: Path, described: Question, *, fingerprint: str) -> None:
    """Raise ValueError if the folder holds the report of another experiment, so that no report is lost.

    `described` is the experiment as `Experiment.describe` returns it, and `fingerprint` is that of its data. The same
    experiment may renew its report, also with more levels, densities, replicates or controls.
    """
    file = folder / RESULT
    advice = "choose another folder with --out, or remove this one"
    if not file.is_file():
        _require_none(folder, (PAGE, TICKET, CURVES, MASKS), without=RESULT)
        return
    try:
        document = read_document(file, Reported)
        reported = document.experiment
        differ = _differences(reported, described)
        if document.data.fingerprint != fingerprint:
            changed = "the data have changed since then"
            other = f"data is {reported.get('data')} there and {described['data']} here"
            differ.insert(0, changed if reported.get("data") == described["data"] else other)
    except OtherSchemaError as error:
        raise ValueError(_unread(folder, RESULT, error)) from error
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"the output folder {str(folder)!r} has a {RESULT} that is not the result of a search ({error}); {advice}"
        ) from error
    if differ:
        more = f"; and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        raise ValueError(
            f"the output folder {str(folder)!r} holds the report of another experiment ({'; '.join(differ[:_SHOWN])}"
            f"{more}); {advice}"
        )


def require_same_comparison(folder: Path, planned: Mapping[str, Any]) -> None:
    """As `require_same_experiment` for a comparison; `planned` is its identity (see `entries.identity`)."""
    file = folder / COMPARISON
    if not file.is_file():
        _require_none(
            folder, [f"compare.{kind}" for kind in ("html", "csv", "png", "svg", "pdf")], without=COMPARISON
        )
        return
    advice = "choose another folder with --out, or remove this one"
    try:
        document = read_document(file, Compared)
        differ = _differences(document.comparison, planned)
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
        f"the output folder {str(folder)!r} has a {name} that cannot be compared with this run: {error}, or choose "
        "another folder with --out"
    )


def _require_none(folder: Path, names: Sequence[str], *, without: str) -> None:
    """ValueError if there are files of these names: without the document `without`, they are not known to be ours."""
    unknown = [name for name in names if (folder / name).exists()]
    if unknown:
        raise ValueError(
            f"the output folder {str(folder)!r} has a {' and a '.join(unknown)} but no {without} that says which "
            "run wrote it, so it would be lost; choose another folder with --out, or move the file away"
        )


def _differences(reported: Mapping[str, Any], planned: Mapping[str, Any], *, within: str = "") -> list[str]:
    """Why the two are not the same experiment, in words. Choices that are missing in one of them are skipped."""
    differ = []
    if bool(reported.get("source")) != bool(planned.get("source")):
        return ["one is a transfer and the other is a search"]
    for name, before in reported.items():
        if name in NO_MATTER or name not in planned or before == planned[name]:
            continue
        now = planned[name]
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            differ += _differences(before, now, within=f"{name} ")
        elif name not in GROWS or not _extends(now, before):
            words = f"{within}{name.replace('_', ' ')}"
            differ.append(f"{words} is {_text(before)} there and {_text(now)} here")
    return differ


def _extends(now: Any, before: Any) -> bool:
    return set(before) <= set(now) if isinstance(before, list) else bool(now >= before)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not given" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
