"""Values as the tests take them: larger is better, a failed training has a value, and a margin is a boundary.

Values are stored and reported as they were measured, whichever direction is good. They are put into a `Frame` at the
entrance of `judge` and `gate`, and what comes out of it is a gain again: positive if ours is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from winticket.judge.statistics import ROUNDING, Array
from winticket.objective import ACCURACY, Scale

Values = Sequence[float | None]
ByArm = Mapping[str, tuple[float | None, ...]]
"""Arm -> one value per replicate; None if the training failed."""


@dataclass(frozen=True)
class Frame:
    """A metric's values for the tests: times its sign, so that larger is better, and in units of `unit`.

    unit: 1 for accuracies, else a power of two as large as the largest value. So what counts as rounding does not
    depend on whether lengths are in metres or millimetres, and nothing is rounded by dividing. worst, perfect: what a
    failed training of ours and of a reference counts as, in the frame (`frame_of`).

    >>> frame_of(Scale("RMSE", "lower", "mm", 0.0), [(3.0, 2.0)], constant=None).put((3.0, None))
    (-0.75, None)
    """

    scale: Scale = ACCURACY
    unit: float = 1.0
    worst: float = 0.0
    perfect: float = 1.0

    @property
    def span(self) -> float:
        """The largest possible difference, in the frame; infinite if the metric has no range."""
        return (self.scale.high - self.scale.low) / self.unit

    def put(self, values: Values) -> tuple[float | None, ...]:
        return tuple(None if value is None else self.scale.sign * value / self.unit for value in values)

    def gain(self, difference: float) -> float:
        """A framed difference as a gain in the metric's own unit; in a metric without steps, rounding is none."""
        return 0.0 if self.scale != ACCURACY and abs(difference) <= ROUNDING else difference * self.unit

    def put_all(self, arms: ByArm) -> ByArm:
        return {arm: self.put(values) for arm, values in arms.items()}

    def measured(self, values: Values, lost: float) -> Array:
        """Framed values [n] as they were measured, less the unit; a failed training counts as the framed `lost`."""
        return self.scale.sign * np.array([lost if v is None else v for v in values], dtype=np.float64)


ACCURACIES = Frame()
"""The frame of accuracies, in which every value is itself."""


def frame_of(scale: Scale, arms: Iterable[Values], *, constant: float | None) -> Frame:
    """The frame of a metric whose measured values are `arms`; `constant` is the best constant answer's value.

    A failed training of ours counts as the worst value of the metric's range, and a failed reference as the best. If
    the range has no worst end, ours counts as the worse of the constant answer and the worst value observed. If it has
    no best end, a reference counts as the best value observed. Raises ValueError if a training failed and there is
    neither a worst end nor a constant answer's value.
    """
    if scale == ACCURACY:
        return ACCURACIES
    values = [value for arm in arms for value in arm]
    observed = [value for value in values if value is not None] + ([] if constant is None else [constant])
    if None in values and constant is None and not math.isfinite(scale.useless):
        raise ValueError(
            f"a training failed, and {scale.name} has no worst value that it could count as; give the value of the "
            "best constant answer on the test data as `constant`, or the metric a range"
        )
    unit = 2.0 ** math.frexp(max(map(abs, observed), default=0.0))[1]
    oriented = [scale.sign * value / unit for value in observed] or [0.0]
    worst, perfect = scale.sign * scale.useless / unit, scale.sign * scale.perfect / unit
    if not math.isfinite(perfect):
        # If nothing finished, any value above the worst says what is true, that nothing is shown.
        perfect = max(oriented) if len(observed) > (constant is not None) else max(oriented) + 1
    return Frame(scale, unit, worst if math.isfinite(worst) else min(oriented), perfect)


@dataclass(frozen=True)
class Margin:
    """How far a ticket may fall behind: `size` in the metric's own unit or, if `relative`, as a share of dense."""

    size: float
    relative: bool = False

    @classmethod
    def of(cls, margin_pp: float, scale: Scale, *, relative: bool) -> Margin:
        """The margin of `margin_pp`, which is in the unit of differences or, if `relative`, in percent of dense."""
        return cls(margin_pp / (100.0 if relative else scale.factor), relative)

    def framed(self, frame: Frame) -> float:
        """The size as `contrast` takes it: a share stays a share."""
        return self.size if self.relative else self.size / frame.unit

    def typical(self, dense: Values) -> float:
        """The margin in the metric's own unit; a share is one of the mean of `dense`, 0 if none finished."""
        if not self.relative:
            return self.size
        finished = [value for value in dense if value is not None]
        return self.size * float(np.mean(finished)) if finished else 0.0


def contrast(differences: Array, dense: Array | None, null: float) -> tuple[Array, float]:
    """The values whose mean is tested against a boundary, and the boundary: is mean(differences) > null · mean(dense)?

    differences, dense: [..., n]; `null` is a number if `dense` is None, and else a share of the dense network's mean.
    A margin fixed at a share of the *estimated* mean would ignore that the mean is uncertain. So the hypothesis about
    the ratio of two means is tested as one about the mean of a linear combination of the pair, dᵢ − null · denseᵢ > 0
    (Fieller 1954; von Luxburg & Franz 2009, theorem 3, for pairs; for independent samples the R package mratios does
    the same).
    """
    return (differences, null) if dense is None else (differences - null * dense, 0.0)
