"""The final screen of the command: levels, the verdict in a sentence, where things are, what to try next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from winticket.report.advice import advise
from winticket.report.pace import judged_fraction
from winticket.report.reading import (
    Document,
    arms,
    claimed,
    dense_arm,
    density_percent,
    duration,
    interval,
    is_in,
    passed,
    plus_minus,
    pruned_levels,
    reason,
    replicates,
    said,
    speed,
)
from winticket.report.titles import headline

Say = Callable[[str], str]

WIDTH = 80
_COLORS = {"won": "bold green", "not won": "bold red", "inconclusive": "bold yellow"}
_MARKS = {True: "yes", False: "no", None: "–"}
_SHORT = {"ticket": "ticket", "reinit": "reinit", "random": "random"}
# What a terminal without Unicode shows instead.
_ASCII = str.maketrans(
    {
        "±": "~",
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
    """What the command prints at the end: fits 80 columns, legible without colour and without Unicode."""
    return _Screen(document)


@dataclass(frozen=True)
class _Screen:
    document: Document

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = options.update_width(min(WIDTH, options.max_width))
        say = _in_ascii if options.ascii_only else str
        for part in _parts(self.document, say):
            yield from console.render(part, narrow)


def _in_ascii(text: str) -> str:
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def _parts(document: Document, say: Say) -> list[RenderableType]:
    parts: list[RenderableType] = [_dense_line(document, say)]
    if pruned_levels(document):
        parts += [_levels(document, say), *_searches(document, say), Text(say(_key(document)), style="dim")]
    parts += [Text(), *_verdict(document, say), Text(), _places(document, say)]
    tips = advise(document)
    if tips:
        parts += [Text(), Text("What to try next", style="bold"), _numbered([say(tip) for tip in tips])]
    return parts


def _dense_line(document: Document, say: Say) -> Text:
    dense = dense_arm(document)
    if dense is None:
        return Text("Dense network: not trained")
    accuracy = plus_minus(dense.get("accuracy"), interval(dense, "accuracy_ci"), scale=100, digits=2)
    stop = plus_minus(dense.get("early_stop_step"), None, scale=1, digits=0)
    count = replicates(dense)
    failed = f", {dense['failed']} failed" if dense.get("failed") else ""
    plural = "replicate" if count == 1 else "replicates"
    line = f"Dense network: {accuracy} %, early stop at step {stop}, {count} {plural}{failed}"
    return Text(say(line), style="bold")


def _levels(document: Document, say: Say) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    shown = [arm for arm in arms(document) if arm in _SHORT]
    checks = {"accuracy": "=\ndense"}
    checks |= {f"beats_{arm}": f">\n{_SHORT[arm]}" for arm in shown if arm != "ticket"}
    table.add_column("density\n%", justify="right", no_wrap=True)
    for arm in shown:
        table.add_column(f"{_SHORT[arm]}\n%", justify="right", no_wrap=True)
    for name in checks.values():
        table.add_column(name, justify="center", no_wrap=True)
    table.add_column("early\nstop", justify="right", no_wrap=True)
    table.add_column("\ntime")
    won = claimed(document)
    for level in pruned_levels(document):
        entries = level["arms"]
        sure = is_in(level["density"], won)
        cells = [density_percent(level["density"]).removesuffix(" %") + (" *" if sure else "  ")]
        cells += [_accuracy(entries.get(arm)) for arm in shown]
        cells += [_MARKS[passed(level, check)] for check in checks]
        stop = entries["ticket"].get("early_stop_step")
        if level.get("checks", {}).get("time_left_out") is not None:
            stop = None  # where most runs end at the last step, it is the length of the training
        cells += [plus_minus(stop, None, scale=1, digits=0)]
        cells += [speed(level) or "–"]
        table.add_row(*map(say, cells), style="bold" if sure else "")
    return table


def _searches(document: Document, say: Say) -> list[Text]:
    """A line for networks as their search left them, which the table has no room for."""
    told = [
        f"{_accuracy(level['arms']['search'])} at {density_percent(level['density'])}"
        for level in pruned_levels(document)
        if "search" in level["arms"]
    ]
    return [Text(say(f"As its search left it: {', '.join(told)}"))] if told else []


def _accuracy(arm: Mapping[str, Any] | None) -> str:
    """98.51 ±0.30 in 11 columns, whatever the numbers, and a mark where a replicate failed."""
    if arm is None or arm.get("accuracy") is None:
        return "–" + ("!" if arm is not None and arm.get("failed") else "")
    mean, ends = 100 * arm["accuracy"], interval(arm, "accuracy_ci")
    text = f"{mean:.2f}" if mean < 99.995 else "100.0"
    if ends is not None:
        half = 50 * (ends[1] - ends[0])
        text += f" ±{half:.2f}" if half < 9.995 else f" ±{half:.1f}"
    return text + ("!" if arm.get("failed") else "")


def _key(document: Document) -> str:
    margin = said(document, "margin_pp")
    within = "within the margin" if margin is None else f"within {margin:g} pp"
    star = "* verified winning ticket; " if claimed(document) else ""
    lost = any(arm.get("failed") for level in pruned_levels(document) for arm in level["arms"].values())
    return (
        f"{star}{'! a replicate failed; ' if lost else ''}± half a 95 % interval; = dense: not worse, "
        f"{within}; > control: better; early stop: the ticket's step; {_time(document)}"
    )


def _time(document: Document) -> str:
    fraction = judged_fraction(document)
    if fraction is None:
        return "time: its early stop against dense"
    return f"time: steps to {100 * fraction:g} % of dense accuracy, against dense"


def _verdict(document: Document, say: Say) -> list[RenderableType]:
    verdict = document["verdict"]
    first = Text(say(f"{headline(document)}."), style=_COLORS[verdict["outcome"]])
    lines: list[RenderableType] = [first]
    if reason(document):
        lines.append(Text(say(reason(document))))
    lines += [Text(say(f"Warning: {warning}"), style="yellow") for warning in verdict.get("warnings") or ()]
    failed = len(document.get("failures") or ())
    if failed:
        lines.append(Text(f"Failed trainings: {failed}. They stay in the count, as failed.", style="yellow"))
    return lines


def _places(document: Document, say: Say) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in ("ticket", "report", "results", "store"):
        place = document.get(name)
        if place is not None:
            grid.add_row(name, Text(say(str(place)), overflow="fold"))
    drawn = document.get("figures") or ()
    if drawn:
        folders = dict.fromkeys(str(path).rpartition("/")[0] or "." for path in drawn)
        count = f"{len(drawn)} files in " if len(drawn) > 1 else "1 file in "
        grid.add_row("figures", Text(say(count + ", ".join(folders)), overflow="fold"))
    if document.get("seconds") is not None:
        grid.add_row("time", duration(document["seconds"]))
    return grid


def _numbered(sentences: list[str]) -> Padding:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    for number, sentence in enumerate(sentences, start=1):
        grid.add_row(f"{number}.", Text(sentence))
    return Padding(grid, (0, 0, 0, 1))
