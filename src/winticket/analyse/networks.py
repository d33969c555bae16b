"""Networks of stored trainings on data: their outputs, without changing a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket import data
from winticket.stages import Setup
from winticket.ticket import Seeds, State, Trajectory

BATCH = 500
"""Examples at a time."""


def last(path: Trajectory) -> State:
    """The state at the end of a training."""
    return path.saved[max(path.saved)]


def parts(setup: Setup, replicate: int) -> data.Dataset:
    """The data of a replicate, in memory of the CPU: train, validation and test parts."""
    return setup.dataset(torch.device("cpu"), replicate)


def drawn_examples(part: data.Split, seeds: Seeds, most: int) -> data.Split:
    """At most `most` of a part's examples, drawn at random for each replicate: a dataset may be sorted by class."""
    if len(part.y) <= most:
        return part
    rows = data.permutation(len(part.y), seed=seeds.derive("analysed"), epoch=0)[:most]
    return data.Split(part.x[rows], part.y[rows])


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Within the block, BatchNorm computes with the statistics of each batch, and all other layers as in evaluation.

    This is what training sees, without its noise: at the start of a training, running statistics are those of no data.
    """
    modes = {layer: layer.training for layer in module.modules()}
    for layer in modes:
        layer.training = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    try:
        yield
    finally:
        for layer, was in modes.items():
            layer.training = was


@torch.no_grad()
def outputs(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    *,
    batch: int = BATCH,
) -> Tensor:
    """The network's outputs [N, classes] for examples x [N, ...], in evaluation mode. The module is not changed."""
    was = module.training
    module.eval()
    try:
        values = {**weights, **buffers}
        rows = [functional_call(module, values, (part,)) for part in torch.split(x, batch)]
    finally:
        module.train(was)
    return torch.cat(rows)


@torch.no_grad()
def activations(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    layers: Sequence[str],
    *,
    batch: int = BATCH,
    of: Callable[[tuple[Tensor, ...], Tensor], Tensor] = lambda _, output: output,
) -> dict[str, Tensor]:
    """What the named submodules compute on x, by name, each [N, ...]. `of` chooses from inputs and output."""
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: kept[name].append(of(inputs, output).detach())

    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in layers]
    try:
        outputs(module, weights, buffers, x, batch=batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(rows) for name, rows in kept.items()}
