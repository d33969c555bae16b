"""Curvature: exact for a quadratic, and that of the full matrix of a small network in float64, within its mask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket import Mask
from winticket.analyse import hessian
from winticket.experiment import Run


def test_a_quadratic_is_exact() -> None:
    """Mean squares of X w: its Hessian is 2/N XᵀX, whatever w is; 80 weights, so Lanczos' method is used."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 80, generator=generator).double()
    matrix = (2 / 200 * x.T @ x).numpy()
    model = nn.Linear(80, 1, bias=False)
    made = hessian(model, (x, torch.zeros(200, 1)), loss=nn.functional.mse_loss, count=3, probes=400)
    wanted = np.linalg.eigvalsh(matrix)[::-1]
    assert made.eigenvalues == pytest.approx(tuple(wanted[:3]), rel=1e-3)
    assert abs(made.trace - np.trace(matrix)) < 4 * made.trace_error
    assert made.trace_error < 0.02 * made.trace
    assert made.size == 80


def small() -> tuple[nn.Sequential, Tensor, Tensor, Mask]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 3)).double()
    x, y = torch.randn(30, 4).double(), torch.randint(0, 3, (30,))
    mask = Mask({"0.weight": torch.rand(9, 4) < 0.6, "3.weight": torch.rand(3, 9) < 0.6})
    return model, x, y, mask


def full(model: nn.Module, x: Tensor, y: Tensor, mask: Mask) -> np.ndarray:
    """P H P without its zero rows, by torch's own second derivatives of a loss of one flat vector."""
    held = {n: p.detach() for n, p in model.named_parameters()}
    model.eval()

    def loss(flat: Tensor) -> Tensor:
        weights, at = dict(held), 0
        for name, keep in mask.keep.items():
            weights[name] = held[name].masked_scatter(keep, flat[at : at + int(keep.sum())])
            at += int(keep.sum())
        return nn.functional.cross_entropy(functional_call(model, weights, (x,)), y)

    flat = torch.cat([held[n][k] for n, k in mask.keep.items()])
    matrix: Tensor = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    return matrix.numpy()


@pytest.mark.parametrize("lanczos", [False, True])
def test_within_a_mask_it_is_the_part_of_the_full_matrix(
    lanczos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lanczos:
        monkeypatch.setattr("winticket.analyse.curvature.DENSE", 0)
    model, x, y, mask = small()
    made = hessian(model, (x, y), mask=mask, count=4, probes=2000)
    matrix = full(model, x, y, mask)
    wanted = sorted(np.linalg.eigvalsh(matrix), key=abs, reverse=True)[:4]
    assert made.eigenvalues == pytest.approx(tuple(wanted), rel=2e-3)
    assert made.size == mask.count() == len(matrix)
    if lanczos:
        assert abs(made.trace - np.trace(matrix)) < 4 * made.trace_error
    else:
        assert made.trace == pytest.approx(np.trace(matrix))
        assert made.trace_error == 0


def test_the_model_is_as_it_was() -> None:
    model, x, y, mask = small()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model.train()
    hessian(model, (x, y), mask=mask)
    assert model.training
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_values_replace_the_models_own() -> None:
    model, x, y, mask = small()
    other = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    assert hessian(model, (x, y), mask=mask, values=other) != hessian(model, (x, y), mask=mask)


def test_wrong_numbers_are_refused() -> None:
    model, x, y, _ = small()
    with pytest.raises(ValueError, match="count is 0"):
        hessian(model, (x, y), count=0)


def test_a_run_has_curvature_at_start_and_end(run: Run) -> None:
    (made,) = run.analyse(
        "curvature", options={"curvature": {"levels": "1", "examples": "60", "probes": "2"}}
    )
    assert made.reason is None
    assert len(made.table) == 3 * 2 * 4
    assert set(made.table.column("weights")) == {run.plan.counts[0], run.plan.counts[1]}
    assert all(math.isfinite(v) for v in made.table.numbers("top_eigenvalue"))
