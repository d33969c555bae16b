"""What the numbers of a plan's networks are measured on: the test data, and the scale of the metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from winticket import results
from winticket.experiment.plan import Plan
from winticket.objective import ACCURACY, Scale


@dataclass(frozen=True)
class ScoredOn:
    """The test data of a plan's networks.

    scale     what their scores mean
    answers   how many answers a score is about
    constant  the score of the best answer that ignores the input: for accuracy, that of the commonest class
    """

    scale: Scale
    answers: int
    constant: float

    @property
    def step(self) -> float:
        """The distance between two possible scores: one answer of an accuracy; 0 for a metric without steps."""
        return 1 / self.answers if self.scale == ACCURACY else 0.0

    @property
    def least(self) -> float:
        """The most negative difference of two scores that is possible."""
        return self.scale.low - self.scale.high

    @property
    def known_constant(self) -> float | None:
        """`constant`, or None if the metric has no such score."""
        return self.constant if math.isfinite(self.constant) else None

    def entry(self) -> results.Metric:
        """The `metric` entry of a result document."""
        return self.scale.as_json(constant=self.known_constant)


def scored_on(plan: Plan) -> ScoredOn:
    """The test data of the first replicate, which stand for those of the others."""
    setup = plan.setup
    y = setup.dataset(torch.device("cpu")).test.y
    made = setup.loss_and_metric()
    if made is None:
        answers = y.flatten()
        return ScoredOn(ACCURACY, len(answers), int(torch.bincount(answers).max()) / len(answers))
    return ScoredOn(
        setup.scale(), len(y) if made.one_answer else y.numel(), made.constant(y, outputs=setup.classes)
    )
