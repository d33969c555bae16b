"""Criteria: evidence -> scores, one pure function each; larger means keep.

Every public function here is a criterion. It takes an `Evidence` and returns one score per eligible weight,
under the weights' names and in their shapes, finite; weights that are pruned already are scored as well, and
the allocation leaves them out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from winticket.ticket import Mask, Scores, State

__all__ = ["Criterion", "Evidence", "magnitude", "random"]

REVISION = 1


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a criterion may see: the trained state, its start, the mask, and randomness of its own."""

    now: State
    start: State
    mask: Mask
    generator: torch.Generator


Criterion = Callable[[Evidence], Scores]


def magnitude(e: Evidence) -> Scores:
    """Weight magnitude after training: s = |w|.

    Frankle & Carbin 2019, §2: the weights of smallest magnitude at the end of training are pruned.
    """
    return {name: e.now.weights[name].abs() for name in e.mask.keep}


def random(e: Evidence) -> Scores:
    """Uniform noise: the floor that every criterion has to beat."""
    return {name: torch.rand(keep.shape, generator=e.generator) for name, keep in e.mask.keep.items()}
