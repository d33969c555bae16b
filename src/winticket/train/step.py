"""One update of a stack: gradients, optimiser, masks. On a GPU the step is recorded once, then replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from winticket.sparse import Factors
from winticket.train.onepass import Update, one_pass
from winticket.train.recipe import Recipe
from winticket.train.stacked import Lifted
from winticket.train.supermask import Supermask
from winticket.trouble import of_the_machine

EAGER = 3  # steps before one is recorded: by then, libraries have set up all that they set up at first use
TOLERANCE = 1e-3  # between a replayed and an eager step, which may add up in another order


class Step:
    """`step(x, y, rate)` updates the weights in place and returns the losses [S].

    On CUDA a traced step is recorded as a graph after a few eager steps and replayed from then on, since the launches
    of a small network cost more than its kernels. The first replay is compared with the same step run eagerly. If they
    differ, or if recording fails, all further steps run eagerly and `unrecorded` says why.
    """

    def __init__(
        self,
        lifted: Lifted,
        weights: Mapping[str, Tensor],
        *,
        buffers: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        supermask: Supermask | None = None,
        recorder: Callable[[Callable[[], Tensor]], Callable[[], Tensor]] | None = None,
    ) -> None:
        self.lifted, self.weights, self.buffers, self.optimizer = lifted, weights, buffers, optimizer
        self.recipe = recipe
        self.mask_of = masks
        self.supermask = supermask
        learned = supermask.scores if supermask else weights
        self.names, self.parameters = list(learned), list(learned.values())
        lowered = lifted.lowered
        self.copies = {name: weights[name].to(torch.bfloat16) for name in lowered.copies}
        self.read = {**weights, **self.copies}
        halves = frozenset(lowered.halves)
        self.update = one_pass(optimizer, learned, recipe, masks=masks, copies=self.copies, halves=halves)
        # The update in one pass multiplies by the masks itself.
        after = {} if self.update else masks
        self.masked, self.masks = [weights[name] for name in after], list(after.values())
        on_gpu = self.parameters[0].device.type == "cuda"
        self.recorder = recorder or (record if on_gpu else None)
        self.unrecorded = "" if lifted.traced else "its step is not traced"
        if supermask:
            self.unrecorded = "a mask is learned"
        self.done = 0
        self._replay: Callable[[], Tensor] | None = None

    @property
    def recorded(self) -> str:
        """How steps run on a GPU: "replayed", or the reason why they are not. Empty on other devices."""
        if self.recorder is None:
            return ""
        return self.unrecorded or ("replayed" if self._replay else "too few steps")

    def __call__(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        self.done += 1
        if self.recorder is None:
            return self.eager(x, y, rate)
        if self._replay is not None:
            self._x.copy_(x), self._y.copy_(y), self._rate.fill_(rate)
            return self._replay().clone()
        # A tensor, as in a recorded step, so that no bit depends on which steps are recorded.
        tensor_rate = torch.full((), rate, dtype=torch.float32, device=x.device)
        if self.unrecorded or self.done <= EAGER:
            return self.eager(x, y, tensor_rate)
        return self._record(x, y, tensor_rate)

    def eager(self, x: Tensor, y: Tensor, rate: float | Tensor) -> Tensor:
        """Take the step operator by operator."""
        if self.supermask:
            self.supermask.put(self.weights)
        gradients, loss = self.lifted.call(self.read, self.buffers, x, y)
        if self.supermask:
            gradients = self.supermask.of_scores(gradients)
        if self.recipe.clip_norm is not None:
            gradients = clipped(gradients, self.mask_of, norm=self.recipe.clip_norm)
        # Fused optimisers read gradients in memory order and ignore their strides.
        ordered: list[Any] = [
            g if isinstance(g := gradients[name], Factors) else g.contiguous() for name in self.names
        ]
        if self.update is None:
            self.update = self._first_update(ordered, rate)
        else:
            self.update(ordered, rate)
        if self.masks:
            torch._foreach_mul_(self.masked, self.masks)
        result: Tensor = loss
        return result

    def _first_update(self, gradients: Sequence[Tensor], rate: float | Tensor) -> Update:
        """Let PyTorch's optimiser take the first step, which creates its state; return how to take the next ones."""
        self._by_torch(gradients, rate)
        for parameter in self.parameters:
            parameter.grad = None
        return direct_update(self.optimizer, self.parameters, self.recipe) or self._by_torch

    def _by_torch(self, gradients: Sequence[Tensor], rate: float | Tensor) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def _record(self, x: Tensor, y: Tensor, rate: Tensor) -> Tensor:
        """Record a step, replay it, and compare it with the eager step. The eager step's result is the one kept."""
        if self.update == self._by_torch:
            self.unrecorded = "its optimiser has no fused form"
            return self.eager(x, y, rate)
        self._x, self._y = x.clone(), y.clone()
        self._rate = rate.clone()
        before, noise = [t.clone() for t in self.changing()], self._noise()
        assert self.recorder is not None
        try:
            replay = self.recorder(lambda: self.eager(self._x, self._y, self._rate))
            self._put_back(before, noise)  # the recorder may have run the step
            replay()
            replayed = [t.clone() for t in self.changing()]
        except RuntimeError as failed:
            if of_the_machine(failed):
                raise
            self.unrecorded = f"recording failed: {str(failed).splitlines()[0]}"
            self._put_back(before, noise)
            return self.eager(x, y, rate)
        self._put_back(before, noise)
        loss = self.eager(x, y, rate)
        if all(_alike(a, b) for a, b in zip(replayed, self.changing(), strict=True)):
            self._replay = replay
        else:
            self.unrecorded = "a replayed step differs from the same step run eagerly"
        return loss

    def changing(self) -> list[Tensor]:
        """Every tensor that a step writes to."""
        slots = [
            v for state in self.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)
        ]
        return [*self.parameters, *self.copies.values(), *self.buffers.values(), *slots]

    def _noise(self) -> Tensor:
        """The state of the generator that dropout draws from."""
        device = self.parameters[0].device
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def _put_back(self, before: Sequence[Tensor], noise: Tensor) -> None:
        for tensor, value in zip(self.changing(), before, strict=True):
            tensor.copy_(value)
        device = self.parameters[0].device
        if device.type == "cuda":
            torch.cuda.set_rng_state(noise, device)
        else:
            torch.set_rng_state(noise)


