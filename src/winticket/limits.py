"""The limits of an experiment's and a recipe's numbers, and the messages for numbers outside them.

This file does not import torch, so that the command can refuse a typing mistake at once; `Recipe` and `Experiment` use
the same limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limit:
    """A test of values, and the rest of a message that begins with the option's name and value."""

    takes: Callable[[Any], bool]
    words: str


LONGEST = 10**9
"""The most steps that a training may have; the longest known trainings have some millions."""
MOST_LEVELS = 1000
_POSITIVE = Limit(lambda value: 0 < value < math.inf, "it is positive and finite")
_SHARE = Limit(lambda value: 0 < value < 1, "the share pruned per level lies in (0, 1), as 0.2 for a fifth")
_ONE = Limit(lambda value: value >= 1, "at least 1 is needed")


def _whole(least: int) -> Limit:
    return Limit(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"it is a whole number of at least {least}",
    )


RECIPE: Mapping[str, tuple[Limit, ...]] = {
    "steps": (_whole(1), Limit(lambda value: value <= LONGEST, f"a training has at most {LONGEST:,}")),
    "batch": (_whole(1),),
    "evaluate_every": (_whole(1),),
    "warmup": (_whole(0),),
    "crop": (_whole(0),),
    "weight_decay": (Limit(lambda value: 0 <= value < math.inf, "it is finite and not negative"),),
    "lr": (_POSITIVE,),
    "gamma": (_POSITIVE,),
    "clip_norm": (_POSITIVE,),
    "momentum": (Limit(lambda value: 0 <= value < 1, "it lies in [0, 1)"),),
}
EXPERIMENT: Mapping[str, tuple[Limit, ...]] = {
    "levels": (_ONE, Limit(lambda value: value <= MOST_LEVELS, f"at most {MOST_LEVELS:,} are planned")),
    "replicates": (_ONE,),
    "stack": (_ONE,),
    "rate": (_SHARE,),
    "output_rate": (_SHARE,),
    "conv_rate": (_SHARE,),
    "alpha": (Limit(lambda value: 0 < value < 0.5, "an error rate lies in (0, 0.5), usually 0.05"),),
    "every": (_ONE,),
    "rewind_step": (Limit(lambda value: value >= 0, "at least 0 is needed"),),
    "search_lr": (Limit(lambda value: 0 < value < math.inf, "a learning rate is positive and finite"),),
}
MOST_MACHINES = 10_000
MOST_CORES = 1024
CLUSTER: Mapping[str, tuple[Limit, ...]] = {
    "machines": (
        _whole(1),
        Limit(lambda value: value <= MOST_MACHINES, f"at most {MOST_MACHINES:,} are forecast"),
    ),
    "cores_per_machine": (
        _whole(1),
        Limit(lambda value: value <= MOST_CORES, f"a machine has at most {MOST_CORES:,}"),
    ),
}


def check(limits: Mapping[str, tuple[Limit, ...]], values: Mapping[str, object]) -> None:
    """Raise ValueError for the first of `values` that is outside its limits; None and unknown names are ignored.

    >>> check(RECIPE, {"lr": -0.1})
    Traceback (most recent call last):
    ValueError: lr is -0.1; it is positive and finite
    """
    for name, value in values.items():
        for limit in limits.get(name, ()) if value is not None else ():
            if not limit.takes(value):
                raise ValueError(f"{name} is {value}; {limit.words}")
