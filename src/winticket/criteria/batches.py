"""Batches as users' loaders give them: what the network gets of one, what is its target, and how it is cut."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Batch = Sequence[Any] | Mapping[Any, Any]
"""A tuple or list whose last part is the target and whose other parts are inputs: (x [B, ...], y [B, ...]) or
(x1, x2, y). Or a mapping, such as the batches of Transformers' collators: {"input_ids": [B, L], "labels": [B]}."""

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a network is called with: one tensor, several positional arguments, or arguments by name."""

KINDS = (
    "batches are tuples whose last part is the target, (x [B, ...], y [B, ...]) or (x1, x2, y), or mappings from names "
    "to tensors"
)


_CUT = "taylor and fisher need single examples; give them as tensors [B, ...], or use snip or grasp"


def each_tensor(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The value with every tensor changed, in mappings, lists and tuples of any depth; mappings become dicts.

    >>> each_tensor(torch.neg, {"x": torch.ones(1), "names": ["a"]})
    {'x': tensor([-1.]), 'names': ['a']}
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: each_tensor(change, part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [each_tensor(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in mappings, lists, tuples and the attributes of objects, such as a network's output.

    >>> [len(t) for t in tensors_in((torch.ones(2), {"x": [torch.ones(3)]}))]
    [2, 3]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(part)
    elif hasattr(value, "__dict__"):
        yield from (part for part in vars(value).values() if isinstance(part, Tensor))


def checked(batch: object) -> Batch:
    """The batch, lists as tuples. Raises ValueError if it is neither a mapping nor inputs with a target."""
    if isinstance(batch, list):
        batch = tuple(batch)
    several = isinstance(batch, tuple) and len(batch) > 1
    if isinstance(batch, tuple | Mapping) and next(tensors_in(batch), None) is not None:
        if several or isinstance(batch, Mapping):
            return batch
        raise ValueError(
            f"a batch is a tuple of one tensor, without a target; {KINDS}; if the inputs are the target, as in an "
            "autoencoder, give (x, x)"
        )
    kind = f"a {type(batch).__name__}"
    if isinstance(batch, tuple | Mapping):
        parts = batch.values() if isinstance(batch, Mapping) else batch
        kind += f" of {', '.join(type(part).__name__ for part in parts) or 'nothing'}"
    raise ValueError(f"a batch is {kind}; {KINDS}")


def inputs_of(batch: Batch) -> Inputs:
    """What the network gets: all but the last part of a tuple, or the mapping.

    >>> inputs_of((torch.ones(1), torch.zeros(1)))
    tensor([1.])
    """
    if isinstance(batch, Mapping):
        return batch
    inputs = tuple(batch[:-1])
    return inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Tensor) else inputs


def target_of(batch: Batch) -> Any:
    """What a loss compares the output with: the last part of a tuple, or the whole mapping.

    >>> target_of((torch.ones(1), torch.zeros(1)))
    tensor([0.])
    """
    return batch if isinstance(batch, Mapping) else batch[-1]


def arguments(network: nn.Module, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional arguments and those by name with which the network is called.

    Of a mapping, a network gets what its `forward` has a parameter for, or everything if it takes `**kwargs`. Raises
    ValueError if it takes nothing of the mapping.

    >>> arguments(nn.Linear(1, 1), {"input": 1, "labels": 2})
    ((), {'input': 1})
    """
    if not isinstance(inputs, Mapping):
        return ((inputs,) if isinstance(inputs, Tensor) else tuple(inputs)), {}
    parameters = inspect.signature(network.forward).parameters.values()
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return (), dict(inputs)
    taken = {name: value for name, value in inputs.items() if name in by_name}
    if not taken:
        raise ValueError(
            f"a batch has {', '.join(map(repr, inputs)) or 'nothing'}, but {type(network).__name__}.forward takes "
            f"{', '.join(map(repr, by_name)) or 'nothing by name'}; rename the batch's entries, or give tuples (x, y)"
        )
    return (), taken


def described(inputs: Inputs) -> str:
    """Shapes and types of inputs, for messages.

    >>> described({"x": torch.ones(2, 3)})
    'x [2, 3] of torch.float32'
    """
    if isinstance(inputs, Tensor):
        return f"{list(inputs.shape)} of {inputs.dtype}"
    if isinstance(inputs, Mapping):
        named = {name: part for name, part in inputs.items() if isinstance(part, Tensor)}
        return ", ".join(f"{name} {described(part)}" for name, part in named.items())
    return ", ".join(described(part) for part in tensors_in(inputs))


