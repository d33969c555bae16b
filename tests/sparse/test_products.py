"""The kernels against float64 dense references, for every instruction set that this processor runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from winticket.sparse import instruction_sets, products, structure
from winticket.sparse.native import kernels
from winticket.sparse.structure import blocks_of

structures = sys.modules["winticket.sparse.structure"]  # the function of that name hides the module

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")

# In units of the largest result: sums of up to a few hundred products, each rounded once.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


@pytest.fixture(params=instruction_sets())
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    before = kernels.forced()
    kernels.use(request.param)
    yield
    kernels.use(before)


def close(given: Tensor, wanted: Tensor) -> None:
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    assert given.shape == wanted.shape
    torch.testing.assert_close(given.double(), wanted, rtol=0, atol=TOLERANCE[given.dtype] * max(1.0, scale))


def compare(
    stack: int,
    batch: int,
    columns: int,
    rows: int,
    density: float,
    dtype: torch.dtype,
    *,
    shared: bool = False,
) -> None:
    """Forward and both gradients of a stack of random masks against dense products in float64."""
    keep = torch.rand(stack, rows, columns) < density
    weight = torch.randn(stack, rows, columns, dtype=dtype) * keep
    bias = torch.randn(stack, rows, dtype=dtype)
    x = torch.randn(*([] if shared else [stack]), batch, columns, dtype=dtype)
    grad = torch.randn(stack, batch, rows, dtype=dtype)
    where = structure(keep, batch=batch)
    values = where.pack(weight)
    assert torch.equal(where.unpack(values), weight)
    close(
        products.linear(x, values, bias, where.start, where.place),
        x.double() @ weight.double().mT + bias.double()[:, None],
    )
    close(
        products.linear_grad_input(grad, values, where.by_column, where.row_of, where.order),
        grad.double() @ weight.double(),
    )
    by_weight = products.linear_grad_weight(grad, x, where.start, where.place)
    close(where.unpack(by_weight), grad.double().mT @ x.double() * keep)
    # With what stands beside them taken in.
    clipped = products.linear(x, values, bias, where.start, where.place, relu=True)
    close(clipped, (x.double() @ weight.double().mT + bias.double()[:, None]).clamp(min=0))
    before = torch.randn(stack, batch, columns, dtype=dtype).clamp(min=0)
    through = products.linear_grad_input(
        grad, values, where.by_column, where.row_of, where.order, relu=before
    )
    close(through, grad.double() @ weight.double() * (before > 0))
    both = products.linear_grad_parameters(grad, x, where.start, where.place)
    assert torch.equal(both[0], by_weight)
    close(both[1], grad.double().sum(-2))


# A case by hand: two weights of six. x = (1, 2, 3): 2·x₂ + 1 = 5 and −1·x₁ = −1; the gradient (1, 10) by the output
# gives (−10, 2, 0) by x, and by the two weights 1·x₂ = 2 and 10·x₁ = 10.
def test_by_hand() -> None:
    weight = torch.tensor([[[0.0, 2.0, 0.0], [-1.0, 0.0, 0.0]]])
    where = structure(weight != 0)
    values, x, grad = where.pack(weight), torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 10.0]]])
    assert values.tolist() == [[2.0, -1.0]]
    assert where.start.tolist() == [[[0, 1, 2]]]
    assert where.place.tolist() == [[1, 0]]
    y = products.linear(x, values, torch.tensor([[1.0, 0.0]]), where.start, where.place)
    assert y.tolist() == [[[5.0, -1.0]]]
    by_x = products.linear_grad_input(grad, values, where.by_column, where.row_of, where.order)
    assert by_x.tolist() == [[[-10.0, 2.0, 0.0]]]
    assert products.linear_grad_weight(grad, x, where.start, where.place).tolist() == [[2.0, 10.0]]


@pytest.mark.usefixtures("_instructions")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("batch", [1, 3, 7, 8, 15, 16, 33, 60, 64, 65, 129, 200])
def test_every_batch_and_density(batch: int, density: float, dtype: torch.dtype) -> None:
    torch.manual_seed(batch)
    compare(3, batch, 37, 11, density, dtype)
    compare(2, batch, 5, 70, density, dtype, shared=True)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 150),
    st.integers(1, 90),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    st.booleans(),
)
def test_random_shapes(stack: int, batch: int, columns: int, rows: int, density: float, shared: bool) -> None:
    torch.manual_seed(batch * columns + rows)
    compare(stack, batch, columns, rows, density, torch.float32, shared=shared)


# Blocks of a few rows of the operand each, where usual ones would hold all of it.
@pytest.mark.usefixtures("_instructions")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch", [1, 7, 20, 33, 60, 64, 129, 200])
def test_blocks_of_the_operand(batch: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "CACHE", 4 * batch * 20)
    monkeypatch.setattr(structures.blocks_of, "__kwdefaults__", {"full": 2})
    torch.manual_seed(batch)
    assert structure(torch.rand(1, 30, 90) < 0.5, batch=batch).start.shape[1] > 1
    for density in (0.0, 0.1, 0.5, 1.0):
        compare(2, batch, 90, 30, density, dtype)
        compare(2, batch, 5, 170, density, dtype, shared=True)


# By hand: an operand of 784 rows of 64 floats has 200 kB, so blocks of 128 rows fit 32 kB; at density .1 a block of
# 200 rows has twenty weights for each row of the result, at .02 one of 1000. A short operand stays whole.
def test_blocks_fit_the_cache_unless_they_would_be_empty() -> None:
    sizes = {density: blocks_of(784, 256, density) for density in (0.5, 0.1, 0.05, 0.02, 0.0)}
    assert sizes == {0.5: 6, 0.1: 4, 0.05: 2, 0.02: 1, 0.0: 1}
    assert blocks_of(100, 256, 0.5) == 1
    assert blocks_of(0, 256, 0.5) == 1


@pytest.mark.usefixtures("_instructions")
@pytest.mark.parametrize("batch", [33, 50, 60, 61, 100])
def test_what_lies_between_rows_reaches_no_result(batch: int) -> None:
    torch.manual_seed(batch)
    keep = torch.rand(2, 30, 90) < 0.2
    where, weight = structure(keep, batch=batch), torch.randn(2, 30, 90) * keep
    x, grad = torch.randn(2, batch, 90), torch.randn(2, batch, 30)
    values, rows = where.pack(weight), (where.start, where.place)
    columns = (where.by_column, where.row_of, where.order)
    before = torch.randn(2, batch, 90).clamp(min=0)

    def padded_with(value: float, t: Tensor) -> Tensor:
        """Laid out as a result of a product is, with `value` between the batch and the end of its rows."""
        width = products.padded(batch, 4)
        assert width > batch
        whole = torch.full((*t.mT.shape[:-1], width), value)
        whole[..., :batch] = t.mT
        return whole[..., :batch].mT

    for value in (float("nan"), float("inf"), 1e30):
        a, b = padded_with(value, x), padded_with(value, grad)
        close(products.linear(a, values, None, *rows), x.double() @ weight.double().mT)
        by_x = products.linear_grad_input(b, values, *columns, relu=padded_with(value, before))
        close(by_x, grad.double() @ weight.double() * (before > 0))
        by_weight, by_bias = products.linear_grad_parameters(b, a, *rows)
        close(where.unpack(by_weight), grad.double().mT @ x.double() * keep)
        close(by_bias, grad.double().sum(-2))


def test_rows_of_results_begin_on_cache_lines() -> None:
    keep = torch.rand(2, 30, 90) < 0.2
    where = structure(keep)
    values = where.pack(torch.randn(2, 30, 90))
    for x in (torch.randn(2, 60, 90), torch.randn(2, 60, 90).mT.contiguous().mT):
        y = products.linear(x, values, None, where.start, where.place)
        assert y.shape == (2, 60, 30)
        assert y.stride() == (30 * 64, 1, 64)
        assert y.data_ptr() % 64 == 0


def test_a_row_at_the_end_of_its_memory_is_not_read_beyond() -> None:
    """The last row of an operand whose storage ends with it: nothing is touched past the storage."""
    memory = torch.randn(2 * 5 * 64)[: 2 * 5 * 64 - 4].clone()
    operand = memory.as_strided((2, 5, 60), (5 * 64, 64, 1))
    assert products._rows(operand.mT).width == 60
    whole = torch.randn(2 * 5 * 64).as_strided((2, 5, 60), (5 * 64, 64, 1))
    assert products._rows(whole.mT).width == 64


def test_threads_change_nothing() -> None:
    torch.manual_seed(0)
    keep = torch.rand(2, 50, 40) < 0.2
    where = structure(keep)
    values, x, grad = where.pack(torch.randn(2, 50, 40)), torch.randn(2, 60, 40), torch.randn(2, 60, 50)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = products.linear(x, values, None, where.start, where.place)
            by_x = products.linear_grad_input(grad, values, where.by_column, where.row_of, where.order)
            results.append((y, by_x, products.linear_grad_weight(grad, x, where.start, where.place)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x.mT.contiguous().mT,
        lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
        lambda x: x.flip(0).flip(0),
        products.batch_last,
    ],
    ids=["batch last", "a part", "contiguous", "padded"],
)
def test_strides_do_not_matter(turn: object) -> None:
    torch.manual_seed(0)
    keep = torch.rand(2, 9, 21) < 0.4
    where = structure(keep)
    values, x, grad = where.pack(torch.randn(2, 9, 21)), torch.randn(2, 35, 21), torch.randn(2, 35, 9)
    assert callable(turn)
    rows = (where.start, where.place)
    assert torch.equal(products.linear(turn(x), values, None, *rows), products.linear(x, values, None, *rows))
    assert torch.equal(
        products.linear_grad_weight(turn(grad), turn(x), *rows), products.linear_grad_weight(grad, x, *rows)
    )


def test_batch_last_is_a_copy_that_lies_otherwise() -> None:
    x = torch.randn(3, 50, 13)
    turned = products.batch_last(x)
    assert torch.equal(turned, x)
    assert products.is_batch_last(turned)
    assert not products.is_batch_last(x)
    assert turned.stride() == (13 * 64, 1, 64)  # every feature on cache lines of its own
    assert products.batch_last(torch.randn(5, 3)).stride() == (1, 5)


def test_weights_without_effect_are_left_out_of_the_products() -> None:
    keep = torch.tensor([[[True, True, False], [True, False, True]]])
    live = torch.tensor([[[True, True, True], [False, False, False]]])
    where = structure(keep, live)
    assert where.start.tolist() == [[[0, 2, 2]]]
    assert where.index.tolist() == [[0, 1, 3, 5]]  # the live ones first
    weight = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 0.0, 4.0]]])
    values = where.pack(weight)
    assert torch.equal(where.unpack(values), weight)
    x, grad = torch.ones(1, 2, 3), torch.ones(1, 2, 2)
    assert products.linear(x, values, None, where.start, where.place).tolist() == [[[3.0, 0.0]] * 2]
    assert products.linear_grad_weight(grad, x, where.start, where.place).tolist() == [[2.0, 2.0, 0.0, 0.0]]


def test_replicates_may_keep_different_numbers() -> None:
    keep = torch.zeros(2, 4, 5, dtype=torch.bool)
    keep[0, 1, 2] = True
    keep[1] = True
    where = structure(keep)
    assert where.capacity == 20
    weight = torch.randn(2, 4, 5) * keep
    assert where.pack(weight)[0, 1:].tolist() == [0.0] * 19
    assert torch.equal(where.unpack(where.pack(weight)), weight)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_is_torchs(dtype: torch.dtype, shared: bool) -> None:
    torch.manual_seed(0)
    logits = (10 * torch.randn(3, 40, 7, dtype=dtype)).requires_grad_()
    y = torch.randint(0, 7, (40,) if shared else (3, 40))
    every = y.expand(3, 40)
    wanted = torch.stack(
        [torch.nn.functional.cross_entropy(a, b) for a, b in zip(logits, every, strict=True)]
    )
    wanted.sum().backward()  # type: ignore[no-untyped-call]
    loss, grad = products.cross_entropy(logits.detach(), y)
    total, right = products.loss_and_correct(logits.detach(), y)
    assert logits.grad is not None
    close(loss, wanted.detach().double())
    close(grad, logits.grad.double())
    torch.testing.assert_close(total, 40 * wanted.detach().double(), rtol=1e-6, atol=0)
    assert torch.equal(right, (logits.argmax(-1) == every).sum(-1))


def test_a_tie_goes_to_the_first_class_and_a_bad_loss_is_not_hidden() -> None:
    tied = torch.zeros(1, 2, 3)
    assert products.loss_and_correct(tied, torch.tensor([0, 2]))[1].tolist() == [1]
    assert products.loss_and_correct(torch.full((1, 1, 3), torch.nan), torch.tensor([0]))[0].isnan().all()
    assert products.loss_and_correct(tied, torch.tensor([0, 3]))[0].isnan().all()  # a class that is not there


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.ones(1, 2, 3, dtype=torch.float16), "float32 and float64 on the CPU"),
        (torch.ones(1, 2, 3, dtype=torch.float64), "of one type"),
    ],
)
def test_what_does_not_fit_is_refused(x: Tensor, told: str) -> None:
    where = structure(torch.ones(1, 4, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=told):
        products.linear(x, where.pack(torch.ones(1, 4, 3)), None, where.start, where.place)


@pytest.mark.parametrize("batch", [1, 3, 60, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("_instructions")
def test_chosen_rows_are_laid_batch_last(batch: int, dtype: torch.dtype) -> None:
    for columns in (1, 7, 16, 45, 784):
        x = torch.randn(99, columns, dtype=dtype)
        rows = torch.randint(99, (3, batch))
        given = products.batch_last(x, rows)
        assert torch.equal(given, x[rows])
        assert products.is_batch_last(given)
        assert torch.equal(products.batch_last(x), x)


@pytest.mark.parametrize("row", [-1, 9])
def test_rows_that_are_not_there_are_refused(row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} of 9"):
        products.batch_last(torch.zeros(9, 4), torch.tensor([[0, row]]))
    with pytest.raises(TypeError, match="numbered by int64"):
        products.batch_last(torch.zeros(9, 4), torch.tensor([[0, 1]], dtype=torch.int32))


@pytest.mark.parametrize("batch", [3, 64])
@pytest.mark.usefixtures("_instructions")
def test_what_is_not_a_number_passes_a_relu(batch: int) -> None:
    """As it passes PyTorch's: a training that has diverged must not look sound."""
    where = structure(torch.ones(1, 2, 2, dtype=torch.bool))
    values, x = torch.full((1, 4), torch.nan), torch.ones(1, batch, 2)
    y = products.linear(x, values, None, where.start, where.place, relu=True)
    assert bool(y.isnan().all())
    grad = products.linear_grad_input(x, torch.ones(1, 4), where.by_column, where.row_of, where.order, relu=y)
    wanted = torch.ops.aten.threshold_backward(torch.full_like(y, 2.0), y, 0)
    assert torch.equal(grad, wanted)


