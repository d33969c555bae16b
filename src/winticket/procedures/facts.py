"""Facts about a procedure, written beside it and read by the code that offers, checks and plans methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from winticket.train.rules import Regrowing, Thinning

P = TypeVar("P", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """The facts of a method.

    name          what users type and documents hold: "early-bird"
    title         what it is called if its name is an abbreviation: "iterative pruning"
    criterion     short name of the criterion in its paper
    allocate      short name of the allocation in its paper; None for the criterion's default
    fixed_counts  whether the allocation fixes the count of weights in each layer once, before the search
    before_training  whether it prunes a network that has not been trained
    gradual       whether it also prunes at densities between 1 and the requested one
    levels        whether it reaches a density through levels of train, prune and rewind
    starts_dense  whether a dense network could start from the same weights as its tickets
    search        what its search leaves besides tickets: "nothing", a "trained" network that the paper reports, or an
                  "untrained" network under a mask
    changes       the rule by which its mask changes during training; None if the mask stays
    """

    name: str
    title: str | None = None
    criterion: str = "magnitude"
    allocate: str | None = None
    fixed_counts: bool = False
    before_training: bool = False
    gradual: bool = False
    levels: bool = False
    starts_dense: bool = True
    search: str = "nothing"
    changes: type[Regrowing] | type[Thinning] | None = None


def method(name: str, **facts: Any) -> Callable[[P], P]:
    """Marks a procedure as the method of that name, with its facts (see `Method`).

    >>> @method("mine", before_training=True)
    ... def mine(setup, densities, replicates): ...
    >>> method_of(mine).before_training
    True
    """

    def mark(procedure: P) -> P:
        procedure.__dict__["method"] = Method(name, **facts)
        return procedure

    return mark


HALVED = ("lenet-", "conv-")
"""Networks whose output layer the 2019 paper (Frankle & Carbin, Figure 2) prunes at half the rate."""


def halved_output_rate(rate: float, *, model: str, allocate: str) -> float | None:
    """The output layer's default share of weights to prune per level; None if the layer has no rate of its own.

    Frankle & Carbin 2019, Figure 2: half of `rate` in LeNet and Conv networks that are pruned layer by layer.

    >>> halved_output_rate(0.2, model="lenet-300-100", allocate="layerwise")
    0.1
    """
    return rate / 2 if allocate == "layerwise" and model.startswith(HALVED) else None


def method_of(procedure: Callable[..., Any]) -> Method:
    """The facts of a procedure that `method` marked."""
    facts: Method = procedure.__dict__["method"]
    return facts
