"""What is known of the inputs that reach each linear layer of a block: squared norms, or the whole Hessian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Inputs:
    """Sums over the tokens that linear layers read; layers that read the same tensor share one sum.

    add: from a layer's tokens [tokens, inputs] to what is summed. An object of this class is a `Watch` of
    `winticket.lm.blocks.watched`.

    >>> inputs = Inputs(squares)
    >>> inputs("fc", torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
    >>> inputs.total("fc").tolist()
    [25.0, 1.0]
    """

    def __init__(self, add: Callable[[Tensor], Tensor]) -> None:
        self.add = add
        self.sums: dict[str, Tensor] = {}
        self.leader: dict[str, str] = {}
        # Held, so that no other tensor can take its memory while it is compared with.
        self.last: tuple[str, Tensor] | None = None

    def __call__(self, name: str, read: Tensor) -> None:
        if name not in self.leader:
            same = self.last is not None and _identical(self.last[1], read)
            self.leader[name] = self.leader[self.last[0]] if same and self.last else name
        if self.leader[name] == name:
            more = self.add(read)
            self.sums[name] = more if name not in self.sums else self.sums[name].add_(more)
        self.last = (name, read)

    def total(self, name: str) -> Tensor:
        """The sum of a layer. ValueError if the model never called it, FloatingPointError if it is not finite."""
        if name not in self.leader:
            raise ValueError(f"no calibration text reaches the linear layer {name}, so it cannot be scored")
        total = self.sums[self.leader[name]]
        if not bool(total.isfinite().all()):
            raise FloatingPointError(
                f"the inputs of the linear layer {name} are not finite, so it cannot be scored"
            )
        return total


def _identical(one: Tensor, two: Tensor) -> bool:
    return one.data_ptr() == two.data_ptr() and one.shape == two.shape and one.stride() == two.stride()


def squares(read: Tensor) -> Tensor:
    """Sum of squares of every input over tokens [tokens, inputs]: [inputs].

    >>> squares(torch.tensor([[3.0, 0.0], [4.0, 1.0]])).tolist()
    [25.0, 1.0]
    """
    return read.square().sum(0)


def products(read: Tensor) -> Tensor:
    """Sum of x xᵀ over tokens [tokens, inputs]: [inputs, inputs].

    >>> products(torch.tensor([[3.0, 0.0], [4.0, 1.0]])).tolist()
    [[25.0, 4.0], [4.0, 1.0]]
    """
    return read.T @ read


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which blocks are run and pruned: float32, or the model's if that is wider.

    >>> working_dtype(torch.bfloat16), working_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)
