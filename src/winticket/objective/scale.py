"""The scale of a metric: its name, its direction, its unit and its range, and how its numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from winticket import results

Better = Literal["higher", "lower"]
_DIGITS = 4  # significant digits of a value in a unit of its own


@dataclass(frozen=True)
class Scale:
    """What the numbers of a metric mean.

    name: as it is written in a sentence: accuracy, RMSE, R². better: which direction is good. unit: of the values, as
    mm; "%" for a fraction that is written as a percentage, whose differences are in percentage points; "" for a plain
    number. low, high: the ends of its range, infinite if it has none.

    A difference, a margin and an interval are *gains*: positive if ours is better, in whichever direction that is.

    >>> rmse = Scale("RMSE", "lower", "mm", 0.0)
    >>> rmse.value(3.14159), rmse.gain(2.5, 2.25), rmse.difference(0.25), rmse.perfect, rmse.useless
    ('3.142 mm', 0.25, '0.25 mm better', 0.0, inf)
    >>> ACCURACY.value(0.98251), ACCURACY.difference(-0.0123), ACCURACY.bounded
    ('98.25 %', '-1.23 pp', True)
    """

    name: str
    better: Better = "higher"
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise ValueError(
                f"the better direction of {self.name!r} is {self.better!r}; it is 'higher' or 'lower'"
            )
        if not self.name.strip():
            raise ValueError("a metric has no name; give the word that sentences and figures call it by")
        if not self.low < self.high:
            raise ValueError(
                f"the range of {self.name} is [{self.low}, {self.high}]; its low end must be below its high end"
            )

    @property
    def sign(self) -> float:
        """1.0 if higher is better, −1.0 if lower is."""
        return 1.0 if self.better == "higher" else -1.0

    @property
    def factor(self) -> float:
        """What a stored value is multiplied by when it is written: 100 for percentages, else 1."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def points(self) -> str:
        """The unit of differences and margins: pp for percentages, else the metric's unit."""
        return "pp" if self.unit == "%" else self.unit

    @property
    def bounded(self) -> bool:
        """True if both ends of the range are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def perfect(self) -> float:
        """The best possible value, infinite if there is none."""
        return self.high if self.better == "higher" else self.low

    @property
    def useless(self) -> float:
        """The worst possible value, infinite if there is none."""
        return self.low if self.better == "higher" else self.high

    def as_json(self, *, constant: float | None = None) -> results.Metric:
        """The `metric` entry of a result document; `constant` is the value that the best constant answer reaches."""
        return {
            "name": self.name,
            "better": self.better,
            "unit": self.unit,
            "low": self.low if math.isfinite(self.low) else None,
            "high": self.high if math.isfinite(self.high) else None,
            "constant": constant,
        }

    @classmethod
    def of_json(cls, entry: results.Metric | None) -> Scale:
        """The scale that a document tells of; accuracy's if it tells of none, as older documents do."""
        if entry is None:
            return ACCURACY
        low, high = entry["low"], entry["high"]
        return cls(
            entry["name"],
            entry["better"],
            entry["unit"],
            -math.inf if low is None else low,
            math.inf if high is None else high,
        )

    def gain(self, reference: float, ours: float) -> float:
        """How much better `ours` is than `reference`; negative if it is worse."""
        return self.sign * (ours - reference)

    def value(self, value: float, digits: int | None = None) -> str:
        """A value with its unit: 98.25 %, 3.142 mm.

        digits: decimals (default: 2 of a percentage, else 4 significant digits).
        """
        return _with(self.number(value, digits), self.unit)

    def number(self, value: float, digits: int | None = None) -> str:
        """As `value`, without the unit."""
        return _number(self.factor * value, 2 if digits is None and self.unit == "%" else digits)

    def margin(self, amount: float) -> str:
        """A distance, without a direction: 0.5 pp, 0.25 mm."""
        return _with(f"{self.factor * amount:.6g}", self.points)

    def difference(self, gain: float) -> str:
        """A gain in words: +0.04 pp if higher is better and values are percentages; else 0.25 mm better (or worse)."""
        if self.unit == "%" and self.better == "higher":
            return f"{round(100 * gain, 2) + 0.0:+.2f} pp"  # + 0.0 turns a rounded -0.0 into 0.0
        digits = 2 if self.unit == "%" else None
        text = _number(abs(self.factor * gain), digits)
        if float(text) == 0:
            return f"no difference ({_with(text, self.points)})"
        return f"{_with(text, self.points)} {'better' if gain > 0 else 'worse'}"


def _with(number: str, unit: str) -> str:
    return f"{number} {unit}" if unit else number


def _number(value: float, digits: int | None) -> str:
    if digits is not None:
        return f"{round(value, digits) + 0.0:.{digits}f}"
    return f"{value:.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:.0f}"


ACCURACY = Scale("accuracy", "higher", "%", 0.0, 1.0)
"""The share of right answers."""
