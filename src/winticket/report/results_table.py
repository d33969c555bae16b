"""The page's tables of results: every density with its arms and answers, and all numbers behind them."""

from __future__ import annotations

from html import escape

from winticket.report.elements import section, table
from winticket.report.evidence import answer
from winticket.report.facts import value_text
from winticket.report.metric import metric_of
from winticket.report.numbers import plus_minus
from winticket.report.pace import goal, judged_fraction
from winticket.report.reading import (
    arm_name,
    arms,
    claimed,
    dense_arm,
    density_percent,
    interval,
    is_in,
    levels,
    plain,
    pruned_levels,
    replicates,
    speed,
    time_outcome,
)
from winticket.report.strokes import kept_by_density
from winticket.results import Arm, CheckName, Document, Level

CHECKS: dict[CheckName, str] = {
    "accuracy": "matches dense",
    "beats_reinit": "beats re-init",
    "beats_random": "beats random mask",
}
_TIMES = {"faster": "sooner", "slower": "later", "as fast": "alike"}


def results_section(document: Document) -> str:
    """The section with a row for every density; empty if there is none."""
    shown_levels = pruned_levels(document)
    if not shown_levels:
        return ""
    dense, won, metric = dense_arm(document), claimed(document), metric_of(document)
    shown = [arm for arm in arms(document) if arm != "dense"]
    checks = [name for name in CHECKS if name == "accuracy" or name.removeprefix("beats_") in shown]
    kept = kept_by_density(document)
    rows, sure = [], []
    for level in shown_levels:
        cells = [escape(density_percent(level["density"]))]
        cells += [f"{kept[level['density']]:,}"] if level["density"] in kept else ["–"] if kept else []
        cells += [escape(value_text(document, level["arms"].get(arm), "accuracy")) for arm in shown]
        cells += [answer(document, level, name) for name in checks]
        cells.append(escape(speed(level) or "–"))
        rows.append(cells)
        sure.append(is_in(level["density"], won))
    fraction = judged_fraction(document)
    last = "early stop" if fraction is None else f"to {100 * fraction:g} % of dense"
    head = [
        "density",
        *(["weights kept"] if kept else []),
        *(metric.head(arm_name(arm)) for arm in shown),
        *(CHECKS[name] for name in checks),
        last,
    ]
    caption = (
        f"Dense network: {value_text(document, dense, 'accuracy', unit=True)}. The {metric.name} columns give the mean "
        f"test {metric.name} after the last training step, ± half the width of its 95 % interval over replicates, or "
        "the interval's two ends if "
        "it is not symmetric. Rows of winning tickets are shaded. Yes means that a test shows what the heading says, "
        "no that a test shows the opposite, and open that neither is shown. A match is claimed only if all denser "
        "levels match as well. The last column compares how soon the "
        f"ticket and the dense network reach {goal(document, fraction)}; each density is tested by "
        f"itself{_unjudged(document)}."
    )
    return section("Results at every density", table(head, rows, caption=caption, sure=sure))


def _unjudged(document: Document) -> str:
    return "" if all(map(speed, pruned_levels(document))) else " (–: not judged)"


def all_numbers(document: Document) -> str:
    """The folded table of every arm at every level: values, early stops, what the test of early stops answers."""
    metric, rows = metric_of(document), []
    for level in levels(document):
        for name, arm in level["arms"].items():
            rows.append([escape(cell) for cell in _cells(document, level, name, arm)])
    head = (
        "density",
        "of the whole model",
        "arm",
        metric.head(metric.name),
        metric.head("at early stop"),
        "early-stop step",
        "early stop against dense",
        "replicates",
        "failed",
    )
    caption = (
        "Each cell has the mean ± half the width of its 95 % interval over replicates, or the interval's two ends in "
        "brackets if it is not symmetric, as for steps that cannot be later than the last: 788 (776–800). The first "
        "column counts the eligible weights only, and the second counts all parameters. The column “early stop against "
        "dense” has the answer of an exact signed-rank test for the ticket at this density alone, not corrected for "
        "the number of densities, and its p-value; a dash means that early stops are not compared. The column "
        "“replicates” counts those that finished."
    )
    numbers = table(head, rows, caption=caption)
    return f"<section><details><summary>All numbers, including early stops</summary>{numbers}</details></section>"


def _cells(document: Document, level: Level, name: str, arm: Arm) -> list[str]:
    steps = plus_minus(arm.get("early_stop_step"), interval(arm, "early_stop_step"), scale=1, digits=0)
    whole: Arm = {**arm, "failed": 0}  # failures have a column of their own
    model = level.get("model_density")
    return [
        density_percent(level["density"]),
        "–" if model is None else density_percent(model),
        arm_name(name),
        value_text(document, whole, "accuracy"),
        value_text(document, whole, "accuracy_at_early_stop"),
        steps,
        _early_stop_answer(level) if name == "ticket" else "–",
        str(replicates(arm)),
        plain(arm.get("failed")),
    ]


def _early_stop_answer(level: Level) -> str:
    outcome, detail = time_outcome(level), level.get("checks", {}).get("time_detail")
    if outcome is None:
        return "–"
    word = _TIMES.get(outcome, outcome)
    if detail is None:
        return word
    p = min(detail["p_faster"], detail["p_slower"])
    return f"{word} (p {'< 0.0001' if p < 0.0001 else f'= {p:.2g}'})"
