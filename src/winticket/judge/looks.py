"""Looking again: what each look may spend of the error, so that all of them together stay within alpha."""

from __future__ import annotations

from dataclasses import dataclass

from winticket import results

FIRST_SHARE = 0.9


@dataclass(frozen=True)
class Look:
    """An earlier verdict on the same networks, from fewer replicates or levels or at another margin.

    `claimed` are the densities at which it claimed a winning ticket.
    """

    replicates: int
    margin_pp: float
    alpha: float
    claimed: tuple[float, ...] = ()

    def shows(self, density: float, *, margin_pp: float, alpha: float) -> bool:
        """Whether its claim at `density` is one at this margin and error rate too: it was held to no looser ones."""
        return density in self.claimed and self.margin_pp <= margin_pp and self.alpha <= alpha


@dataclass(frozen=True)
class Spending:
    """The error rate of this look, number `look` counted from 1, and that of all looks so far."""

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
    """The part of alpha that look number `look` (from 1) may spend: 0.9, then 0.1 / (k (k − 1)).

    The parts of all looks, however many, sum to 1, and after k looks 1 − 0.1/k is spent. By Bonferroni's inequality
    the chance of a false win at any look is then at most alpha, whatever made one look again: no number of looks
    has to be fixed beforehand. (Alpha spending: Lan & DeMets 1983, who need less by the correlation of the looks.)
    Raises ValueError for a look before the first.

    >>> round(sum(share(k) for k in range(1, 7)), 4)
    0.9833
    """
    if look < 1:
        raise ValueError(f"look {look} does not exist; looks are counted from 1")
    return FIRST_SHARE if look == 1 else (1 - FIRST_SHARE) / (look * (look - 1))


def spending(earlier: tuple[Look, ...], *, alpha: float) -> Spending:
    """What a look after the `earlier` ones may spend.

    >>> spending((Look(5, 0.5, 0.05),), alpha=0.05).alpha
    0.0025
    """
    look = len(earlier) + 1
    spent = sum(share(k) for k in range(1, look + 1))
    return Spending(look, round(alpha * share(look), 12), round(alpha * spent, 12), earlier)
