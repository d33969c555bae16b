"""The final screen of the command: the verdict, what to do next, a table of levels, and the files."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from winticket.report.metric import metric_of
from winticket.report.numbers import plus_minus
from winticket.report.precision import precision_sentence
from winticket.report.reading import dense_arm, density_percent, interval, pruned_levels, replicates
from winticket.report.screen_files import files_of, lines_of_use
from winticket.report.screen_legend import legend
from winticket.report.screen_table import Say, levels_table, significant, value_cell
from winticket.report.screen_verdict import marked_list, next_steps, verdict_lines
from winticket.results import Document

WIDTH = 120
"""The screen uses at most this many columns, because longer lines are hard to read."""
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
    parts = [*verdict_lines(document, say), *next_steps(document, say), Text(), _dense_line(document, say)]
    if effect := precision_sentence(document):
        parts.append(Text(say(effect)))
    if pruned_levels(document):
        parts += [levels_table(document, say, width=width), *_searches(document, say, width=width)]
        parts.append(marked_list(legend(document, width=width), say, style="dim"))
    return [*parts, Text(), files_of(document, say), *lines_of_use(document, say)]


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
