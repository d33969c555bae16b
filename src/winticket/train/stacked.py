"""One network's loss and gradient, lifted to a stack of replicates and recorded as a flat list of operators.

`torch.func` defines the computation: `vmap(grad_and_value(loss))` over parameters and buffers with a leading replicate
dimension. Its dispatch costs more than the arithmetic of a small network, so the call is traced once per shape
(`make_fx`) into a list of operators, and afterwards only those run. As a consequence, the Python code of a module's
`forward` runs once per shape, as under `torch.jit.trace`. A branch on the *values* of tensors cannot be traced, so a
module with one runs untraced.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._guards import TracingContext, tracing
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad_and_value, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from winticket.objective import LossAndMetric
from winticket.sparse import Factors, Names, SparseConv2d, batch_last, chain_of, loss_and_correct, missing
from winticket.sparse import cross_entropy as compiled_loss
from winticket.train.lowered import Cut, Lowered
from winticket.train.precision import Precision
from winticket.train.simplify import form, simplify
from winticket.trouble import of_the_machine

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Lifted:
    """A function over a stack, and how it is computed."""

    call: Callable[..., Any]
    stacked: bool
    traced: bool
    reason: str
    batch_last: bool = False
    """True if `call` expects x as `sparse.batch_last` lays it out: [S, B, features], the batch innermost in memory."""
    chain: tuple[Names, ...] = ()
    """The links, if the trace is nothing but a chain of sparse layers, which `train.chain` computes as a whole."""
    lowered: Lowered = field(default_factory=Lowered)
    """The weights of which `call` reads bfloat16 copies, and those whose gradients it returns in bfloat16."""


_lifted: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Lifted]] = WeakKeyDictionary()


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Per-example cross-entropy [B] of logits [B, K] against classes y [B]."""
    return -torch.log_softmax(logits, -1).gather(-1, y.unsqueeze(-1)).squeeze(-1)


