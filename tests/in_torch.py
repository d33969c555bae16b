"""A network's values by PyTorch's operators: a second opinion that shares no code with ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from winticket.ship import Network, Operation


def values(network: Network, x: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float64]]:
    """Every value of the network by name, in float64, for inputs [N, *input_shape]."""
    made = {"input": torch.from_numpy(x).double()}
    for operation in network.operations:
        tensors = {role: torch.from_numpy(w.dense()).double() for role, w in operation.tensors.items()}
        inputs = [made[name] for name in operation.inputs]
        made[operation.output] = _result(operation, inputs, tensors)
    return {name: value.numpy() for name, value in made.items()}


def _padded(x: Tensor, padding: Sequence[tuple[int, int]], fill: float = 0.0) -> Tensor:
    return F.pad(x, [n for pair in reversed(padding) for n in pair], value=fill)


def _result(operation: Operation, inputs: Sequence[Tensor], tensors: dict[str, Tensor]) -> Tensor:
    kind, x, options = operation.kind, inputs[0], operation.typed_options()
    batch = len(x)
    if kind == "linear":
        return F.linear(x, tensors["weight"], tensors.get("bias"))
    if kind in ("conv1d", "conv2d"):
        convolve: Any = getattr(F, kind)
        weight, bias = tensors["weight"], tensors.get("bias")
        window = {"stride": options.stride, "dilation": options.dilation, "groups": options.groups}
        return convolve(_padded(x, options.padding), weight, bias, **window)  # type: ignore[no-any-return]
    if kind == "scale_shift":
        scale, shift = tensors["scale"], tensors["shift"]
        flat = F.batch_norm(
            x.reshape(batch, len(scale), -1),
            torch.zeros_like(scale),
            torch.ones_like(scale),
            scale,
            shift,
            eps=0,
        )
        return flat.reshape(x.shape)
    if "pool" in kind:
        return _pooled(kind, x, options)
    if kind == "mean":
        return x.mean([axis + 1 for axis in options.axes], keepdim=options.keep_axes)
    if kind == "reshape":
        return x.reshape(batch, *options.shape)
    if kind == "add":
        return torch.stack(list(inputs)).sum(0)
    if kind == "concat":
        return torch.cat(list(inputs), options.axis + 1)
    if kind in ("softmax", "log_softmax"):
        along: Any = getattr(torch, kind)
        return along(x, options.axis + 1)  # type: ignore[no-any-return]
    return _elements(kind, x, options)


def _elements(kind: str, x: Tensor, options: Any) -> Tensor:
    if kind == "leaky_relu":
        return F.leaky_relu(x, options.slope)
    if kind == "hardtanh":
        return x.clamp(options.low, options.high)
    if kind == "gelu":
        return F.gelu(x, approximate="tanh" if options.tanh else "none")
    if kind == "silu":
        return F.silu(x)
    function: Any = getattr(torch, kind)  # relu, sigmoid, tanh
    return function(x)  # type: ignore[no-any-return]


def _pooled(kind: str, x: Tensor, options: Any) -> Tensor:
    pool: Any = getattr(F, kind)
    if kind.startswith("adaptive"):
        return pool(x, options.size)  # type: ignore[no-any-return]
    window = {"kernel_size": options.kernel, "stride": options.stride}
    if kind.startswith("max"):
        padded = _padded(x, options.padding, -torch.inf)
        return pool(padded, **window, dilation=options.dilation)  # type: ignore[no-any-return]
    means: Tensor = pool(_padded(x, options.padding), **window)
    if options.count_padding:
        return means
    shares: Tensor = means / pool(_padded(torch.ones_like(x), options.padding), **window)
    return shares
