"""Durations in words."""

from __future__ import annotations

from winticket.results import Document


def run_time(document: Document) -> str:
    """How long the run took, which share of its trainings it had from the store, and how busy its processes were."""
    reused, computed = document.get("reused") or 0, document.get("computed") or 0
    share = "all" if not computed else f"{100 * reused // (reused + computed)} % of the"
    text = f"{duration(document['seconds'])}{f', with {share} trainings from the store' if reused else ''}"
    processes = document.get("processes")
    if processes is None or document["seconds"] < WORTH_SAYING:
        return text
    who = "1 process" if processes["count"] == 1 else f"{processes['count']} processes"
    return f"{text}; {who}, training {100 * processes['busy']:.0f} % of the time"


WORTH_SAYING = 10.0
"""Seconds. Of shorter runs, nobody asks whether the cores were busy."""


def duration(seconds: float) -> str:
    """Write a number of seconds in words.

    >>> [duration(seconds) for seconds in (4.2, 64, 129, 12_000)]
    ['4.2 s', '64 s', '2 min 9 s', '3 h 20 min']
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
