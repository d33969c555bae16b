"""The report in metrics other than accuracy: an RMSE in mm, of which lower is better, and an average precision."""

from __future__ import annotations

import copy
import html
import io
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from winticket.analyse import ANALYSES, Cells
from winticket.experiment.analysing import plan_analyses
from winticket.objective import ACCURACY, Scale
from winticket.report import final_screen, page
from winticket.report.analysed import Shown
from winticket.report.axes import metric_axis
from winticket.report.comparison import comparison_screen
from winticket.report.comparison_page import comparison_page
from winticket.report.evidence import evidence
from winticket.report.figures import figures
from winticket.report.layout import FILE, ON_PHONE, Layout
from winticket.report.method_section import method
from winticket.report.metric import Metric, margin_of, metric_of
from winticket.report.page import analyses_section
from winticket.report.progress_page import progress_page
from winticket.report.question import asked
from winticket.report.reading import paired_difference
from winticket.report.screen_table import value_cell
from winticket.report.side_by_side import side_by_side
from winticket.report.side_by_side_rows import Named
from winticket.table import Table

Document = Any
Convert = Callable[[float], float]
KINDS: dict[str, tuple[Document, Convert, float]] = {
    "rmse": (
        {"name": "RMSE", "better": "lower", "unit": "mm", "low": 0.0, "high": None, "constant": 6.0},
        lambda accuracy: 1.2 + 20 * (1 - accuracy),
        0.1,
    ),
    "precision": (
        {
            "name": "average precision",
            "better": "higher",
            "unit": "",
            "low": 0.0,
            "high": 1.0,
            "constant": 0.1,
        },
        lambda accuracy: 0.9 * accuracy - 0.05,
        0.005,
    ),
}
"""By name: metric, value by accuracy, margin."""
OF_ACCURACY = re.compile(r"accura|\bpp\b|percentage point", re.IGNORECASE)


def converted(document: Document, kind: str) -> Document:
    """The document in another metric: every value by an affine map, every gain by its slope."""
    metric, value, margin = KINDS[kind]
    made, slope = copy.deepcopy(document), abs(value(1.0) - value(0.0))
    made["metric"] = dict(metric)
    made["experiment"]["margin_pp"] = margin
    for level in made["levels"]:
        for arm in level["arms"].values():
            for name in ("accuracy", "accuracy_at_early_stop"):
                arm[name] = None if arm[name] is None else value(arm[name])
                arm[f"{name}_ci"] = arm[f"{name}_ci"] and sorted(map(value, arm[f"{name}_ci"]))
            for name in ("accuracies", "accuracies_at_early_stop"):
                arm[name] = [None if one is None else value(one) for one in arm[name]]
        for name, check in level["checks"].items():
            if name != "time":
                check |= {"estimate": slope * check["estimate"], "ci": [slope * end for end in check["ci"]]}
                check |= {"bound": check["estimate"] - margin / 4, "test_level": 0.0225}
                check["null_pp"] = -margin if name == "accuracy" else 0.0
        level["checks"]["matched"] = level["checks"].get("accuracy", {}).get("passed", False)
    verdict = made["verdict"]
    verdict["reason"] = "the ticket matches the dense network and beats both controls"
    verdict["trained_enough"] |= {"gain": slope * 0.0011, "margin_pp": margin, "sentence": "Trained enough."}
    verdict["margins"] |= {
        "curve": [{"margin_pp": margin, "outcome": "won", "density": 0.09}],
        "smallest_pp": margin / 3,
    }
    return made


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(build: Callable[..., Document], kind: str) -> Document:
    return converted(build(levels=9), kind)


def curves_of(document: Document, kind: str, draw_curves: Callable[..., list[Document]]) -> list[Document]:
    """Learning curves in the metric: those of accuracies that end elsewhere, which does not matter here."""
    curves = draw_curves(document, every=100)
    value = KINDS[kind][1]
    for curve in curves:
        curve["validation_accuracy"] = [value(0.1 + 0.08 * number) for number in range(len(curve["step"]))]
    return curves


def words(page_of: str) -> str:
    """What a reader and a screen reader get of a page: texts, labels of pictures; no code and no style."""
    bare = re.sub(r"<(style|script|pre)\b.*?</\1>", " ", page_of, flags=re.DOTALL)
    labels = re.findall(r'(?:alt|aria-label|title)="([^"]*)"', bare)
    return html.unescape(" ".join([re.sub(r"<[^>]+>", " ", bare), *labels]))


