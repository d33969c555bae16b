"""The blocks of a language model, the linear layers inside them, and running one block after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from winticket.units.layout import layout_of

Watch = Callable[[str, Tensor], None]
"""Takes the name of a linear layer within its block, and what it reads: [tokens, inputs]."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model: `prefix` is their list's name, so that block 3 is `<prefix>.3`."""

    prefix: str
    modules: Sequence[nn.Module]

    def name(self, number: int) -> str:
        """The name of a block within its model."""
        return f"{self.prefix}.{number}"


def find_blocks(model: nn.Module) -> Blocks:
    """The blocks of a decoder: its longest ModuleList, and of equally long ones the one with most parameters.

    Raises ValueError if there is no list, if a block shares parameters with another, or if it has weights of more than
    one axis that belong to no linear layer (such as the stacked experts of a mixture), which no method here can prune.

    >>> find_blocks(nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})).prefix
    'layers'
    """
    lists = {name: one for name, one in model.named_modules() if isinstance(one, nn.ModuleList) and len(one)}
    if not lists:
        raise ValueError(
            f"{type(model).__name__} has no list of blocks (torch.nn.ModuleList) to prune one by one"
        )

    def size(name: str) -> tuple[int, int]:
        return len(lists[name]), sum(p.numel() for p in lists[name].parameters())

    prefix = max(lists, key=size)
    found = Blocks(prefix, list(lists[prefix]))
    seen: set[int] = set()
    for number, block in enumerate(found.modules):
        parameters = {id(one) for one in block.parameters()}
        if parameters & seen:
            raise ValueError(f"block {found.name(number)} shares parameters with another block")
        seen |= parameters
        _check(found.name(number), block)
    return found


def _check(name: str, block: nn.Module) -> None:
    layers = linear_layers(block)
    linear = {id(layer.weight) for layer in layers.values()}
    others = [
        f"{path} {tuple(p.shape)}"
        for path, p in block.named_parameters()
        if p.ndim > 1 and id(p) not in linear
    ]
    if others:
        raise ValueError(
            f"block {name} has weights outside linear layers ({', '.join(others[:3])}), as mixtures of experts do; "
            "only blocks whose matrices are torch.nn.Linear or the Conv1D of Transformers can be pruned"
        )
    if not layers:
        raise ValueError(f"block {name} has no linear layer to prune")


def linear_layers(block: nn.Module) -> dict[str, nn.Module]:
    """The linear layers inside a block by their names in it: torch.nn.Linear, and the Conv1D of Transformers.

    >>> list(linear_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))))
    ['0', '2']
    """
    return {
        name: layer
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear) or (type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"))
    }


def weight_of(layer: nn.Module) -> nn.Parameter:
    """The weight of a linear layer, as it stores it.

    >>> weight_of(nn.Linear(2, 3)).shape
    torch.Size([3, 2])
    """
    return layer.get_parameter("weight")


def matrix(layer: nn.Module) -> Tensor:
    """The weight of a linear layer as [units, inputs]; Conv1D stores it transposed.

    >>> matrix(nn.Linear(2, 3)).shape
    torch.Size([3, 2])
    """
    weight = weight_of(layer).detach()
    return weight.t() if layout_of(layer).inputs_first else weight


def as_stored(layer: nn.Module, values: Tensor) -> Tensor:
    """Values [units, inputs] in the order in which a linear layer stores its weight.

    >>> as_stored(nn.Linear(2, 3), torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """
    return values.t() if layout_of(layer).inputs_first else values


def set_matrix(layer: nn.Module, values: Tensor) -> None:
    """Give a linear layer the weights `values` [units, inputs], in the dtype and order in which it stores them.

    The old tensor stays as it was, since it may be mapped from a file. Raises FloatingPointError if a number is not
    finite in that dtype.

    >>> layer = nn.Linear(2, 1)
    >>> set_matrix(layer, torch.tensor([[3.0, 0.0]]))
    >>> layer.weight.tolist()
    [[3.0, 0.0]]
    """
    weight = weight_of(layer)
    new = as_stored(layer, values).to(weight.dtype).contiguous()
    if not bool(new.isfinite().all()):
        raise FloatingPointError(
            f"weights would not be finite in {str(weight.dtype).removeprefix('torch.')}, in which the model has them"
        )
    weight.data = new


class _Reached(Exception):  # noqa: N818 - not an error: it ends a forward pass that has come far enough
    pass


