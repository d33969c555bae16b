"""The operators within PyTorch: gradients, batching, compilation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from winticket.sparse import Converted, convert, sparse_linear, structure
from winticket.sparse.native import kernels
from winticket.sparse.operators import batch_last, cross_entropy, direct

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")

DOUBLE = torch.float64


def layer(density: float = 0.4) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """x [9, 6], values [P], bias [5] in float64, and the index tensors."""
    torch.manual_seed(0)
    where = structure(torch.rand(1, 5, 6) < density)
    values = where.pack(torch.randn(1, 5, 6, dtype=DOUBLE))[0]
    indices = [where.start, where.place, where.by_column, where.row_of, where.order]
    return torch.randn(9, 6, dtype=DOUBLE), values, torch.randn(5, dtype=DOUBLE), [i[0] for i in indices]


@pytest.mark.parametrize("operator", ["function", "operator"])
def test_gradients_are_right(operator: str) -> None:
    x, values, bias, indices = layer()
    call = sparse_linear if operator == "function" else torch.ops.winticket.sparse_linear
    inputs = tuple(t.requires_grad_() for t in (x, values, bias))
    assert torch.autograd.gradcheck(lambda x, v, b: call(x, v, b, *indices), inputs)
    assert torch.autograd.gradcheck(lambda x, v: call(x, v, None, *indices), inputs[:2])
    assert torch.autograd.gradcheck(batch_last, inputs[:1])


def test_the_loss_has_the_right_gradient() -> None:
    torch.manual_seed(0)
    logits, y = torch.randn(6, 4, dtype=DOUBLE, requires_grad=True), torch.arange(6) % 4
    assert torch.autograd.gradcheck(lambda z: 3 * cross_entropy(z, y), (logits,))


def test_torch_finds_nothing_amiss() -> None:
    x, values, bias, indices = layer()
    leaves = [t.requires_grad_() for t in (x, values, bias)]
    torch.library.opcheck(torch.ops.winticket.sparse_linear.default, (*leaves, *indices))
    torch.library.opcheck(torch.ops.winticket.batch_last.default, (x,))
    torch.library.opcheck(
        torch.ops.winticket.loss_and_correct.default, (torch.randn(6, 4), torch.zeros(6, dtype=torch.int64))
    )


def test_direct_goes_past_the_dispatcher() -> None:
    x, values, bias, indices = layer()
    operator = torch.ops.winticket.sparse_linear.default
    assert direct(operator) is not operator
    assert torch.equal(direct(operator)(x, values, bias, *indices), operator(x, values, bias, *indices))
    assert direct(torch.ops.aten.add.Tensor) is torch.ops.aten.add.Tensor


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3)
    ).double()


def stacked(module: nn.Module, density: float) -> tuple[dict[str, Tensor], dict[str, Tensor], Converted]:
    """Masked weights [3, ...] and masks of a module, and the module converted for them."""
    weights = {k: torch.randn(3, *p.shape, dtype=DOUBLE) for k, p in module.named_parameters()}
    keep = {k: torch.rand(w.shape) < density for k, w in weights.items() if w.ndim > 2}
    for name, mask in keep.items():
        weights[name] = weights[name] * mask
    return weights, keep, convert(module, keep, keep)


def loss_of(module: nn.Module) -> Any:
    def loss(weights: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(module, (weights, buffers), (x,)), y)

    return loss


@pytest.mark.parametrize("density", [0.0, 0.15, 0.6, 1.0])
def test_a_stack_under_torch_func_has_the_dense_networks_gradients(density: float) -> None:
    module = network()
    weights, keep, converted = stacked(module, density)
    x, y = torch.randn(3, 10, 3, 4, dtype=DOUBLE), torch.randint(0, 3, (3, 10))
    wanted, losses = vmap(grad_and_value(loss_of(module)))(weights, {}, x, y)
    packed = converted.pack(weights)
    given, ours = vmap(grad_and_value(loss_of(converted.module)))(packed, dict(converted.indices), x, y)
    torch.testing.assert_close(ours, losses, rtol=1e-12, atol=1e-12)
    for name, gradient in converted.unpack(given).items():
        mask = keep.get(name, torch.ones(()))
        torch.testing.assert_close(gradient, wanted[name] * mask, rtol=1e-12, atol=1e-12)


def test_replicates_may_share_their_input() -> None:
    module = network()
    weights, _, converted = stacked(module, 0.3)
    x = torch.randn(10, 12, dtype=DOUBLE)
    wanted = vmap(lambda w: functional_call(module, w, (x,)))(weights)
    given = vmap(lambda w, i: functional_call(converted.module, (w, i), (x,)))(
        converted.pack(weights), dict(converted.indices)
    )
    torch.testing.assert_close(given, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch's own tracing does that
def test_compiles_whole() -> None:
    module = network()
    weights, _, converted = stacked(module, 0.3)
    one = {k: v[0] for k, v in converted.pack(weights).items()}
    indices = {k: v[0] for k, v in converted.indices.items()}
    x = torch.randn(10, 12, dtype=DOUBLE)

    def call(x: Tensor) -> Any:
        return functional_call(converted.module, (one, indices), (x,))

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), call(x))


def test_the_module_given_is_left_as_it_was() -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())
    _, keep, converted = stacked(module, 0.3)
    assert converted.module is not module
    assert convert(module, keep, keep).module is converted.module  # one object, so that its traces are kept
    assert [type(m).__name__ for m in module if isinstance(m, nn.Linear)] == ["Linear"] * 3
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert convert(module, keep, []).module is module
