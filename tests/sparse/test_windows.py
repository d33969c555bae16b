"""Sparse convolutions against PyTorch's dense ones in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from winticket.sparse import convert, instruction_sets, structure, windows
from winticket.sparse.native import kernels
from winticket.sparse.operators import sparse_conv2d
from winticket.sparse.windows import Pair, Window

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")

# stack, images, channels in, channels out, height, width, kernel, stride, padding, density
CASES: list[tuple[int, int, int, int, int, int, Pair, Pair, Pair, float]] = [
    (2, 3, 4, 5, 8, 8, (3, 3), (1, 1), (1, 1), 0.3),
    (1, 2, 3, 4, 7, 9, (3, 2), (2, 1), (1, 0), 0.5),
    (2, 2, 3, 4, 8, 8, (3, 3), (2, 2), (1, 1), 0.4),
    (1, 5, 2, 3, 6, 6, (1, 1), (2, 2), (0, 0), 0.7),
    (1, 1, 2, 2, 5, 5, (5, 5), (1, 1), (2, 2), 0.2),
    (1, 2, 2, 2, 4, 4, (1, 1), (1, 1), (1, 1), 1.0),
    (1, 3, 2, 4, 9, 7, (4, 4), (3, 2), (2, 3), 0.5),
    (2, 2, 3, 4, 8, 8, (3, 3), (1, 1), (0, 0), 0.0),
    (1, 4, 1, 6, 12, 12, (3, 3), (1, 1), (1, 1), 0.5),
    (1, 2, 2, 3, 3, 3, (3, 3), (3, 3), (0, 0), 0.5),
    (1, 2, 3, 4, 9, 37, (3, 3), (2, 2), (2, 2), 0.5),
    (2, 3, 2, 3, 6, 34, (2, 5), (1, 2), (0, 3), 0.4),
    (1, 3, 2, 3, 5, 1, (1, 1), (1, 2), (0, 0), 1.0),
]


@pytest.fixture(params=instruction_sets())
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    before = kernels.forced()
    kernels.use(request.param)
    yield
    kernels.use(before)


@pytest.mark.usefixtures("_instructions")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(
    case: tuple[int, int, int, int, int, int, Pair, Pair, Pair, float], dtype: torch.dtype
) -> None:
    stack, images, channels, rows, height, width, kernel, stride, padding, density = case
    torch.manual_seed(0)
    window = Window(channels, kernel, stride, padding)
    keep = torch.rand(stack, rows, channels, *kernel) < density
    weight, bias = torch.randn(keep.shape, dtype=dtype) * keep, torch.randn(stack, rows, dtype=dtype)
    x = torch.randn(stack, images, channels, height, width, dtype=dtype)
    where = structure(keep, columns_in=window.numbered())
    values = where.pack(weight)
    assert torch.equal(where.unpack(values), weight)

    exact = x.double().requires_grad_(), weight.double().requires_grad_()
    wanted = torch.stack(
        [
            nn.functional.conv2d(a, w, b.double(), stride, padding)
            for a, w, b in zip(*exact, bias, strict=True)
        ]
    )
    grad = torch.randn_like(wanted)
    wanted.backward(grad)  # type: ignore[no-untyped-call]
    columns = [where.by_column, where.row_of, where.order, where.column_of]
    rows_in = (where.start, where.place)
    by_x, by_values, by_bias = windows.conv2d_backward(
        grad.to(dtype), x, values, rows_in, columns, window=window
    )
    given = (
        windows.conv2d(x, values, bias, *rows_in, window=window),
        by_x,
        where.unpack(by_values),
        by_bias,
    )
    assert exact[0].grad is not None
    assert exact[1].grad is not None
    # Sums of a few hundred products of order 1, each rounded once.
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    results = (wanted.detach(), exact[0].grad, exact[1].grad * keep, grad.sum((1, 3, 4)))
    for ours, theirs in zip(given, results, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance)
    clipped = windows.conv2d(x, values, bias, *rows_in, window=window, relu=True)
    assert torch.equal(clipped, given[0].clamp(min=0))
    without = windows.conv2d_backward(
        grad.to(dtype), x, values, rows_in, columns, window=window, input_wanted=False
    )
    assert not without[0].numel()
    assert torch.equal(without[1], by_values)


def test_the_columns_of_a_strided_window_by_hand() -> None:
    """Stride 2 over a 3x3 window: corners read phase 0, top and bottom edges 1, sides 2, the centre 3."""
    window = Window(1, (3, 3), (2, 2), (1, 1))
    assert window.numbered().tolist() == [0, 2, 6, 8, 1, 7, 3, 5, 4]
    assert window.result(8, 8) == (4, 4)
    g = windows.grid(window, 1, 8, 8)
    assert g.shape == (5, 5)
    assert g.shift.tolist() == [0, 1, 5, 6, 0, 5, 0, 1, 0]
    assert g.bounds.tolist() == [0, 4, 6, 8, 9]


def test_too_many_images_are_refused() -> None:
    with pytest.raises(ValueError, match="100000 images of 224x224 in 64 channels are too many at once"):
        windows.grid(Window(64, (3, 3), (1, 1), (1, 1)), 100_000, 224, 224)


def test_gradients_and_batching_within_torch() -> None:
    torch.manual_seed(0)
    window = Window(2, (3, 3), (2, 1), (1, 1))
    where = structure(torch.rand(1, 3, 2, 3, 3) < 0.5, columns_in=window.numbered())
    values = where.pack(torch.randn(1, 3, 2, 3, 3, dtype=torch.float64))[0].requires_grad_()
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    indices = [
        t[0] for t in (where.start, where.place, where.by_column, where.row_of, where.order, where.column_of)
    ]
    pairs = (2, [3, 3], [2, 1], [1, 1])
    for call in (sparse_conv2d, torch.ops.winticket.sparse_conv2d):
        assert torch.autograd.gradcheck(lambda *t, call=call: call(*t, *indices, *pairs), (x, values, bias))
    torch.library.opcheck(torch.ops.winticket.sparse_conv2d.default, (x, values, bias, *indices, *pairs))


def test_a_whole_network_under_torch_func() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(32, 5),
    ).double()  # fmt: skip
    weights = {k: torch.randn(2, *p.shape, dtype=torch.float64) for k, p in module.named_parameters()}
    buffers = {k: torch.stack([b, b]) for k, b in module.named_buffers()}
    keep = {k: torch.rand(w.shape) < 0.4 for k, w in weights.items() if w.ndim > 2}
    weights = {k: w * keep[k] if k in keep else w for k, w in weights.items()}
    converted = convert(module, keep, keep)
    x, y = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64), torch.randint(0, 5, (2, 4))

    def gradients(
        network: nn.Module, weights: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        def loss(w: dict[str, Tensor], b: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(functional_call(network, (w, b), (x,)), y)

        mine = {k: v.clone() for k, v in {**buffers, **extra}.items()}
        found: dict[str, Tensor] = vmap(grad_and_value(loss))(weights, mine, x, y)[0]
        return found

    wanted = gradients(module, weights, {})
    given = converted.unpack(gradients(converted.module, converted.pack(weights), dict(converted.indices)))
    for name, gradient in given.items():
        theirs = wanted[name] * keep.get(name, torch.ones(()))
        torch.testing.assert_close(gradient, theirs, rtol=1e-10, atol=1e-11)