@dataclass(frozen=True)
class Call:
    """What a block gets beside its hidden states: positions, attention masks and switches."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@torch.no_grad()
def calls(model: nn.Module, blocks: Blocks, windows: Tensor) -> list[Call]:
    """How the model calls each of its blocks, apart from the hidden states. windows: token ids [samples, length].

    Raises ValueError unless each block is called once, in order, with the hidden states that the block before it
    returned, and with other inputs that do not depend on the text; only then can blocks be run one after the other.
    """
    recorded = [_recorded(model, blocks, window[None]) for window in windows[:2]]
    for other in recorded[1:]:
        for number, (one, two) in enumerate(zip(recorded[0], other, strict=True)):
            if not _same((one.args, dict(one.kwargs)), (two.args, dict(two.kwargs))):
                raise ValueError(
                    f"block {blocks.name(number)} takes inputs that depend on the text beside its hidden states, so "
                    "the blocks of this model cannot be pruned one after the other"
                )
    return recorded[0]


def _recorded(model: nn.Module, blocks: Blocks, window: Tensor) -> list[Call]:
    made: list[Call] = []
    order: list[int] = []
    last: list[Tensor] = []

    def before(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden, rest = _parted(args, kwargs)
            # NaN equals itself here: the dtype may be too narrow for the model, and blocks are run in a wider one.
            if last and not _equal(last.pop(), hidden):
                raise ValueError(
                    f"block {blocks.name(number)} does not read what the block before it returns, so the blocks of "
                    "this model cannot be pruned one after the other"
                )
            order.append(number)
            made.append(rest)

        return hook

    def after(_: nn.Module, __: Any, output: Any) -> None:
        last[:] = [_hidden(output)]

    handles = [b.register_forward_pre_hook(before(n), with_kwargs=True) for n, b in enumerate(blocks.modules)]
    handles += [block.register_forward_hook(after) for block in blocks.modules]
    try:
        _trunk(model)(input_ids=window, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if order != list(range(len(blocks.modules))):
        raise ValueError(
            f"the model calls its blocks {blocks.prefix} in the order {order}, not each once in turn"
        )
    return made


def _equal(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and torch.allclose(one, two, rtol=0, atol=0, equal_nan=True)


def _trunk(model: nn.Module) -> nn.Module:
    """The model without its output layer."""
    base = getattr(model, "base_model", model)
    return base if isinstance(base, nn.Module) else model


def _parted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Call]:
    if args:
        return args[0], Call(args[1:], kwargs)
    rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    return kwargs["hidden_states"], Call((), rest)


def _hidden(output: Any) -> Tensor:
    value: Tensor = output[0] if isinstance(output, tuple) else output
    return value


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, Mapping):
        return (
            isinstance(two, Mapping)
            and one.keys() == two.keys()
            and all(_same(v, two[k]) for k, v in one.items())
        )
    if isinstance(one, tuple | list):
        return type(one) is type(two) and len(one) == len(two) and all(map(_same, one, two))
    return True  # switches and configurations: the model sets them, not the text


@torch.no_grad()
def entering(model: nn.Module, blocks: Blocks, windows: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The hidden states that reach the first block, for each window: [1, length, width] in `dtype`."""
    caught: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(_parted(args, kwargs)[0].detach().to(dtype).clone())
        raise _Reached

    handle = blocks.modules[0].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        for window in windows:
            try:
                _trunk(model)(input_ids=window[None], use_cache=False)
            except _Reached:
                continue
    finally:
        handle.remove()
    return caught


@torch.no_grad()
def through(block: nn.Module, hidden: Sequence[Tensor], call: Call) -> Iterator[Tensor]:
    """The block's outputs for each window's hidden states, one after the other: [1, length, width]."""
    dtype = next(iter(hidden)).dtype

    def fitting(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    args, kwargs = (
        tree_map(fitting, call.args),
        {name: tree_map(fitting, v) for name, v in call.kwargs.items()},
    )
    for one in hidden:
        yield _hidden(block(one, *args, **kwargs))


@contextmanager
def watched(block: nn.Module, watch: Watch) -> Iterator[None]:
    """Within, `watch` gets whatever the block's linear layers read: their name in the block, and [tokens, inputs]."""

    def hook(name: str) -> Callable[..., None]:
        return lambda _, args: watch(name, args[0].detach().reshape(-1, args[0].shape[-1]))

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in linear_layers(block).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
