"""Learning curves: what was measured on a grid of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Curve:
    """One replicate's learning curve on a grid of steps; every field is a 1-D CPU tensor of length G.

    Losses (means per example) and accuracies (fractions 0..1) are float64; `step` is int64 and rises. A value that was
    not measured is nan. `pace_accuracy` is measured at every point, on the first few hundred validation examples (or
    all of them, if there are fewer); the speed of learning is read from it. Raises TypeError for another dtype,
    ValueError for columns of different lengths or steps that do not rise.

    >>> import torch
    >>> from winticket.ticket import Curve
    >>> loss, accuracy = torch.tensor([[2.3, 0.4, 0.5], [0.1, 0.9, 0.92]], dtype=torch.float64)
    >>> curve = Curve(torch.tensor([0, 100, 200]), loss, loss, accuracy, accuracy, loss, accuracy)
    >>> curve.early_stop_step(), curve.accuracy_at_early_stop(), curve.steps_to(0.91)
    (100, 0.9, 200)
    """

    __storable__: ClassVar[bool] = True

    step: Tensor
    train_loss: Tensor
    validation_loss: Tensor
    validation_accuracy: Tensor
    pace_accuracy: Tensor
    test_loss: Tensor
    test_accuracy: Tensor

    def __post_init__(self) -> None:
        for column in fields(self):
            values = getattr(self, column.name)
            dtype = torch.int64 if column.name == "step" else torch.float64
            if values.dtype != dtype:
                raise TypeError(f"curve column {column.name!r} is {values.dtype}, not {dtype}")
            if values.ndim != 1 or values.shape != self.step.shape:
                raise ValueError(
                    f"curve column {column.name!r} has shape {tuple(values.shape)}, but 'step' has "
                    f"{tuple(self.step.shape)}; all columns are 1-D and equally long"
                )
        if bool((self.step.diff() <= 0).any()):
            raise ValueError(f"the curve's steps do not rise: {self.step.tolist()}")

    def _early_stop_row(self) -> int | None:
        finite = torch.isfinite(self.validation_loss)
        if not bool(finite.any()):
            return None
        best = self.validation_loss[finite].min()
        return int(torch.nonzero(finite & (self.validation_loss == best))[0])

    def early_stop_step(self) -> int | None:
        """The first step of minimum validation loss; None if no value is finite.

        Frankle & Carbin 2019, section 2, measure the speed of learning by it.
        """
        row = self._early_stop_row()
        return None if row is None else int(self.step[row])

    def accuracy_at_early_stop(self) -> float | None:
        """Test accuracy (0..1) at the early-stop step; None if there is no such step or no value."""
        row = self._early_stop_row()
        if row is None:
            return None
        accuracy = float(self.test_accuracy[row])
        return None if math.isnan(accuracy) else accuracy

    def steps_to(self, accuracy: float) -> int | None:
        """The first step of the grid whose `pace_accuracy` is at least `accuracy`; None if no point reaches it.

        Nothing is interpolated, since the network was not evaluated between two points, and accuracies of noisy curves
        do not lie on a line. So the step may be late, by less than the gap to the point before it.
        """
        # The target is a fraction of an accuracy, which is a ratio of counts: rounding alone must never decide.
        rows = torch.nonzero(self.pace_accuracy >= accuracy - 1e-9)
        return int(self.step[rows[0]]) if len(rows) else None

    def at(self, step: int) -> dict[str, float]:
        """The values measured at `step`, by column. Raises ValueError if the grid has no such step."""
        rows = torch.nonzero(self.step == step)
        if not len(rows):
            raise ValueError(f"step {step} is not on the curve's grid {self.step.tolist()}")
        return self._row(int(rows[0]))

    def last(self) -> dict[str, float]:
        """The values at the grid's last step, by column. Raises ValueError if the curve has no points."""
        if not len(self.step):
            raise ValueError("the curve has no points")
        return self._row(-1)

    def rows(self) -> list[dict[str, float | None]]:
        """Every point of the grid, by column and with its step; None for what was not measured there."""
        points: list[dict[str, float | None]] = []
        for row, step in enumerate(self.step.tolist()):
            values = {name: None if math.isnan(v) else v for name, v in self._row(row).items()}
            points.append({"step": step, **values})
        return points

    def _row(self, row: int) -> dict[str, float]:
        columns = [column.name for column in fields(self) if column.name != "step"]
        return {name: float(getattr(self, name)[row]) for name in columns}


def no_curve() -> Curve:
    """The curve of a network that was not trained, or not on a grid: no points.

    >>> from winticket.ticket import no_curve
    >>> len(no_curve().step)
    0
    """
    empty = torch.empty(0, dtype=torch.float64)
    return Curve(torch.empty(0, dtype=torch.int64), *[empty] * 6)
