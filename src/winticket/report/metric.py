"""The metric of a document, as the report writes it: its values, differences, margins, axes and headings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from winticket.objective import ACCURACY, Scale
from winticket.report.numbers import plus_minus

_DIGITS = 4
"""Significant digits of a value, by default."""
_SMALL, _LARGE = 1e-3, 1e6
"""Between these, values are written with decimals; others as 1.2e-07."""


@dataclass(frozen=True)
class Metric:
    """How the values of a metric are written.

    scale: name, direction, unit, range. relative: True if margins are shares of the dense network's value.
    constant: the value that the best constant answer reaches, None if it is not known. decimals: of values and
    differences that are no percentages, so that those of a document agree; None for four significant digits.

    Differences are gains, positive if the first network is better, and `points` are differences in the unit in which
    they are written: percentage points, or the metric's unit.

    >>> rmse = Metric(Scale("RMSE", "lower", "mm", 0.0))
    >>> rmse.axis("test"), rmse.text(2.31, (2.25, 2.37)), rmse.margin(0.1), rmse.minus("ticket", "dense")
    ('test RMSE (mm, lower is better)', '2.310 ± 0.060', '0.1 mm', 'dense minus ticket')
    >>> Metric().axis("test"), Metric().text(0.9731, (0.9701, 0.9761)), Metric().margin(0.5), Metric().plural
    ('test accuracy (%)', '97.31 ± 0.30', '0.5 pp', 'accuracies')
    """

    scale: Scale = ACCURACY
    relative: bool = False
    constant: float | None = None
    decimals: int | None = None

    @property
    def name(self) -> str:
        """As it stands inside a sentence."""
        return self.scale.name

    @property
    def heading(self) -> str:
        """As it stands at a sentence's beginning."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def plural(self) -> str:
        """Several values of it: accuracies, values of RMSE."""
        one = self.name
        return f"{one[:-1]}ies" if one.endswith("y") and one[-2:-1] not in "aeiou" else f"values of {one}"

    @property
    def higher(self) -> bool:
        """True if higher values are better."""
        return self.scale.better == "higher"

    @property
    def good_side(self) -> str:
        """Where a better value lies."""
        return "above" if self.higher else "below"

    @property
    def is_accuracy(self) -> bool:
        """True if it is the share of right answers, of which there are other words: more accurate."""
        return self.scale == ACCURACY

    @property
    def in_points(self) -> bool:
        """True if margins are in percentage points."""
        return self.scale.points == "pp" and not self.relative

    @property
    def spelt(self) -> str:
        """The unit of differences, spelt out: percentage points (pp), mm."""
        return "percentage points (pp)" if self.scale.points == "pp" else self.scale.points

    @property
    def counted(self) -> str:
        """How differences are counted, after a comma: in percentage points (pp), in mm; empty without a unit."""
        return f"in {self.spelt}" if self.spelt else "in its own unit"

    def axis(self, of: str) -> str:
        """The name of an axis: test accuracy (%)."""
        notes = [part for part in (self.scale.unit, "" if self.higher else "lower is better") if part]
        return f"{of} {self.name}".strip() + (f" ({', '.join(notes)})" if notes else "")

    def head(self, word: str) -> str:
        """The heading of a column of values: ticket %, ticket mm."""
        return f"{word} {self.scale.unit}".rstrip()

    def difference_head(self, word: str = "difference") -> str:
        """The heading of a column of differences: difference, pp."""
        return f"{word}, {self.scale.points}" if self.scale.points else word

    def difference_axis(self, *, narrow: bool) -> str:
        """The name of an axis of differences."""
        if self.higher and self.spelt:
            return self.scale.points if narrow else self.spelt
        notes = [part for part in (self.scale.points, "" if self.higher else "positive is better") if part]
        return f"difference ({', '.join(notes)})" if notes else "difference"

    def minus(self, ours: str, theirs: str) -> str:
        """The difference in words that is positive if ours is better."""
        return f"{ours} minus {theirs}" if self.higher else f"{theirs} minus {ours}"

    @property
    def positive(self) -> str:
        """A sentence that says which sign of a difference is good, if that is not plain; empty otherwise."""
        return "" if self.higher else "Differences are positive if the first network is better. "

    def shown(self, values: Any) -> Any:
        """Values in the unit in which they are written; of a number or an array."""
        return self.scale.factor * values

    def value(self, value: float) -> str:
        """A value with its unit: 98.25 %, 2.310 mm."""
        return self.scale.value(value) if self.scale.unit == "%" else self.head(self.text(value, None))

    def text(
        self, mean: float | None, ends: tuple[float, float] | None, *, significant: int = _DIGITS
    ) -> str:
        """A mean ± half its interval, without the unit; both ends of an interval that was cut at the range's end."""
        if mean is not None and self.scale.unit != "%" and not _SMALL <= abs(mean) < _LARGE and mean != 0:
            half = "" if ends is None else f" ± {(ends[1] - ends[0]) / 2:.2g}"
            return f"{mean:.{significant}g}{half}"
        return plus_minus(mean, ends, scale=self.scale.factor, digits=self.digits(mean, significant))

    def digits(self, mean: float | None, significant: int = _DIGITS) -> int:
        """Decimals of a value: 2 of a percentage, else so many that `significant` digits are shown."""
        if self.scale.unit == "%":
            return 2
        if self.decimals is not None and significant == _DIGITS:
            return self.decimals
        size = 0 if not mean else math.floor(math.log10(abs(mean)))
        return max(0, significant - 1 - size)

    def number(self, points: float) -> str:
        """The size of a difference in points, without unit and sign."""
        if self.scale.unit == "%":
            return f"{abs(points):.2f}"
        return self.scale.number(abs(points), self.decimals)

    def signed(self, points: float) -> str:
        """A difference in points, without the unit: +0.52."""
        return (
            f"{points:+.2f}"
            if self.scale.unit == "%"
            else f"{'-' if points < 0 else '+'}{self.number(points)}"
        )

    def amount(self, points: float) -> str:
        """The size of a difference in points: 0.52 pp."""
        return self.with_points(self.number(points))

    def with_points(self, text: str) -> str:
        """A number with the unit of differences."""
        return f"{text} {self.scale.points}".rstrip()

    def margin(self, margin_pp: float) -> str:
        """A margin as the question gives it: 0.5 pp, 0.1 mm, 2 % of the dense network's RMSE."""
        if self.relative:
            return f"{margin_pp:g} % of the dense network's {self.name}"
        return self.with_points(f"{margin_pp:g}")

    def apart(self, points: float) -> str:
        """Where a network is that is so many points better than another: 0.52 pp above, 0.1 mm worse than."""
        if float(self.number(points)) == 0 or (self.scale.unit == "%" and abs(points) < 0.005):
            return "level with"
        words = ("above", "below") if self.higher else ("better than", "worse than")
        return f"{self.amount(points)} {words[0] if points > 0 else words[1]}"

    def gained(self, gain: float | None) -> str:
        """What a network did that got better: gained 0.52 pp of accuracy; got a better RMSE, by 0.1 mm."""
        by = "" if gain is None else self.amount(self.shown(gain))
        if not self.higher:
            return f"got a better {self.name}" + (f", by {by}," if by else "")
        return "gained " + (f"{by} of {self.name}" if by else self.name)


