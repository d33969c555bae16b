"""Networks as they are shipped: pruned, with statistics as training leaves them, captured from torch modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from winticket import Mask, models
from winticket.ship import Network, Operation, Preprocessing, Weight, capture

CHANNELS = 3


class Signal(nn.Module):
    """For signals; its last BatchNorm is read by a sum as well, so it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(CHANNELS, 12, 5, padding="same"), nn.BatchNorm1d(12)
        self.second, self.last = nn.Conv1d(12, 12, 4, stride=2, padding=2, groups=2), nn.BatchNorm1d(12)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool1d(F.leaky_relu(self.norm(self.first(x)), 0.1), 2, ceil_mode=True)
        z = self.second(y)
        z = F.gelu(self.last(z) + z)
        pooled = torch.cat([z.mean(-1), F.adaptive_avg_pool1d(z, 1).squeeze(-1)], 1)
        out: Tensor = self.fc(pooled)
        return out.log_softmax(1)


def _built(name: str, shape: tuple[int, ...]) -> Callable[[], nn.Module]:
    return lambda: models.build(name, input_shape=shape, classes=7, generator_seed=0)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "lenet-300-100": (_built("lenet-300-100", (1, 28, 28)), (1, 28, 28), 0.05),
    "conv-2": (_built("conv-2", (3, 8, 8)), (3, 8, 8), 0.1),
    "vgg-11": (_built("vgg-11-8", (3, 16, 16)), (3, 16, 16), 0.2),
    "resnet-20": (_built("resnet-20", (3, 16, 16)), (3, 16, 16), 0.1),
    "signal": (Signal, (CHANNELS, 31), 0.4),
}
"""By name: what makes the module, the shape of an input, the density."""


@cache
def network(name: str, *, int8: bool = False) -> Network:
    """One of NETWORKS, under a random mask, with preprocessing and names of classes; int8: with rounded weights."""
    make, shape, density = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    mask = _settled(model, shape, density)
    ready = Preprocessing(255.0, tuple(0.1 * c for c in range(shape[0])), (0.25,) * shape[0])
    made = capture(model, mask, example=torch.randn(1, *shape), preprocessing=ready)
    made = replace(made, about={"test_accuracy": 0.875})
    return rounded(made) if int8 else made


def _settled(model: nn.Module, shape: tuple[int, ...], density: float) -> Mask:
    """A random mask, and the model such that its outputs depend on its inputs: kept weights large, statistics right."""
    weights = dict(model.named_parameters())
    mask = Mask({name: torch.rand(weights[name].shape) < density for name in models.eligible(model)})
    with torch.no_grad():
        for name, parameter in weights.items():
            if name in mask.keep:
                parameter.mul_(mask.keep[name] / density**0.5)
            elif parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = None  # the mean over batches
        model.train()
        for _ in range(4):
            model(2 * torch.randn(32, *shape))
    return mask


def rounded(network: Network) -> Network:
    """The network with int8 weights, a scale for each unit."""
    made = {name: _rounded(weight) for name, weight in network.weights().items()}
    operations = [
        Operation(
            o.kind, o.inputs, o.output, o.options, {role: made[w.name] for role, w in o.tensors.items()}
        )
        for o in network.operations
    ]
    return replace(network, operations=tuple(operations))


def _rounded(weight: Weight) -> Weight:
    if len(weight.shape) < 2:
        return weight
    dense = weight.dense().reshape(weight.shape[0], -1)
    scales = np.abs(dense).max(1) / np.float32(127)
    whole = np.rint(np.divide(dense, scales[:, None], out=np.zeros_like(dense), where=scales[:, None] > 0))
    values = (whole * scales[:, None]).astype(np.float32).reshape(-1)
    kept = values if weight.positions is None else values[weight.positions]
    return Weight(weight.name, weight.shape, kept, weight.positions, scales)


def examples(network: Network, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Raw inputs, as of pixels or sensors."""
    rng = np.random.default_rng(3)
    return (255 * rng.random((count, *network.input_shape))).astype(np.float32)


def small_whole_numbers() -> Network:
    """A scale and shift, then a linear layer with a bias, as wide as deep; all kinds of values hold it exactly."""
    weight = Weight.of("w", [[127, 1, 2], [3, 127, 4], [5, 6, 127]])
    return Network(
        (3,),
        (
            Operation(
                "scale_shift",
                ("input",),
                "1",
                tensors={"scale": Weight.of("s", [1, 2, 4]), "shift": Weight.of("t", [8, 16, 32])},
            ),
            Operation(
                "linear", ("1",), "2", tensors={"weight": weight, "bias": Weight.of("b", [-1, -2, -3])}
            ),
        ),
    )


def turned(network: Network) -> Network:
    """The network with the tensors of each operation in the opposite order, as only other writers of files have it."""
    operations = [replace(operation) for operation in network.operations]
    for operation in operations:
        object.__setattr__(operation, "tensors", dict(reversed([*operation.tensors.items()])))
    return replace(network, operations=tuple(operations))
