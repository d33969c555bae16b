"""Low-rank updates of weights under a mask (LoRA), which are merged without touching pruned weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from winticket.ticket import Mask


class LowRank(nn.Module):
    """A weight with a low-rank update under a mask: W + keep · (B A), of rank r (Hu et al. 2021, LoRA, equation 3).

    A [r, inputs] is drawn as PyTorch draws a Linear layer, B [outputs, r] is 0, so the weight is W at first. The update
    is masked while it is trained, so merging it changes nothing, and pruned weights stay exactly 0. inputs_first: the
    weight is stored as [inputs, outputs], as Conv1D of Transformers does, and so is the update.

    >>> update = LowRank(torch.tensor([[True, False]]), 1, dtype=torch.float32)
    >>> update(torch.tensor([[2.0, 0.0]]))
    tensor([[2., 0.]], grad_fn=<AddBackward0>)
    """

    keep: Tensor

    def __init__(self, keep: Tensor, rank: int, *, dtype: torch.dtype, inputs_first: bool = False) -> None:
        super().__init__()
        self.register_buffer("keep", keep, persistent=False)
        self.inputs_first = inputs_first
        inputs, outputs = keep.shape if inputs_first else reversed(keep.shape)
        self.down = nn.Parameter(torch.empty(rank, inputs, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(outputs, rank, dtype=dtype))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, in the order in which it is stored, with the update."""
        update = self.up @ self.down
        return weight + self.keep * (update.t() if self.inputs_first else update)


@contextmanager
def low_rank(model: nn.Module, mask: Mask, *, rank: int) -> Iterator[list[LowRank]]:
    """While it lasts, the masked weights have updates of so low a rank that can be trained; then these are merged.

    All other parameters are frozen. If it ends by an error, the weights are left with what the updates were then.

    >>> layer = nn.Linear(3, 2)
    >>> with low_rank(nn.Sequential(layer), Mask({"0.weight": torch.ones(2, 3, dtype=torch.bool)}), rank=1) as updates:
    ...     sum(p.numel() for update in updates for p in update.parameters())
    5
    """
    model.requires_grad_(requires_grad=False)
    owners = []
    for name, keep in mask.keep.items():
        path, _, attribute = name.rpartition(".")
        owner, weight = model.get_submodule(path), model.get_parameter(name)
        first = mask.laid_out(name).inputs_first
        update = LowRank(keep.to(weight.device), rank, dtype=weight.dtype, inputs_first=first)
        parametrize.register_parametrization(owner, attribute, update)
        owners.append((owner, attribute, update))
    try:
        yield [update for _, _, update in owners]
    finally:
        for owner, attribute, _ in owners:
            parametrize.remove_parametrizations(owner, attribute, leave_parametrized=True)