def examples(batch: Any) -> int:
    """The number of examples: the leading dimension of the first tensor that has one.

    >>> examples({"temperature": torch.tensor(1.0), "x": torch.ones(2, 3)})
    2
    """
    return next((len(t) for t in tensors_in(batch) if t.ndim), 0)


def first(batch: Batch) -> Batch:
    """The first example of a batch, or the whole batch if it cannot be cut."""
    try:
        return cut(batch, 0, 1)
    except ValueError:
        return batch


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """The examples from `start` to `stop`. Raises ValueError, with the reason, for a batch that cannot be cut.

    Tensors are cut along their first dimension, lists of things other than tensors by their items.

    >>> cut((torch.tensor([1, 2, 3]), {"names": ["a", "b", "c"]}), 1, 2)
    (tensor([2]), {'names': ['b']})
    """
    pieces: Batch = _sliced(_as_tuple(batch), start, stop, _count(batch))
    return pieces


def equal_parts(batches: Iterable[Batch], most: int) -> list[Batch]:
    """The examples in parts of at most `most`, whose sizes differ by at most one; different shapes are not mixed.

    >>> batches = [(torch.ones(n, 2), torch.ones(n)) for n in (4, 1)]
    >>> [len(y) for x, y in equal_parts(batches, 3)]
    [3, 2]
    """
    groups: list[list[Batch]] = []
    for batch in map(_as_tuple, batches):
        _count(batch)
        if groups and _form(groups[-1][-1]) == _form(batch):
            groups[-1].append(batch)
        else:
            groups.append([batch])
    parts: list[Batch] = []
    for group in groups:
        whole = _joined(group)
        total = examples(whole)
        number = max(1, -(-total // most))
        size, longer = divmod(total, number)
        start = 0
        for i in range(number):
            stop = start + size + (i < longer)
            parts.append(cut(whole, start, stop))
            start = stop
    return parts


def _as_tuple(batch: Batch) -> Batch:
    """A batch that is a list, as torch's loaders give it, as a tuple; a list within a batch has an item per example."""
    return tuple(batch) if isinstance(batch, list) else batch


def _count(batch: Batch) -> int:
    """The number of examples of a batch. Raises ValueError if its parts have different numbers of them."""
    counts: set[int] = set()
    for tensor in tensors_in(batch):
        if not tensor.ndim:
            raise ValueError(
                f"a batch has a tensor that is a single number, so it cannot be cut into examples; {_CUT}"
            )
        counts.add(len(tensor))
    if len(counts) > 1:
        x, y = (batch[0], batch[-1]) if isinstance(batch, tuple | list) and len(batch) == 2 else (None, None)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            raise ValueError(f"a batch has {len(x)} inputs but classes of {len(y)}; give as many of both")
        raise ValueError(
            f"the tensors of a batch have {' and '.join(map(str, sorted(counts)))} rows, so it cannot be cut into "
            f"examples; {_CUT}"
        )
    return counts.pop() if counts else 0


def _sliced(value: Any, start: int, stop: int, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[start:stop]
    if isinstance(value, Mapping):
        return {name: _sliced(part, start, stop, count) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [_sliced(part, start, stop, count) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if value is None:
        return None
    if isinstance(value, list) and len(value) == count and not any(isinstance(v, Tensor) for v in value):
        return value[start:stop]
    raise ValueError(
        f"a batch of {count} examples has a {type(value).__name__}"
        f"{f' of {len(value)}' if isinstance(value, list) else ''}, so it cannot be cut into examples; {_CUT}"
    )


def _form(value: Any) -> Any:
    """What two batches must share to be joined: names, and shapes without the first dimension."""
    if isinstance(value, Tensor):
        return value.shape[1:]
    if isinstance(value, Mapping):
        return {name: _form(part) for name, part in value.items()}
    return tuple(map(_form, value)) if isinstance(value, tuple) else type(value)


def _joined(values: Sequence[Any]) -> Any:
    """The examples of several batches of one form as one batch."""
    one = values[0]
    if isinstance(one, Tensor):
        return torch.cat(tuple(values))
    if isinstance(one, Mapping):
        return {name: _joined([value[name] for value in values]) for name in one}
    if isinstance(one, tuple):
        parts = [_joined(column) for column in zip(*values, strict=True)]
        return type(one)(*parts) if hasattr(one, "_fields") else tuple(parts)
    return [item for value in values for item in value] if isinstance(one, list) else one
