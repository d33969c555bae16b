"""What is to be known of a procedure besides what it does; said beside it, and read by whoever offers or plans it."""

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
    criterion     short name of its paper's criterion
    allocate      short name of its paper's allocation; None: the criterion's own
    fixed_counts  whether every layer keeps its count of weights, for which the allocation is asked once
    before_training  whether it prunes a network that has not been trained
    gradual       whether it prunes at densities on the way to those that are asked for
    levels        whether a density is reached through levels of train, prune and rewind
    starts_dense  whether its tickets start from weights that a dense network starts from, too
    search        what its search itself leaves beside tickets: nothing, a "trained" network that the paper speaks of,
                  or an "untrained" one under a mask
    changes       the rule by which its mask changes while it trains; None if the mask does not
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
    """Marks a procedure as the method of that name; see `Method`."""

    def mark(procedure: P) -> P:
        procedure.__dict__["method"] = Method(name, **facts)
        return procedure

    return mark


def method_of(procedure: Callable[..., Any]) -> Method:
    """The facts of a procedure of this room."""
    found: Method = procedure.__dict__["method"]
    return found
