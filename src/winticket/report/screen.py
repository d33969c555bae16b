"""The final screen of the command: the verdict, what to do next, a table of levels, and the files."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from winticket.report.advice import TITLE, advise, introduction
from winticket.report.durations import run_time
from winticket.report.evidence import about_confidences
from winticket.report.metric import Metric, metric_of
from winticket.report.numbers import plus_minus
from winticket.report.pace import judged_fraction, pace_sentence, share
from winticket.report.papers import cited, reference
from winticket.report.precision import precision_sentence
from winticket.report.question import subject
from winticket.report.reading import (
    FEWEST_REPLICATES,
    claimed,
    dense_arm,
    density_percent,
    failed_trainings,
    has_won,
    interval,
    lines_to_use,
    pruned_levels,
    question_of,
    replicates,
    saved_ticket,
    sentences,
    speed,
    too_few,
    warnings_by_bearing,
)
from winticket.report.screen_table import (
    ROOMY,
    Say,
    cut_arms,
    early_stop,
    ends_fit,
    levels_table,
    significant,
    value_cell,
)
from winticket.report.titles import headline, not_won_at, spelt_out
from winticket.report.trouble_section import CAUTIONS, of_tuning
from winticket.results import Document

WIDTH = 120
"""The screen uses at most this many columns, because longer lines are hard to read."""
USE = "To use the ticket"
MOST_FAILURES = 5
MOST_TIPS = 3
_COLORS = {"won": "bold green", "not won": "bold red", "inconclusive": "bold yellow"}
# What a terminal without Unicode shows instead.
_ASCII = str.maketrans(
    {
        "±": "~",
        "×": "x",
        "“": '"',
        "”": '"',
        "…": "~",
        "–": "-",
        "—": "-",
        "−": "-",
        "δ": "delta",
        "Δ": "delta",
        "·": "-",
        "≤": "<=",
        "≥": ">=",
    }
)


def final_screen(document: Document) -> RenderableType:
    """What the command prints at the end. It is as wide as the terminal, from 80 to 120 columns.

    It is readable without colour and without Unicode.
    """
    return _Screen(document)


@dataclass(frozen=True)
class _Screen:
    document: Document

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(WIDTH, options.max_width)
        say = _in_ascii if options.ascii_only else str
        for part in _parts(self.document, say, width=width):
            yield from console.render(part, options.update_width(width))


def _in_ascii(text: str) -> str:
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def _parts(document: Document, say: Say, *, width: int) -> list[RenderableType]:
    parts = [*_verdict(document, say), *_next(document, say), Text(), _dense_line(document, say)]
    if effect := precision_sentence(document):
        parts.append(Text(say(effect)))
    if pruned_levels(document):
        parts += [levels_table(document, say, width=width), *_searches(document, say, width=width)]
        parts.append(_list(_key(document, width=width), say, style="dim"))
    return [*parts, Text(), _files(document, say), *_use(document, say)]


def _verdict(document: Document, say: Say) -> list[RenderableType]:
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
        _list([("-", line) for line in spelt_out([line for line in lines if line])], say),
        *([Text(say(note), style="dim")] if (note := about_confidences(document)) else []),
        *(Text(say(f"Note: {warning}"), style="yellow") for warning in bearing),
    ]
    if others:
        count = "1 further note" if len(others) == 1 else f"{len(others)} further notes"
        parts.append(Text(say(f"({count} in the report, under “{CAUTIONS}”.)"), style="dim"))
    return [*parts, *_failures(document, say)]


def _list(lines: Sequence[tuple[str, str]], say: Say, *, style: str = "") -> RenderableType:
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


def _next(document: Document, say: Say) -> list[RenderableType]:
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


def _dense_line(document: Document, say: Say) -> Text:
    dense = dense_arm(document)
    if dense is None:
        return Text("Dense network: not trained")
    metric = metric_of(document)
    mean = metric.head(metric.text(dense.get("accuracy"), interval(dense, "accuracy")))
    stop = plus_minus(dense.get("early_stop_step"), None, scale=1, digits=0)
    count = replicates(dense)
    failed = f", {dense['failed']} failed" if dense.get("failed") else ""
    plural = "replicate" if count == 1 else "replicates"
    line = f"Dense network: {mean} test {metric.name}, early stop at step {stop}, {count} {plural}{failed}"
    return Text(say(line), style="bold")


def _searches(document: Document, say: Say, *, width: int) -> list[Text]:
    """A line with the values of the networks that the search left. The table has no room for them."""
    metric, digits = metric_of(document), significant(width)
    entries = [
        f"{value_cell(metric, level['arms']['search'], significant=digits)} at {density_percent(level['density'])}"
        for level in pruned_levels(document)
        if "search" in level["arms"]
    ]
    return [Text(say(f"As its search left it: {', '.join(entries)}"))] if entries else []


def _key(document: Document, *, width: int) -> list[tuple[str, str]]:
    """The legend of the table: (mark or column, meaning)."""
    levels = pruned_levels(document)
    entries = [arm for level in levels for arm in level["arms"].values()]
    ends_note = ""
    if cut_arms(document):
        ends_note = "; (low–high)" if ends_fit(document, width) else _one_end(metric_of(document))
        ends_note += " if it is not symmetric" if ends_fit(document, width) else ""
    signs = [("kept", "of the weights that may be pruned (not biases).")]
    signs.append(("* won" if claimed(document) else "won", _rule(document, roomy=width >= ROOMY)))
    signs.append(
        (
            "±",
            f"95 % interval of the mean{ends_note}. {_what(metric_of(document))} on test data after the last step.",
        )
    )
    if question_of(document).get("margin_pp") is not None:
        signs.append(
            (
                "difference",
                "in the text above: computed within each replicate and before rounding, so it may not equal that of "
                "two means in this table.",
            )
        )
        if not metric_of(document).higher:
            signs.append(("better", f"means a lower {metric_of(document).name}."))
    signs.append(
        ("yes", "a test paired by replicate shows it; no: it shows the opposite; open: it shows neither.")
    )
    if any(arm.get("failed") for arm in entries):
        signs.append(("!", "a replicate failed."))
    return [*signs, ("early stop", _about_early_stops(document)), _time(document)]


def _what(metric: Metric) -> str:
    """What the numbers of the table are."""
    one = metric.plural
    return f"{one[:1].upper()}{one[1:]} are"


def _one_end(metric: Metric) -> str:
    """What an interval with a single end means, which is cut at an end of the metric's range."""
    if metric.scale.unit == "%":
        return "; >96.0 means from 96.0 to 100 %, <4.0 from 0 to 4.0 %"
    low, high = metric.scale.low, metric.scale.high
    parts = [f"> from there to {high:g}"] if math.isfinite(high) else []
    parts += [f"< from {low:g} to there"] if math.isfinite(low) else []
    return f"; {' and '.join(parts)}"


