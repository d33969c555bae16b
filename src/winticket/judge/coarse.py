"""How finely a test set can tell accuracies apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from winticket.judge.statistics import Array

FINEST = 20_000
"""Larger test sets have steps below 0.005 pp, which matter to no margin."""
_ROUNDING = 1e-9


def accuracy_step(accuracies: Iterable[Sequence[float | None]], *, test_examples: int | None = None) -> float:
    """The step between two possible accuracies: 1 / test examples; 0 if the accuracies lie on no grid.

    Without `test_examples` it is read off the accuracies: 1/N for the smallest N such that all of them are multiples
    of 1/N. That is the test set's step or a coarser one, so it never makes intervals too narrow.

    >>> accuracy_step([[448 / 450, 445 / 450], [1.0, 441 / 450]]) == 1 / 450
    True
    """
    if test_examples is not None:
        return 1 / test_examples
    values = np.array([value for arm in accuracies for value in arm if value is not None], dtype=np.float64)
    return _step_of(np.unique(values)) if len(values) else 0.0


def _step_of(values: Array) -> float:
    sizes = np.arange(1, FINEST + 1, dtype=np.float64)
    possible = np.ones(len(sizes), dtype=bool)
    for value in values:
        counts = value * sizes[possible]
        possible[possible] = np.abs(counts - np.rint(counts)) <= _ROUNDING * sizes[possible]
        if not possible.any():
            return 0.0
    return float(1 / sizes[possible][0])
