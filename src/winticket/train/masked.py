"""Keep a mask in force inside anybody's training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from winticket.ticket import Mask, Ticket
from winticket.train.parametrized import check_finite
from winticket.train.wrapped import bare, check_ranks, check_whole
from winticket.units import dead_parameters as taken_along


class Optimizer(Protocol):
    """Anything with a `step`."""

    @property
    def step(self) -> Callable[..., Any]: ...


@contextmanager
def masked(
    model: nn.Module, mask: Mask | Ticket, *, optimizer: Optimizer | Sequence[Optimizer] = ()
) -> Iterator[nn.Module]:
    """Within the block, the pruned weights of `model` are exactly 0.

    ```python
    with masked(model, ticket):
        my_loop(model)
    ```
    A ticket is its mask *and* its start: given one, the model's weights and buffers become the ticket's first. Given a
    mask alone, the model keeps the weights it has; freshly drawn ones make it the re-init control, not the ticket.

    The mask is put on at entry, after every step of any `torch.optim` optimiser, before every forward pass
    (which covers optimisers of other makes), before a state dict is taken, and at exit, however the block
    ends. An optimiser of another make given as `optimizer` (or several) is followed after every step as well.
    Names in the state dict stay as they are; nothing of it remains on the model afterwards, and the weights stay
    pruned.

    Under a mask of whole units (every filter or neuron kept whole or not at all) a dead unit is dead: its bias, the
    scale and shift of its BatchNorm and the weights that read it are 0 as well, as far as the model's graph tells, and
    the model computes what it would with those units cut out. Under any other mask biases stay as they are.

    Gradients of pruned weights are exactly 0, so that the norm that clipping looks at is the ticket's own, and moments
    of a fresh optimiser are 0 there. That alone would not do: moments gathered before, and weight decay, move weights
    whose gradient is zero.

    Tensors that `torch.func.functional_call` puts in the place of weights are not the model's, and are left alone; its
    parameters, detached or not, are 0 where they are pruned.

    `model` may be wrapped in DistributedDataParallel, by torch.compile, or an AveragedModel; names are those of the
    model within. Ranks of a DDP model compare what they were given, so all have to enter.

    Models can be exported and traced within the block (`torch.export`, `torch.onnx.export`, `torch.jit.trace`); what
    is exported has the zeros and nothing of the mask's hooks.

    Raises ValueError, before the first step, where mask and model disagree about a layer, ranks about the mask, where
    the model's weights are cut up over processes (FSDP, DeepSpeed, tensor parallelism), where the model is within a
    block that changes its mask or learns it, or where a mask leaves nothing of a weight-normed unit. RuntimeError if a
    masked parameter is renamed or replaced within the block. RuntimeWarning if something other than an optimiser wrote
    to pruned weights after the last step, such as averaged weights that began dense; they are 0 again.
    """
    if not isinstance(mask, Mask | Ticket):
        raise TypeError(f"masked() takes a Ticket or a Mask, not a {type(mask).__name__}")
    with claimed(model, alone=False), in_force(model, mask, optimizer=optimizer) as rule:
        yield model
    warn_of_overwritten(rule, stacklevel=_CALLER)


_CALLER = 3  # of the `with` statement, through contextlib


@contextmanager
def claimed(model: nn.Module, *, alone: bool) -> Iterator[None]:
    """Within the block a mask of `model` is seen to; `alone` says that no other block can see to one as well.

    ValueError where the two would meet on a parameter.
    """
    parameters = list(bare(model).parameters())
    own = {id(p) for p in parameters}
    for other, held in _claims:
        if (alone or other) and any(id(p) in own for p in held):
            raise ValueError(
                "the model is within another block that keeps a mask on it, and only one of the two could hold: a mask "
                "that changes or is learned is the model's only one; leave that block first (after a training of "
                "Transformers' that was broken off: close() the LotteryTicket)"
            )
    claim = (alone, parameters)
    _claims.append(claim)
    try:
        yield
    finally:
        _claims[:] = [held for held in _claims if held is not claim]


_claims: list[tuple[bool, list[nn.Parameter]]] = []


@contextmanager
def in_force(
    model: nn.Module, mask: Mask | Ticket, *, optimizer: Optimizer | Sequence[Optimizer] = ()
) -> Iterator[Rule]:
    """Within the block, what `masked` says; the rule given can take another mask and see dense gradients.

    After a block that ended without an exception, `rule.overwritten` says what `warn_of_overwritten` warns of.
    """
    check_whole(model)
    check_ranks(model, mask)
    whole, model = model, bare(model)
    if isinstance(mask, Ticket):
        mask.load_into(model)
        mask = mask.mask
    _check(model, mask)
    check_finite(model, mask)
    rule = Rule(model, mask)
    with ExitStack() as stack:
        stack.callback(rule.end)
        stack.callback(rule.zero_what_is_left)
        rule()
        handles = [register_optimizer_step_post_hook(rule), model.register_forward_pre_hook(rule)]
        if (
            whole is not model
        ):  # what torch.compile made before the block does not see hooks of the model within
            handles.append(whole.register_forward_pre_hook(rule))
        # A state dict may be taken of a part: every module that holds a masked weight looks after it.
        parameters = dict(model.named_parameters())
        for owner in {"", *_holders(model, [parameters[name] for name in rule.pruned])}:
            before_state_dict: Callable[..., RemovableHandle] = model.get_submodule(
                owner
            ).register_state_dict_pre_hook
            handles.append(before_state_dict(rule.settle))
        for handle in handles:
            stack.callback(handle.remove)
        for other in of_another_make(optimizer):
            stack.callback(follow(other, rule))
        yield rule
        rule.settle()


def warn_of_overwritten(rule: Rule, *, stacklevel: int) -> None:
    """RuntimeWarning, at the caller's `stacklevel`, if dense weights had been written over the pruned ones."""
    if rule.overwritten:
        counts = ", ".join(f"{count} of {name}" for name, count in rule.overwritten.items())
        warnings.warn(
            f"pruned weights were not 0 after the last step ({counts}), and no optimiser had moved them; they are "
            "0 again. Averages that began before the mask are dense: begin them within the block, or put them at the "
            "level's start with level.reset(average); load checkpoints before the training. Name an optimiser that "
            "does not derive from torch.optim.Optimizer (optimizer=...)",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )


