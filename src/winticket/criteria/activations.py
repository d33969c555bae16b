"""Criteria from what layers read, and the order in which layers compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from winticket.criteria.evidence import DATA, NETWORK, Evidence, needs
from winticket.ticket import Scores

REVISION = 1


@needs(NETWORK, DATA, layer_by_layer=True, allocate="constant_fan_in", also=("n_of_m",))
def wanda(e: Evidence) -> Scores:
    """Weight times the norm of its input: s[o, i] = |w[o, i]| · ‖Xᵢ‖₂ over all examples.

    Sun et al. 2024 (Wanda), the authors' lib/prune.py. There compared within each output row, as constant_fan_in does,
    or within groups (n_of_m). Layers are pruned one after the other, so that each is scored by what it reads behind
    pruned ones; the authors do so block by block of a transformer. Of a convolution, Xᵢ are the pixels that a weight
    meets, borders included. ValueError for a weight that layers are not called for, or that no example reaches.
    """
    holders = _holders(e)
    for layer in (layer for layers in holders.values() for layer in layers):
        _check_known(layer)
    squares = {name: torch.zeros(keep[0].shape, dtype=torch.float64) for name, keep in e.mask.keep.items()}
    rows = dict.fromkeys(e.mask.keep, 0)
    weights = e.weights()
    called, used = Counter[str](), Counter[str]()
    for x, _ in e.examples():
        with _watched(holders) as calls:
            output = e.logits(weights, x)
        called.update(name for name, _, _ in calls)
        used.update(_uses(output, {name: weights[name] for name in e.mask.keep}))
        for name, layer, read in calls:
            rows[name] += read.numel()
            squares[name] += _met(layer, read)
    _check_calls("wanda", called, used)
    if unreached := [name for name, count in rows.items() if not count]:
        raise ValueError(
            f"no example that was given reaches {', '.join(unreached)}, so wanda cannot score it; give more examples "
            "(batches=...), or exclude it"
        )
    return {name: weights[name].detach().double().abs() * squares[name].sqrt() for name in e.mask.keep}


def in_order(e: Evidence) -> list[str]:
    """Names of the masked weights in the order in which their layers are first called.

    ValueError for a weight whose layer is not called.
    """
    weights, holders, names = e.weights(), _holders(e), dict[str, None]()
    for x in [x for x, _ in e.batches] or [e.one()]:
        with _watched(holders) as calls, torch.no_grad():
            e.logits(weights, x)
        names.update(dict.fromkeys(name for name, _, _ in calls))
        if len(names) == len(e.mask.keep):
            break
    _check_called("a criterion that scores layer by layer", list(names), e.mask.keep)
    return list(names)


Holders = Mapping[str, Sequence[nn.Module]]
Call = tuple[str, nn.Module, Tensor]
"""The name of a weight, the layer that was called, and what it read."""


def _holders(e: Evidence) -> Holders:
    """For each masked weight the layers that hold it as theirs, of which a tied one has several."""
    names = {id(parameter): name for name, parameter in e.module().named_parameters()}
    held: dict[str, list[nn.Module]] = {name: [] for name in e.mask.keep}
    for layer in e.module().modules():
        for parameter in layer.parameters(recurse=False):
            if names[id(parameter)] in held:
                held[names[id(parameter)]].append(layer)
    return held


@contextmanager
def _watched(holders: Holders) -> Iterator[list[Call]]:
    """Each call of a layer that holds a masked weight, while the block runs, with its first input."""
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
    """ValueError for weights that are used otherwise than by calling the layers that hold them, over all batches."""
    _check_called(what, called, used)
    if beside := [name for name, count in used.items() if count > called[name]]:
        raise ValueError(
            f"{what} sees what a layer reads when it is called, but {', '.join(beside)} is used without calling it as "
            "well; exclude it, or take a criterion of gradients (taylor, snip)"
        )


def _check_called(what: str, called: Collection[str], wanted: Iterable[str]) -> None:
    if silent := [name for name in wanted if name not in called]:
        raise ValueError(
            f"{what} sees what a layer reads when it is called, and that of {', '.join(silent)} never is: either its "
            "weight is used without calling it (as MultiheadAttention does with out_proj), or no example reaches it; "
            "exclude it, or take a criterion of gradients (taylor, snip)"
        )


def _uses(output: Tensor, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """How many operators read each weight on the way to the output, by the graph that gradients go back through."""
    names = {id(weight): name for name, weight in weights.items()}
    uses, seen, todo = dict.fromkeys(weights, 0), set[Node](), [output.grad_fn]
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
        raise ValueError(f"wanda knows Linear and Conv2d layers without groups, padded by zeros, not {layer}")


def _met(layer: nn.Module, x: Tensor) -> Tensor:
    """Σ x² over what each weight of one output row meets, in the shape of the weight's row."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        patches = nn.functional.unfold(
            x.double() ** 2, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        return patches.sum((0, 2)).view(layer.weight[0].shape)
    return (x.double() ** 2).reshape(-1, x.shape[-1]).sum(0)
