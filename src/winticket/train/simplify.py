"""A trace without the operators that change nothing, and with fewer, faster ones in place of others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from winticket.sparse import fuse

NARROW = 32  # with fewer columns in a product's result, SGEMM has too little to do along a row


def simplify(graph: GraphModule) -> None:
    """Drop the operators that change nothing: a view to the same shape, a product with one, a transpose undone.

    Each costs a dispatch, and `vmap` leaves dozens of them.
    """
    aten = torch.ops.aten
    same_shape = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.detach.default}
    in_place = any("_." in str(n.target) for n in graph.graph.nodes)
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
            continue
        operand: Any = node.args[0]
        if node.target in same_shape:
            idle = form(node) is not None and form(node) == form(operand)
        elif node.target is aten.clone.default:
            idle = (
                not in_place and operand.op == "placeholder"
            )  # a copy in case the module writes to its input
        elif node.target is aten.mul.Scalar:
            idle = node.args[1] == 1 and not in_place and form(node) == form(operand)
        elif node.target is aten.transpose.int and operand.target is aten.transpose.int:
            idle, operand = set(node.args[1:]) == set(operand.args[1:]), operand.args[0]
        else:
            idle = False
        if idle:
            node.replace_all_uses_with(operand)
    if not in_place:
        _widen(graph)
        _drop_ones(graph)
    fuse(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _drop_ones(graph: GraphModule) -> None:
    """Replace a product with a tensor of ones, such as the gradient of the loss by itself, by its other factor."""
    aten = torch.ops.aten
    shaping = {aten.unsqueeze.default, aten.view.default, aten.reshape.default, aten.expand.default}
    ones: set[Node] = set()
    for node in graph.graph.nodes:
        if node.target is aten.ones_like.default or (node.target in shaping and node.args[0] in ones):
            ones.add(node)
        elif node.target is aten.mul.Tensor and node.args[1] in ones and form(node) == form(node.args[0]):
            node.replace_all_uses_with(node.args[0])


def _widen(graph: GraphModule) -> None:
    """Transpose products whose result is narrow, such as a last layer of ten classes: several times faster.

    SGEMM works along the last dimension: (A B) = (Bᵀ Aᵀ)ᵀ, and the transposes are views.
    """
    bmm, transpose = torch.ops.aten.bmm.default, torch.ops.aten.transpose.int
    for node in list(graph.graph.nodes):
        product = form(node) if node.target is bmm else None
        if product is None or not product[1][2] < NARROW <= product[1][1]:
            continue
        with graph.graph.inserting_before(node):
            left, right = (graph.graph.call_function(transpose, (a, 1, 2)) for a in node.args)
            turned = graph.graph.call_function(bmm, (right, left))
            result = graph.graph.call_function(transpose, (turned, 1, 2))
        node.replace_all_uses_with(result)
    for node in graph.graph.nodes:
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default  # a transposed result has no flat view
    graph.graph.eliminate_dead_code()


def form(node: Node) -> tuple[torch.dtype, tuple[int, ...]] | None:
    """The type and shape of a node's result; None if it is no tensor."""
    value = node.meta.get("val")
    return (value.dtype, tuple(value.shape)) if isinstance(value, Tensor) else None
