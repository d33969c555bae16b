"""What stands beside the products of a traced graph, taken into them: ReLU, bias gradients, PyTorch's dispatch.

A network with few weights left spends as long on these as on its products; each is a pass over the activations that a
product has in its registers anyhow.
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
    """Join operators in a graph whose products are `torch.ops.winticket`'s, then call the kernels directly.

    Numbers stay the same, but for the order in which a bias gradient is added up. What was joined is left without
    users, for `Graph.eliminate_dead_code`.
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
            node.target = direct(node.target)  # past the dispatcher, which a kernel's call is as cheap as


def _into(graph: Graph, node: Node, source: Any, product: Any, **extra: Any) -> None:
    """`node`, if it is all that is done with `source`, a product, becomes part of it."""
    if not isinstance(source, Node) or source.target is not product or len(source.users) > 1:
        return
    with graph.inserting_before(node):
        joined = graph.call_function(_JOINED[product], source.args, extra)
    joined.meta = dict(node.meta)
    node.replace_all_uses_with(joined)


_JOINED: dict[Any, Callable[..., Any]] = {
    ours.sparse_linear.default: linear,
    ours.sparse_conv2d.default: conv2d,
    ours.sparse_linear_grad_input.default: products.linear_grad_input,
}


def _with_bias(graph: Graph, node: Node) -> None:
    """The gradient by weight and the sum of what it is given over the batch, in one pass."""
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
    """Whether `node` is Σ over the batch of grad [S, B, out] or [B, out], without keeping the dimension."""
    given = grad.meta.get("val")
    if given is None or len(node.args) != 2:
        return False
    (dim,) = node.args[1] if len(node.args[1]) == 1 else (None,)  # type: ignore[arg-type, misc]
    return dim is not None and dim in (given.ndim - 2, -2)