def of_another_make(optimizer: Optimizer | Sequence[Optimizer]) -> list[Optimizer]:
    """Those that are no `torch.optim.Optimizer`, whose steps have no hooks."""
    given = optimizer if isinstance(optimizer, Sequence) else [optimizer]
    return [one for one in given if not isinstance(one, torch.optim.Optimizer)]


def _check(model: nn.Module, mask: Mask) -> None:
    parameters = dict(model.named_parameters())
    for name, keep in mask.keep.items():
        if name not in parameters:
            raise ValueError(
                f"the mask has a layer {name!r} that the model lacks; it has {', '.join(parameters)}"
            )
        if parameters[name].shape != keep.shape:
            given, own = tuple(keep.shape), tuple(parameters[name].shape)
            raise ValueError(f"the mask of {name!r} has shape {given}, the model's weight {own}")


def _holders(model: nn.Module, weights: Sequence[Tensor]) -> set[str]:
    """The modules that hold one of these weights, which may be tied."""
    wanted = {id(weight) for weight in weights}
    return {
        name
        for name, module in model.named_modules()
        if any(id(p) in wanted for p in module.parameters(recurse=False))
    }


def follow(optimizer: Optimizer, rule: Callable[..., None]) -> Callable[[], None]:
    """Have the rule follow every step. Returns what undoes that."""
    own = vars(optimizer).get("step")

    def undo() -> None:
        if own is None:
            del vars(optimizer)["step"]
        else:
            vars(optimizer)["step"] = own

    vars(optimizer)["step"] = Followed(optimizer, optimizer.step, rule)
    return undo


