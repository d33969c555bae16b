"""The loss that criteria use: cross-entropy, the user's, or the model's own; and the outputs and targets it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from winticket.criteria.batches import Batch, described, examples, inputs_of, target_of, tensors_in
from winticket.trouble import short_of_memory

Loss = Callable[[Any, Any], Tensor]
"""The mean loss of a batch, one floating-point number, from the network's output and the target: the last part of a
batch that is a tuple, or the whole of one that is a mapping. `torch.nn.functional.mse_loss` is one."""

IGNORED = -100
"""The class that marks an answer to ignore, as in `torch.nn.functional.cross_entropy`."""

KNOWN = (
    "without loss=..., criteria use the cross-entropy of logits [B, classes] and integer classes y [B], or, with an "
    "answer at each of several positions, of logits [B, ..., classes] or [B, classes, ...] and classes y [B, ...]; for "
    "any other pass loss=..., a function of output and target that returns the mean loss, such as "
    "torch.nn.functional.mse_loss"
)


def answers(y: Tensor) -> int:
    """The number of answers in a batch's classes, without the ignored ones (class -100)."""
    return int((y != IGNORED).sum())


def shares(batches: Sequence[Batch], *, loss: Loss | None = None) -> list[float]:
    """Each batch's share of the whole, which weighs its mean loss and the gradient of that.

    The cross-entropy of logits is a mean over answers, so batches count by their answers. Over what another loss takes
    its mean is not known, so batches count by their examples if a `loss` is given, or if the model computes its own.
    Raises ValueError if nothing counts.
    """
    if loss is not None or any(isinstance(batch, Mapping) for batch in batches):
        counts = [examples(batch) for batch in batches]
        if not sum(counts):
            raise ValueError("none of the batches has an example")
    else:
        counts = [answers(require_classes(batch[-1])) for batch in batches if not isinstance(batch, Mapping)]
        if not sum(counts):
            raise ValueError(
                "none of the batches' answers counts: there are none, or all have class -100 (ignored)"
            )
    return [count / sum(counts) for count in counts]


def mean_loss(
    output: object,
    batch: Batch,
    *,
    loss: Loss | None,
    network: str,
    temperature: float = 1.0,
    classes_last: bool = False,
) -> Tensor:
    """The mean loss of a batch: the user's `loss` if there is one, else the model's own if the batch is a mapping.

    Otherwise it is the cross-entropy of the output, logits, divided by `temperature`; no other loss is changed by it,
    since only logits have a temperature. Raises ValueError if `loss` fails, or if a loss is not one finite number that
    depends on the output, and as `cross_entropy` does.

    >>> x, y = torch.zeros(2, 1), torch.ones(2, 1)
    >>> float(mean_loss(3 * y, (x, y), loss=F.mse_loss, network="Linear"))
    4.0
    """
    if loss is not None:
        name = f"loss {getattr(loss, '__name__', type(loss).__name__)}"
        try:
            made: object = loss(output, target_of(batch))
        except Exception as error:
            if short_of_memory(error):
                raise
            raise ValueError(
                f"{name} raises {type(error).__name__}: {error}; it gets the output of {network} and "
                f"{'the whole batch, a mapping' if isinstance(batch, Mapping) else 'the last part of the batch'}, and "
                "returns the mean loss"
            ) from error
        return _number(made, output, batch, name)
    if isinstance(batch, Mapping):
        made = _part(output, "loss")
        if made is None:
            raise ValueError(
                f"{network} returns {_kind(output)} without a loss for a batch of {', '.join(map(repr, batch))}; pass "
                "loss=..., a function of the output and the batch that returns the mean loss, or add what the model "
                "needs to compute its own (labels)"
            )
        return _number(made, output, batch, f"the loss of {network}")
    y = require_classes(target_of(batch))
    return cross_entropy(require_logits(output, network) / temperature, y, classes_last=classes_last)


def fitted(loss: Loss | None, like: Tensor | None, dtype: torch.dtype | None) -> Loss | None:
    """A loss that is a module with tensors of its own, such as weights of classes, copied to that device and type."""
    if not isinstance(loss, nn.Module):
        return loss
    return copy.deepcopy(loss).to(device=None if like is None else like.device, dtype=dtype)


def _number(made: object, output: object, batch: Batch, name: str) -> Tensor:
    """The loss, after a check that it is one finite number with gradients."""
    if not isinstance(made, Tensor) or not made.is_floating_point():
        kind = f"{made.dtype} values" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise ValueError(
            f"{name} is {kind}; it must be a floating-point tensor, computed by torch from the output"
        )
    if made.ndim:
        raise ValueError(
            f"{name} has shape {_shape(made)}; it must be one number, the mean over the batch (.mean(), or "
            "reduction='mean')"
        )
    if not bool(made.isfinite()):
        raise ValueError(f"{name} is {float(made.detach())} for a batch of {described(inputs_of(batch))}")
    if not made.requires_grad and any(t.requires_grad for t in tensors_in(output)):
        raise ValueError(
            f"{name} has no gradient, although the output has one; compute it by torch from the output, without "
            ".detach(), .item() or torch.no_grad()"
        )
    return made


def require_classes(y: object) -> Tensor:
    """The target unchanged. Raises ValueError if it is not a tensor."""
    if not isinstance(y, Tensor):
        raise ValueError(  # noqa: TRY004 - the fault is in the user's data
            f"the target of a batch is {_kind(y)}, not a tensor of classes; {KNOWN}"
        )
    return y


def require_logits(output: object, network: str) -> Tensor:
    """The output, or its part `logits` as models of Transformers return it.

    Raises ValueError if that is not a floating-point tensor but, say, a dict of others or a tuple.
    """
    logits = output if isinstance(output, Tensor) else _part(output, "logits")
    if logits is None:
        raise ValueError(
            f"{network} returns {_kind(output)}, but this needs one tensor of logits; wrap it in a module whose "
            "forward returns the logits alone, or pass loss=... if the criterion uses one"
        )
    if not logits.is_floating_point():
        raise ValueError(f"{network} returns {logits.dtype} values, which are not logits; {KNOWN}")
    return logits


def _part(output: object, name: str) -> Tensor | None:
    """The tensor that an output has under a name, as a mapping or as an attribute."""
    part = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return part if isinstance(part, Tensor) else None


def _kind(value: object) -> str:
    kind = f"a {type(value).__name__}"
    if isinstance(value, Mapping):
        return f"{kind} with {', '.join(map(repr, value)) or 'nothing'}"
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list) else kind


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
            f"{targets}, one value per class; for one-hot classes give y.argmax(-1); several labels per example "
            f"need a loss of yours; {KNOWN}"
        )


def _shape(x: Tensor) -> str:
    return f"[{', '.join(map(str, x.shape))}]"
