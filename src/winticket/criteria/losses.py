"""The one loss that criteria use, cross-entropy, and the outputs and targets that it is defined for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The class that marks an answer to ignore, as in `torch.nn.functional.cross_entropy`."""

KNOWN = (
    "criteria know one loss, the cross-entropy of logits [B, classes] and integer classes y [B], or, with an answer "
    "at each of several positions, of logits [B, ..., classes] or [B, classes, ...] and classes y [B, ...]"
)


def answers(y: Tensor) -> int:
    """The number of answers in a batch's classes, without the ignored ones (class -100)."""
    return int((y != IGNORED).sum())


def shares(batches: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Each batch's share of all answers, which weighs its mean loss and the gradient of that.

    Raises ValueError if no answer counts.
    """
    counts = [answers(y) for _, y in batches]
    if not sum(counts):
        raise ValueError(
            "none of the batches' answers counts: there are none, or all have class -100 (ignored)"
        )
    return [count / sum(counts) for count in counts]


def require_logits(output: object, network: str) -> Tensor:
    """The output unchanged. Raises ValueError if it is not a floating-point tensor but, say, a dict or a tuple."""
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            raise ValueError(f"{network} returns {output.dtype} values, which are not logits; {KNOWN}")
        return output
    kind = type(output).__name__
    if isinstance(output, Mapping):
        kind = f"a {kind} with {', '.join(map(repr, output)) or 'nothing'}"
    elif isinstance(output, tuple | list):
        kind = f"a {kind} of {len(output)}"
    raise ValueError(
        f"{network} returns {kind}, but criteria need one tensor of logits; wrap it in a module whose forward returns "
        "the logits alone"
    )


def cross_entropy(logits: Tensor, y: Tensor, *, classes_last: bool = False) -> Tensor:
    """Mean cross-entropy over all answers that count.

    The shapes say which dimension of the logits holds the classes: for y [B, ...], logits are [B, ..., classes] or, as
    PyTorch has it, [B, classes, ...]. If both fit, `classes_last` chooses the former. Raises ValueError if both fit and
    `classes_last` is false, if targets are not classes (floats, several labels), and if a class has no logit.
    """
    rows, classes = by_answer(logits, y, classes_last=classes_last)
    return F.cross_entropy(rows, classes, ignore_index=IGNORED)


def by_answer(logits: Tensor, y: Tensor, *, classes_last: bool = False) -> tuple[Tensor, Tensor]:
    """Logits [N, classes] and classes [N] of the N answers, ignored ones included; errors as of `cross_entropy`."""
    _check_targets(logits, y)
    last = logits.shape[:-1] == y.shape
    second = logits.ndim > 2 and (logits.shape[0], *logits.shape[2:]) == tuple(y.shape)
    if last and second and not classes_last:
        raise ValueError(
            f"logits {_shape(logits)} and classes {_shape(y)} can be read in two ways, classes last or in dimension 1; "
            "to decide, wrap the network in a module that returns the logits of all answers as [N, classes], and give "
            "classes y [N]"
        )
    if not last and not second:
        squeezed = "; drop y's last dimension (y.squeeze(-1))" if y.shape[-1:] == (1,) else ""
        raise ValueError(
            f"the network's output {_shape(logits)} and classes of shape {_shape(y)} do not fit{squeezed}; {KNOWN}"
        )
    rows = logits.flatten(0, -2) if last else logits.movedim(1, -1).flatten(0, -2)
    classes = y.flatten().long()
    counted = classes[classes != IGNORED]
    if rows.shape[1] < 2:
        raise ValueError(
            f"the network gives one logit per answer ({_shape(logits)}), but cross-entropy needs one for each of at "
            f"least two classes; {KNOWN}"
        )
    if len(counted) and not 0 <= int(counted.min()) <= int(counted.max()) < rows.shape[1]:
        raise ValueError(
            f"classes run from {int(counted.min())} to {int(counted.max())}, but the network gives "
            f"{rows.shape[1]} logits per answer ({_shape(logits)}); classes count from 0"
        )
    return rows, classes


def _check_targets(logits: Tensor, y: Tensor) -> None:
    targets = f"targets are {y.dtype} of shape {_shape(y)}"
    if y.is_floating_point() or y.is_complex():
        raise ValueError(f"{targets}, as in regression or with soft labels, not classes; {KNOWN}")
    if y.dtype == torch.bool or (y.ndim > 1 and y.shape == logits.shape):
        raise ValueError(
            f"{targets}, one value per class; for one-hot classes give y.argmax(-1); several labels per example are "
            f"not supported; {KNOWN}"
        )


def _shape(x: Tensor) -> str:
    return f"[{', '.join(map(str, x.shape))}]"