@dataclass(frozen=True, eq=False)
class Followed:
    """A step of `optimizer`, and what follows it."""

    optimizer: Optimizer
    step: Callable[..., Any]
    rule: Callable[..., None]

    def __call__(self, *given: Any, **named: Any) -> Any:
        result = self.step(*given, **named)
        self.rule()
        return result


def pruned_of(model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """What is to be 0: pruned weights and, under a mask of whole units, what goes with dead ones."""
    dead = taken_along(model, mask)
    pruned = {
        name: ~keep | dead.pop(name).to(keep.device) if name in dead else ~keep
        for name, keep in mask.keep.items()
    }
    return {**pruned, **dead}


class Rule:
    """Zero the `pruned` weights of `model` as it is now, and their gradients as they arise.

    Its parameters may have moved or been replaced since the last time; tensors that stand in for them are let be. While
    `recording`, the gradients are kept in `seen` before they are zeroed: of whole weights, those that are added to
    `.grad`, summed over the backward passes since gradients were reset. `overwritten` counts pruned weights that were
    not 0 when the network was looked at (a state dict, the end of the block), if no gradient had arrived since they
    were last zeroed, so that no optimiser can have moved them.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        self.model, self.pruned = model, pruned_of(model, mask)
        self.recording = False
        self.seen: dict[str, Tensor] = {}
        self.arrived: dict[str, Tensor] = {}
        self.nodes: dict[str, tuple[Node, RemovableHandle]] = {}
        self.watched: dict[str, tuple[nn.Parameter, RemovableHandle]] = {}
        self.masked: dict[str, nn.Parameter] = {}
        self.overwritten: dict[str, int] = {}
        self.gradient_arrived = False

    def __call__(self, *_: Any, **__: Any) -> None:
        # What is exported has the weights, masked as they are, and no use for the mask.
        if not torch.compiler.is_exporting() and not torch._C._get_tracing_state():
            self._zero()

    @torch.no_grad()
    def _zero(self) -> None:
        compiling = torch.compiler.is_compiling()
        if not compiling:
            self.overwritten.clear()
            self.gradient_arrived = False
        for name, weight, gone in self._weights():
            # Past autograd's count of versions: a second forward pass before the backward pass writes zeros
            # over zeros, and the first one's saved weights are still good.
            weight.data.masked_fill_(gone, 0)
            if not compiling:
                self.masked[name] = weight
                self._watch(name, weight)

    @torch.no_grad()
    def settle(self, *_: Any, **__: Any) -> None:
        """Zero the pruned weights before they are looked at, and count those that no optimiser can have moved."""
        by_optimizer, self.gradient_arrived = self.gradient_arrived, False
        for name, weight, gone in self._weights():
            if not by_optimizer and (count := int((gone & (weight.data != 0)).sum())):
                self.overwritten[name] = max(count, self.overwritten.get(name, 0))
            weight.data.masked_fill_(gone, 0)

    @torch.no_grad()
    def zero_what_is_left(self) -> None:
        """Zero the pruned weights of the parameters that still have their names."""
        for name, weight, gone in self._weights(whole=False):
            weight.data.masked_fill_(gone, 0)
            self.masked[name] = weight

    def _weights(self, *, whole: bool = True) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
        """Names, parameters and what is pruned of them; RuntimeError, if `whole`, for a parameter that is gone."""
        parameters: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        for name, gone in self.pruned.items():
            weight = parameters.get(name)
            if weight is not None and not isinstance(weight, nn.Parameter):
                continue  # put there by functional_call, for one forward pass: another's tensor
            if weight is None or weight.shape != gone.shape:
                if whole:
                    raise RuntimeError(self._lost(name, weight, parameters))
                continue
            if gone.device != weight.device:
                gone = self.pruned[name] = gone.to(weight.device)  # noqa: PLW2901
            yield name, weight, gone

    def _lost(self, name: str, weight: Tensor | None, parameters: Mapping[str, Tensor]) -> str:
        advice = (
            "change layers (LoRA, weight_norm, new heads) before the block, and make the ticket or mask of the model "
            "as it is then"
        )
        if weight is not None:
            now, then = tuple(weight.shape), tuple(self.pruned[name].shape)
            return f"the masked parameter {name!r} was replaced by one of shape {now}, its mask has {then}; {advice}"
        moved = [other for other, p in parameters.items() if p is self.masked.get(name)]
        where = f"it is now {moved[0]!r}" if moved else "nothing has its place"
        return (
            f"the model has no parameter {name!r} any more, which is masked by that name ({where}); {advice}"
        )

    def _watch(self, name: str, weight: nn.Parameter) -> None:
        """A hook of the weight itself runs before its gradient is added up, so before DDP sends it, too."""
        if not weight.requires_grad:
            return
        before = self.watched.get(name)
        if before is None or before[0] is not weight:
            if before is not None:
                before[1].remove()

            def without_pruned(gradient: Tensor) -> Tensor:
                self.gradient_arrived = True
                if self.recording:
                    self.arrived[name] = gradient.detach()
                return gradient.masked_fill(self.pruned[name].to(gradient.device), 0)

            watch: Callable[..., RemovableHandle] = weight.register_hook
            self.watched[name] = (weight, watch(without_pruned))
        if self.recording:
            self._take_in(name, weight)

    def _take_in(self, name: str, weight: nn.Parameter) -> None:
        """Record what has arrived once it goes to `.grad`; `torch.autograd.grad` runs the weight's hooks as well."""
        node = get_gradient_edge(weight).node
        before = self.nodes.get(name)
        if before is not None:
            if before[0] is node:
                return
            before[1].remove()

        def added(_: Any) -> None:
            gone = self.pruned[name].to(weight.device)
            self._record(name, self.arrived.pop(name), so_far=weight.grad, gone=gone)

        # Held here, or it would go with the graph, and the hook with it; a weight that moves has another.
        self.nodes[name] = (node, node.register_prehook(added))

    def record(self, recording: bool) -> None:
        """From now on, or no longer; what was seen is forgotten."""
        self.recording = recording
        self.seen.clear()
        self.arrived.clear()
        if recording:
            for name, (weight, _) in list(self.watched.items()):
                self._watch(name, weight)
        else:
            for _, handle in self.nodes.values():
                handle.remove()
            self.nodes.clear()

    @torch.no_grad()
    def _record(self, name: str, gradient: Tensor, *, so_far: Tensor | None, gone: Tensor) -> None:
        before = self.seen.get(name)
        # What the weight has gathered says whether this backward pass is the first since gradients were reset: in a
        # step that a GradScaler left out, or that a closure repeats, there were others, which do not count.
        if (
            before is not None
            and so_far is not None
            and (bool(so_far.any()) or not bool(before.masked_fill(gone, 0).any()))
        ):
            self.seen[name] = before + gradient
        else:
            self.seen[name] = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True)

    def replace(self, mask: Mask) -> None:
        """Another mask over the same weights, from now on."""
        check_finite(self.model, mask)
        pruned = pruned_of(self.model, mask)
        for name, before in self.pruned.items():  # what dead units took along may be free again
            pruned.setdefault(name, torch.zeros_like(before))
        self.pruned.update(pruned)
        self()

    def end(self) -> None:
        self.record(False)
        for _, handle in self.watched.values():
            handle.remove()
        self.watched.clear()
        self.masked.clear()
        self.pruned.clear()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[nn.Module, Mask]]:
        """A copy of the model, or what is read back from a file, has hooks that do nothing."""
        return Rule, (nn.Module(), Mask({}))