def _rule(document: Document, *, roomy: bool) -> str:
    """The rule by which a ticket wins, in one line."""
    margin, alpha = question_of(document).get("margin_pp"), question_of(document).get("alpha")
    metric = metric_of(document)
    spelt = " (percentage points)" if metric.in_points else ""
    within = "the margin" if margin is None else f"the margin of {metric.margin(margin)}{spelt}"
    matches, beats = ("matches dense", "beats") if roomy else ("matches dense (=)", "beats (>)")
    level = "" if alpha is None else f" (chance of any false win: at most {100 * alpha:g} %)"
    return f"{matches} within {within} and {beats} both controls{level}."


def _about_early_stops(document: Document) -> str:
    shown = "step of the ticket's lowest validation loss, mean over replicates."
    if all(early_stop(level) != "–" for level in pruned_levels(document)):
        return shown
    return f"{shown} –: in most replicates, the loss of the ticket or of the dense network was lowest at the last step."


def _time(document: Document) -> tuple[str, str]:
    """The legend of the last column, which shows whether the ticket is sooner or later than dense."""
    missing = ""
    if not all(speed(level) for level in pruned_levels(document)):
        fewest = f" with fewer than {FEWEST_REPLICATES} replicates" if too_few(document) else ""
        missing = f" –: not judged{fewest}."
    fraction = judged_fraction(document)
    if fraction is None:
        return "last column", f"the ticket's early stop against the dense network's.{missing}"
    name = metric_of(document).name
    return f"to {100 * fraction:g} %", (
        f"sooner (later): to reach {share(document, fraction)} the dense network's final validation {name}, the ticket "
        f"is shown to need fewer (more) steps than the dense network; alike: neither.{missing}"
    )


def _files(document: Document, say: Say) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in ("ticket", "report", "results", "store"):
        path = document.get(name)
        if path is not None:
            note = " (not a winning ticket)" if name == "ticket" and not has_won(document) else ""
            note = " (finished trainings)" if name == "store" else note
            grid.add_row(name, Text(say(f"{path}{note}"), overflow="fold"))
    drawn = document.get("figures") or ()
    if drawn:
        folders = dict.fromkeys(str(path).rpartition("/")[0] or "." for path in drawn)
        grid.add_row("figures", Text(say(f"{_drawn(drawn)} in {', '.join(folders)}"), overflow="fold"))
    for name, why in (document.get("unwritten") or {}).items():
        again = "run the same command again to write it"
        grid.add_row("not written", Text(say(f"{name}: {why}; {again}"), style="yellow", overflow="fold"))
    if document.get("seconds") is not None:
        grid.add_row("time", run_time(document))
    return grid


def _drawn(paths: Sequence[str]) -> str:
    """Count the figures, each of which is several files: `4 figures (png, svg, csv)`."""
    names = {str(path).rpartition(".")[0] for path in paths}
    kinds = ", ".join(dict.fromkeys(str(path).rpartition(".")[2] for path in paths))
    return f"{'1 figure' if len(names) == 1 else f'{len(names)} figures'} ({kinds})"


def _use(document: Document, say: Say) -> list[RenderableType]:
    """The Python lines that train the saved ticket, without comments, and the command that ships it trained."""
    code = [line.partition("  #")[0] for line in lines_to_use(document) if line]
    if not code:
        return []
    head = USE if claimed(document) else f"{USE}, though it is not a winning ticket"
    return [
        Text(),
        *(Text(say(line), overflow="fold") for line in (f"{head}:", *(f"  {line}" for line in code))),
        Text(
            say(f"To save it with its trained weights, as a small file: winticket ship {_folder(document)}"),
            overflow="fold",
        ),
    ]


def _folder(document: Document) -> str:
    """The run's folder as one types it in a shell."""
    return shlex.quote(str(document["results"]).rpartition("/")[0] or ".")
