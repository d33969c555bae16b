"""The hooks that keep a mask in force on a model: pruned weights are 0, and so are their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from winticket.loops.parametrized import check_finite
from winticket.ticket import Mask
from winticket.units import dead_parameters


class Optimizer(Protocol):
    """Anything with a `step`."""

    @property
    def step(self) -> Callable[..., Any]: ...


def without_hooks(optimizer: Optimizer | Sequence[Optimizer]) -> list[Optimizer]:
    """Those optimisers that do not derive from `torch.optim.Optimizer`, so that no hook sees their steps."""
    optimizers = optimizer if isinstance(optimizer, Sequence) else [optimizer]
    return [one for one in optimizers if not isinstance(one, torch.optim.Optimizer)]


def follow(optimizer: Optimizer, hook: Callable[..., None]) -> Callable[[], None]:
    """Call `hook` after every step of `optimizer`. Returns the function that undoes this."""
    replaced = vars(optimizer).get("step")

    def undo() -> None:
        if replaced is None:
            del vars(optimizer)["step"]
        else:
            vars(optimizer)["step"] = replaced

    vars(optimizer)["step"] = Followed(optimizer, optimizer.step, hook)
    return undo


@dataclass(frozen=True, eq=False)
class Followed:
    """A step of `optimizer`, and the hook that follows it."""

    optimizer: Optimizer
    step: Callable[..., Any]
    hook: Callable[..., None]

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        result = self.step(*inputs, **options)
        self.hook()
        return result


def pruned_of(model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """True for every entry that has to be 0: pruned weights and, under a mask of whole units, what dies with them."""
    dead = dead_parameters(model, mask)
    pruned = {
        name: ~keep | dead.pop(name).to(keep.device) if name in dead else ~keep
        for name, keep in mask.keep.items()
    }
    return {**pruned, **dead}


class MaskHooks:
    """Zero the `pruned` weights of `model` as it is now, and their gradients as they arise.

    The model's parameters may have moved or been replaced since the last call. Tensors that stand in for parameters are
    left alone. While `recording`, each gradient is kept in `recorded` before its pruned entries are zeroed: the
    gradient of the whole weight that is added to `.grad`, summed over the backward passes since gradients were reset.

    `overwritten` counts pruned weights that were not 0 when the network was read (by a state dict, or at the end of the
    block), provided that no gradient had arrived since they were last zeroed, so that no optimiser can have moved them.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        self.model, self.pruned = model, pruned_of(model, mask)
        self.recording = False
        self.recorded: dict[str, Tensor] = {}
        self.arrived: dict[str, Tensor] = {}
        self.nodes: dict[str, tuple[Node, RemovableHandle]] = {}
        self.watched: dict[str, tuple[nn.Parameter, RemovableHandle]] = {}
        self.masked: dict[str, nn.Parameter] = {}
        self.overwritten: dict[str, int] = {}
        self.gradient_arrived = False

    def __call__(self, *_: Any, **__: Any) -> None:
        # An exported model has the weights, masked as they are, and no use for the mask.
        if not torch.compiler.is_exporting() and not torch._C._get_tracing_state():
            self._zero()

    @torch.no_grad()
    def _zero(self) -> None:
        compiling = torch.compiler.is_compiling()
        if not compiling:
            self.overwritten.clear()
            self.gradient_arrived = False
        for name, weight, pruned in self._weights():
            # Bypasses autograd's version counter: a second forward pass before the backward pass writes zeros
            # over zeros, and the weights that the first one saved stay valid.
            weight.data.masked_fill_(pruned, 0)
            if not compiling:
                self.masked[name] = weight
                self._watch(name, weight)

    @torch.no_grad()
    def settle(self, *_: Any, **__: Any) -> None:
        """Zero the pruned weights before they are read, and count those that no optimiser can have moved."""
        by_optimizer, self.gradient_arrived = self.gradient_arrived, False
        for name, weight, pruned in self._weights():
            if not by_optimizer and (count := int((pruned & (weight.data != 0)).sum())):
                self.overwritten[name] = max(count, self.overwritten.get(name, 0))
            weight.data.masked_fill_(pruned, 0)

    @torch.no_grad()
    def zero_remaining(self) -> None:
        """Zero the pruned weights of those parameters that still have their names."""
        for name, weight, pruned in self._weights(complete=False):
            weight.data.masked_fill_(pruned, 0)
            self.masked[name] = weight

    def _weights(self, *, complete: bool = True) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
        """Each name, parameter and pruned entries; if `complete`, RuntimeError for a parameter that has gone."""
        parameters: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        for name, pruned in self.pruned.items():
            weight = parameters.get(name)
            if weight is not None and not isinstance(weight, nn.Parameter):
                continue  # functional_call put it here for one forward pass; it is not the model's
            if weight is None or weight.shape != pruned.shape:
                if complete:
                    raise RuntimeError(self._lost(name, weight, parameters))
                continue
            if pruned.device != weight.device:
                pruned = self.pruned[name] = pruned.to(weight.device)  # noqa: PLW2901
            yield name, weight, pruned

    def _lost(self, name: str, weight: Tensor | None, parameters: Mapping[str, Tensor]) -> str:
        advice = (
            "change layers (LoRA, weight_norm, new heads) before the block, and make the ticket or mask from the model "
            "as it is then"
        )
        if weight is not None:
            now, then = tuple(weight.shape), tuple(self.pruned[name].shape)
            return f"the masked parameter {name!r} was replaced by one of shape {now}; its mask has {then}; {advice}"
        moved = [other for other, p in parameters.items() if p is self.masked.get(name)]
        instead = f"it is now called {moved[0]!r}" if moved else "nothing has replaced it"
        return f"the model no longer has a parameter {name!r}, which the mask names ({instead}); {advice}"

    def _watch(self, name: str, weight: nn.Parameter) -> None:
        """Hook the weight itself: that runs before its gradient is accumulated, so before DDP sends it too."""
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
            self._record_when_added(name, weight)

    def _record_when_added(self, name: str, weight: nn.Parameter) -> None:
        """Record what arrived once it is added to `.grad`: `torch.autograd.grad` runs the weight's hooks as well."""
        node = get_gradient_edge(weight).node
        before = self.nodes.get(name)
        if before is not None:
            if before[0] is node:
                return
            before[1].remove()

        def added(_: Any) -> None:
            pruned = self.pruned[name].to(weight.device)
            self._record(name, self.arrived.pop(name), accumulated=weight.grad, pruned=pruned)

        # Held here: the node would be freed with the graph, and the hook with it. A weight that moves has another node.
        self.nodes[name] = (node, node.register_prehook(added))

    def record(self, recording: bool) -> None:
        """Record gradients from now on, or stop. Either way, drops what was recorded before."""
        self.recording = recording
        self.recorded.clear()
        self.arrived.clear()
        if recording:
            for name, (weight, _) in list(self.watched.items()):
                self._watch(name, weight)
        else:
            for _, handle in self.nodes.values():
                handle.remove()
            self.nodes.clear()

    @torch.no_grad()
    def _record(self, name: str, gradient: Tensor, *, accumulated: Tensor | None, pruned: Tensor) -> None:
        before = self.recorded.get(name)
        # `.grad` says whether this backward pass is the first since gradients were reset. A step that a GradScaler
        # skipped, or that a closure repeats, had earlier passes, which do not count.
        if (
            before is not None
            and accumulated is not None
            and (bool(accumulated.any()) or not bool(before.masked_fill(pruned, 0).any()))
        ):
            self.recorded[name] = before + gradient
        else:
            self.recorded[name] = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True)

    def replace(self, mask: Mask) -> None:
        """Put another mask over the same weights in force."""
        check_finite(self.model, mask)
        pruned = pruned_of(self.model, mask)
        for name, before in self.pruned.items():  # what died with dead units may be alive again
            pruned.setdefault(name, torch.zeros_like(before))
        self.pruned.update(pruned)
        self()

    def end(self) -> None:
        """Take the hooks off the weights."""
        self.record(False)
        for _, handle in self.watched.values():
            handle.remove()
        self.watched.clear()
        self.masked.clear()
        self.pruned.clear()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[nn.Module, Mask]]:
        """A copy of the model, or one read back from a file, has hooks that do nothing."""
        return MaskHooks, (nn.Module(), Mask({}))
