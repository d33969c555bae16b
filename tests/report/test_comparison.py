"""The comparison of methods: what its tables say of themselves, and names that fit into its figure."""

from __future__ import annotations

import io
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from winticket.report import comparison_figure, comparison_screen
from winticket.report.layout import ON_PAGE, ON_PHONE, Layout

ARMS = (("dense", "dense"), ("imp", "ticket"), ("edge-popup", "search"), ("edge-popup", "ticket"))


@pytest.fixture
def compared() -> Any:
    """A comparison of three networks under both budgets."""

    def row(equal: str, method: str, arm: str) -> Any:
        return {
            **{"equal": equal, "method": method, "arm": arm, "density": 0.2, "steps_each": 40},
            **{"steps": 360.0, "flops": 1e9, "seconds": 1.0, "failed": 0, "accuracies": [0.9, 0.92]},
            **{"accuracy": 0.91, "accuracy_ci": [0.9, 0.92], "to_dense": 0.0, "to_dense_ci": [-0.01, 0.01]},
        }

    rows = [row(equal, *names) for equal in ("density", "cost") for names in ARMS]
    about = {"data": "digits", "model": "lenet-300-100", "density": 0.2, "replicates": 2}
    return {**about, "rows": rows, "files": []}


def shown(document: Any) -> str:
    screen = Console(file=io.StringIO(), width=200, color_system=None)
    screen.print(comparison_screen(document))
    return " ".join(screen.file.getvalue().split())  # type: ignore[attr-defined]


def test_the_legend_explains_every_mark_that_occurs_and_no_other(compared: Any) -> None:
    text = shown(compared)
    assert "n = 2 replicates. Density is the kept share of the weights that may be pruned." in text
    assert "Untrained: the network as its search left it, whose weights were never trained." in text
    assert "a replicate failed" not in text
    compared["rows"] = [row for row in compared["rows"] if row["arm"] != "search"]
    compared["rows"][1]["failed"] = 1
    text = shown(compared)
    assert "Untrained" not in text
    assert "!: a replicate failed." in text


def test_no_name_of_a_method_is_cut_at_the_left(compared: Any) -> None:
    figure, _ = comparison_figure(compared)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    left = [label.get_window_extent().x0 for label in figure.axes[0].get_yticklabels()]
    assert len(left) == 3
    assert min(left) > 0, "edge-popup, untrained"


@pytest.mark.parametrize("layout", [ON_PAGE, ON_PHONE])
def test_long_names_of_methods_leave_room_for_the_figure(compared: Any, layout: Layout) -> None:
    for row in compared["rows"]:
        row["method"] = row["method"].replace(
            "imp", "a-module-of-ones-own.with-a-long-name:and-its-own-method@100"
        )
    figure, _ = comparison_figure(compared, layout=layout)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    assert all(axes.get_position().width * layout.width > 1.5 for axes in figure.axes), "inches"
    texts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert texts[1:] == ["edge-popup, untrained", "edge-popup"]
    assert texts[0].startswith("a-module")
    assert "…" in texts[0]
    assert texts[0].endswith("@100")
    assert min(label.get_window_extent().x0 for label in figure.axes[0].get_yticklabels()) > 0
