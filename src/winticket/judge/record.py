"""What a verdict records: each level's checks, the decision, and what other margins would have decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from winticket import results
from winticket.judge.checks import Check, TrainedEnough
from winticket.judge.collapse import Collapse, unseen_rate
from winticket.judge.learned import Learned
from winticket.judge.looks import Spending
from winticket.judge.sequences import Outcome
from winticket.judge.timing import TimeCheck
from winticket.judge.words import Words
from winticket.objective import ACCURACY, Scale

Kind = Literal[
    "winning ticket",
    "winning structure",
    "matching, trivially sparse",
    "matching, controls missing",
    "matching",
    "not matching",
    "undecided",
    "dense",
]


@dataclass(frozen=True)
class LevelChecks:
    """One level's checks, and what the tests over all densities make of them.

    accuracy, beats_reinit, beats_random, accuracy_at_early_stop: None if the arm was not run or nothing was recorded.
    matched: the ticket matches the dense network here and at every denser level. nontrivial: it beats both controls
    by Holm's procedure over all levels. claimed: both, and the dense network learned. claimed_earlier: an earlier look
    claimed it, and this one neither shows nor refutes it. kind: what this level's tests say if taken alone. A level of
    density 1 is the dense network; it has no checks and takes no part in the tests over densities.

    >>> from winticket.judge import Level, judge
    >>> dense = (0.97, 0.98, 0.96, 0.97, 0.98)
    >>> level = Level(0.1, {"dense": dense, "ticket": dense, "reinit": (0.9,) * 5, "random": (0.9,) * 5})
    >>> checks = judge([level], test_examples=1000).levels[0]
    >>> checks.matched, checks.nontrivial, checks.kind
    (True, True, 'winning ticket')
    """

    density: float
    accuracy: Check | None
    beats_reinit: Check | None
    beats_random: Check | None
    time: TimeCheck | None
    accuracy_at_early_stop: Check | None
    refuted: bool
    matched: bool
    nontrivial: bool
    claimed: bool
    claimed_earlier: bool
    kind: Kind

    @classmethod
    def of_dense(cls) -> LevelChecks:
        """The level of density 1, about which nothing is claimed."""
        return cls(1.0, None, None, None, None, None, False, False, False, False, False, "dense")

    def as_json(self) -> results.Checks:
        """The `checks` entry of a level in the result document, without what is said of its curves."""
        return {
            "accuracy": None if self.accuracy is None else self.accuracy.as_json(),
            "beats_reinit": None if self.beats_reinit is None else self.beats_reinit.as_json(),
            "beats_random": None if self.beats_random is None else self.beats_random.as_json(),
            "accuracy_at_early_stop": None
            if self.accuracy_at_early_stop is None
            else self.accuracy_at_early_stop.as_json(),
            "time": None if self.time is None else self.time.outcome,
            "time_detail": None if self.time is None else self.time.as_json(),
            "refuted": self.refuted,
            "matched": self.matched,
            "nontrivial": self.nontrivial,
            "claimed": self.claimed,
            "claimed_earlier": self.claimed_earlier,
            "kind": self.kind,
        }


@dataclass(frozen=True)
class MarginPoint:
    """The outcome at one margin, and the smallest density that is won; None if none is.

    margin_pp: percentage points, or as the verdict's `margin_pp`.

    >>> from winticket.judge import MarginPoint
    >>> MarginPoint(0.5, "won", 0.1).density
    0.1
    """

    margin_pp: float
    outcome: Outcome
    density: float | None


@dataclass(frozen=True)
class Margins:
    """What the verdict would have been at other margins: to be read beside the verdict, never instead of it.

    smallest_pp: the smallest margin at which some density is won; None if there is none. by_level: (density, smallest
    margin at which its ticket is not inferior to the dense network) of every pruned level. Margins are in
    percentage points, or as the verdict's.

    >>> from winticket.judge import Level, judge
    >>> levels = [Level(0.1, {"dense": (0.98,) * 5, "ticket": (0.98,) * 5})]
    >>> [point.margin_pp for point in judge(levels).margins.curve]
    [0.1, 0.2, 0.5, 1.0]
    """

    curve: tuple[MarginPoint, ...]
    smallest_pp: float | None
    by_level: tuple[tuple[float, float | None], ...]

    def as_json(self) -> results.Margins:
        return {
            "curve": [
                {"margin_pp": p.margin_pp, "outcome": p.outcome, "density": p.density} for p in self.curve
            ],
            "smallest_pp": self.smallest_pp,
            "by_level": [{"density": density, "smallest_pp": pp} for density, pp in self.by_level],
        }


@dataclass(frozen=True)
class Verdict:
    """The decision and everything behind it. See `judge`.

    density: the smallest density that is claimed; None if none is. sentences: the reason, one thought each. claimed:
    every density with a claim. levels: from the densest to the sparsest. replicates_needed: how many in total, the
    present ones included, would decide at the next look at these networks; replicates_fresh: how many would in a new
    experiment with other seeds, whose first look may spend more. collapse_limit: the accuracy (a fraction) below which
    a ticket at `density` counts as collapsed; None if nothing is won. accuracy_step: between two possible accuracies.
    warnings bear on the claim; notes do not.

    scale: the metric, whose unit differences and `margin_pp` have. relative: `margin_pp` is in percent of the dense
    network's value instead.

    >>> from winticket.judge import Level, judge
    >>> verdict = judge([Level(0.1, {"dense": (0.98,) * 3, "ticket": (0.98,) * 3})])
    >>> verdict.outcome, verdict.reason
    ('inconclusive', 'Inconclusive: 3 replicates are too few to decide anything, whatever the numbers. Use at least 5.')
    """

    outcome: Outcome
    density: float | None
    sentences: tuple[str, ...]
    replicates_needed: int | None
    replicates_fresh: int | None
    kind: Kind
    claimed: tuple[float, ...]
    levels: tuple[LevelChecks, ...]
    replicates: int
    margin_pp: float
    alpha: float
    margins: Margins
    trained_enough: TrainedEnough | None
    learned: Learned
    spending: Spending
    collapsed: tuple[Collapse, ...]
    collapse_limit: float | None
    accuracy_step: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    scale: Scale = ACCURACY
    relative: bool = False

    @property
    def words(self) -> Words:
        """How margins, and gains over the dense network, are written."""
        return Words(self.scale, self.relative)

    @property
    def reason(self) -> str:
        """The sentences as one text."""
        return " ".join(self.sentences)

    def as_json(self) -> results.Verdict:
        """The `verdict` entry of the result document; each level's checks are its own `as_json()`."""
        document: results.Verdict = {
            "outcome": self.outcome,
            "density": self.density,
            "reason": self.reason,
            "sentences": list(self.sentences),
            "replicates_needed": self.replicates_needed,
            "replicates_fresh": self.replicates_fresh,
            "kind": self.kind,
            "claimed": list(self.claimed),
            "replicates": self.replicates,
            "margin_pp": self.margin_pp,
            "alpha": self.alpha,
            "margins": self.margins.as_json(),
            "trained_enough": None if self.trained_enough is None else self.trained_enough.as_json(),
            "learned": self.learned.as_json(),
            "looks": self.spending.as_json(),
            "collapsed": [one.as_json() for one in self.collapsed],
            "collapse_limit": self.collapse_limit,
            "unseen_collapse_rate": unseen_rate(self.replicates),
            "accuracy_step": self.accuracy_step or None,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }
        if self.relative:
            document["relative"] = True
        return document
