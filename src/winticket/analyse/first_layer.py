"""The layer that reads whole examples, and what its inputs are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from winticket.analyse.facts import NothingToAnalyseError
from winticket.analyse.networks import outputs
from winticket.stages import Setup


def feature_names(setup: Setup) -> tuple[str, ...]:
    """The names of a table's features; () for other data, and for data that are no longer there."""
    try:
        return setup.facts().feature_names
    except (OSError, ValueError, LookupError, ImportError):
        return ()


def first_layer(setup: Setup, prunable: Sequence[str]) -> str:
    """The name of the Linear weight that reads whole examples. NothingToAnalyseError if there is none."""
    if setup.tokens:
        raise NothingToAnalyseError(
            "the data are text, and only inputs that are images or signals have pixels"
        )
    if not 1 <= len(setup.input_shape) <= 3:
        raise NothingToAnalyseError(f"inputs of shape {setup.input_shape} are no images or signals")
    readers = _readers(setup)
    if not readers:
        raise NothingToAnalyseError(
            "no Linear layer reads whole examples; the kernels of convolutions are local by construction"
        )
    if readers[0] not in prunable:
        raise NothingToAnalyseError(f"{readers[0]}, which reads the examples, is not pruned")
    return readers[0]


def _readers(setup: Setup) -> list[str]:
    """The names of the weights of Linear layers that read an example as it is, flattened."""
    module, x = setup.module(), torch.rand(1, *setup.input_shape, generator=torch.Generator().manual_seed(0))
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if torch.equal(inputs[0].flatten(1), x.flatten(1)):
                found.append(f"{name}.weight")

        return hook

    linear = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(look(name)) for name, layer in linear]
    try:
        outputs(module, dict(module.named_parameters()), dict(module.named_buffers()), x)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in found if name in dict(module.named_parameters())]
