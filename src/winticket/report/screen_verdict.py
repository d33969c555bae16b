"""The verdict on the final screen: outcome, reasons, failures, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from winticket.report.advice import TITLE, advise, introduction
from winticket.report.evidence import about_confidences
from winticket.report.pace import pace_sentence
from winticket.report.papers import cited, reference
from winticket.report.question import subject
from winticket.report.reading import failed_trainings, saved_ticket, sentences, warnings_by_bearing
from winticket.report.screen_table import Say
from winticket.report.titles import headline, not_won_at, spelt_out
from winticket.report.trouble_section import CAUTIONS, of_tuning
from winticket.results import Document

MOST_FAILURES = 5
MOST_TIPS = 3
_COLORS = {"won": "bold green", "not won": "bold red", "inconclusive": "bold yellow"}


def verdict_lines(document: Document, say: Say) -> list[RenderableType]:
    """The outcome, its reasons, what was not shown, and notes on how far to trust it."""
    bearing, others = warnings_by_bearing(document)
    bearing += [tuned] if (tuned := of_tuning(document)) else []
    lines = [
        *sentences(document),
        pace_sentence(document),
        *not_won_at(document),
        saved_ticket(document),
    ]
    parts: list[RenderableType] = [
        Text(say(f"{headline(document)}."), style=_COLORS[document["verdict"]["outcome"]]),
        *(Text(say(line), style="dim") for line in subject(document)),
        marked_list([("-", line) for line in spelt_out([line for line in lines if line])], say),
        *([Text(say(note), style="dim")] if (note := about_confidences(document)) else []),
        *(Text(say(f"Note: {warning}"), style="yellow") for warning in bearing),
    ]
    if others:
        count = "1 further note" if len(others) == 1 else f"{len(others)} further notes"
        parts.append(Text(say(f"({count} in the report, under “{CAUTIONS}”.)"), style="dim"))
    return [*parts, *_failures(document, say)]


def marked_list(lines: Sequence[tuple[str, str]], say: Say, *, style: str = "") -> RenderableType:
    """A list of (mark, text). Each text is indented after its mark, so that the marks stand out."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for sign, line in lines:
        grid.add_row(Text(say(sign), style=style), Text(say(line), style=style))
    return grid


def _failures(document: Document, say: Say) -> list[RenderableType]:
    """The causes of failures, and the number of trainings that were skipped because they need a failed one."""
    failed, waited = failed_trainings(document)
    if not failed and not waited:
        return []
    count = len(failed) + waited
    lines = [f"Failed: {count} {'training' if count == 1 else 'trainings'}, counted against the ticket."]
    lines += [f"  {line}" for line in failed[:MOST_FAILURES]]
    if len(failed) > MOST_FAILURES:
        lines.append(f"  and {len(failed) - MOST_FAILURES} more, listed in the report")
    if waited:
        lines.append(f"  and {waited} skipped because they need one that failed")
    return [Text(say(line), style="yellow") for line in lines]


def next_steps(document: Document, say: Say) -> list[RenderableType]:
    """What to do next."""
    tips = advise(document)
    if not tips:
        return []
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    for number, tip in enumerate(tips[:MOST_TIPS], start=1):
        grid.add_row(f"{number}.", Text(say(tip)))
    parts: list[RenderableType] = [
        Text(),
        Text(TITLE, style="bold"),
        Text(say(introduction(document))),
        Padding(grid, (0, 0, 0, 1)),
    ]
    parts += [Text(say(f" {reference(name)}"), style="dim") for name in cited(" ".join(tips[:MOST_TIPS]))]
    if len(tips) > MOST_TIPS:
        parts.append(Text(f" ({len(tips) - MOST_TIPS} more in the report.)", style="dim"))
    return parts
