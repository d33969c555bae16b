"""A user's model as methods see it: its state, its eligible weights, and how they are scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from winticket.allocate import BY_LAYER, Allocate, layerwise, structures, units
from winticket.criteria import Criterion, Evidence
from winticket.criteria.applied import is_ours, mask_of, name_of, scores_of, tried_on
from winticket.criteria.batches import Batch, Inputs, checked, each_tensor, first, inputs_of
from winticket.criteria.evidence import DATA, NETWORK, RANDOM, needed
from winticket.criteria.losses import Loss
from winticket.loops.wrapped import bare, check_whole, drawn_seed, shared_buffers
from winticket.models import chosen, includable, output_layer, unpruned_by
from winticket.pairing import usual, variant
from winticket.ticket import Mask, Scores, Seeds, State, Ticket
from winticket.units import layouts, why_untraceable
from winticket.units import takes_whole_units as whole_units

Density = float | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Scoring:
    """Scores the weights of `model` by `criterion`. Call it with a ticket (mask and start) and the current state.

    A criterion that looks at the network or at data gets the model and `batches` (tuples of inputs and a target, or
    mappings) with their `loss` (default: cross-entropy, or the model's own), or an `example` [1, ...] of the inputs. It
    computes on the CPU, in float64 if model and loss can. The model does not change, nor do its modes. ValueError if
    the criterion lacks what it needs.
    """

    model: nn.Module
    criterion: Criterion
    batches: Iterable[Batch] = ()
    example: Inputs | None = None
    loss: Loss | None = None

    def __post_init__(self) -> None:
        require_function("criterion", self.criterion)
        if self.loss is not None and not callable(self.loss):
            raise TypeError(
                f"loss is {self.loss!r}; pass a function of the network's output and the target that returns the mean "
                "loss, such as torch.nn.functional.mse_loss"
            )
        batches = tuple(each_tensor(Tensor.cpu, checked(batch)) for batch in self.batches)
        example = self.example if self.example is not None or not batches else inputs_of(first(batches[0]))
        object.__setattr__(self, "batches", batches)
        object.__setattr__(self, "example", each_tensor(Tensor.cpu, example))
        needs = needed(self.criterion)
        if DATA in needs and not batches:
            raise ValueError(
                f"{name_of(self.criterion)} needs training examples; pass some as batches=[(x, y), ...]"
            )
        if NETWORK in needs and example is None:
            raise ValueError(
                f"{name_of(self.criterion)} needs the shape of an input; pass one as example=..., or batches"
            )

    def __call__(self, ticket: Ticket, now: State) -> Scores:
        return scores_of(self.criterion, self.evidence(ticket, now))

    def evidence(self, ticket: Ticket, now: State, *, start: State | None = None) -> Evidence:
        """What the criterion sees. `start` is the state that the search began with (default: the ticket's start)."""
        return Evidence.of_ticket(
            ticket,
            now,
            start=start or ticket.start,
            network=bare(self.model) if NETWORK in needed(self.criterion) else None,
            example=self.example,
            batches=tuple(self.batches),
            loss=self.loss,
        )

    def check(self, ticket: Ticket, *, allocate: Allocate, density: Density) -> None:
        """Score and prune the ticket's start once, to raise now what would otherwise be raised after a training.

        ValueError if the criterion cannot score this model, or if a user's own criterion fails.
        """
        if needed(self.criterion) & {NETWORK, DATA} or not is_ours(self.criterion):
            e = self.evidence(ticket, tried_on(self.criterion, ticket.start))
            mask_of(self.criterion, e, allocate=allocate, density=density)


def whole(
    model: nn.Module,
    *,
    include: Sequence[str] | str = (),
    exclude: Sequence[str] | str = (),
    seeds: Seeds | None = None,
    stacklevel: int = 2,
) -> Ticket:
    """The model's current state as a ticket with nothing pruned.

    Eligible are the weights of Linear and Conv layers and the parameters in `include`, except those in `exclude`.
    ValueError if a pattern matches no weight, if none remains, or if weights are sharded. RuntimeWarning, at the
    caller's `stacklevel`, if most of the model is in parameters that could be included and are in neither option.
    """
    check_whole(model)
    include, exclude = (((names,) if isinstance(names, str) else names) for names in (include, exclude))
    module = bare(model)
    names = chosen(module, include=include, exclude=exclude, spared=True)
    further = includable(module)
    if not names:
        others = f"; or include some of {', '.join(further)} (include=[...])" if further else ""
        if any(is_parametrized(layer) for layer in model.modules()):
            raise ValueError(
                "the model's weights are parametrized, as they are within a block of edge_popup or supermask; leave "
                "the block, or remove the parametrizations (torch.nn.utils.parametrize.remove_parametrizations)"
                + others
            )
        raise ValueError(
            f"the model has no weight to prune: it has no Linear or Conv layer, or all are excluded{others}"
        )
    start = state_of(model, step=0)
    patterns = (*include, *exclude)
    remaining = [n for n in further if not any(fnmatchcase(n, pattern) for pattern in patterns)]
    _warn_of_the_rest(start.weights, names, remaining, stacklevel=stacklevel + 1)
    mask = Mask.full({n: start.weights[n] for n in names}, layout=layouts(module))
    return Ticket(mask, start, "dense", seeds or Seeds(0, 0))


def _warn_of_the_rest(
    weights: Mapping[str, Tensor], names: Sequence[str], remaining: Sequence[str], *, stacklevel: int
) -> None:
    total = sum(weight.numel() for weight in weights.values())
    if 2 * sum(weights[n].numel() for n in remaining) <= total:
        return
    largest = sorted(remaining, key=lambda n: -weights[n].numel())
    shown = ", ".join(f"{n} ({weights[n].numel() / total:.0%})" for n in largest[:5])
    more = f" and {len(largest) - 5} more" if len(largest) > 5 else ""
    share = sum(weights[n].numel() for n in names) / total
    warnings.warn(
        f"only {share:.0%} of the model's weights are in Linear and Conv layers, which are pruned; most are in {shown}"
        f"{more}. Prune them too (include={largest[:1]} and so on, names or patterns), or exclude them explicitly "
        f"(exclude={largest[:1]} ...)",
        RuntimeWarning,
        stacklevel=stacklevel + 1,
    )


def seeds_for(model: nn.Module, seeds: Seeds | None, *, criterion: Criterion | None = None) -> Seeds:
    """The seeds that a method draws from: those that were passed, else drawn from torch's global generator.

    So replicates differ, and `torch.manual_seed` repeats them. All ranks of a distributed model get the first rank's.
    For one of winticket's criteria that is not random, nothing is drawn, so the loop's random numbers do not change.
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
    """The allocation to prune by: `allocate`, else the method's `default`, else that of the criterion's paper.

    RuntimeWarning, at the caller's `stacklevel`, if it turns the criterion into another method, unless the method has
    its own default; ValueError if it undoes the criterion.
    """
    if allocate is not None:
        require_function("allocate", allocate)
    chosen = allocate or default or usual(criterion)
    sentence = variant(criterion, chosen)
    if sentence and default is None:
        warnings.warn(sentence, RuntimeWarning, stacklevel=stacklevel + 1)
    return chosen


def require_function(option: str, value: object) -> None:
    """TypeError if an option that takes a function has a name, or anything else that cannot be called."""
    if not callable(value):
        room = {"criterion": "criteria"}.get(option, option)
        example = f"winticket.{room}.{value}" if isinstance(value, str) else f"one of winticket.{room}"
        raise TypeError(f"{option} is {value!r}; pass the function itself, {example}, or one of your own")


def takes_units(allocate: Allocate) -> bool:
    """True if this is the allocation `units`, which keeps units whole."""
    return (allocate.func if isinstance(allocate, partial) else allocate) is units


def without_classes(
    model: nn.Module, allocate: Allocate, exclude: Sequence[str], include: Sequence[str] = ()
) -> Sequence[str]:
    """The parameters to exclude (default: those that the allocation leaves out, as `models.unpruned_by` says)."""
    function = allocate.func if isinstance(allocate, partial) else allocate
    ours = function in (structures, units)
    return exclude or (unpruned_by(name_of(function), bare(model), include) if ours else ())


def check_classes(model: nn.Module, mask: Mask, allocate: Allocate) -> None:
    """ValueError if whole units of the output layer could be pruned."""
    output = output_layer(bare(model))
    if takes_units(allocate) and output in mask.keep:
        raise ValueError(
            f"allocate.units prunes whole units, and those of the output layer are the classes; exclude {output!r}"
        )


def check_by_layer(method: str, allocate: Allocate) -> None:
    """ValueError for one of winticket's allocations that a method with fixed counts by layer would not preserve."""
    function = allocate.func if isinstance(allocate, partial) else allocate
    ours = _module_of(allocate) == layerwise.__module__
    if ours and function not in BY_LAYER:
        raise ValueError(
            f"{method} keeps the number of weights in every layer, but {name_of(function)} does not go by layer; "
            f"possible: {', '.join(name_of(f) for f in BY_LAYER)}, or a function of your own"
        )


def check_densities(ticket: Ticket, densities: Iterable[Density], allocate: Allocate) -> None:
    """ValueError if the allocation cannot reach these densities one after the other, or if one prunes nothing.

    Tries the allocation on the magnitudes of the ticket's start.
    """
    require_function("allocate", allocate)
    mask, last = ticket.mask, ticket.mask.density()
    magnitudes = {name: ticket.start.weights[name].abs() for name in mask.keep}
    for density in densities:
        if not isinstance(density, Mapping) and not (isinstance(density, int | float) and 0 < density < 1):
            raise ValueError(
                f"density is {density!r}; give the share of the weights to keep, in (0, 1), such as 0.1, or by layer"
            )
        smaller = allocate(magnitudes, mask, density=density)
        if not smaller.within(mask) or smaller.count() >= mask.count():
            raise ValueError(
                f"density {density} keeps {smaller.count()} weights after {mask.count()} (density {last:.4g}); "
                "each density must keep fewer weights than the one before"
            )
        mask, last = smaller, smaller.density()


def warn_of_emptied(
    what: str, mask: Mask, *, model: nn.Module | None, before: Mask | None = None, stacklevel: int
) -> None:
    """RuntimeWarning, at the caller's `stacklevel`, if a layer keeps nothing that kept something in `before`.

    With a `model`, also if output units lose all their weights, or if whole units are pruned whose BatchNorm shift
    cannot be zeroed. Pass no model for a mask that is learned or regrown, in which weights come back.
    """
    output = output_layer(bare(model)) if model is not None else None
    if before and output is not None and output in before.keep and before.empty_units(output):
        output = None
    begun = model is not None and whole_units(mask) and not (before and whole_units(before))
    if model is not None and begun and (reason := why_untraceable(bare(model))):
        warnings.warn(
            f"{what} prunes whole units, but the shift of the BatchNorm after one cannot be zeroed: {reason}",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )
    known = before.emptied() if before else ()
    if emptied := [name for name in mask.emptied(output=output) if name not in known]:
        warnings.warn(
            f"{what} keeps no weight in {', '.join(emptied)}: no signal passes through",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )


def state_of(model: nn.Module, *, step: int, optimizer: Mapping[str, Tensor] | None = None) -> State:
    """Copies of the model's weights and buffers, on the CPU.

    >>> import torch, winticket.loops
    >>> state = winticket.loops.state_of(torch.nn.Linear(3, 2), step=0)
    >>> {name: tuple(weight.shape) for name, weight in state.weights.items()}
    {'weight': (2, 3), 'bias': (2,)}
    """
    weights = {name: p.detach().cpu().clone() for name, p in bare(model).named_parameters()}
    return State(weights, shared_buffers(model), optimizer or {}, step)


def _module_of(function: Callable[..., object]) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__module__", ""))
