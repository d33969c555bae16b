"""What a traced graph's products take in: the same numbers, in fewer passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from winticket.sparse import convert, fuse, products
from winticket.sparse.native import kernels

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")

STACK, BATCH = 3, 20


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(12, 30), nn.Linear(30, 20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.three(F.relu(self.two(F.relu(self.one(x)))))
        return out


class Twice(Plain):
    """A hidden layer read before and after its ReLU, whose product must stay as it is."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x)
        out: Tensor = self.three(F.relu(self.two(F.relu(hidden) + 0.1 * hidden)))
        return out


class NoBias(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.two = nn.Linear(30, 20, bias=False)


def traced(module: nn.Module) -> tuple[GraphModule, list[Tensor]]:
    """The gradient of a stack of networks with sparse layers as a graph, and its arguments."""
    torch.manual_seed(0)
    weights = {k: torch.randn(STACK, *v.shape) * 0.3 for k, v in module.named_parameters()}
    keep = {k: torch.rand_like(v) < 0.4 for k, v in weights.items() if k.endswith("weight")}
    converted = convert(module, keep, keep)
    packed, indices = converted.pack(weights), dict(converted.indices)
    x, y = torch.randn(STACK, BATCH, 12), torch.randint(4, (STACK, BATCH))

    def loss(packed: dict[str, Tensor], indices: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(converted.module, (packed, indices), (x,)), y)

    def flat(*leaves: Tensor) -> list[Tensor]:
        given = dict(zip(packed, leaves, strict=False))
        others = dict(zip(indices, leaves[len(packed) :], strict=False))
        gradients, value = vmap(grad_and_value(loss))(given, others, *leaves[-2:])
        return [*gradients.values(), value]

    leaves = [*packed.values(), *indices.values(), x, y]
    return make_fx(flat)(*leaves), leaves


def targets(graph: GraphModule) -> list[Any]:
    return [node.target for node in graph.graph.nodes]


@pytest.mark.parametrize("make", [Plain, Twice, NoBias])
def test_numbers_stay(make: Callable[[], nn.Module]) -> None:
    graph, leaves = traced(make())
    wanted = graph(*leaves)
    fuse(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    for given, value in zip(graph(*leaves), wanted, strict=True):
        torch.testing.assert_close(given, value, rtol=1e-5, atol=1e-6)


def test_nothing_is_left_beside_the_products() -> None:
    graph, _ = traced(Plain())
    aten = torch.ops.aten
    assert targets(graph).count(aten.relu.default) == 2
    assert targets(graph).count(aten.threshold_backward.default) == 2
    fuse(graph.graph)
    graph.graph.eliminate_dead_code()
    left = targets(graph)
    assert aten.relu.default not in left
    assert aten.threshold_backward.default not in left
    assert left.count(products.linear_grad_parameters) == 3


def test_a_product_that_others_read_keeps_its_relu() -> None:
    graph, _ = traced(Twice())
    fuse(graph.graph)
    graph.graph.eliminate_dead_code()
    assert targets(graph).count(torch.ops.aten.relu.default) == 1


def test_a_convolution_takes_its_relu_in() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3))
    weights = {k: p.detach()[None] for k, p in module.named_parameters()}
    keep = {k: torch.rand_like(v) < 0.5 for k, v in weights.items() if k.endswith("weight")}
    converted = convert(module, keep, keep)
    packed = {k: v[0] for k, v in converted.pack(weights).items()}
    indices = {k: v[0] for k, v in converted.indices.items()}

    def forward(x: Tensor) -> Tensor:
        out: Tensor = functional_call(converted.module, (packed, indices), (x,))
        return out

    x = torch.randn(5, 2, 9, 9)
    graph = make_fx(forward)(x)
    wanted = graph(x)
    fuse(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert torch.ops.aten.relu.default not in targets(graph)
    assert torch.equal(graph(x), wanted)
