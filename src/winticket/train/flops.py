"""The cost of a training in floating-point operations, counted as the literature does: by the weights kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.flop_counter import FlopCounterMode

from winticket.trouble import of_the_machine


@dataclass(frozen=True)
class Forward:
    """Operations of one example's forward pass.

    `total` is the count with nothing pruned; `each` is the count for one weight of a layer, by the weight's name.
    """

    total: float
    each: Mapping[str, float]

    def masked(self, kept: Mapping[str, tuple[int, int]]) -> float:
        """The operations with layers of (kept, all) weights: a pruned weight saves its multiplication and addition."""
        return self.total - sum(self.each.get(n, 0.0) * (size - count) for n, (count, size) in kept.items())


_counted: WeakKeyDictionary[nn.Module, Forward | None] = WeakKeyDictionary()


def forward(module: nn.Module, example: Tensor) -> Forward | None:
    """Operations per example, counted by PyTorch's counter on `example` [B, ...]; None if the module cannot run there.

    Products count, elementwise operations do not. Linear and Conv layers use a weight once per position.
    """
    if module not in _counted:
        _counted[module] = _count(module, example)
    return _counted[module]


def _count(module: nn.Module, example: Tensor) -> Forward | None:
    rows = len(example)
    uses: dict[str, float] = {}

    def note(name: str, layer: nn.Module, x: Tensor, result: Tensor) -> None:
        # A transposed convolution uses a weight once for every position that it reads; other layers, that they write.
        positions = (
            x.numel() / layer.in_channels
            if isinstance(layer, _ConvTransposeNd)
            else result.numel() / len(layer.get_parameter("weight"))
        )
        uses[name] = uses.get(name, 0.0) + 2 * positions / rows

    handles = [
        layer.register_forward_hook(lambda m, inputs, out, name=name: note(name, m, inputs[0], out))
        for name, layer in (
            (f"{n}.weight" if n else "weight", m)
            for n, m in module.named_modules()
            if isinstance(m, nn.Linear | _ConvNd)
        )
    ]
    modes = {part: part.training for part in module.modules()}
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            module.eval()(example.clone())
    except Exception as error:  # a user's module may raise anything; training it will report the error
        if of_the_machine(error):
            raise
        return None
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
    return Forward(counter.get_total_flops() / rows, uses)
