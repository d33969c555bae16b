"""The optimiser's update of a whole stack in one pass over memory, as one compiled call.

Every tensor is read and written once: weights, the optimiser's state, the mask that keeps pruned weights at 0, and the
bfloat16 copy of the weights that the next step's products read. In float32 the results are those of torch's fused
optimisers, bit for bit with the same vectors of the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from winticket.sparse.chain import KINDS, Rule
from winticket.sparse.native import kernels, require
from winticket.sparse.products import address


@dataclass(frozen=True)
class Target:
    """A float32 tensor to update; `slots`, shaped like it, are SGD's momentum or Adam's two moments.

    After an update the weight is multiplied by `keep` (1 or 0), and `copy` (bfloat16) gets the result. The gradient is
    bfloat16 if `half`.
    """

    weight: Tensor
    slots: tuple[Tensor, ...] = ()
    keep: Tensor | None = None
    copy: Tensor | None = None
    half: bool = False

    def numbers(self) -> list[int]:
        """What the compiled update takes: sizes and addresses. TypeError for tensors that it cannot update."""
        beside = [t for t in (*self.slots, self.keep, self.copy) if t is not None]
        for t in (self.weight, *beside):
            kind = torch.bfloat16 if t is self.copy else torch.float32
            if t.dtype != kind or not t.is_contiguous() or t.device.type != "cpu":
                raise TypeError(f"an update takes contiguous {kind} on the CPU, not {t.dtype} on {t.device}")
            if t.shape != self.weight.shape:
                raise ValueError(f"a weight {tuple(self.weight.shape)} beside a tensor {tuple(t.shape)}")
        slots = [address(self.slots[i]) if i < len(self.slots) else 0 for i in (0, 1)]
        return [
            self.weight.numel(), self.half, self.weight.data_ptr(), *slots, address(self.keep), address(self.copy)
        ]  # fmt: skip


@dataclass(frozen=True)
class Factors:
    """A gradient [S, rows, columns] as its factors in bfloat16: Σ over b of by_output[s, b, rows] · x[s, b, columns].

    It is rounded to bfloat16 and never in memory as a whole.
    """

    by_output: Tensor
    x: Tensor

    def numbers(self) -> list[int]:
        """What the compiled update takes: sizes, addresses and strides."""
        (stack, batch, rows), columns = self.by_output.shape, self.x.shape[-1]
        return [
            stack, batch, rows, columns, self.by_output.data_ptr(), *self.by_output.stride()[:2],
            self.x.data_ptr(), *self.x.stride()[:2],
        ]  # fmt: skip

    def checked(self) -> Factors:
        """These factors, with neighbours in memory along their last dimension. TypeError or ValueError if wrong."""
        kinds = (self.by_output.dtype, self.x.dtype)
        if not multiplies() or kinds != (torch.bfloat16, torch.bfloat16):
            raise TypeError(f"factors need bfloat16 and a processor with AMX; these are {kinds}")
        if self.by_output.ndim != 3 or self.x.ndim != 3 or self.by_output.shape[:2] != self.x.shape[:2]:
            shapes = f"{tuple(self.by_output.shape)} and {tuple(self.x.shape)}"
            raise ValueError(f"factors are [S, B, rows] and [S, B, columns], not {shapes}")
        if self.by_output.stride(2) == 1 == self.x.stride(2):
            return self
        return Factors(self.by_output.contiguous(), self.x.contiguous())


def multiplies() -> bool:
    """True if an update can take gradients as `Factors`: on processors with AMX.

    >>> multiplies() in (True, False)
    True
    """
    return bool(kernels and kernels.has_amx())


Gradient = Tensor | Factors


class OnePass:
    """Updates `targets` in place by a rule, whose slots are SGD's momentum (if it has one) or Adam's two moments.

    >>> weight = torch.ones(3)
    >>> OnePass([Target(weight, keep=torch.tensor([1.0, 1.0, 0.0]))], Rule("sgd"))([torch.ones(3)], 0.5, taken=0)
    >>> weight
    tensor([0.5000, 0.5000, 0.0000])
    """

    def __init__(self, targets: Sequence[Target], rule: Rule) -> None:
        count = (1 if rule.momentum else 0) if rule.kind == "sgd" else 2
        for target in targets:
            if len(target.slots) != count:
                raise ValueError(f"{rule.kind} keeps {count} tensors for a weight, not {len(target.slots)}")
        self.targets, self.rule = list(targets), rule
        self._numbers = [target.numbers() for target in targets]
        self._options = [rule.momentum, rule.weight_decay, *rule.betas, rule.eps]

    def __call__(self, gradients: Sequence[Gradient], rate: float, *, taken: int) -> None:
        """Update once, with gradients in the order of the targets; `taken` updates precede this one.

        TypeError or ValueError for a gradient of another type or shape than its target's.
        """
        taking = [_checked(g, target) for g, target in zip(gradients, self.targets, strict=True)]
        numbers = [g.numbers() if isinstance(g, Factors) else [g.data_ptr()] for g in taking]
        require().update(
            torch.get_num_threads(), self._numbers, numbers, rate, taken + 1, KINDS[self.rule.kind],
            self.rule.nesterov, self._options,
        )  # fmt: skip


def _checked(gradient: Gradient, target: Target) -> Gradient:
    shape = target.weight.shape
    if isinstance(gradient, Factors):
        gradient = gradient.checked()
        formed = (*gradient.by_output.shape[::2], gradient.x.shape[-1])
        if formed != tuple(shape):
            raise ValueError(f"factors of a gradient {formed} of a weight {tuple(shape)}")
        return gradient
    kind = torch.bfloat16 if target.half else torch.float32
    if gradient.dtype != kind or not gradient.is_contiguous():
        raise TypeError(f"an update takes a contiguous gradient in {kind}, not {gradient.dtype}")
    if gradient.shape != shape:
        raise ValueError(f"a gradient {tuple(gradient.shape)} of a weight {tuple(shape)}")
    return gradient
