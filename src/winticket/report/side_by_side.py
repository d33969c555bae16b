"""Runs side by side on one page: accuracy against density of all, their verdicts, and what differs in the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.report.axes import density_axis, up_axis
from winticket.report.comparison import method_name
from winticket.report.elements import section, table
from winticket.report.glossary import linked, words_section
from winticket.report.glossary_metric import meanings
from winticket.report.ink import SERIES, lettering, on, style
from winticket.report.inline import figure
from winticket.report.layers import MARKERS
from winticket.report.layout import FILE, Label, Layout, canvas, end_labels
from winticket.report.metric import Metric, metric_of
from winticket.report.page import framed
from winticket.report.question import data_words
from winticket.report.reading import (
    claimed,
    dense_arm,
    density_percent,
    ends,
    interval,
    is_in,
    paired_difference,
    plain,
    pruned_levels,
    question_of,
    sentences,
    tickets_from,
)
from winticket.report.settings import in_words
from winticket.report.strokes import level_line
from winticket.report.titles import headline, spelt_out
from winticket.results import Comparison, Document
from winticket.table import Table, Value
from winticket.text import cleaned

COLUMNS = ("run", "density", "arm", "accuracy", "ci_low", "ci_high", "to_dense", "claimed")


@dataclass(frozen=True)
class Named:
    """A document with the name by which the page tells it from the others."""

    name: str
    document: Document | Comparison


def write_side_by_side(runs: Sequence[Named], path: str | Path) -> Path:
    """Write the page of several runs, and return its path. ValueError for fewer than two; OSError as for a file."""
    target = Path(path)
    target.write_text(side_by_side(runs), encoding="utf-8")
    return target


def side_by_side(runs: Sequence[Named]) -> str:
    """Return the page of several runs as HTML: searches, transfers and comparisons of methods.

    ValueError for fewer than two.
    """
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run is nothing to compare; give two or more")
    listed = [Named(run.name, cleaned(run.document)) for run in runs]
    body = "\n".join(
        [
            f"<section><h1>{len(listed)} runs side by side</h1>{_verdicts(listed)}</section>",
            _figure(listed),
            _differences(listed),
            _sentences(listed),
            _numbers(listed),
        ]
    )
    shared = _shared(listed) or Metric()
    whole = linked(body, unit=shared.scale.unit)
    return framed(f"{len(listed)} runs side by side", f"{whole}\n{words_section(whole, meanings(shared))}")


def is_comparison(document: Document | Comparison) -> bool:
    """Whether a document is of a comparison of methods, which has rows and no verdict."""
    return "rows" in document


def _shared(runs: Sequence[Named]) -> Metric | None:
    """The metric that all runs are judged by; None if there are several, whose values stand on no common axis."""
    found = {metric_of(run.document).scale: metric_of(run.document) for run in runs}
    return next(iter(found.values())) if len(found) == 1 else None


def accuracies(runs: Sequence[Named]) -> Table:
    """One row per run, level and network: accuracies as fractions, and the difference to dense in percentage points.

    Of a run that is judged by another metric: its values in its own unit, and differences that are positive if the
    network is better than dense.

    Of searches and transfers the dense network and the ticket; of comparisons every method at equal steps, which is its
    arm.
    """
    return Table(COLUMNS, tuple(row for run in runs for row in _rows(run)))


def _rows(run: Named) -> list[tuple[Value, ...]]:
    if is_comparison(run.document):
        return _rows_of_methods(run.name, cast("Comparison", run.document))
    document = cast("Document", run.document)
    rows: list[tuple[Value, ...]] = []
    dense, won = dense_arm(document), claimed(document)
    if dense is not None:
        low, high = interval(dense, "accuracy") or (None, None)
        rows.append((run.name, 1.0, "dense", dense.get("accuracy"), low, high, 0.0, False))
    for level in pruned_levels(document):
        ticket = level["arms"]["ticket"]
        low, high = interval(ticket, "accuracy") or (None, None)
        gap = paired_difference(document, level, "ticket", dense)
        wins = is_in(level["density"], won)
        rows.append((run.name, level["density"], "ticket", ticket.get("accuracy"), low, high, gap, wins))
    return rows


def _rows_of_methods(name: str, document: Comparison) -> list[tuple[Value, ...]]:
    rows: list[tuple[Value, ...]] = []
    for row in document["rows"]:
        if row["equal"] != "density":
            continue
        low, high = ends(row["accuracy_ci"]) or (None, None)
        gap = 0.0 if row["arm"] == "dense" else row["to_dense"] and metric_of(document).shown(row["to_dense"])
        method = "dense" if row["arm"] == "dense" else method_name(row["method"], row["arm"])
        rows.append((name, row["density"], method, row["accuracy"], low, high, gap, False))
    return rows


def side_by_side_figure(runs: Sequence[Named], *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """Draw the metric against density for every run, and the difference to its dense network; returns the table too.

    A run's line begins at its dense network, at 100 %. Methods of a comparison are single points. ValueError if runs
    are judged by several metrics.
    """
    made, metric = accuracies(runs), _shared(runs)
    if metric is None:
        raise ValueError("the runs are judged by different metrics, which have no common axis")
    with style(layout.ink):
        figure, (left, right) = canvas(
            f"{len(runs)} runs side by side", "mean over replicates, 95 % t interval", layout, panels=2, across=2,
            share=False, labels=[run.name for run in runs], height=2.6 if layout.narrow else 3.2,
        )  # fmt: skip
        labels = [
            label
            for at, run in enumerate(runs)
            if (label := _line((left, right), made.where(run=run.name), run, at, layout=layout)) is not None
        ]
        level_line(right, 0.0, "dense network", ink=layout.ink)
        for axes, title, unit in (
            (left, f"test {metric.name}", metric.axis("") if metric.scale.unit != "%" else "%"),
            (right, _to_dense(metric), metric.difference_axis(narrow=False)),
        ):
            density_axis(axes, made)
            axes.set_title(title, loc="left", fontsize=10, color=layout.ink.text)
            up_axis(axes, unit)
        end_labels(right, labels)
    return figure, made


def _to_dense(metric: Metric) -> str:
    return "minus the dense network of the run" if metric.higher else "dense network of the run minus this"


def _line(pair: tuple[Axes, Axes], rows: Table, run: Named, at: int, *, layout: Layout) -> Label | None:
    metric = metric_of(run.document)
    color, marker = on(layout.ink, SERIES[at % len(SERIES)]), MARKERS[at % len(MARKERS)]
    left, right = pair
    x, y, gap = rows.numbers("density"), metric.shown(rows.numbers("accuracy")), rows.numbers("to_dense")
    joined = "none" if is_comparison(run.document) else "-"
    for axes, values in ((left, y), (right, gap)):
        axes.plot(
            x,
            values,
            linestyle=joined,
            marker=marker,
            color=color,
            markerfacecolor=layout.ink.paper,
            label=run.name,
        )
        won = np.array(rows.column("claimed"), dtype=bool)
        axes.plot(x[won], values[won], marker, color=color, linestyle="none")
    low, high = metric.shown(rows.numbers("ci_low")), metric.shown(rows.numbers("ci_high"))
    if is_comparison(run.document):
        left.vlines(x, low, high, color=color, alpha=0.6)
    else:
        left.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    finite = gap[np.isfinite(gap)]
    return Label(float(finite[-1]), run.name, lettering(color, ink=layout.ink)) if len(finite) else None


def _figure(runs: Sequence[Named]) -> str:
    metric = _shared(runs)
    if metric is None:
        names = ", ".join(dict.fromkeys(metric_of(run.document).name for run in runs))
        note = f"The runs are judged by different metrics ({names}), so no figure has them side by side."
        return f"<section><p>{escape(note)}</p></section>"
    title = f"{metric.heading} against density"
    words = f"{title} of every run, and the difference to its dense network; the tables give numbers."
    values = metric.plural[:1].upper() + metric.plural[1:]
    caption = (
        f"Left: test {metric.name} after the last step, with 95 % intervals; a line begins at the run's dense network. "
        "Right: "
        f"{metric.minus('ticket', 'dense network')} of the same replicate, in the mean. Filled markers: winning "
        f"tickets. {values} on "
        "different data do not compare. Points that no line joins are methods of a comparison, at equal steps."
    )
    drawn = figure(
        lambda layout: side_by_side_figure(runs, layout=layout)[0],
        name="side-by-side", words=words, above=f"<h2>{escape(title)}</h2>", caption=caption,
    )  # fmt: skip
    return f"<section>{drawn}</section>"


def _verdicts(runs: Sequence[Named]) -> str:
    rows, shared = [], _shared(runs)
    for run in runs:
        if is_comparison(run.document):
            compared = cast("Comparison", run.document)
            cells = [
                "–",
                _dense_of(compared, named=shared is None),
                str(compared["replicates"]),
                "comparison of methods: no verdict",
            ]
        else:
            document = cast("Document", run.document)
            won, dense = claimed(document), dense_arm(document)
            metric = metric_of(document)
            value = "–" if dense is None else metric.text(dense.get("accuracy"), interval(dense, "accuracy"))
            cells = [
                density_percent(min(won)) if won else "none",
                value if shared else f"{metric.head(value)} {metric.name}",
                plain(question_of(document).get("replicates")),
                headline(document),
            ]
        rows.append([escape(cell) for cell in (run.name, *cells)])
    caption = (
        "Each run is judged by itself. That one wins and another does not is no test of the difference between "
        "them."
    )
    return table(
        (
            "run",
            "smallest winning ticket",
            shared.head("dense") if shared else "dense",
            "replicates",
            "verdict",
        ),
        rows,
        caption=caption,
        worded=True,
        text=1,
    )


def _dense_of(document: Comparison, *, named: bool) -> str:
    dense = next(
        (row for row in document["rows"] if row["arm"] == "dense" and row["equal"] == "density"), None
    )
    if dense is None:
        return "–"
    metric = metric_of(document)
    value = metric.text(dense["accuracy"], ends(dense["accuracy_ci"]))
    return f"{metric.head(value)} {metric.name}" if named else value


def differing(runs: Sequence[Named]) -> list[tuple[str, ...]]:
    """The options whose values differ among the runs: per option its name and the value of each run.

    >>> one = Named("one", {"experiment": {"data": "digits", "steps": 800}, "levels": []})
    >>> other = Named("other", {"experiment": {"data": "digits", "steps": 400}, "levels": []})
    >>> differing([one, other])
    [('steps', '800', '400')]
    """
    mixed = any(is_comparison(run.document) for run in runs)
    asked = [_choices(run.document) if mixed else _options(cast("Document", run.document)) for run in runs]
    names = dict.fromkeys(name for options in asked for name in options)
    if mixed:  # a comparison states only what its methods share
        names = dict.fromkeys(name for name in names if all(name in options for options in asked))
    rows = [(name, *(options.get(name, "–") for options in asked)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _options(document: Document) -> dict[str, str]:
    """The options that had an effect, in words."""
    question = question_of(document)
    options = dict(in_words(question, document.get("data"), metric_of(document)))
    if words := data_words(document):
        options["examples"] = words
    if question.get("source"):
        options["tickets from"] = tickets_from(question["source"])
    return options


def _choices(document: Document | Comparison) -> dict[str, str]:
    """Every choice by its name, as the document states it."""
    if not is_comparison(document):
        found = cast("Document", document)
        chosen: Mapping[str, Any] = cast("Mapping[str, Any]", question_of(found))
    else:
        compared = cast("Comparison", document)
        known = {"data": compared["data"], "model": compared["model"]}
        for name, value in compared["comparison"].items():
            known |= value if isinstance(value, dict) else {name: value}
        chosen = known
    return {name.replace("_", " "): plain(value) for name, value in chosen.items() if name != "source"}


def _differences(runs: Sequence[Named]) -> str:
    made = differing(runs)
    if not made:
        return section("What differs in the question", "<p>Nothing: the runs ask the same.</p>")
    rows = [[escape(cell) for cell in row] for row in made]
    caption = "Options with the same value in all runs are left out. A dash: the option had no effect there."
    return section(
        "What differs in the question",
        table(("option", *(run.name for run in runs)), rows, caption=caption, text=len(runs), worded=True),
    )


def _sentences(runs: Sequence[Named]) -> str:
    parts = []
    for run in runs:
        if not is_comparison(run.document):
            lines = sentences(cast("Document", run.document))
            parts.append(
                f"<h3>{escape(run.name)}</h3>"
                + "".join(f"<p>{escape(line)}</p>" for line in spelt_out(lines))
            )
    return section("The verdicts in words", *parts) if parts else ""


def _numbers(runs: Sequence[Named]) -> str:
    made, by_run, shared = (
        accuracies(runs),
        {run.name: metric_of(run.document) for run in runs},
        _shared(runs),
    )
    rows = [
        [
            escape(str(row["run"])),
            escape(density_percent(float(row["density"] or 0))),
            escape(str(row["arm"])),
            _value(row, by_run[str(row["run"])], shared),
            _gap(row, by_run[str(row["run"])], shared),
            "yes" if row["claimed"] else "",
        ]
        for row in made.rows()
    ]
    value, gap = (
        (
            shared.head(shared.name),
            shared.difference_head("minus dense" if shared.higher else "dense minus it"),
        )
        if shared
        else ("value", "better than dense by")
    )
    numbers = table(("run", "density", "network", value, gap, "winning"), rows, caption=_of_numbers(shared))
    return f"<section><details><summary>All numbers</summary>{numbers}</details></section>"


def _of_numbers(shared: Metric | None) -> str:
    """The caption of all numbers."""
    if shared is None:
        return "Test values of each run's metric, ± half the width of the 95 % interval."
    unit = "percent" if shared.scale.unit == "%" else shared.scale.unit
    points = "percentage points" if shared.scale.points == "pp" else shared.scale.points
    values = f"Test {shared.plural}" + (f" in {unit}" if unit else "")
    return f"{values}, ± half the width of the 95 % interval" + (
        f"; differences in {points}." if points else "."
    )


def _value(row: Mapping[str, Value], metric: Metric, shared: Metric | None) -> str:
    pair = ends([cast("float | None", row["ci_low"]), cast("float | None", row["ci_high"])])
    text = metric.text(cast("float | None", row["accuracy"]), pair)
    return escape(text if shared else f"{metric.head(text)} {metric.name}")


def _gap(row: Mapping[str, Value], metric: Metric, shared: Metric | None) -> str:
    if row["to_dense"] is None:
        return "–"
    text = metric.signed(float(row["to_dense"])).replace("-", "−")
    return escape(text if shared else metric.with_points(text))
