"""Gains and margins in words: in percentage points for accuracies, and as better or worse for other metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from winticket.objective import ACCURACY, Scale


@dataclass(frozen=True)
class Words:
    """How a metric's gains and margins are written; `relative`: as shares of the dense network's value.

    >>> rmse = Scale("RMSE", "lower", "mm", 0.0)
    >>> Words(rmse).low(-0.25), Words(rmse).high(0.5), Words(rmse, relative=True).difference(-0.0123)
    ('at most 0.25 mm worse', 'at most 0.5 mm better', '1.23 % worse')
    >>> Words().low(-0.0055), Words(rmse, relative=True).margin(2.0)
    ('above -0.55', "2 % of the dense network's RMSE")
    """

    scale: Scale = ACCURACY
    relative: bool = False

    @property
    def signed(self) -> bool:
        """True if gains are signed percentage points: of percentages of which more is better."""
        return self.scale.unit == "%" and self.scale.better == "higher" and not self.relative

    @property
    def below(self) -> str:
        """The word for the worse side of something."""
        return "below" if self.scale.better == "higher" and not self.relative else "worse than"

    def amount(self, gain: float) -> str:
        """The size of a gain with its unit."""
        if self.relative:
            return f"{abs(100 * gain):.3g} %"
        return f"{self.scale.number(abs(gain))} {self.scale.points}".rstrip()

    def none(self, gain: float) -> bool:
        """True if a gain is written as 0."""
        return float(f"{100 * gain:.3g}" if self.relative else self.scale.number(gain)) == 0

    def difference(self, gain: float) -> str:
        """+0.04 pp; 0.25 mm better; 1.2 % worse; 0 mm."""
        if self.signed:
            return self.scale.difference(gain)
        if self.none(gain):
            return self.amount(0.0)
        return f"{self.amount(gain)} {'better' if gain > 0 else 'worse'}"

    def low(self, gain: float) -> str:
        """A lower limit of a gain: above -0.55; at most 0.25 mm worse; at least 0.1 mm better."""
        if self.signed:
            return f"above {self.bare(gain)}"
        return f"at least {self.amount(gain)} better" if gain > 0 else f"at most {self.amount(gain)} worse"

    def high(self, gain: float) -> str:
        """An upper limit of a gain: below +0.55; at most 0.25 mm better; at least 0.1 mm worse."""
        if self.signed:
            return f"below {self.bare(gain)}"
        return f"at least {self.amount(gain)} worse" if gain < 0 else f"at most {self.amount(gain)} better"

    def bare(self, gain: float) -> str:
        """A gain as one end of an interval, without the unit if gains are signed."""
        return self.difference(gain).removesuffix(" pp") if self.signed else self.difference(gain)

    def margin(self, margin_pp: float) -> str:
        """The margin: 0.5 pp; 0.25 mm; 2 % of the dense network's RMSE."""
        if self.relative:
            return f"{margin_pp:g} % of the dense network's {self.scale.name}"
        return f"{margin_pp:g} {self.scale.points}".rstrip()

    def limit(self, margin_pp: float) -> str:
        """The margin as the least gain allowed: -0.5; 0.25 mm worse."""
        return f"-{margin_pp:g}" if self.signed else f"{self.margin(margin_pp)} worse"


def confidence(level: float) -> str:
    """The confidence of a one-sided bound, with as many digits as tell it from 100 %.

    >>> [confidence(level) for level in (0.05, 0.0225, 0.00375, 0.00008)]
    ['95 %', '97.8 %', '99.6 %', '99.992 %']
    """
    digits = max(1, math.ceil(-math.log10(100 * level)))
    return f"{round(100 * (1 - level), digits):.12g} %"
