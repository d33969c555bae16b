"""What was measured: arms, levels, costs and failures of a result document, and learning curves."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from winticket.results.checks import Checks
from winticket.results.measures import Fraction, MeanStep, Operations, Probability, Seconds, Step

AccuracyName = Literal["accuracy", "accuracy_at_early_stop"]
MeanName = Literal["accuracy", "early_stop_step", "accuracy_at_early_stop"]
"""Keys of `Measured` that hold a mean over replicates."""
INTERVALS: dict[MeanName, Literal["accuracy_ci", "early_stop_ci", "accuracy_at_early_stop_ci"]] = {
    "accuracy": "accuracy_ci",
    "early_stop_step": "early_stop_ci",
    "accuracy_at_early_stop": "accuracy_at_early_stop_ci",
}
"""The key that holds the interval of each."""


class StepsTo(TypedDict):
    """Steps of one arm to a share of the accuracy that the dense network of the same replicate ends at."""

    steps: list[Step | None]
    """By replicate; null if the replicate failed or never got there."""
    never: int
    """Replicates that had a target and never got there."""
    median: MeanStep | None
    """Median over replicates; null if the median replicate never gets there."""
    ci: list[MeanStep | None] | None
    """Its 95 % interval by order statistics: low, high; the high end is null if no replicate bounds it."""
    outcome: Literal["sooner", "alike", "later"] | None
    """Against the dense network; null for that network itself and if nothing was judged."""
    ratio: float | None
    """Hodges-Lehmann ratio of steps to the dense network's."""
    ratio_ci: list[float | None] | None
    """Its 95 % interval: low, high; the high end is null if no replicate bounds it."""
    p_sooner: Probability | None
    """One-sided p-value that the arm is sooner."""
    p_later: Probability | None
    """One-sided p-value that the arm is later."""
    ties: int | None
    """Pairs of equal steps."""


class Measured(TypedDict):
    """What one network did, over replicates; means and intervals are of those that finished."""

    accuracy: Fraction | None
    """Mean test accuracy after the last step; null if every replicate failed."""
    accuracy_ci: list[Fraction] | None
    """Its 95 % interval: low, high; null for a single replicate."""
    accuracies: list[Fraction | None]
    """By replicate; null if it failed."""
    early_stop_step: MeanStep | None
    """Mean step of least validation loss."""
    early_stop_ci: list[MeanStep] | None
    """Its 95 % interval: low, high."""
    early_stop_steps: list[Step | None]
    """By replicate; null if it failed or its loss was never finite."""
    accuracy_at_early_stop: Fraction | None
    """Mean test accuracy at that step."""
    accuracy_at_early_stop_ci: list[Fraction] | None
    """Its 95 % interval: low, high."""
    accuracies_at_early_stop: list[Fraction | None]
    """By replicate."""
    failed: int
    """Replicates that failed."""
    stacked: bool | None
    """Whether the replicates trained as one stack; null if every replicate failed."""
    stacking_reason: str | None
    """Why they did not."""
    sparse: list[str]
    """Weights that trained on the sparse kernels."""


class Arm(Measured):
    """An arm of a level."""

    start_accuracy: NotRequired[Fraction | None]
    """Mean accuracy before the first step, on the validation examples that the steps to an accuracy are read from.
    Absent in older documents."""
    steps_to: dict[str, StepsTo]
    """By share of the dense network's final validation accuracy, as text: `0.9`, `0.95`, ..."""


class Level(TypedDict):
    """One density. Level 0 is the dense network."""

    density: Fraction
    """Share of the eligible weights kept."""
    model_density: Fraction
    """Share of all parameters kept."""
    arms: dict[str, Arm]
    """What each arm did; level 0 has `dense` alone."""
    checks: Checks
    """The tests; empty at level 0."""
    emptied: dict[str, list[str]]
    """By arm, layers and output units without a weight in some replicate; arms without any are absent."""
    emptied_outputs: dict[str, list[list[int] | None]]
    """By arm and replicate, output units without a weight; null if the replicate failed."""
    effective_density: dict[str, Fraction]
    """By arm, the density without weights that only read dead units; only under masks of whole units."""


class Spent(TypedDict):
    """What one replicate took, all trainings that its mask needed included; means over replicates."""

    steps: MeanStep | None
    """Optimiser steps."""
    flops: Operations | None
    """Operations, counted by the weights kept."""
    seconds: Seconds | None
    """Time of a process; an equal share of its stack's."""


class Cost(Spent):
    """What one replicate of an arm took."""

    density: Fraction
    """Density of the level."""
    arm: str
    """The arm."""


class Failure(TypedDict):
    """A replicate that failed."""

    arm: str
    """The arm."""
    density: Fraction
    """Density of the level."""
    replicate: int
    """The replicate, from 0."""
    reason: str
    """The last line of the error, or `not run: ...` if it needs a training that failed."""


class LearningCurve(TypedDict):
    """A row of curves.json: one training that finished. Lists are parallel; null if nothing was measured."""

    density: Fraction
    """Density of the level."""
    arm: str
    """The arm."""
    replicate: int
    """The replicate, from 0."""
    step: list[Step]
    """Points of the grid."""
    train_loss: list[float | None]
    """Mean loss per training example."""
    validation_loss: list[float | None]
    """Mean loss per validation example."""
    validation_accuracy: list[Fraction | None]
    """Accuracy on all validation examples."""
    pace_accuracy: list[Fraction | None]
    """Accuracy on the first validation examples; the steps to an accuracy are read from it."""
    test_loss: list[float | None]
    """Mean loss per test example."""
    test_accuracy: list[Fraction | None]
    """Accuracy on test examples; only at the early stop and at the end."""
