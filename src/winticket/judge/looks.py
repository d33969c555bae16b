"""Looking again: how much of the error each look may spend, so that all looks together stay within alpha.

A look is one verdict on the same networks; adding replicates and judging again is a second look.
"""

from __future__ import annotations

from dataclasses import dataclass

from winticket import results

FIRST_SHARE = 0.9


@dataclass(frozen=True)
class Look:
    """An earlier verdict on the same networks, from fewer replicates or levels or at another margin.

    margin_pp: percentage points, or the metric's own unit; percent of the dense network's value if `relative`.
    claimed: the densities at which it claimed a winning ticket.

    >>> from winticket.judge import Look
    >>> Look(5, 0.5, 0.05, claimed=(0.1,)).shows(0.1, margin_pp=1.0, alpha=0.05)
    True
    """

    replicates: int
    margin_pp: float
    alpha: float
    claimed: tuple[float, ...] = ()
    relative: bool = False

    def shows(self, density: float, *, margin_pp: float, alpha: float, relative: bool = False) -> bool:
        """True if it claimed `density` at a margin of the same kind and an error rate, no looser than these."""
        same = self.relative == relative and density in self.claimed
        return same and self.margin_pp <= margin_pp and self.alpha <= alpha


@dataclass(frozen=True)
class Spending:
    """The error rate of this look (`alpha`) and of all looks so far (`spent`); `look` counts from 1.

    >>> from winticket.judge import Level, judge
    >>> level = Level(0.1, {"dense": (0.98,) * 5, "ticket": (0.98,) * 5})
    >>> judge([level], alpha=0.05).spending
    Spending(look=1, alpha=0.045, spent=0.045, earlier=())
    """

    look: int
    alpha: float
    spent: float
    earlier: tuple[Look, ...] = ()

    def as_json(self) -> results.Looks:
        return {
            "look": self.look,
            "alpha": self.alpha,
            "spent": self.spent,
            "earlier": [
                {"replicates": x.replicates, "margin_pp": x.margin_pp, "claimed": list(x.claimed)}
                for x in self.earlier
            ],
        }


def share(look: int) -> float:
    """The share of alpha that look number `look` (counted from 1) may spend: 0.9, then 0.1 / (k (k − 1)).

    The shares of all looks, however many, sum to 1; the first k of them sum to 1 − 0.1/k. By Bonferroni's inequality,
    the chance of a false win at any look is then at most alpha, whatever the reason for looking again, so the number of
    looks need not be fixed beforehand. (Alpha spending: Lan & DeMets 1983, whose looks cost less because they use the
    correlation between looks.) Raises ValueError if `look` is less than 1.

    >>> round(sum(share(k) for k in range(1, 7)), 4)
    0.9833
    """
    if look < 1:
        raise ValueError(f"look {look} does not exist; looks are counted from 1")
    return FIRST_SHARE if look == 1 else (1 - FIRST_SHARE) / (look * (look - 1))


def spending(earlier: tuple[Look, ...], *, alpha: float) -> Spending:
    """What the look after the `earlier` ones may spend.

    >>> spending((Look(5, 0.5, 0.05),), alpha=0.05).alpha
    0.0025
    """
    look = len(earlier) + 1
    spent = sum(share(k) for k in range(1, look + 1))
    return Spending(look, round(alpha * share(look), 12), round(alpha * spent, 12), earlier)
