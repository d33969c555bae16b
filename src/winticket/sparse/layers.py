"""Layers that hold their kept weights alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from winticket.sparse.operators import batch_last, sparse_conv2d, sparse_linear
from winticket.sparse.products import is_batch_last
from winticket.sparse.windows import Window

INDICES = ("start", "place", "by_column", "row_of", "order", "column_of")


class _Sparse(nn.Module):
    """A layer whose `weight` [P] holds the kept values, in the order of a `Structure`.

    The index tensors are buffers, so that `torch.func` gives each replicate of a stack its own.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().new_empty(0))
        self.bias = layer.bias
        for name in INDICES:
            self.register_buffer(name, torch.empty(0, dtype=torch.int32))

    def indices(self) -> list[Tensor]:
        return [getattr(self, name) for name in INDICES]


class SparseLinear(_Sparse):
    """A Linear layer; x [..., in] -> [..., out]."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # a dense layer before this one may compute in bfloat16
        flat = x if x.ndim == 2 else x.reshape(-1, self.in_features)
        if not is_batch_last(flat):
            flat = batch_last(flat)
        y = sparse_linear(flat, self.weight, self.bias, *self.indices()[:5])
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.out_features)


class SparseConv2d(_Sparse):
    """A Conv2d layer without groups or dilation; x [N, C, H, W] -> [N, O, H', W'].

    >>> SparseConv2d(nn.Conv2d(3, 8, 5)).window.kernel
    (5, 5)
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.window = window_of(layer)
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels

    def forward(self, x: Tensor) -> Tensor:
        w = self.window
        pairs = [list(pair) for pair in (w.kernel, w.stride, w.padding)]
        batch = (x if x.ndim == 4 else x[None]).to(self.weight.dtype)
        y = sparse_conv2d(batch, self.weight, self.bias, *self.indices(), w.channels, *pairs)
        return y if x.ndim == 4 else y[0]


def window_of(layer: nn.Conv2d) -> Window:
    """The window of a Conv2d. Raises TypeError if its padding is a word rather than numbers.

    >>> window_of(nn.Conv2d(3, 8, 5, padding=2))
    Window(channels=3, kernel=(5, 5), stride=(1, 1), padding=(2, 2))
    """
    if isinstance(layer.padding, str):
        raise TypeError(f"padding {layer.padding!r} is not a pair of numbers")
    kernel, stride, padding = ((int(a), int(b)) for a, b in (layer.kernel_size, layer.stride, layer.padding))
    return Window(layer.in_channels, kernel, stride, padding)
