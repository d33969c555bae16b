"""Runs side by side: every document's numbers, what differs in the question, and comparisons of methods as points."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from winticket.report.layout import FILE, ON_PAGE, ON_PHONE
from winticket.report.side_by_side import side_by_side
from winticket.report.side_by_side_figure import side_by_side_figure
from winticket.report.side_by_side_question import differing
from winticket.report.side_by_side_rows import Named, accuracies

Document = Any


def comparison() -> Document:
    """A comparison of two methods on the digits."""

    def row(method: str, arm: str, accuracy: float, density: float) -> Document:
        return {
            "equal": "density", "method": method, "arm": arm, "density": density, "steps_each": 800, "steps": 1600.0,
            "flops": None, "seconds": None, "accuracy": accuracy, "accuracy_ci": [accuracy - 0.01, accuracy + 0.01],
            "accuracies": [accuracy] * 5, "failed": 0, "to_dense": None if arm == "dense" else accuracy - 0.98,
            "to_dense_ci": None,
        }  # fmt: skip

    rows = [
        row("dense", "dense", 0.98, 1.0),
        row("imp", "ticket", 0.97, 0.1),
        row("rigl", "ticket", 0.96, 0.1),
    ]
    return {
        "winticket": "0.1.0", "data": "digits", "model": "lenet-300-100", "density": 0.1, "replicates": 5,
        "comparison": {"methods": ["imp", "rigl"], "density": 0.1}, "rows": [*rows, {**rows[1], "equal": "cost"}],
        "environment": {}, "warnings": [], "files": [],
    }  # fmt: skip


@pytest.fixture
def runs(build: Callable[..., Document]) -> list[Named]:
    one, other = copy.deepcopy(build()), copy.deepcopy(build(levels=4, replicates=6, seed=3))
    other["experiment"] |= {"optimizer": "sgd", "lr": 0.1}
    other["verdict"] |= {"outcome": "inconclusive", "density": None, "claimed": []}
    return [Named("digits", one), Named("digits <sgd>", other), Named("methods", comparison())]


def test_the_numbers_are_those_of_each_document(runs: list[Named]) -> None:
    table = accuracies(runs)
    for run in runs[:2]:
        document: Document = run.document
        dense = document["levels"][0]["arms"]["dense"]["accuracies"]
        rows = table.where(run=run.name, arm="ticket").rows()
        assert len(rows) == len(document["levels"]) - 1
        for row, level in zip(rows, document["levels"][1:], strict=True):
            ticket = level["arms"]["ticket"]
            assert (row["density"], row["accuracy"]) == (level["density"], ticket["accuracy"])
            gaps = [100 * (a - b) for a, b in zip(ticket["accuracies"], dense, strict=True)]
            assert row["to_dense"] == pytest.approx(sum(gaps) / len(gaps))
            assert row["claimed"] == (level["density"] in document["verdict"]["claimed"])
    methods = table.where(run="methods")
    assert methods.column("arm") == ["dense", "imp", "rigl"], "at equal steps alone"
    assert methods.column("to_dense") == [0.0, pytest.approx(-1.0), pytest.approx(-2.0)]


def test_only_what_differs_is_listed(runs: list[Named]) -> None:
    options = {name: values for name, *values in differing(runs[:2])}
    assert options["optimizer"] == ["adam", "sgd"]
    assert "batch" not in options
    assert "model" not in options


def test_lines_begin_at_the_dense_network_and_methods_are_points(runs: list[Named]) -> None:
    figure, _ = side_by_side_figure(runs)
    left, right = figure.axes
    lines = {str(line.get_label()): line for line in left.lines}
    assert lines["digits"].get_xdata()[0] == 1.0  # type: ignore[index]
    assert lines["digits"].get_linestyle() == "-"
    assert lines["methods"].get_linestyle() == "None"
    assert right.get_xscale() == "log"


def test_the_page_escapes_names_and_says_every_verdict(runs: list[Named]) -> None:
    html = side_by_side(runs)
    assert "digits &lt;sgd&gt;" in html
    assert "<sgd>" not in html
    text = re.sub(r"\s+", " ", " ".join(_texts(html))).replace("\u00a0", " ")
    assert "Won: a ticket with 9.0 % of the weights" in text
    assert "comparison of methods: no verdict" in text
    assert "is no test of the difference between them" in text


def _texts(html: str) -> list[str]:
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Reader().feed(html)
    return found


def test_one_run_is_nothing_to_compare(runs: list[Named]) -> None:
    with pytest.raises(ValueError, match="1 run is nothing to compare; give two or more"):
        side_by_side(runs[:1])


def test_a_run_may_be_called_as_a_column_is(runs: list[Named]) -> None:
    html = side_by_side([Named("option", runs[0].document), runs[1]])
    listed = html[html.index("What differs in the question") :]
    assert re.findall(r"<th scope=\"col\"[^>]*>([^<]*)", listed)[:3] == [
        "option",
        "option",
        "digits &lt;sgd&gt;",
    ]


def test_long_names_leave_room_for_the_figure_and_stay_whole_in_the_tables(runs: list[Named]) -> None:
    names = [f"a-run-with-a-rather-long-name-for-its-folder-lr-{rate}" for rate in ("0.0012", "0.0024")]
    named = [Named(name, run.document) for name, run in zip(names, runs, strict=False)]
    for layout in (FILE, ON_PAGE, ON_PHONE):
        figure, _ = side_by_side_figure(named, layout=layout)
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
        right = figure.axes[-1]
        assert all(axes.get_position().width * layout.width > 1.5 for axes in figure.axes), "inches"
        drawn = [text for text in right.texts if text.get_text().startswith("a-")]
        assert len({text.get_text() for text in drawn}) == 2
        for text in drawn:
            assert text.get_window_extent().x1 <= figure.bbox.x1
            assert re.fullmatch("a-.+….+0.00[12][24]", text.get_text())
    html = side_by_side(named)
    assert "Could not draw" not in html
    assert all(f">{name}</th>" in html for name in names)


def test_a_figure_that_fails_leaves_the_tables(runs: list[Named], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ValueError("left <cannot>")

    monkeypatch.setattr(sys.modules[side_by_side_figure.__module__], "canvas", failing)
    html = side_by_side(runs)
    assert "Could not draw the figure side-by-side: ValueError: left &lt;cannot&gt;" in html
    assert "All numbers" in html
