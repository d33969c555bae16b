"""The one loss that criteria look at, cross-entropy, and which outputs and targets it is defined for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The class that marks an answer as not counting, as in `torch.nn.functional.cross_entropy`."""

KNOWN = (
    "criteria know one loss, the cross-entropy of logits [B, classes] and whole-number classes y [B], or of an answer "
    "at each of several positions, logits [B, ..., classes] or [B, classes, ...] and y [B, ...]"
)


def answers(y: Tensor) -> int:
    """How many answers a batch's classes ask for: all but the ignored ones (class -100)."""
    return int((y != IGNORED).sum())


def shares(batches: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Each batch's share of all answers: what its mean loss, or the gradient of that, counts for.

    ValueError where none of the answers counts.
    """
    counts = [answers(y) for _, y in batches]
    if not sum(counts):
        raise ValueError(
            "none of the batches' answers counts: there are none, or their class is -100 (ignored)"
        )
    return [count / sum(counts) for count in counts]


def require_logits(output: object, network: str) -> Tensor:
    """The output as it is, where it is a floating-point tensor. ValueError for dicts, tuples and the like."""
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            raise ValueError(f"{network} returns {output.dtype} values, which are no logits; {KNOWN}")
        return output
    kind = type(output).__name__
    if isinstance(output, Mapping):
        kind = f"a {kind} with {', '.join(map(repr, output)) or 'nothing'}"
    elif isinstance(output, tuple | list):
        kind = f"a {kind} of {len(output)}"
    raise ValueError(
        f"{network} returns {kind}, and criteria look at one tensor of logits; give a module around it whose forward "
        "returns its logits alone"
    )


def cross_entropy(logits: Tensor, y: Tensor, *, classes_last: bool = False) -> Tensor:
    """Mean cross-entropy over all answers that count.

    Classes are in the dimension that the shapes say: logits [B, ..., classes] or, as torch has it, [B, classes, ...]
    for y [B, ...]. Where both readings fit, `classes_last` decides, and without it that is a ValueError; so are targets
    that are no classes (floats, several labels), and classes that there are no logits for.
    """
    rows, classes = _rows(logits, y, classes_last=classes_last)
    return F.cross_entropy(rows, classes, ignore_index=IGNORED)


def _rows(logits: Tensor, y: Tensor, *, classes_last: bool) -> tuple[Tensor, Tensor]:
    """Logits [N, classes] and classes [N] of the N answers."""
    _check_targets(logits, y)
    last = logits.shape[:-1] == y.shape
    second = logits.ndim > 2 and (logits.shape[0], *logits.shape[2:]) == tuple(y.shape)
    if last and second and not classes_last:
        raise ValueError(
            f"logits {_shape(logits)} and classes {_shape(y)} can be read in two ways, classes last or in dimension 1; "
            "say which by a module around the network that returns logits [N, classes], and classes y [N], "
            "of all answers in a row"
        )
    if not last and not second:
        squeezed = "; leave out y's last dimension (y.squeeze(-1))" if y.shape[-1:] == (1,) else ""
        raise ValueError(
            f"the network gives {_shape(logits)} for classes of shape {_shape(y)}, which do not fit{squeezed}; {KNOWN}"
        )
    rows = logits.flatten(0, -2) if last else logits.movedim(1, -1).flatten(0, -2)
    classes = y.flatten().long()
    counted = classes[classes != IGNORED]
    if rows.shape[1] < 2:
        raise ValueError(
            f"the network gives one logit per answer ({_shape(logits)}), and cross-entropy needs one for each of two "
            f"classes or more; {KNOWN}"
        )
    if len(counted) and not 0 <= int(counted.min()) <= int(counted.max()) < rows.shape[1]:
        raise ValueError(
            f"classes run from {int(counted.min())} to {int(counted.max())}, but the network gives "
            f"{rows.shape[1]} logits per answer ({_shape(logits)}); classes count from 0"
        )
    return rows, classes


def _check_targets(logits: Tensor, y: Tensor) -> None:
    given = f"targets are {y.dtype} of shape {_shape(y)}"
    if y.is_floating_point() or y.is_complex():
        raise ValueError(f"{given}, as in regression or with soft labels, and no classes; {KNOWN}")
    if y.dtype == torch.bool or (y.ndim > 1 and y.shape == logits.shape):
        raise ValueError(
            f"{given}, one value per class; of one-hot classes give y.argmax(-1), and several labels at once have a "
            f"loss that is not known here; {KNOWN}"
        )


def _shape(x: Tensor) -> str:
    return f"[{', '.join(map(str, x.shape))}]"
