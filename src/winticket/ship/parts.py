"""`remove_parts`: a network without the heads, hidden neurons and tokens that a mask has cut off, of its own class.

`winticket.compact` follows single units through a network's graph. Many networks have no graph that can be read, such
as those of Transformers; but which weights a head has is known without one (`winticket.units.structures`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from winticket.loops.wrapped import bare, check_fits, check_whole
from winticket.ship.shrink_structures import cut_structures
from winticket.ticket import Mask, Ticket
from winticket.trouble import of_the_machine
from winticket.units import layouts, structures

TOLERANCE = 1e-6
"""The largest difference in float64, relative to the largest output, that is taken for rounding: models of
Transformers take norms and softmax in float32, also in a network of float64."""
SINGLE = 1e-4
"""The same for a model that computes in float32 alone, as mixtures of experts do."""
Example = Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Smaller:
    """A network without parts that its mask has cut off.

    module  of the same class as the original, with smaller layers: train it, save it
    maps    "LAYER.units" and "LAYER.inputs" -> int64, the numbers that a smaller layer's units and inputs had before;
            tokens are the inputs of an embedding
    mask    what is left of the mask, in the new shapes
    notes   what was kept although the mask has cut it off, and why, in sentences
    """

    module: nn.Module
    maps: Mapping[str, Tensor]
    mask: Mask
    notes: tuple[str, ...]


@torch.no_grad()
def remove_parts(model: nn.Module, mask: Mask | Ticket, *, example: Example) -> Smaller:
    """The model without the attention heads, hidden neurons and tokens that a mask has cut off.

    A part is removed if the mask keeps no weight by which its output is read, as in a ticket of whole parts
    (`allocate.structures`); single pruned weights of other parts become 0. The model is not changed. The result is of
    the model's own class, so a model of Transformers still generates text.

    mask: a Mask, or a Ticket, whose mask is used; the weights are the model's. example: what the model is called with
    to compare it before and after, in float64: a tensor, a tuple of arguments, or a dict of keyword arguments.

    Raises ValueError if the mask does not fit the model, if the model has no parts that could be removed, is in
    training mode, or does not compute the same, or not at all, with smaller layers. TypeError for a mask that is none.

    >>> import winticket
    >>> from winticket.models import build
    >>> network = build("chargpt-1-32", input_shape=(4,), classes=5, generator_seed=0, tokens=True).eval()
    >>> ticket = winticket.prune(network, 0.5, allocate=winticket.allocate.structures)
    >>> small = winticket.remove_parts(network, ticket, example=torch.tensor([[0, 1, 2, 3]]))
    >>> small.module.layers[0].attention.heads, small.module.layers[0].up.weight.shape
    (1, torch.Size([64, 32]))
    """
    if not isinstance(mask, Mask | Ticket):
        raise TypeError(f"remove_parts() takes a Ticket or a Mask, not a {type(mask).__name__}")
    check_whole(model)
    model = bare(model)
    mask = mask.mask if isinstance(mask, Ticket) else mask
    check_fits(model, mask)
    kind = type(model).__name__
    if model.training:
        raise ValueError("the model is in training mode, in which Dropout is random; call model.eval()")
    if not structures(model):
        raise ValueError(
            f"{kind} has no parts that could be removed: no module of it declares prunable_structures, or is of a "
            "family that is recognised; winticket.compact removes single units where it can follow them"
        )
    small = copy.deepcopy(model)
    parameters = dict(small.named_parameters())
    for name, value in mask.apply(parameters).items():
        parameters[name].copy_(value)
    exact, expected = _expected(small, example)
    keep = {name: one.cpu() for name, one in mask.keep.items()}
    cut = cut_structures(small, keep, recognised=True)
    how = "with smaller layers: its forward seems to take their sizes for granted"
    difference = _difference(expected, _computed(small, example, how, exact))
    if not difference <= (TOLERANCE if exact is torch.float64 else SINGLE):
        raise ValueError(
            f"without the parts that the mask has cut off, the output of {kind} changes by {difference:.2g} of its "
            "largest value, so its parts depend on one another"
        )
    present = dict(small.named_parameters())
    left = Mask({name: one.to(present[name].device) for name, one in keep.items()}, layouts(small))
    return Smaller(small, cut.maps, left, tuple(cut.notes))


def _expected(model: nn.Module, example: Example) -> tuple[torch.dtype, list[Tensor]]:
    """What a model gives for an example, and the type in which it is computed: float64, else float32."""
    how = "with its pruned weights at 0"
    try:
        return torch.float64, _computed(model, example, how, torch.float64)
    except ValueError:
        return torch.float32, _computed(model, example, how, torch.float32)


def _difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The largest difference of two results, relative to each tensor's largest value.

    It is infinite if shapes differ, and NaN if any number of them is.

    >>> _difference([torch.ones(2), torch.ones(1)], [torch.ones(2), torch.tensor([torch.nan])])
    nan
    """
    if [one.shape for one in expected] != [one.shape for one in got]:
        return float("inf")
    pairs = zip(expected, got, strict=True)
    # torch's max, since Python's passes over a NaN that is not the first.
    return float(
        torch.stack(
            [((two - one).abs().max() / one.abs().max().clamp(min=1e-30)).double() for one, two in pairs]
        ).max()
    )


def _computed(model: nn.Module, example: Example, how: str, exact: torch.dtype) -> list[Tensor]:
    """The tensors of numbers that a model gives for an example, computed on the CPU."""
    twin = copy.deepcopy(model).to("cpu", exact)
    try:
        if isinstance(example, Mapping):
            result = twin(**{name: _exact(value, exact) for name, value in example.items()})
        else:
            values = [example] if isinstance(example, Tensor) else example
            result = twin(*(_exact(value, exact) for value in values))
    except Exception as error:
        if of_the_machine(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{type(model).__name__} does not compute the example {how}: {first}") from error
    return _tensors(result, type(model).__name__)


def _exact(value: Any, exact: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.cpu().to(exact) if value.is_floating_point() else value.cpu()


def _tensors(result: Any, kind: str) -> list[Tensor]:
    """Those that a result holds itself. What is in it further down, such as a cache, has other shapes without parts."""
    values = (
        [result] if isinstance(result, Tensor) else result.values() if isinstance(result, Mapping) else result
    )
    found = [
        value
        for value in (values if hasattr(values, "__iter__") else ())
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    ]
    if not found:
        raise ValueError(f"{kind} gives no tensor of numbers for the example")
    return found