def screen(shown: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(shown)
    return console.export_text()


def texts(figure: Figure) -> str:
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    found = [
        text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()
    ]
    return " ".join(found).replace("\n", " ")


def test_the_page_speaks_of_the_metric_alone(
    made: Document, kind: str, draw_curves: Callable[..., list[Document]]
) -> None:
    made["saved_ticket"] = {
        "density": made["levels"][2]["density"], "level": 2, "replicate": 1, "replicates": 10, "chosen": "",
        "validation_accuracy": 2.5, "test_accuracy": 2.31, "mean_test_accuracy": 2.4,
    }  # fmt: skip
    shown = words(page(made, curves_of(made, kind, draw_curves)))
    assert not (found := OF_ACCURACY.search(shown)), shown[max(found.start() - 80, 0) : found.end() + 80]
    name, unit = made["metric"]["name"], made["metric"]["unit"]
    assert f"dense test {name}" in shown
    assert (
        f"best constant answer  {Metric(Scale.of_json(made['metric'])).value(made['metric']['constant'])}"
        in re.sub(r"\s*\n\s*| {2,}", "  ", shown)
    )
    assert f"to within {f'{KINDS[kind][2]:g} {unit}'.strip()} of the {name}" in shown
    assert "Left out" not in shown  # no analyses were given


def test_the_screen_speaks_of_the_metric_and_fits(made: Document) -> None:
    made["levels"][4]["arms"]["reinit"]["accuracies"][0] = None
    made["levels"][4]["arms"]["reinit"]["failed"] = 1
    for width in (80, 120):
        shown = screen(final_screen(made), width)
        assert not OF_ACCURACY.search(shown)
        assert made["metric"]["name"] in shown
        assert "…" not in shown  # no cell of the table was cut
        assert max(map(len, shown.splitlines())) <= width


def test_a_lower_value_is_a_gain(build: Callable[..., Document]) -> None:
    document = converted(build(levels=9), "rmse")
    level, dense = document["levels"][-1], document["levels"][0]["arms"]["dense"]
    ticket = level["arms"]["ticket"]["accuracies"]
    by_hand = sum(b - a for a, b in zip(ticket, dense["accuracies"], strict=True)) / len(ticket)
    assert paired_difference(document, level, "ticket", dense) == pytest.approx(by_hand)
    assert metric_of(document).apart(by_hand).endswith("better than" if by_hand > 0 else "worse than")
    assert metric_of(document).apart(-0.25) == "0.250 mm worse than"
    assert metric_of(document).apart(0.0) == "level with"


@pytest.mark.parametrize("layout", [FILE, ON_PHONE])
def test_the_line_of_the_margin_lies_on_the_worse_side(made: Document, kind: str, layout: Layout) -> None:
    figure, _ = figures(made, [])["metric_against_density"].draw(layout)
    axes, dense = figure.axes[0], made["levels"][0]["arms"]["dense"]["accuracy"]
    heights = {float(line.get_ydata()[0]) for line in axes.lines if len(line.get_ydata()) == 2}  # type: ignore[index, arg-type]
    worse = dense + KINDS[kind][2] if kind == "rmse" else dense - KINDS[kind][2]
    assert any(height == pytest.approx(worse) for height in heights)
    low, high = axes.get_ylim()
    assert low < dense < high
    name = next(text for text in axes.texts if text.get_text().startswith("dense"))
    assert name.get_verticalalignment() == ("bottom" if kind == "rmse" else "top")
    assert ("lower is better" in axes.get_ylabel()) == (kind == "rmse")


def test_figures_say_no_word_of_accuracy_and_stay_inside(
    made: Document, kind: str, draw_curves: Callable[..., list[Document]]
) -> None:
    for name, drawing in figures(made, curves_of(made, kind, draw_curves)).items():
        assert not OF_ACCURACY.search(f"{drawing.title} {drawing.subtitle} {drawing.caption}"), name
        for layout in (FILE, ON_PHONE):
            figure, _ = drawing.draw(layout)
            assert not OF_ACCURACY.search(texts(figure)), name
            renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
            for axes in figure.axes:
                label = axes.yaxis.label.get_window_extent(renderer)
                assert label.x0 >= -1, (name, layout)


def test_the_axis_is_cut_where_values_are_worse(build: Callable[..., Document]) -> None:
    document = converted(build(levels=16), "rmse")
    figure, _ = figures(document, [])["metric_against_density"].draw(FILE)
    axes = figure.axes[0]
    worst = max(level["arms"]["random"]["accuracy"] for level in document["levels"][1:])
    assert axes.get_ylim()[1] < worst
    assert "above" in axes.get_title(loc="left")
    assert any("↑" in text.get_text() for text in axes.texts)


def test_evidence_counts_gains_and_says_so(build: Callable[..., Document]) -> None:
    document = converted(build(levels=9), "rmse")
    shown = words(evidence(document))
    assert "in mm" in shown
    assert "positive if the ticket is better" in shown
    assert "more than −0.1" in shown


def test_a_margin_that_is_a_share_of_dense(build: Callable[..., Document]) -> None:
    document = converted(build(levels=9), "rmse")
    document["verdict"]["relative"] = True
    document["experiment"]["margin_pp"] = 5.0
    for level in document["levels"]:
        if check := level["checks"].get("accuracy"):
            check |= {"null_pp": -5.0, "relative": {"estimate": 0.031, "bound": 0.012}}
    dense = document["levels"][0]["arms"]["dense"]["accuracy"]
    assert margin_of(document) == pytest.approx(0.05 * dense)
    shown = words(evidence(document))
    assert "+3.10 %" in shown
    assert "more than −5 % of dense RMSE" in shown
    figure, _ = figures(document, [])["difference_against_density"].draw(FILE)
    assert figure.axes[0].get_ylabel().replace("\n", " ") == "difference (% of dense RMSE)"
    assert "must be above −5 %" in texts(figure)
    assert "5 % of the dense network's RMSE" in words(method(document))


def test_values_have_the_digits_of_their_document_and_cells_fit() -> None:
    rmse = Scale("RMSE", "lower", "mm", 0.0)
    document = {
        "metric": rmse.as_json(), "experiment": {"margin_pp": 0.0005},
        "levels": [{"density": 1.0, "arms": {"dense": {"accuracy": 12.34}}}],
    }  # fmt: skip
    assert metric_of(document).text(12.3, (12.2, 12.4)) == "12.30000 ± 0.10000"
    assert Metric(rmse).text(1.234e-7, (1.1e-7, 1.4e-7)) == "1.234e-07 ± 1.5e-08"
    assert Metric(rmse).text(0.1, (0.0, 0.25)) == "0.1000 (0–0.2500)"
    for value in (2.31e-7, 0.123, 9.99, 123.4, 45678.0):
        arm: Any = {"accuracy": value, "accuracy_ci": [0.9 * value, 1.1 * value], "failed": 0}
        assert len(value_cell(Metric(rmse), arm, both_ends=False, significant=3)) <= 11


@pytest.mark.parametrize(
    ("scale", "worst", "best"),
    [
        (Scale("RMSE", "lower", "mm", 0.0), 5.0, 1.0),
        (Scale("average precision", "higher", "", 0.0, 1.0), 0.5, 0.83),
        (Scale("log-likelihood"), -5.0, -1.0),
        (Scale("perplexity", "lower", "", 1.0), 40.0, 9.0),
        (ACCURACY, 50.0, 99.0),
    ],
)
def test_axes_keep_the_natural_direction_and_have_ticks(scale: Scale, worst: float, best: float) -> None:
    axes = Figure().add_subplot()
    metric_axis(axes, worst, best, scale)
    low, high = axes.get_ylim()
    assert low < high
    assert min(worst, best) == pytest.approx(low)
    assert max(worst, best) == pytest.approx(high)
    inside = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert len(inside) >= 2
    bottom, top = (axes.transData.transform((0, end))[1] for end in (low, high))
    assert bottom < top


def compared(metric: Document) -> Document:
    """A comparison of two methods with the dense network."""

    def row(equal: str, method: str, arm: str, value: float, gain: float | None) -> Document:
        return {
            "equal": equal, "method": method, "arm": arm, "density": 0.1, "steps_each": 10, "steps": 30.0,
            "flops": 1e9, "seconds": 2.0, "accuracy": value, "accuracy_ci": [value - 0.1, value + 0.1],
            "accuracies": [value, value], "to_dense": gain, "failed": 0,
        "to_dense_ci": gain and [gain - 0.1, gain + 0.1],
        }  # fmt: skip

    rows = [
        row(equal, *rest)
        for equal in ("density", "cost")
        for rest in (
            ("dense", "dense", 2.31, None),
            ("imp", "ticket", 2.11, 0.2),
            ("snip", "ticket", 3.01, -0.7),
        )
    ]
    return {
        "metric": metric, "density": 0.1, "replicates": 5, "rows": rows, "warnings": [], "data": "plates",
        "model": "mlp", "files": [], "comparison": {"data": "plates"}, "environment": {"python": "3"},
        "budget_steps": 30.0,
    }  # fmt: skip


def test_a_comparison_of_methods_and_runs_side_by_side(build: Callable[..., Document]) -> None:
    document = compared(KINDS["rmse"][0])
    shown = f"{screen(comparison_screen(document), 100)} {words(comparison_page(document))}"
    assert not OF_ACCURACY.search(shown)
    assert "to dense, mm" in shown
    assert "lower RMSE is better" in shown
    one, other = (converted(build(levels=5, seed=seed), "rmse") for seed in (0, 1))
    beside = words(side_by_side([Named("a", one), Named("b", other), Named("c", document)]))
    assert not OF_ACCURACY.search(beside)
    assert "RMSE against density" in beside
    mixed = words(side_by_side([Named("a", one), Named("b", build(levels=5))]))
    assert "different metrics (RMSE, accuracy)" in mixed


def test_a_run_that_has_not_finished(build: Callable[..., Document]) -> None:
    document = converted(build(levels=3), "rmse")
    arms = [arm for level in document["levels"] for arm in level["arms"].values()]
    for arm in arms:
        arm |= {"planned": 10, "finished": 10}
    unfinished = {
        "winticket": "0", "schema": 1, "experiment": document["experiment"], "data": {}, "network": None, "store": "s",
        "metric": document["metric"], "folder": "f", "planned": 90, "finished": 50, "last": None, "missing": [],
        "levels": [{"density": level["density"], "arms": level["arms"]} for level in document["levels"]],
    }  # fmt: skip
    shown = words(progress_page(unfinished, []))  # type: ignore[arg-type]
    assert not OF_ACCURACY.search(shown)
    assert "Test RMSE of the trainings that have finished" in shown
    assert "mean test RMSE in mm" in shown


def test_analyses_that_need_classes_are_refused_by_name_and_left_out_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Run:
        store: Any = None

        def cells(self) -> Cells:
            return Cells(cast("Any", None), (1.0,), {}, 0, (), 0, lambda noise, first: [], classes=False)

    run = cast("Any", Run())
    with pytest.raises(ValueError, match="calibration reads answers as scores of classes"):
        plan_analyses(run, ["calibration"])
    few = {name: ANALYSES[name] for name in ("classes", "overlap")}
    monkeypatch.setattr("winticket.experiment.analysing.ANALYSES", few)
    impossible = plan_analyses(run).impossible
    assert "no classes" in impossible["classes"]
    assert "no classes" not in impossible["overlap"]


def test_the_page_says_which_analyses_need_classes(build: Callable[..., Document]) -> None:
    overlap = Shown(ANALYSES["overlap"], Table((), ()), (), "nothing was trained")
    of_numbers = words(analyses_section(converted(build(levels=2), "rmse"), [overlap]))
    left_out = of_numbers.partition("Left out, since they need answers that are classes: ")[2]
    assert {"calibration", "classes", "barriers"} <= set(left_out.strip().rstrip(".").split(", "))
    assert "layers" not in left_out
    assert "Left out" not in words(analyses_section(build(levels=2), [overlap]))


def test_the_question_says_once_what_a_relative_margin_is_a_share_of(
    build: Callable[..., Document],
) -> None:
    document = converted(build(levels=3), "rmse")
    document["verdict"]["relative"] = document["experiment"]["relative_margin"] = True
    document["experiment"]["margin_pp"] = 2.0
    (first, *_) = asked(document)
    assert "by itself comes to within 2 % of the RMSE of the dense (whole) network" in first
    assert first.count("RMSE") == 1
