"""A user's model as methods see it: its state, which weights may be pruned, and how they are scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from winticket.allocate import BY_LAYER, Allocate, layerwise
from winticket.criteria import Criterion, Evidence
from winticket.criteria.evidence import DATA, NETWORK, RANDOM, Batch, needed
from winticket.models import chosen, includable
from winticket.pairing import usual, variant
from winticket.ticket import Mask, Scores, Seeds, State, Ticket
from winticket.train import bare, check_whole, drawn_seed, shared_buffers

Density = float | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Scoring:
    """Scores the weights of `model` by `criterion`; called with the mask and start that it has, and its state now.

    A criterion that looks at the network or at data is given the model and `batches` of (x [B, ...], classes y [B]), or
    an `example` [1, ...]. It computes on the CPU, in float64; the model is as before afterwards, modes included.
    ValueError where the criterion lacks what it needs.
    """

    model: nn.Module
    criterion: Criterion
    batches: Sequence[Batch] = ()
    example: Tensor | None = None

    def __post_init__(self) -> None:
        require_function("criterion", self.criterion)
        if not all(isinstance(batch, tuple | list) and len(batch) == 2 for batch in self.batches):
            raise ValueError("batches are pairs of inputs and classes: batches=[(x, y), ...]")
        batches = tuple((x.cpu(), y.cpu()) for x, y in self.batches)
        example = self.example if self.example is not None or not batches else batches[0][0][:1]
        object.__setattr__(self, "batches", batches)
        object.__setattr__(self, "example", None if example is None else example.cpu())
        needs = needed(self.criterion)
        if DATA in needs and not batches:
            raise ValueError(f"{name_of(self.criterion)} needs training examples; give some (batches=...)")
        if NETWORK in needs and example is None:
            raise ValueError(
                f"{name_of(self.criterion)} needs an input's shape; give one (example=...) or batches"
            )

    def __call__(self, ticket: Ticket, now: State) -> Scores:
        module = bare(self.model)
        modes = {m: m.training for m in module.modules()}
        evidence = Evidence(
            now=now,
            start=ticket.start,
            mask=ticket.mask,
            generator=torch.Generator().manual_seed(ticket.seeds.derive("criterion", ticket.mask.count())),
            network=module if NETWORK in needed(self.criterion) else None,
            example=self.example,
            batches=self.batches,
        )
        try:
            return self.criterion(evidence)
        finally:
            for m, training in modes.items():
                m.training = training


def whole(
    model: nn.Module,
    *,
    include: Sequence[str] | str = (),
    exclude: Sequence[str] | str = (),
    seeds: Seeds | None = None,
    stacklevel: int = 2,
) -> Ticket:
    """The ticket of the model as it is, with nothing pruned: Linear and Conv weights and `include`, less `exclude`.

    ValueError where a pattern fits no weight, none is left, or weights are cut up over processes. RuntimeWarning, at
    the caller's `stacklevel`, if most of the model is in parameters that could be included and are in neither option.
    """
    check_whole(model)
    include, exclude = (((given,) if isinstance(given, str) else given) for given in (include, exclude))
    module = bare(model)
    names = chosen(module, include=include, exclude=exclude, spared=True)
    further = includable(module)
    if not names:
        others = f"; or include some of {', '.join(further)} (include=[...])" if further else ""
        if any(is_parametrized(layer) for layer in model.modules()):
            raise ValueError(
                "the model's weights are parametrized, as they are within edge_popup's and supermask's blocks; leave "
                "the block, or take the parametrizations off (torch.nn.utils.parametrize.remove_parametrizations)"
                + others
            )
        raise ValueError(
            f"the model has no weight to prune: no Linear or Conv layer, or all are excluded{others}"
        )
    start = state_of(model, step=0)
    patterns = (*include, *exclude)
    left = [n for n in further if not any(fnmatchcase(n, pattern) for pattern in patterns)]
    _warn_of_the_rest(start.weights, names, left, stacklevel=stacklevel + 1)
    return Ticket(Mask.full({n: start.weights[n] for n in names}), start, "dense", seeds or Seeds(0, 0))


def _warn_of_the_rest(
    weights: Mapping[str, Tensor], names: Sequence[str], left: Sequence[str], *, stacklevel: int
) -> None:
    total = sum(weight.numel() for weight in weights.values())
    if 2 * sum(weights[n].numel() for n in left) <= total:
        return
    largest = sorted(left, key=lambda n: -weights[n].numel())
    shown = ", ".join(f"{n} ({weights[n].numel() / total:.0%})" for n in largest[:5])
    more = f" and {len(largest) - 5} more" if len(largest) > 5 else ""
    share = sum(weights[n].numel() for n in names) / total
    warnings.warn(
        f"only {share:.0%} of the model's weights are in Linear and Conv layers, which are pruned; most are in {shown}"
        f"{more}. Prune them too (include={largest[:1]} and so on, names or patterns), or leave them whole on purpose "
        f"(exclude={largest[:1]} ...)",
        RuntimeWarning,
        stacklevel=stacklevel + 1,
    )


def seeds_for(model: nn.Module, seeds: Seeds | None, *, criterion: Criterion | None = None) -> Seeds:
    """The seeds of a method around the user's loop; without any, they are drawn from torch's global generator.

    So replicates differ, and `torch.manual_seed` repeats them. Ranks of a distributed model take the first rank's.
    Nothing is drawn for a criterion of ours that draws nothing, so that the loop's own random numbers stay the same.
    """
    if seeds is not None:
        return seeds
    ours = criterion is not None and _module_of(criterion).startswith("winticket.criteria.")
    if criterion is not None and ours and RANDOM not in needed(criterion):
        return Seeds(0, 0)
    return Seeds(drawn_seed(model), 0)


def allocation_for(
    criterion: Criterion, allocate: Allocate | None, *, default: Allocate | None = None, stacklevel: int
) -> Allocate:
    """The allocation to prune by: the one given, else the method's `default`, else that of the criterion's paper.

    RuntimeWarning, at the caller's `stacklevel`, if it makes another method of the criterion, unless the method has an
    allocation of its own; ValueError if it undoes the criterion.
    """
    if allocate is not None:
        require_function("allocate", allocate)
    chosen = allocate or default or usual(criterion)
    sentence = variant(criterion, chosen)
    if sentence and default is None:
        warnings.warn(sentence, RuntimeWarning, stacklevel=stacklevel + 1)
    return chosen


def require_function(what: str, given: object) -> None:
    """TypeError for a name, or anything else that cannot be called, in the place of a method."""
    if not callable(given):
        room = {"criterion": "criteria"}.get(what, what)
        shown = f"{given!r}; give the function itself" + (
            f", winticket.{room}.{given}" if isinstance(given, str) else f", one of winticket.{room}"
        )
        raise TypeError(f"{what} is {shown}, or one of your own")


def check_by_layer(method: str, allocate: Allocate) -> None:
    """ValueError for an allocation of ours whose pattern or counts a method that keeps layers' counts would lose."""
    function = allocate.func if isinstance(allocate, partial) else allocate
    ours = _module_of(allocate) == layerwise.__module__
    if ours and function not in BY_LAYER:
        raise ValueError(
            f"{method} keeps every layer's count of weights, and {name_of(function)} does not decide by layers alone; "
            f"possible: {', '.join(name_of(f) for f in BY_LAYER)}, or a function of your own"
        )