def in_a_row(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [answers, K] and classes [answers], for any number of answers per example."""
    return (logits.flatten(0, -2), y.flatten()) if y.ndim > 1 else (logits, y)


def _for_kernel(logits: Tensor) -> bool:
    """True if the compiled loss supports these logits [B, K]."""
    supported = logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.float64)
    return supported and logits.ndim == 2 and not missing


def gradients(
    module: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    x: Tensor,
    y: Tensor,
    *,
    how: str,
    objective: LossAndMetric | None = None,
    precision: Precision = "float32",
    copies: bool = False,
    halves: bool = False,
    factors: bool = False,
) -> Lifted:
    """The gradient of the objective's loss for these shapes (None: of the mean cross-entropy).

    `how` is a recipe's `stacking`.

    In bf16, the caller can hold `copies` of weights in bfloat16 for the call to read; take `halves`: gradients in
    bfloat16; and of these take `factors` (`sparse.Factors`) where a product makes them. `lowered` says for which.
    """

    def loss(weights: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            logits = functional_call(module, (dict(weights), dict(buffers)), (x,))
        if precision == "bf16":
            logits = logits.float()
        if objective is not None:
            return objective.loss(logits, y)
        logits, y = in_a_row(logits, y)
        return compiled_loss(logits, y) if _for_kernel(logits) else cross_entropy(logits, y).mean()

    name = "gradients" if precision == "float32" else f"gradients in {precision}"
    if objective is not None:
        name += f" of {objective.key}"
    cut: Cut | None = None
    if copies and precision == "bf16":
        cut = Cut(tuple(weights), halves, halves and factors)
        name += f", {cut}"
    return _lift(module, name, grad_and_value(loss), (weights, buffers, x, y), (0, 0, 0, 0), how=how, cut=cut)


def evaluation(
    module: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    x: Tensor,
    y: Tensor,
    *,
    how: str,
    per_replicate: bool = False,
) -> Lifted:
    """The summed loss (float64) [S] and the number of correct answers [S] for these shapes.

    The replicates share x [N, ...] and y; with `per_replicate`, both have a leading dimension for the stack.
    """

    def evaluate(weights: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # A copy: x is the dataset's tensor, and a module may write to its input.
        logits = functional_call(module, (dict(weights), dict(buffers)), (x.clone(),))
        logits, y = in_a_row(logits, y)
        if _for_kernel(logits):
            return loss_and_correct(logits, y)
        return cross_entropy(logits, y).sum(dtype=torch.float64), (logits.argmax(-1) == y).sum()

    lead = 0 if per_replicate else None
    return _lift(module, "evaluation", evaluate, (weights, buffers, x, y), (0, 0, lead, lead), how=how)


def outputs(
    module: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    x: Tensor,
    y: Tensor,
    *,
    how: str,
    objective: LossAndMetric,
    per_replicate: bool = False,
) -> Lifted:
    """The objective's mean loss [S] and the outputs [S, N, ...] for these shapes; arguments as for `evaluation`."""

    def compute(weights: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        computed = functional_call(module, (dict(weights), dict(buffers)), (x.clone(),))
        return objective.loss(computed, y), computed

    lead = 0 if per_replicate else None
    name = f"outputs for {objective.key}"
    return _lift(module, name, compute, (weights, buffers, x, y), (0, 0, lead, lead), how=how)


def _lift(
    module: nn.Module,
    name: str,
    one: Callable[..., Any],
    example: tuple[Tensors, Tensors, Tensor, Tensor],
    dims: tuple[int | None, ...],
    *,
    how: str,
    cut: Cut | None = None,
) -> Lifted:
    weights, buffers, x, y = example
    shapes = tuple((k, tuple(v.shape), v.dtype) for k, v in {**weights, **buffers}.items())
    key = (name, how, dims, module.training, shapes, x.shape, x.stride(), x.dtype, y.shape, x.device)
    lifted = _lifted.setdefault(module, {})
    if key not in lifted:
        lifted[key] = _choose(module, name, one, example, dims, how=how, cut=cut)
    return lifted[key]


def _choose(
    module: nn.Module,
    name: str,
    one: Callable[..., Any],
    example: tuple[Tensors, Tensors, Tensor, Tensor],
    dims: tuple[int | None, ...],
    *,
    how: str,
    cut: Cut | None,
) -> Lifted:
    reason = _against_stacking(module, example[2].device, how)
    if not reason:
        lifted = vmap(one, in_dims=dims, randomness="different")
        try:
            call, graph, lowered = _trace(lifted, example, cut)
            laid = name.startswith("gradients") and _wants_batch_last(graph)
            chain = chain_of(graph.graph, [*example[0], *example[1]])
            return Lifted(call, True, True, "", batch_last=laid, chain=chain, lowered=lowered)
        except Exception as untraceable:  # a user's module may raise anything; the next way is tried
            if of_the_machine(untraceable):
                raise
            reason = _first_line(untraceable)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="There is a performance drop")
                lifted(*_copies(example))
            return Lifted(lifted, stacked=True, traced=False, reason=f"not traced: {reason}")
        except Exception as unstackable:
            if of_the_machine(unstackable):
                raise
            reason = f"cannot be stacked: {_first_line(unstackable)}"
            if how == "stacked":
                raise ValueError(f"stacking is 'stacked', but this module {reason}") from unstackable
    first = tuple(_select(a, 0) if d == 0 else a for a, d in zip(example, dims, strict=True))
    try:
        single, _, lowered = _trace(one, first, replace(cut, factors=False) if cut else None)
        traced = True
    except Exception as untraceable:
        if of_the_machine(untraceable):
            raise
        single, traced, reason = one, False, f"{reason}; not traced: {_first_line(untraceable)}"
        lowered = Lowered()
    call = _one_by_one(single, dims)
    return Lifted(call, stacked=False, traced=traced, reason=reason, lowered=lowered)


def may_stack(module: nn.Module, device: torch.device, how: str) -> bool:
    """True if training will try to compute the replicates together; `how` is a recipe's `stacking`.

    >>> may_stack(nn.Linear(4, 2), torch.device("cpu"), "auto")
    True
    >>> may_stack(nn.Conv2d(1, 2, 3), torch.device("cpu"), "auto")  # grouped convolutions are slow on a CPU
    False
    """
    return not _against_stacking(module, device, how)


def _against_stacking(module: nn.Module, device: torch.device, how: str) -> str:
    """The reason not to compute the replicates together; empty if there is none."""
    if how == "one by one":
        return "the recipe says so"
    convolutions = any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in module.modules())
    if how == "auto" and convolutions and device.type == "cpu":
        return "stacked convolutions become grouped ones, which are slower on a CPU"
    return ""


def channels_last(module: nn.Module, x: Tensor, how: str) -> Tensor:
    """Images x [..., C, H, W], with the channels innermost in memory if that makes `module`'s convolutions faster.

    It makes dense convolutions of one network at a time faster by a tenth to a half. Sparse ones read whole channels.
    """
    kinds = {type(layer) for layer in module.modules()}
    if x.ndim < 4 or nn.Conv2d not in kinds or SparseConv2d in kinds or may_stack(module, x.device, how):
        return x
    if x.device.type == "cpu" and any(_overruns(layer) for layer in module.modules()):
        return x
    return x.flatten(0, -4).contiguous(memory_format=torch.channels_last).view(x.shape)


VECTOR = 16  # float32 in the widest vectors of a CPU


