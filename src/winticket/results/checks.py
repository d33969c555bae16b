"""What the tests at one density show."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from winticket.results.measures import Difference, Fraction, MeanStep, Points, Probability, Step

CheckName = Literal["accuracy", "beats_reinit", "beats_random", "accuracy_at_early_stop"]
"""Keys of `Checks` that hold a `Check`."""


class Relative(TypedDict):
    """A difference as a share of the dense network's mean."""

    estimate: float | None
    """Mean difference over the dense network's mean, over the pairs that finished."""
    bound: float | None
    """One-sided lower limit at the check's `test_level`, failed replicates counted at their worst."""


class Check(TypedDict):
    """Whether the ticket's mean accuracy exceeds a reference's by more than `null_pp`, paired by replicate."""

    reference: str
    """Arm that the ticket is compared with."""
    null_pp: Points
    """Difference that has to be exceeded: minus the margin against the dense network, 0 against a control."""
    passed: bool
    """Whether that is shown."""
    refuted: bool
    """Whether the opposite is shown."""
    estimate: Difference | None
    """Mean difference over the pairs that finished."""
    ci: list[Difference] | None
    """Two-sided interval of the mean difference at 1 - alpha: low, high."""
    bound: Difference | None
    """One-sided lower limit at `test_level`, failed replicates counted at their worst."""
    sd: Difference | None
    """Standard deviation of the differences."""
    replicates: int
    """Replicates that were planned."""
    pairs: int
    """Pairs in which both trainings finished."""
    failed: dict[str, int]
    """Failed replicates by arm."""
    test_level: Probability
    """Level of the one-sided test."""
    p: Probability
    """p-value of the t test, which decides."""
    p_sign_flip: Probability
    """p-value of the sign-flip test, which stands beside it."""
    sign_flip: str
    """Whether the sign-flip test is `exact` or `monte carlo`."""
    p_trimmed_mean: Probability
    """p-value of the test of trimmed means, which stands beside it."""
    p_superior: Probability
    """p-value of the t test against a difference of 0."""
    p_refuted: Probability
    """p-value of the t test in the other direction."""
    disagreement: list[str]
    """Tests that decide otherwise than the t test."""
    smallest_margin_pp: Points | None
    """Smallest margin at which the ticket would match; only against the dense network."""
    relative: NotRequired[Relative]
    """The difference as a share of the dense network's mean, which decides. Absent unless the margin is such a share;
    `null_pp` and `smallest_margin_pp` are percent of that mean then."""


class TimeDetail(TypedDict):
    """Early-stop steps of the ticket against the dense network's: an exact signed-rank test on log ratios."""

    ratio: float | None
    """Hodges-Lehmann ratio of steps, ticket to dense; null if it is not finite."""
    ratio_ci: list[float] | None
    """Its 95 % interval: low, high."""
    p_faster: Probability
    """One-sided p-value that the ticket is faster."""
    p_slower: Probability
    """One-sided p-value that the ticket is slower."""
    alpha: Probability
    """Level of each test."""
    replicates: int
    """Pairs compared."""
    ties: int
    """Pairs of equal steps."""
    never_reached: dict[str, int]
    """By arm, replicates that failed or never improved on their start."""
    grid: Step | None
    """Distance of the grid's points."""
    resolution: str
    """How finely the steps are known, as a sentence."""


class PaceCheck(TypedDict):
    """Steps of the ticket to the judged share of the dense network's final validation accuracy."""

    fraction: Fraction
    """The share."""
    outcome: Literal["sooner", "alike", "later"] | None
    """What is shown; `alike` if neither is; null if nothing was judged."""
    ratio: float | None
    """Hodges-Lehmann ratio of steps, ticket to dense."""
    ratio_ci: list[float | None] | None
    """Its 95 % interval: low, high; the high end is null if no replicate bounds it."""
    median: dict[str, MeanStep | None]
    """Median steps of `ticket` and `dense`; null if the median replicate never gets there."""
    never: dict[str, int]
    """Replicates of `ticket` and `dense` that never get there."""
    p_sooner: Probability | None
    """One-sided p-value that the ticket is sooner."""
    p_later: Probability | None
    """One-sided p-value that the ticket is later."""
    ties: int | None
    """Pairs of equal steps."""
    gap: Step | None
    """Largest distance to the grid's point before a step that was read."""
    resolution: str
    """How finely the steps are known, as a sentence."""


class Checks(TypedDict, total=False):
    """A level's tests. A pruned level has all of these keys; level 0, the dense network, has none."""

    accuracy: Check | None
    """Against the dense network, after the last step; null if the arm was not run, as in the next three."""
    beats_reinit: Check | None
    """Against the re-initialised ticket."""
    beats_random: Check | None
    """Against the random mask."""
    accuracy_at_early_stop: Check | None
    """Against the dense network, at the step of least validation loss; decides nothing."""
    time: Literal["faster", "as fast", "slower"] | None
    """Early stop against the dense network's."""
    time_detail: TimeDetail | None
    """The numbers behind `time`."""
    refuted: bool
    """Whether a win at this density is refuted."""
    matched: bool
    """Whether the sequence of tests from the densest level down shows a match here."""
    nontrivial: bool
    """Whether both controls are beaten, by Holm's procedure over all densities."""
    claimed: bool
    """Whether a winning ticket is claimed here."""
    claimed_earlier: bool
    """Whether only an earlier look shows it, and this one does not refute it."""
    kind: str
    """What this level's tests alone make of the ticket."""
    time_left_out: str | None
    """Why early stops are not compared, as a sentence; null if they are."""
    pace: PaceCheck | None
    """Steps to an accuracy against the dense network's; null if the level has no ticket."""
