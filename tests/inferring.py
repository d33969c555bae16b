"""Networks and examples for the tests of compiled inference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from winticket import Mask, models
from winticket.ship import Network, SparseModel, Weight, capture, run
from winticket.ship.kinds import Shape


def weight(name: str, *shape: int, density: float = 1.0, seed: int = 0) -> Weight:
    rng = np.random.default_rng(seed + len(name) + sum(shape))
    keep = rng.random(shape) < density if density < 1 else None
    return Weight.of(name, rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:])), keep)


def examples(count: int, shape: Shape, *, zeros: float = 0.0, seed: int = 3) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *shape)) * (rng.random((count, *shape)) >= zeros)
    return x.astype(np.float32)


def agree(
    model: SparseModel,
    x: npt.NDArray[Any],
    network: Network | None = None,
    *,
    expected: npt.NDArray[np.floating[Any]] | None = None,
) -> None:
    """Outputs are those of the interpreter in float64, but for the rounding of float32 in up to some twenty layers.

    Whoever compares more than one model with the interpreter passes its outputs as `expected`; it is the slower one.
    """
    right = run(network or model.network, x, dtype=np.float64) if expected is None else expected
    got = model(x)
    assert got.dtype == np.float32
    assert got.shape == right.shape
    scale = max(1e-3, float(np.abs(right).max(initial=0)))
    np.testing.assert_allclose(got, right, rtol=2e-5, atol=2e-5 * scale)


def captured(name: str, shape: Shape, density: float) -> Network:
    """A network of ours with a random mask, and with statistics and biases as training leaves them."""
    model = models.build(name, input_shape=shape, classes=7, generator_seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 1:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    weights = dict(model.named_parameters())
    keep = {n: torch.rand(weights[n].shape, generator=generator) < density for n in models.eligible(model)}
    return capture(model, Mask(keep), example=torch.zeros(1, *shape))
