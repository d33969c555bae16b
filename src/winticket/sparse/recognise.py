"""Recognises traces that are nothing but a chain of sparse layers, which the compiled chain computes as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import getitem

import torch
from torch.fx import Graph, Node

from winticket.sparse import products
from winticket.sparse.operators import linear

_LOSSES = (products.cross_entropy, products.loss_and_correct)
_GRADIENTS = (products.linear_grad_parameters, products.linear_grad_input, products.linear_grad_weight)


@dataclass(frozen=True)
class Names:
    """The parameters and buffers of one link of a chain, by their names in the module."""

    weight: str
    bias: str | None
    indices: tuple[str, ...]
    relu: bool


def chain_of(graph: Graph, names: Sequence[str]) -> tuple[Names, ...]:
    """The links of a fused graph, in the order of the forward pass; empty if it computes anything else.

    `names` are those of the parameters and buffers that are the graph's first arguments; x and y follow.
    """
    aten = torch.ops.aten
    views = {
        aten.view.default,
        aten.reshape.default,
        aten._unsafe_view.default,
        aten.clone.default,
        products.batch_last,
    }
    rest = {getitem, aten.sum.dim_IntList, *_GRADIENTS}
    ends = [node for node in graph.nodes if node.target in _LOSSES]
    arguments = [node for node in graph.nodes if node.op == "placeholder"]
    name_of = dict(zip(arguments, names, strict=False))
    known = {linear, *_LOSSES, *views, *rest}
    if len(ends) != 1 or any(n.op == "call_function" and n.target not in known for n in graph.nodes):
        return ()
    links: list[Names] = []
    node = ends[0].args[0]
    while isinstance(node, Node) and node.target is linear:
        x, weight, bias, *indices = node.args
        parts = [name_of.get(n) for n in (weight, *indices)]
        if None in parts or (bias is not None and bias not in name_of):
            return ()
        first, *others = [str(p) for p in parts]
        of_bias = None if bias is None else name_of[bias]
        links.insert(0, Names(first, of_bias, tuple(others), bool(node.kwargs.get("relu"))))
        node = x
    while isinstance(node, Node) and node.target in views:
        node = node.args[0]
    return tuple(links) if node is arguments[-2] else ()
