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


def method_of(procedure: Callable[..., Any]) -> Method:
    """The facts of a procedure that `method` marked."""
    facts: Method = procedure.__dict__["method"]
    return facts
