"""Criteria from the inputs of layers, and the order in which layers compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from winticket.criteria.batches import inputs_of, tensors_in
from winticket.criteria.evidence import DATA, NETWORK, Evidence, needs
from winticket.ticket import Scores

REVISION = 1


@needs(NETWORK, DATA, layer_by_layer=True, allocate="constant_fan_in", also=("n_of_m",))
def wanda(e: Evidence) -> Scores:
    """Weight times the norm of its input: s[o, i] = |w[o, i]| · ‖Xᵢ‖₂ over all examples.

    Sun et al. 2024 (Wanda), the authors' lib/prune.py. They compare weights within each output row, as constant_fan_in
    does, or within groups (n_of_m). Layers are pruned one after another, so each is scored by the inputs that it gets
    from the layers pruned before it; the authors do this per block of a transformer. In a convolution, Xᵢ are the
    pixels that a weight meets, borders included. Padded positions of a text count like any other. No loss is needed.
    Raises ValueError for layers other than Linear and Conv2d without
    groups, for a weight used other than by calling its layer, and for a weight that no example reaches.

    >>> weights = {"weight": torch.tensor([[1.0, -2.0], [0.5, 0.0]])}
    >>> batch = torch.tensor([[3.0, 0.0], [4.0, 1.0]]), torch.tensor([0, 1])
    >>> wanda(Evidence.of(weights, network=nn.Linear(2, 2, bias=False), batches=[batch]))
    {'weight': tensor([[5.0000, 2.0000],
            [2.5000, 0.0000]], dtype=torch.float64)}
    """
    holders = _holders(e)
    for layer in (layer for layers in holders.values() for layer in layers):
        _check_known(layer)
    squares = {name: torch.zeros(keep[0].shape, dtype=torch.float64) for name, keep in e.mask.keep.items()}
    rows = dict.fromkeys(e.mask.keep, 0)
    weights = e.weights()
    called, used = Counter[str](), Counter[str]()
    for batch in e.examples():
        with _watched(holders) as calls:
            output = e.output(weights, inputs_of(batch))
        called.update(name for name, _, _ in calls)
        used.update(_uses(output, {name: weights[name] for name in e.mask.keep}))
        for name, layer, read in calls:
            rows[name] += read.numel()
            squares[name] += _met(layer, read)
    _check_calls("wanda", called, used)
    if unreached := [name for name, count in rows.items() if not count]:
        raise ValueError(
            f"no example reaches {', '.join(unreached)}, so wanda cannot score it; give more examples (batches=...), "
            "or exclude it"
        )
    return {name: weights[name].detach().double().abs() * squares[name].sqrt() for name in e.mask.keep}


def in_order(e: Evidence) -> list[str]:
    """The names of the masked weights, in the order in which their layers are first called.

    Raises ValueError if a weight's layer is not called.
    """
    weights, holders, names = e.weights(), _holders(e), dict[str, None]()
    for x in [inputs_of(batch) for batch in e.batches] or [e.one()]:
        with _watched(holders) as calls, torch.no_grad():
            e.output(weights, x)
        names.update(dict.fromkeys(name for name, _, _ in calls))
        if len(names) == len(e.mask.keep):
            break
    _check_called("a criterion that scores layer by layer", list(names), e.mask.keep)
    return list(names)


Holders = Mapping[str, Sequence[nn.Module]]
Call = tuple[str, nn.Module, Tensor]
"""The name of a weight, the layer that was called, and its input."""


def _holders(e: Evidence) -> Holders:
    """The layers that hold each masked weight; a tied weight has several."""
    names = {id(parameter): name for name, parameter in e.module().named_parameters()}
    held: dict[str, list[nn.Module]] = {name: [] for name in e.mask.keep}
    for layer in e.module().modules():
        for parameter in layer.parameters(recurse=False):
            if names[id(parameter)] in held:
                held[names[id(parameter)]].append(layer)
    return held


@contextmanager
def _watched(holders: Holders) -> Iterator[list[Call]]:
    """While the block runs, collect each call of a layer that holds a masked weight, with its first input."""
    calls: list[Call] = []
    with ExitStack() as stack:
        for name, layers in holders.items():
            for layer in layers:

                def see(
                    layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], name: str = name
                ) -> None:
                    read = next(iter((*inputs, *named.values())), None)
                    calls.append((name, layer, read.detach() if isinstance(read, Tensor) else torch.empty(0)))

                stack.callback(layer.register_forward_pre_hook(see, with_kwargs=True).remove)
        yield calls


def _check_calls(what: str, called: Mapping[str, int], used: Mapping[str, int]) -> None:
    """Raise ValueError for weights used other than by calling the layers that hold them, over all batches."""
    _check_called(what, called, used)
    if beside := [name for name, count in used.items() if count > called[name]]:
        raise ValueError(
            f"{what} needs the input of each layer, which it sees when the layer is called, but {', '.join(beside)} is "
            "also used without calling its layer; exclude it, or use a criterion from gradients (taylor, snip)"
        )


def _check_called(what: str, called: Collection[str], names: Iterable[str]) -> None:
    if silent := [name for name in names if name not in called]:
        raise ValueError(
            f"{what} needs the input of each layer, which it sees when the layer is called, but the layer of "
            f"{', '.join(silent)} is never called: either the weight is used without its layer (as MultiheadAttention "
            "uses out_proj), or no example reaches it; exclude it, or use a criterion from gradients (taylor, snip)"
        )


def _uses(output: object, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """How many operators read each weight on the way to the output, counted in the graph of the backward pass."""
    names = {id(weight): name for name, weight in weights.items()}
    uses, seen, todo = dict.fromkeys(weights, 0), set[Node](), [t.grad_fn for t in tensors_in(output)]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for before, _ in node.next_functions:
            leaf = getattr(before, "variable", None)
            if leaf is not None and id(leaf) in names:
                uses[names[id(leaf)]] += 1
            todo.append(before)
    return uses


def _check_known(layer: nn.Module) -> None:
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    if not isinstance(layer, nn.Linear) and not (plain and not isinstance(layer.padding, str)):
        raise ValueError(
            f"wanda supports Linear layers, and Conv2d layers without groups and padded by zeros, not {layer}"
        )


def _met(layer: nn.Module, x: Tensor) -> Tensor:
    """Σ x² over all inputs that each weight of an output row meets, in the shape of that row."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        patches = nn.functional.unfold(
            x.double() ** 2, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        return patches.sum((0, 2)).view(layer.weight[0].shape)
    return (x.double() ** 2).reshape(-1, x.shape[-1]).sum(0)
