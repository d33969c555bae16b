"""Calling a network with weights that are not its own, without changing it or torch's random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket.criteria.batches import Inputs, arguments, described, each_tensor, examples
from winticket.trouble import short_of_memory

Mode = Literal["evaluation", "training"]


def called(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Inputs,
    *,
    mode: Mode,
    dtype: torch.dtype | None,
) -> object:
    """The network's output for x with these weights and copies of these buffers, all floats in `dtype` if there is one.

    Raises ValueError, with the cause, if the network fails on x.

    >>> network, weights = nn.Linear(1, 1, bias=False), {"weight": torch.ones(1, 1)}
    >>> called(network, weights, {}, torch.ones(1, 1), mode="evaluation", dtype=torch.float64)
    tensor([[1.]], dtype=torch.float64)
    """
    args, named = arguments(network, each_tensor(lambda t: cast_to(t, dtype), x))
    # Copies, since training mode writes statistics in place.
    copies = {name: cast_to(b, dtype).clone() for name, b in buffers.items()}
    cast_weights = {name: cast_to(w, dtype) for name, w in weights.items()}
    with modes_kept(network):
        network.train(mode == "training")
        try:
            output: object = functional_call(network, (cast_weights, copies), args, named)
        except Exception as error:
            if short_of_memory(error):
                raise
            single = mode == "training" and examples(x) < 2
            few = "; a batch of one example has no statistics" if single else ""
            raise ValueError(
                f"{type(network).__name__} does not compute on inputs {described(x)} in {mode} mode: "
                f"{type(error).__name__}: {error}{few}"
            ) from error
    return output


def cast_to(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A floating-point tensor in `dtype`, if there is one; whole numbers and truth values as they are.

    >>> cast_to(torch.ones(1), torch.float64).dtype, cast_to(torch.ones(1).long(), torch.float64).dtype
    (torch.float64, torch.int64)
    """
    return x.to(dtype) if dtype is not None and x.is_floating_point() else x


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Within the block, torch's generator starts at `seed`; afterwards it is as before.

    >>> before = torch.get_rng_state()
    >>> with drawing(0):
    ...     drawn = torch.rand(3)
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def modes_kept(network: nn.Module | None) -> Iterator[None]:
    """When the block ends, the network and all its parts are in their previous modes, training or evaluation."""
    modes = {} if network is None else {m: m.training for m in network.modules()}
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training
