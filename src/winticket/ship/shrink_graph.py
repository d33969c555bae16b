"""A module's graph for shrinking: traced, cleaned, and evaluated exactly (in float64) value by value."""

from __future__ import annotations

import copy
import inspect
import itertools
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import CodeGen
from torch.utils._pytree import tree_leaves

from winticket.trouble import of_the_machine

Values = dict[fx.Node, Any]
"""What each node of a graph computes."""

_TORCH = Path(torch.__file__).parent
_ASSERTS = ("_assert", "_assert_is_none")
_DROPOUTS = {
    "dropout": nn.Dropout,
    "dropout1d": nn.Dropout1d,
    "dropout2d": nn.Dropout2d,
    "dropout3d": nn.Dropout3d,
    "alpha_dropout": nn.AlphaDropout,
    "feature_alpha_dropout": nn.FeatureAlphaDropout,
}
_NARROWER = {"float", "half", "bfloat16"}


def graph_of(module: nn.Module) -> fx.Graph:
    """The graph of `module`, whose layers of `torch.nn` are nodes. Arguments that default to None or a bool keep it.

    Raises ValueError, naming the line of the user's code, if the module cannot be traced.

    >>> [node.op for node in graph_of(nn.Sequential(nn.ReLU())).nodes]
    ['placeholder', 'call_module', 'output']
    """
    parameters = inspect.signature(type(module).forward).parameters
    fixed = {n: p.default for n, p in parameters.items() if p.default is None or isinstance(p.default, bool)}
    try:
        graph = fx.Tracer().trace(module, concrete_args=fixed or None)
    except Exception as error:
        if of_the_machine(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"{type(module).__name__} cannot be traced{_line_of(error)}: {type(error).__name__}: {first}; compact() "
            "reads the graph of the network, so forward must not branch on the values of tensors, nor make new "
            "tensors of their sizes"
        ) from error
    if fixed:
        _without_fixed(graph)
    return graph


def _line_of(error: Exception) -> str:
    """The last line outside PyTorch that led to the error, as " at FILE:LINE (CODE)"."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _TORCH not in Path(f.filename).parents]
    users = [f for f in frames if Path(f.filename) != Path(__file__)]
    return f" at {users[-1].filename}:{users[-1].lineno} ({users[-1].line})" if users else ""


def _without_fixed(graph: fx.Graph) -> None:
    """Remove arguments that were fixed while tracing, with the checks that they still have that value."""
    for node in reversed(graph.nodes):
        name = getattr(node.target, "__name__", "")
        checked = node.op == "call_function" and (name in _ASSERTS or name == "eq")
        if not node.users and (checked or (node.op == "placeholder" and node.args)):
            graph.erase_node(node)
    graph.set_codegen(CodeGen())


def with_dropout(module: nn.Module, graph: fx.Graph) -> str:
    """Turn functional dropout, which a graph traced in evaluation has switched off for good, into layers.

    Changes `module` and `graph` in place. Returns what a reader has to know; empty if nothing depends on the mode.
    """
    trained = graph_of(copy.deepcopy(module).train())
    pairs = list(itertools.zip_longest(graph.nodes, trained.nodes))
    if any(a is None or b is None or (a.op, a.target) != (b.op, b.target) for a, b in pairs):
        return "Its forward computes otherwise in training mode; the compact network always computes as in evaluation."
    for node, other in pairs:
        name = getattr(node.target, "__name__", "")
        if name not in _DROPOUTS or node.op != "call_function" or _training(node) or not _training(other):
            continue
        path = unused(module, name)
        layer = _DROPOUTS[name](node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5))
        module.add_module(path, layer.eval())
        with graph.inserting_before(node):
            replacement = graph.call_module(path, (node.args[0],))
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
    return ""


def _training(node: fx.Node) -> bool:
    return bool(node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True))


def unused(module: nn.Module, name: str) -> str:
    """`name`, or with a number if the module has such an attribute already."""
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
    return next(n for n in names if not hasattr(module, n))


class _Exact(fx.Interpreter):
    """Runs a graph in float64 and keeps a copy of what every node computes."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.values: Values = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        # A copy, because a later operation may work in place.
        self.values[n] = result.detach().clone() if isinstance(result, Tensor) else result
        return result

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in _NARROWER:
            target, args, kwargs = "double", args[:1], {}
        elif target == "to":
            args = tuple(torch.float64 if _floating(a) else a for a in args)
            kwargs = {n: torch.float64 if _floating(a) else a for n, a in kwargs.items()}
        return super().call_method(target, args, kwargs)


def _floating(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value.is_floating_point


def exact(module: nn.Module, graph: fx.Graph, inputs: Sequence[Tensor]) -> Values:
    """What each node computes for `inputs`. `module` has to be in float64 already.

    Raises ValueError if the network does not take the inputs.
    """
    run = _Exact(module, graph)
    try:
        with torch.no_grad():
            run.run(*inputs)
    except Exception as error:
        if of_the_machine(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(
            f"the network does not take examples of shape {shapes} in float64: {type(error).__name__}: {first}; give "
            "compact() a batch as the network takes it: example=x, or a tuple of its arguments"
        ) from error
    return run.values


def outputs(values: Values) -> list[Tensor]:
    """The tensors that a network returns."""
    (value,) = [value for node, value in values.items() if node.op == "output"]
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def gap(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The largest difference between two networks' outputs, relative to the largest value of the first.

    >>> gap([torch.tensor([2.0, 4.0])], [torch.tensor([2.0, 3.0])])
    0.25
    """
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return float("inf")
        if x.numel():
            size = float(x.abs().max())
            worst = max(worst, float((x - y).abs().max()) / (size or 1.0))
    return worst
