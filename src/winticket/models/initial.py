"""How weights are drawn: the schemes, for one tensor and for a whole module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd

from winticket.text import nearest
from winticket.units import layout_of

SCHEMES = (
    "glorot-normal",
    "glorot-uniform",
    "kaiming-normal",
    "kaiming-uniform",
    "normal",
    "uniform",
    "orthogonal",
    "signed-constant",
    "default",
)


def initialise(module: nn.Module, *, scheme: str, generator: Generator) -> None:
    """Re-initialise every Linear and Conv layer of `module`, in place and in order of definition.

    `init_of` draws the weights. Biases are 0, as in Frankle & Carbin 2019, except with the scheme "default", whose
    biases are PyTorch's: uniform within ±1/√fan_in. All other parameters and all buffers stay as they are. Raises
    ValueError for an unknown scheme.

    >>> import torch
    >>> from winticket import models
    >>> layer = torch.nn.Linear(4, 2)
    >>> models.initialise(layer, scheme="signed-constant", generator=torch.Generator().manual_seed(0))
    >>> layer.weight.detach().abs().unique(), layer.bias.tolist()  # ±√(2/4)
    (tensor([0.7071]), [0.0, 0.0])
    """
    check_scheme(scheme)
    with torch.no_grad():
        for layer in module.modules():
            if not isinstance(layer, nn.Linear | _ConvNd):
                continue
            weight = _drawn(layer, scheme, generator)
            layer.weight.copy_(weight)
            if layer.bias is not None:
                bound = 1 / math.sqrt(_fan_in(weight)) if scheme == "default" else 0.0
                drawn = torch.empty(layer.bias.shape)
                layer.bias.copy_(
                    drawn.uniform_(-bound, bound, generator=generator) if bound else drawn.zero_()
                )


def _drawn(layer: nn.Linear | _ConvNd, scheme: str, generator: Generator) -> Tensor:
    """The layer's weight; a transposed convolution's is drawn as [out, in, *kernel], except by "default"."""
    layout = layout_of(layer)
    if scheme == "default" or not layout.inputs_first:
        return init_of(scheme, layer.weight.shape, generator)
    units = layout.by_unit(layer.weight)
    drawn = init_of(scheme, (*units.shape[:2], *layer.weight.shape[2:]), generator)
    return layout.from_units(drawn.flatten(2), layer.weight)


def init_of(scheme: str, shape: Sequence[int], generator: Generator) -> Tensor:
    """One weight tensor (float32, CPU) of `shape`, [out, in] or [out, in, *kernel], drawn by `scheme`.

    k is the kernel's size, fan_in = in·k, fan_out = out·k, and σ the standard deviation:

    - glorot-normal, glorot-uniform: σ = √(2 / (fan_in + fan_out)). Glorot & Bengio 2010, eq. 16. (The code of the 2019
      lottery paper truncates the normal at two deviations; this does not.)
    - kaiming-normal, kaiming-uniform: σ = √(2 / fan_in), for ReLU. He et al. 2015, eq. 10.
    - normal, uniform: σ = √(1 / fan_in). LeCun et al. 1998, "Efficient BackProp".
    - orthogonal: a random (semi-)orthogonal matrix [out, in·k]. Saxe et al. 2014.
    - signed-constant: ±√(2 / fan_in), each sign with probability 1/2. Ramanujan et al. 2020.
    - default: as PyTorch initialises Linear and Conv layers, uniform within ±1/√fan_in. (For a transposed convolution,
      PyTorch counts the output channels as inputs.)

    Raises ValueError for an unknown scheme, or for a shape of fewer than two dimensions.

    >>> import torch
    >>> from winticket.models import init_of
    >>> init_of("kaiming-normal", [300, 784], torch.Generator().manual_seed(0)).shape
    torch.Size([300, 784])
    """
    check_scheme(scheme)
    if len(shape) < 2:
        raise ValueError(f"shape {tuple(shape)} has no fan-in; a weight is [out, in] or [out, in, *kernel]")
    return _FILLS[scheme](torch.empty(tuple(shape)), generator)


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _scaled_uniform(weight: Tensor, generator: Generator) -> Tensor:
    bound = math.sqrt(3 / _fan_in(weight))
    return weight.uniform_(-bound, bound, generator=generator)


def _signed_constant(weight: Tensor, generator: Generator) -> Tensor:
    size = math.sqrt(2 / _fan_in(weight))
    return weight.bernoulli_(0.5, generator=generator).mul_(2 * size).sub_(size)


_FILLS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "glorot-normal": lambda w, g: nn.init.xavier_normal_(w, generator=g),
    "glorot-uniform": lambda w, g: nn.init.xavier_uniform_(w, generator=g),
    "kaiming-normal": lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g),
    "kaiming-uniform": lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
    "normal": lambda w, g: w.normal_(0, math.sqrt(1 / _fan_in(w)), generator=g),
    "uniform": _scaled_uniform,
    "orthogonal": lambda w, g: nn.init.orthogonal_(w, generator=g),
    "signed-constant": _signed_constant,
    "default": lambda w, g: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=g),
}


def check_scheme(scheme: str) -> None:
    """Raise ValueError for an unknown scheme, suggesting the nearest."""
    if scheme not in SCHEMES:
        raise ValueError(
            f"there is no initialisation {scheme!r}{nearest(scheme, SCHEMES)}; possible are {', '.join(SCHEMES)}"
        )
