"""A traced step in bfloat16 without the casts that eat its gain: weights come as copies that the update has written.

Autocast casts every float32 weight before its product and every gradient after it, which takes as long as the products
save. Here both casts are cut out of the trace, and no number changes: a weight that is only ever cast is passed in as
its bfloat16 copy, and a gradient that is only cast for the optimiser is returned as it is, for an update that reads
bfloat16 (`train.onepass`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import GraphModule, Node

_ATEN = torch.ops.aten
_CAST = _ATEN._to_copy.default
_SHAPING = {
    _ATEN.transpose.int,
    _ATEN.permute.default,
    _ATEN.view.default,
    _ATEN._unsafe_view.default,
    _ATEN.reshape.default,
    _ATEN.unsqueeze.default,
    _ATEN.squeeze.dim,
    _ATEN.expand.default,
    _ATEN.detach.default,
}


@dataclass(frozen=True)
class Lowered:
    """The weights whose bfloat16 copies a step reads, and those whose gradients it returns in bfloat16.

    Gradients of the weights in `factors` are returned as their factors, which the update multiplies.
    """

    copies: tuple[str, ...] = ()
    halves: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cut:
    """What is cut out of the trace of a step with weights `names`: the casts of weights and, if `halves`, of gradients.

    With `factors`, the products that make gradients by weight are left to the update as well.
    """

    names: tuple[str, ...]
    halves: bool
    factors: bool

    def casts(self, graph: GraphModule) -> Lowered:
        return lower(graph, self.names, gradients=self.halves)

    def products(self, graph: GraphModule, lowered: Lowered) -> Lowered:
        return factor(graph, self.names, lowered) if self.factors else lowered


def lower(graph: GraphModule, names: Sequence[str], *, gradients: bool) -> Lowered:
    """Cut casts out of `graph`, whose first inputs are the weights `names` and first results their gradients.

    Without `gradients`, all gradients are returned as traced.
    """
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    copies = [name for name, weight in zip(names, inputs, strict=False) if _without_casts(weight)]
    halves = list[str]()
    if gradients:
        (output,) = (node for node in graph.graph.nodes if node.op == "output")
        halves = [n for n, result in zip(names, output.args[0], strict=False) if _uncast(result, output)]
    graph.graph.lint()
    return Lowered(tuple(copies), tuple(halves))


def factor(graph: GraphModule, names: Sequence[str], lowered: Lowered) -> Lowered:
    """Return a gradient in bfloat16 that is a product over the batch as its two factors.

    The first takes the gradient's position among the results, and the second follows after the last result.
    """
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    results, second, factors = list(output.args[0]), list[Node](), list[str]()
    for at, name in enumerate(names):
        result = results[at]
        if name not in lowered.halves or result.target is not _ATEN.bmm.default or len(result.users) > 1:
            continue
        turned, x = result.args
        if turned.target is _ATEN.transpose.int and set(turned.args[1:]) in ({1, 2}, {-1, -2}):
            results[at] = turned.args[0]
            second.append(x)
            factors.append(name)
    output.args = ([*results, *second],)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return replace(lowered, factors=tuple(factors))


def _without_casts(weight: Node) -> bool:
    """Cut out the casts of a weight to bfloat16; False if it is used in any other way."""
    casts, shaped, pending = list[Node](), [weight], [weight]
    while pending:
        for user in pending.pop().users:
            if _casts(user, torch.bfloat16):
                casts.append(user)
            elif user.target in _SHAPING:
                shaped.append(user)
                pending.append(user)
            else:
                return False
    for cast in casts:
        (operand,) = cast.args
        assert isinstance(operand, Node)
        cast.replace_all_uses_with(operand)
        cast.graph.erase_node(cast)
    _state_half(shaped)
    return bool(casts)


def _uncast(result: Node, output: Node) -> bool:
    """Cut out the cast of a gradient from bfloat16; False if it is no such gradient or is used elsewhere."""
    shaped, node, user = list[Node](), result, output
    while set(node.users) == {user} and node.target in _SHAPING and isinstance(node.args[0], Node):
        shaped.append(node)
        node, user = node.args[0], node
    if set(node.users) != {user} or not _casts(node, torch.float32):
        return False
    (operand,) = node.args
    if not isinstance(operand, Node) or operand.meta["val"].dtype != torch.bfloat16:
        return False
    node.replace_all_uses_with(operand)
    node.graph.erase_node(node)
    _state_half(shaped)
    return True


def _casts(node: Node, kind: torch.dtype) -> bool:
    return node.target is _CAST and node.kwargs.get("dtype") == kind


def _state_half(nodes: Sequence[Node]) -> None:
    for node in nodes:
        node.meta["val"] = node.meta["val"].to(torch.bfloat16)
