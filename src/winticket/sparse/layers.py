"""Layers that hold their kept weights alone, and the networks made with them."""

import torch
from torch import Tensor, nn

from winticket.sparse.operators import batch_last, sparse_linear
from winticket.sparse.products import is_batch_last

INDICES = ("start", "place", "by_column", "row_of", "order")


class SparseLinear(nn.Module):
    """A Linear layer whose `weight` [P] are the kept values, in the order of a `Structure`.

    The index tensors are buffers, so that `torch.func` gives each replicate of a stack its own.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = nn.Parameter(layer.weight.detach().new_empty(0))
        self.register_parameter("bias", layer.bias)
        for name in INDICES:
            self.register_buffer(name, torch.empty(0, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        flat = x if x.ndim == 2 else x.reshape(-1, self.in_features)
        if not is_batch_last(flat):
            flat = batch_last(flat)
        indices = [getattr(self, name) for name in INDICES]
        y: Tensor = sparse_linear(flat, self.weight, self.bias, *indices)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.out_features)
