"""The kept weights that can have an effect: all but those into hidden units whose output no kept weight reads.

The gradient by the weights into such a unit is exactly 0, so the products can skip them without changing any number.
This is known only along chains of layers that are joined by functions that keep units apart, since there the outputs of
one layer are, one by one, the inputs of the next. Elsewhere every kept weight counts as live. So does a weight before a
BatchNorm, which reads the unit for its running statistics; those are saved with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from winticket.trouble import of_the_machine

_UNITWISE_MODULES = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Dropout,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
)
_UNITWISE_FUNCTIONS = (
    torch.relu,
    torch.tanh,
    torch.sigmoid,
    nn.functional.relu,
    nn.functional.gelu,
    nn.functional.silu,
    nn.functional.leaky_relu,
    nn.functional.dropout,
    nn.functional.max_pool2d,
    nn.functional.avg_pool2d,
)
_UNITWISE_METHODS = ("relu", "relu_", "tanh", "sigmoid")

_chains: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()


def live(module: nn.Module, keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of masks `keep` [S, out, in, ...] (of some of the layers) that can have an effect."""
    effective = dict(keep)
    chain = following(module)
    for name, after in reversed(chain.items()):  # later layers first
        if name in keep and after in keep:
            reader = effective[after]
            read = reader.flatten(3).any(-1) if reader.ndim > 3 else reader
            used = read.any(1)  # [S, units]
            effective[name] = effective[name] & used.view(*used.shape, *[1] * (keep[name].ndim - 2))
    return effective


def following(module: nn.Module) -> dict[str, str]:
    """Each weight whose units exactly one layer reads, one by one -> that layer's weight; in forward order."""
    if module not in _chains:
        _chains[module] = _traced(module)
    return _chains[module]


def _traced(module: nn.Module) -> dict[str, str]:
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:  # a module that cannot be traced keeps all its weights
        if of_the_machine(error):
            raise
        return {}
    modules = dict(module.named_modules())
    times: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            times[str(node.target)] = times.get(str(node.target), 0) + 1
    chain = {}
    for node in graph.nodes:
        if not _is_layer(node, modules) or times[str(node.target)] > 1:
            continue
        after = _only_reader(node)
        while after is not None and _unitwise(after, modules):
            after = _only_reader(after)
        if after is None or not _is_layer(after, modules) or times[str(after.target)] > 1:
            continue
        if type(modules[str(after.target)]) is type(modules[str(node.target)]):
            chain[f"{node.target}.weight"] = f"{after.target}.weight"
    return chain


def _is_layer(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op != "call_module":
        return False
    layer = modules[str(node.target)]
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _unitwise(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _UNITWISE_MODULES)
    if node.op == "call_function":
        return node.target in _UNITWISE_FUNCTIONS
    return node.op == "call_method" and node.target in _UNITWISE_METHODS