def clipped(
    gradients: Mapping[str, Tensor], masks: Mapping[str, Tensor], *, norm: float
) -> dict[str, Tensor]:
    """Gradients [S, ...] of a stack, each replicate's scaled to the Euclidean norm `norm` if it is larger.

    `masks` are 1 where a weight is kept; the gradients of pruned weights become 0 and do not count. The scale is
    torch.nn.utils.clip_grad_norm_'s, whose 1e-6 beside the norm avoids a division by 0.
    """
    kept = {name: g * masks[name] if name in masks else g for name, g in gradients.items()}
    norms = torch.stack([g.flatten(1).square().sum(1) for g in kept.values()]).sum(0).sqrt()
    scale = (norm / (norms + 1e-6)).clamp(max=1)
    return {name: g * scale.view(-1, *[1] * (g.ndim - 1)) for name, g in kept.items()}


def _alike(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def record(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record `work` as a CUDA graph. The function returned replays it and returns the tensor that `work` returned."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def direct_update(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], recipe: Recipe
) -> Update | None:
    """The fused kernel that `optimizer` calls, without the bookkeeping around it; None if it does not call one.

    For a small network the bookkeeping takes longer than the update. The kernel updates the optimiser's state in place.
    """
    states: list[dict[str, Any]] = [optimizer.state.get(p, {}) for p in parameters]
    if not all(group["fused"] for group in optimizer.param_groups):
        return None
    if recipe.optimizer == "sgd":
        return _sgd(parameters, states, recipe)
    kernel = getattr(torch, "_fused_adam_" if recipe.optimizer == "adam" else "_fused_adamw_", None)
    slots = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")]
    if kernel is None:
        return None
    means, squares, steps = slots
    (beta1, beta2), eps = optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["eps"]
    fixed = {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": recipe.weight_decay}

    def update(gradients: Sequence[Tensor], rate: float | Tensor) -> None:
        torch._foreach_add_(steps, 1)
        kernel(
            parameters, gradients, means, squares, [], steps, lr=rate, amsgrad=False, maximize=False, **fixed
        )

    return update


def _sgd(parameters: Sequence[Tensor], states: list[dict[str, Any]], recipe: Recipe) -> Update | None:
    kernel = getattr(torch, "_fused_sgd_", None)
    if kernel is None:
        return None
    buffers = [state["momentum_buffer"] for state in states] if recipe.momentum else []
    fixed = {
        "weight_decay": recipe.weight_decay,
        "momentum": recipe.momentum,
        "dampening": 0.0,
        "nesterov": recipe.nesterov,
        "maximize": False,
        "is_first_step": False,
    }

    def update(gradients: Sequence[Tensor], rate: float | Tensor) -> None:
        kernel(parameters, gradients, buffers, lr=rate, **fixed)

    return update