def _overruns(layer: nn.Module) -> bool:
    """True if oneDNN's gradient by this layer's weight would write past its buffer when channels are innermost.

    It does so for strided 1x1 kernels with fewer channels than a vector holds (seen in torch 2.13.0).
    """
    if not isinstance(layer, nn.Conv2d):
        return False
    narrow = layer.in_channels // layer.groups < VECTOR
    return narrow and layer.kernel_size == (1, 1) and max(layer.stride) > 1


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:200]}"


def _select(value: Any, index: int) -> Any:
    return {k: v[index] for k, v in value.items()} if isinstance(value, Mapping) else value[index]


def _copies(example: tuple[Any, ...]) -> tuple[Any, ...]:
    """Clones, since a module (BatchNorm, say) may write to the tensors that it receives."""
    return tuple(
        {k: v.clone() for k, v in a.items()} if isinstance(a, Mapping) else a.clone() for a in example
    )


def _one_by_one(single: Callable[..., Any], dims: tuple[int | None, ...]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        count = len(next(iter(arguments[0].values())))
        results = [
            single(*(_select(a, i) if d == 0 else a for a, d in zip(arguments, dims, strict=True)))
            for i in range(count)
        ]
        return tuple(_join(parts) for parts in zip(*results, strict=True))

    return call


def _join(parts: tuple[Any, ...]) -> Any:
    if isinstance(parts[0], Mapping):
        return {k: torch.stack([p[k] for p in parts]) for k in parts[0]}
    return torch.stack(parts)


def _trace(
    function: Callable[..., Any], example: tuple[Any, ...], cut: Cut | None = None
) -> tuple[Callable[..., Any], GraphModule, Lowered]:
    """`function` as its operators alone, without what `cut` cuts out.

    It is traced over a flat list of tensors, since walking nested arguments would cost time at every call.
    """
    leaves, inner = tree_flatten(_copies(example))
    outer: list[TreeSpec] = []

    def flat(*leaves: Tensor) -> list[Tensor]:
        results, spec = tree_flatten(function(*tree_unflatten(leaves, inner)))
        outer.append(spec)
        return results

    # make_fx notes the form of every value as a fake tensor and, unless it finds a mode for them, creates one for each,
    # which holds the whole call stack: a third to a half of the time of tracing.
    described = TracingContext(FakeTensorMode(allow_fallback_kernels=True))
    with warnings.catch_warnings(), tracing(described):
        # Without a batching rule for an operator, vmap loops over the replicates, slower than one by one.
        warnings.filterwarnings("error", message="There is a performance drop")
        graph = make_fx(flat, tracing_mode="real")(*leaves)
    _refuse_shapes_from_values(graph)
    lowered = cut.casts(graph) if cut else Lowered()
    simplify(graph)
    if cut:
        lowered = cut.products(graph, lowered)

    def call(*arguments: Any) -> Any:
        tensors = [leaf for a in arguments for leaf in (a.values() if isinstance(a, Mapping) else (a,))]
        results = graph.forward(*tensors)
        if not lowered.factors:
            return tree_unflatten(results, outer[0])
        whole = len(results) - len(lowered.factors)
        gradients, loss = tree_unflatten(results[:whole], outer[0])
        for name, x in zip(lowered.factors, results[whole:], strict=True):
            gradients[name] = Factors(gradients[name], x)
        return gradients, loss

    return call, graph, lowered


def _wants_batch_last(graph: GraphModule) -> bool:
    """True if the graph only lays x out batch-last. The layout is then removed: whoever supplies x does it instead."""
    x = [node for node in graph.graph.nodes if node.op == "placeholder"][-2]
    aten = torch.ops.aten
    flat = laid = x
    while laid.target is not batch_last:
        if len(laid.users) != 1:
            return False
        flat, laid = laid, next(iter(laid.users))
        if laid.target not in (batch_last, aten.view.default, aten.reshape.default):
            return False
    before, after = form(x), form(flat)
    if before is None or after is None or before[1][:2] != after[1][:2] or len(after[1]) != 3:
        return False
    laid.replace_all_uses_with(x)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return True


def _refuse_shapes_from_values(graph: GraphModule) -> None:
    """Raise ValueError if a shape depends on values: the trace would hold the first batch's sizes as constants."""
    for node in graph.graph.nodes:
        operator = node.target
        if not isinstance(operator, OpOverload) or torch.Tag.dynamic_output_shape not in operator.tags:
            continue
        by_position = operator is torch.ops.aten.index.Tensor and not any(
            i is not None and i.meta["val"].dtype in (torch.bool, torch.uint8) for i in node.args[1]
        )
        if not by_position:
            raise ValueError(f"the shape of the result of {operator} depends on values")