def check_densities(ticket: Ticket, densities: Iterable[Density], allocate: Allocate) -> None:
    """ValueError where the allocation cannot give these densities one after the other, or one prunes nothing.

    Tried on the magnitudes of the ticket's start.
    """
    require_function("allocate", allocate)
    mask, last = ticket.mask, ticket.mask.density()
    magnitudes = {name: ticket.start.weights[name].abs() for name in mask.keep}
    for density in densities:
        if not isinstance(density, Mapping) and not (isinstance(density, int | float) and 0 < density < 1):
            raise ValueError(
                f"density {density!r} is asked for; give shares of the weights to keep in (0, 1), as 0.1, or by layer"
            )
        smaller = allocate(magnitudes, mask, density=density)
        if not smaller.within(mask) or smaller.count() >= mask.count():
            raise ValueError(
                f"density {density} leaves {smaller.count()} weights after {mask.count()} (density {last:.4g}); "
                "each one is to leave fewer than there were"
            )
        mask, last = smaller, smaller.density()


def warn_of_emptied(what: str, mask: Mask, *, before: Mask | None = None, stacklevel: int) -> None:
    """RuntimeWarning, at the caller's `stacklevel`, where layers keep nothing that kept something in `before`."""
    known = before.emptied() if before else ()
    if emptied := [name for name in mask.emptied() if name not in known]:
        warnings.warn(
            f"{what} leaves no weight in {', '.join(emptied)}: nothing passes through",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )


def state_of(model: nn.Module, *, step: int, optimizer: Mapping[str, Tensor] | None = None) -> State:
    """Copies of the model's weights and buffers, on the CPU."""
    weights = {name: p.detach().cpu().clone() for name, p in bare(model).named_parameters()}
    return State(weights, shared_buffers(model), optimizer or {}, step)


def _module_of(function: Callable[..., object]) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__module__", ""))


def name_of(function: Callable[..., object]) -> str:
    """A function's name, with the options that were put into it."""
    if isinstance(function, partial):
        options = ", ".join(f"{name}={value!r}" for name, value in function.keywords.items())
        return f"{name_of(function.func)}({options})"
    return str(getattr(function, "__name__", function))
