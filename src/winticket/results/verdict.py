"""The `verdict` of a result document."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from winticket.results.measures import Difference, Fraction, Points, Probability

Outcome = Literal["won", "not won", "inconclusive"]


class MarginOutcome(TypedDict):
    """The verdict at another margin."""

    margin_pp: Points
    """The margin."""
    outcome: Outcome
    """The verdict at it."""
    density: Fraction | None
    """Smallest density won at it."""


class MarginAtLevel(TypedDict):
    """The smallest margin at which a level's ticket matches."""

    density: Fraction
    """Density of the level."""
    smallest_pp: Points | None
    """The margin; null if there is none."""


class Margins(TypedDict):
    """What the verdict would have been at other margins."""

    curve: list[MarginOutcome]
    """The verdict at some margins."""
    smallest_pp: Points | None
    """Smallest margin at which some density is won."""
    by_level: list[MarginAtLevel]
    """The same of each level's match."""


class TrainedEnough(TypedDict):
    """Whether doubling the dense network's training gains it less than the margin."""

    enough: bool | None
    """What is shown; null if the data leave it open."""
    gain: Difference | None
    """Mean gain."""
    ci: list[Difference] | None
    """Its two-sided interval at 1 - 2 alpha: low, high."""
    replicates: int
    """Replicates that were planned."""
    failed: int
    """Pairs of which one failed."""
    margin_pp: Points
    """The margin."""
    alpha: Probability
    """Level of the one-sided test."""
    p: Probability
    """Its p-value."""
    sentence: str
    """The result in words."""


class Learned(TypedDict):
    """Whether the dense network learned enough to be a reference."""

    learned: bool
    """Whether it did."""
    accuracy: Fraction | None
    """Its mean test accuracy."""
    commonest: Fraction | None
    """Accuracy of always answering the commonest class; the best constant answer's value in another metric."""
    unlearned: list[int]
    """Replicates whose dense network is near that."""
    behind: Difference | None
    """By how much it lies below its own tickets; null if it does not."""
    sentence: str
    """Why it did not learn; empty if it did."""


class Look(TypedDict):
    """An earlier verdict on the same networks."""

    replicates: int
    """Its replicates."""
    margin_pp: Points
    """Its margin."""
    claimed: list[Fraction]
    """Densities that it claimed."""


class Looks(TypedDict):
    """What looking more than once at the same networks spends of the error rate."""

    look: int
    """Number of this look, from 1."""
    alpha: Probability
    """Error rate of this look."""
    spent: Probability
    """Error rate of all looks so far."""
    earlier: list[Look]
    """The looks before."""


class Collapsed(TypedDict):
    """A replicate whose accuracy is far below the others of its arm."""

    density: Fraction
    """Density of the level."""
    arm: str
    """The arm."""
    replicate: int
    """The replicate, from 0."""
    accuracy: Fraction
    """Its accuracy."""
    median_of_others: Fraction
    """Median accuracy of its arm."""


class Verdict(TypedDict):
    """The decision and what is behind it."""

    outcome: Outcome
    """The decision."""
    density: Fraction | None
    """Smallest density at which a winning ticket is claimed; null if none is."""
    reason: str
    """The reason in one piece."""
    sentences: list[str]
    """The reason, a thought in each element."""
    replicates_needed: int | None
    """Replicates, the present ones included, that would decide with 80 % power; null if decided or unknown."""
    replicates_fresh: int | None
    """The same in a new experiment with another seed."""
    kind: str
    """The strongest kind of ticket that is claimed over all densities."""
    claimed: list[Fraction]
    """Every density at which a winning ticket is claimed."""
    replicates: int
    """Replicates that were planned."""
    margin_pp: Points
    """The margin."""
    relative: NotRequired[bool]
    """True if all margins are in percent of the dense network's value. Absent if they are in the metric's unit."""
    alpha: Probability
    """The error rate."""
    margins: Margins
    """The verdict at other margins."""
    trained_enough: TrainedEnough | None
    """Whether the dense network was trained enough; null without the gate."""
    learned: Learned
    """Whether the dense network learned."""
    looks: Looks
    """The looks at these networks."""
    collapsed: list[Collapsed]
    """Replicates that collapsed."""
    collapse_limit: Fraction | None
    """Accuracy below which a ticket at `density` counts as collapsed; null if nothing is won."""
    unseen_collapse_rate: Fraction
    """Share of replicates that may collapse although none of these did, at 95 % confidence."""
    accuracy_step: Fraction | None
    """Distance of two possible accuracies; null if it is not known."""
    warnings: list[str]
    """Sentences that bear on the claim."""
    notes: list[str]
    """Sentences worth knowing."""
