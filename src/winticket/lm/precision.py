"""The dtypes of a model's tensors: those in which it is stored, and a wider one in which it is trained."""

from __future__ import annotations

from functools import reduce

import torch
from torch import nn


class Precision:
    """A model whose tensors can be widened for training, and stored again in the dtype that each of them had.

    Its buffers come back as they were and not rounded: a model in bfloat16 computes its rotary frequencies in float32,
    and rounded ones would turn the late tokens of a window by another angle.

    >>> model = nn.Sequential(nn.Linear(2, 2, dtype=torch.bfloat16), nn.BatchNorm1d(2))
    >>> precision = Precision(model)
    >>> precision.widen()
    >>> model[0].weight.dtype
    torch.float32
    >>> precision.store()
    >>> model[0].weight.dtype, model[1].weight.dtype
    (torch.bfloat16, torch.float32)
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stored = {name: one.dtype for name, one in model.named_parameters()}
        self.buffers = {name: one.detach() for name, one in model.named_buffers()}
        self.working = reduce(torch.promote_types, self.stored.values(), torch.float32)

    def widen(self) -> None:
        """From now on the tensors are in float32, or in float64 if a parameter is; nothing is rounded."""
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(self.working)
        for buffer in self.model.buffers():
            if buffer.is_floating_point():
                buffer.data = buffer.data.to(torch.promote_types(buffer.dtype, self.working))

    def store(self) -> None:
        """From now on the parameters are rounded to the dtypes in which they were, and the buffers are the former."""
        for name, parameter in self.model.named_parameters():
            parameter.data = parameter.data.to(self.stored[name])
        for name, buffer in self.model.named_buffers():
            buffer.data = self.buffers[name]
