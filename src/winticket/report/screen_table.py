"""The table of the final screen: one row per density."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

from winticket.report.metric import Metric, metric_of
from winticket.report.numbers import bare, is_cut, plus_minus
from winticket.report.pace import judged_fraction
from winticket.report.reading import (
    CHECK_NAMES,
    arm_name,
    arms,
    claimed,
    density_percent,
    interval,
    is_in,
    mark,
    pruned_levels,
    speed,
)
from winticket.results import Arm, CheckName, Document, Level

Say = Callable[[str], str]

ROOMY = 100
"""From this many columns on, the table has its full headings."""
TABLE = 98
"""Width in columns of the table with its full headings."""
ROOMY_DIGITS = 4
"""Significant digits of a value without a percent sign in such a table; one less in a narrower one."""
CELL = 11
"""Columns of a value with its interval in a narrow table."""
GAP = 2
"""Spaces before the last column, if they fit, so that its words are not read as a unit of the steps to their left."""
_CHECKS: dict[CheckName, str] = {
    "accuracy": "=\ndense",
    "beats_reinit": ">\nreinit",
    "beats_random": ">\nrandom",
}


def levels_table(document: Document, say: Say, *, width: int) -> Table:
    """The table, at most `width` columns wide. A wide one has full headings and one more space between columns."""
    roomy = width >= ROOMY
    head, rows = _head(document, roomy=roomy), _rows(document, width=width)
    between = 2 if roomy else 1
    widest = [
        max(len(part) for cell in (name, *cells) for part in cell.split("\n"))
        for (name, _), *cells in zip(head, *(cells for cells, _ in rows), strict=True)
    ]
    gap = " " * max(0, min(GAP, width - sum(widest) - between * (len(head) - 1)))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, between - 1, 0, 0), pad_edge=False, show_edge=False)
    last = len(head) - 1
    for at, (name, justify) in enumerate(head):
        shown = name if at < last else "\n".join(gap + part for part in name.split("\n"))
        table.add_column(shown, justify=justify, no_wrap=True)
    for cells, sure in rows:
        table.add_row(*map(say, (*cells[:-1], gap + cells[-1])), style="bold" if sure else "")
    return table


def _head(document: Document, *, roomy: bool) -> list[tuple[str, JustifyMethod]]:
    """The headings, each with the side to which its column is aligned."""
    checks = [
        CHECK_NAMES[name].replace(" ", "\n", 1) if roomy else _CHECKS[name] for name in _checks(document)
    ]
    fraction, unit = judged_fraction(document), metric_of(document).scale.unit
    return [
        ("weights\nkept %", "right"),
        *((f"{arm_name(arm) if roomy else arm}\n{unit}", "right") for arm in _arms(document)),
        *((name, "center") for name in checks),
        ("early\nstop", "right"),
        ("against\ndense" if fraction is None else f"to {100 * fraction:g} %\nof dense", "left"),
    ]


def _rows(document: Document, *, width: int) -> list[tuple[list[str], bool]]:
    """The cells of every density, and whether tickets win there."""
    won, fit, metric = claimed(document), ends_fit(document, width), metric_of(document)
    rows = []
    for level in pruned_levels(document):
        sure = is_in(level["density"], won)
        cells = [density_percent(level["density"]).removesuffix(" %") + (" *" if sure else "  ")]
        cells += [
            value_cell(metric, level["arms"].get(arm), both_ends=fit, significant=significant(width))
            for arm in _arms(document)
        ]
        cells += [mark(document, level, check) for check in _checks(document)]
        rows.append(([*cells, early_stop(level), speed(level) or "–"], sure))
    return rows


def _arms(document: Document) -> list[str]:
    """The arms that have a column; others are in the report alone."""
    return [arm for arm in arms(document) if arm in ("ticket", "reinit", "random")]


def _checks(document: Document) -> list[CheckName]:
    present = _arms(document)
    return [name for name in _CHECKS if name == "accuracy" or name.removeprefix("beats_") in present]


def early_stop(level: Level) -> str:
    """The ticket's mean early stop; a dash if it is not compared, since it is mostly the last step of training."""
    stop = level["arms"]["ticket"].get("early_stop_step")
    if level.get("checks", {}).get("time_left_out") is not None:
        stop = None
    return plus_minus(stop, None, scale=1, digits=0)


def significant(width: int) -> int:
    """How many significant digits values without a percent sign have on a screen of so many columns."""
    return ROOMY_DIGITS if width >= ROOMY else ROOMY_DIGITS - 1


def value_cell(metric: Metric, arm: Arm | None, *, both_ends: bool = True, significant: int = 4) -> str:
    """The value and its interval in at most 11 columns, "98.51 ±0.30", with "!" if a replicate failed.

    An interval that is cut at an end of the range, as 0 or 100 %, is shown by its ends, "98.30 (96.0–100)". If they do
    not fit, only the end that is not cut is shown: "98.30 >96.0". A metric without a percent sign has `significant`
    digits; with fewer than `ROOMY_DIGITS`, its interval is left out where it does not fit, as in 1.2e-07.
    """
    value = None if arm is None else arm.get("accuracy")
    if arm is None or value is None:
        return "–" + ("!" if arm is not None and arm.get("failed") else "")
    ends, failed = interval(arm, "accuracy"), "!" if arm.get("failed") else ""
    if metric.scale.unit == "%":
        return _percent(value, ends, both_ends) + failed
    return _plain(metric, value, ends, both_ends=both_ends, significant=significant) + failed


def _percent(value: float, ends: tuple[float, float] | None, both_ends: bool) -> str:
    mean = 100 * value
    text = f"{mean:.2f}" if mean < 99.995 else "100.0"
    if ends is not None and is_cut(value, ends):
        low, high = (bare(100 * end, 1) for end in ends)
        text += f" ({low}–{high})" if both_ends else f" >{low}" if high == "100" else f" <{high}"
    elif ends is not None:
        half = 50 * (ends[1] - ends[0])
        text += f" ±{half:.2f}" if half < 9.995 else f" ±{half:.1f}"
    return text


def _plain(
    metric: Metric, value: float, ends: tuple[float, float] | None, *, both_ends: bool, significant: int
) -> str:
    """As `_percent` for a metric without a percent sign; where there is no room for the interval, without it."""
    mean = metric.text(value, None, significant=significant)
    if ends is not None and is_cut(value, ends) and not both_ends:
        low, high = (metric.text(end, None, significant=significant - 1) for end in ends)
        at_high = abs(metric.scale.high - ends[1]) <= abs(metric.scale.low - ends[0])
        text = f"{mean} >{low}" if at_high else f"{mean} <{high}"
    else:
        text = metric.text(value, ends, significant=significant).replace("± ", "±")
    if significant < ROOMY_DIGITS:
        text = text.replace("±0.", "±.")
        return text if len(text) <= CELL else mean
    return text


def cut_arms(document: Document) -> set[str]:
    """The arms with an interval that is not symmetric."""
    return {
        name
        for level in pruned_levels(document)
        for name, arm in level["arms"].items()
        if (ends := interval(arm, "accuracy"))
        and (mean := arm["accuracy"]) is not None
        and is_cut(mean, ends)
    }


def ends_fit(document: Document, width: int) -> bool:
    """Whether the table has room for the ends of intervals: five columns per arm that shows them."""
    return width >= TABLE + 5 * len(cut_arms(document))
