"""Fuses into the products of a traced graph what surrounds them: ReLU, bias gradients, PyTorch's dispatch.

A network with few weights left spends as much time on these as on its products. Each is a pass over activations that
the product already has in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch.fx import Graph, Node

from winticket.sparse import products
from winticket.sparse.operators import conv2d, direct, linear

aten, ours = torch.ops.aten, torch.ops.winticket


def fuse(graph: Graph) -> None:
    """Fuse operators in a graph whose products are `torch.ops.winticket`'s, then call the kernels directly.

    Numbers do not change, except by the order in which a bias gradient is summed. Fused nodes remain without users, for
    `Graph.eliminate_dead_code`.

    >>> graph = Graph()
    >>> node = graph.call_function(ours.batch_last.default, (graph.placeholder("x"),))
    >>> fuse(graph)
    >>> node.target.__name__  # the kernel's own function
    'batch_last'
    """
    for node in list(graph.nodes):
        if node.target is aten.relu.default:
            _into(graph, node, node.args[0], ours.sparse_linear.default, relu=True)
            _into(graph, node, node.args[0], ours.sparse_conv2d.default, relu=True)
        elif node.target is aten.threshold_backward.default and node.args[2] == 0:
            _into(graph, node, node.args[0], ours.sparse_linear_grad_input.default, relu=node.args[1])
    for node in list(graph.nodes):
        if node.target is ours.sparse_linear_grad_weight.default:
            _with_bias(graph, node)
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = direct(node.target)  # skip the dispatcher, which costs as much as a kernel's call


def _into(graph: Graph, node: Node, operand: Any, product: Any, **extra: Any) -> None:
    """Make `node` part of `operand`, if that is a product and `node` its only user."""
    if not isinstance(operand, Node) or operand.target is not product or len(operand.users) > 1:
        return
    with graph.inserting_before(node):
        joined = graph.call_function(_JOINED[product], operand.args, extra)
    joined.meta = dict(node.meta)
    node.replace_all_uses_with(joined)


_JOINED: dict[Any, Callable[..., Any]] = {
    ours.sparse_linear.default: linear,
    ours.sparse_conv2d.default: conv2d,
    ours.sparse_linear_grad_input.default: products.linear_grad_input,
}


def _with_bias(graph: Graph, node: Node) -> None:
    """Compute the gradient by weight and the gradient by bias, its operand's sum over the batch, in one pass."""
    grad = node.args[0]
    if not isinstance(grad, Node):
        return
    over_batch = [n for n in grad.users if n.target is aten.sum.dim_IntList and _sums_batch(n, grad)]
    if not over_batch:
        return
    with graph.inserting_before(min((node, over_batch[0]), key=list(graph.nodes).index)):
        both = graph.call_function(products.linear_grad_parameters, node.args)
        by_weight, by_bias = (graph.call_function(getitem, (both, i)) for i in range(2))
    by_weight.meta, by_bias.meta = dict(node.meta), dict(over_batch[0].meta)
    node.replace_all_uses_with(by_weight)
    over_batch[0].replace_all_uses_with(by_bias)


def _sums_batch(node: Node, grad: Node) -> bool:
    """True if `node` is Σ over the batch of grad [S, B, out] or [B, out], without keeping the dimension."""
    value = grad.meta.get("val")
    if value is None or len(node.args) != 2:
        return False
    (dim,) = node.args[1] if len(node.args[1]) == 1 else (None,)  # type: ignore[arg-type, misc]
    return dim is not None and dim in (value.ndim - 2, -2)
