"""How finely a test set can tell accuracies apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from winticket.judge.statistics import Array

FINEST = 20_000
"""A test set beyond this size has steps under 0.005 pp, which matter to no margin."""
_OFF = 1e-9


def accuracy_step(runs: Iterable[Sequence[float | None]], *, test_examples: int | None = None) -> float:
    """The step between two possible accuracies: 1 / test examples; 0 where accuracies lie on no grid.

    Without `test_examples` it is read off the accuracies: 1/N for the smallest N of which all of them are multiples.
    That is the test set's own step or a coarser one, so intervals are never narrower for it.

    >>> accuracy_step([[448 / 450, 445 / 450], [1.0, 441 / 450]]) == 1 / 450
    True
    """
    if test_examples is not None:
        return 1 / test_examples
    values = np.array([value for run in runs for value in run if value is not None], dtype=np.float64)
    return _step_of(np.unique(values)) if len(values) else 0.0


def _step_of(values: Array) -> float:
    sizes = np.arange(1, FINEST + 1, dtype=np.float64)
    possible = np.ones(len(sizes), dtype=bool)
    for value in values:
        counts = value * sizes[possible]
        possible[possible] = np.abs(counts - np.rint(counts)) <= _OFF * sizes[possible]
        if not possible.any():
            return 0.0
    return float(1 / sizes[possible][0])