def falls_short(metric: Metric) -> str:
    """The verb for being worse by some amount, up to what it is worse than."""
    return "falls short of" if metric.higher else "is worse than"


def metric_of(document: Mapping[str, object]) -> Metric:
    """The metric that a document's networks were judged by; accuracy if it does not say."""
    entry = cast("Any", document.get("metric"))
    constant = None if entry is None else entry.get("constant")
    scale = Scale.of_json(entry)
    return Metric(scale, _is_share(document), constant, _decimals(document, scale))


def _is_share(document: Mapping[str, object]) -> bool:
    """Whether the margin is a share of the dense network's value: as the verdict says, or before one the question."""
    verdict, question = (
        cast("Mapping[str, Any]", document.get(at) or {}) for at in ("verdict", "experiment")
    )
    return bool(verdict.get("relative") or question.get("relative_margin"))


def _decimals(document: Mapping[str, object], scale: Scale) -> int | None:
    """So many that the dense network's mean has four digits, and that a tenth of the margin can be seen."""
    dense = _dense(document)
    if scale.unit == "%" or not dense or not _SMALL <= abs(dense) < _LARGE:
        return None
    question = cast("Mapping[str, Any]", document.get("experiment") or {})
    margin = None if _is_share(document) else question.get("margin_pp")
    values = Metric(scale).digits(dense)
    return values if not margin else max(values, 1 - math.floor(math.log10(margin)))


def _dense(document: Mapping[str, object]) -> float | None:
    """The mean of the dense network, of a search, a transfer or a comparison."""
    levels, rows = (cast("list[Any]", document.get(name) or []) for name in ("levels", "rows"))
    arms = [level["arms"]["dense"] for level in levels if "dense" in level["arms"]]
    arms += [row for row in rows if row["arm"] == "dense"]
    return next((arm.get("accuracy") for arm in arms), None)


def margin_of(document: Mapping[str, object]) -> float | None:
    """The margin in points, also if it is a share of the dense network's mean; None if the document has none."""
    question = cast("Mapping[str, Any]", document.get("experiment") or {})
    margin, metric = question.get("margin_pp"), metric_of(document)
    if margin is None or not metric.relative:
        return margin
    dense = _dense(document)
    return None if dense is None else abs(float(metric.shown(dense))) * margin / 100