@pytest.mark.parametrize("made", ["rows", "chosen", "copied", "result", "result of rows without padding"])
def test_padding_is_zero_whatever_was_in_memory(made: str) -> None:
    """A product computes the padding as well, and some processors take thirty times as long for denormal numbers."""
    for _ in range(20):
        torch.full((2, 40, 64), 1e-42)  # what the allocator hands out next
        x = torch.randn(2, 60, 40)
        if made == "rows":
            out = products.batch_last(x)
        elif made == "chosen":
            out = products.batch_last(x.flatten(0, 1), torch.arange(120).view(2, 60))
        elif made == "copied":
            between = torch.randn(2, 40, 60).transpose(-1, -2)
            out = products._copied(between)
        else:
            kept = structure(torch.ones(2, 40, 40, dtype=torch.bool))
            weights = torch.randn(kept.index.shape)
            operand = products.batch_last(x)
            if made == "result of rows without padding":
                ends = torch.randn(2 * 40 * 64 - 4)  # the storage ends with the last row's last example
                operand = ends.as_strided((2, 60, 40), (40 * 64, 1, 64))
            out = products.linear(operand, weights, None, kept.start, kept.place)
        whole = torch.as_strided(out, (2, 40, 64), (40 * 64, 64, 1))
        assert not whole[..., 60:].any()
