"""Masks that are learned within your own training loop: scores are trained, and no weight changes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.optim.optimizer import register_optimizer_step_pre_hook

from winticket.allocate import Allocate, layerwise
from winticket.criteria.applied import name_of
from winticket.loops.counting import updates
from winticket.loops.masking import claimed
from winticket.loops.scoring import (
    Density,
    check_by_layer,
    check_densities,
    seeds_for,
    warn_of_emptied,
    whole,
)
from winticket.loops.wrapped import bare, distributed, holders
from winticket.ticket import Mask, Seeds, Ticket
from winticket.train.rules import random_mask
from winticket.train.supermask import Kind, best_scores, first_scores, sampled, straight_through

KINDS: dict[str, Kind] = {"edge_popup": "top", "supermask": "sampled"}
_CALLER = 5  # of the `with` statement, through contextlib and this module


class Learned:
    """A mask that is learned, as `edge_popup` and `supermask` yield it. `scores` has a parameter per masked weight.

    >>> import torch, winticket
    >>> model = torch.nn.Linear(4, 4)
    >>> with winticket.edge_popup(model, 0.5) as learned:
    ...     optimizer = torch.optim.SGD(learned.parameters(), lr=0.1)
    ...     model(torch.randn(8, 4)).square().mean().backward()
    ...     optimizer.step()
    >>> [tuple(score.shape) for score in learned.parameters()]
    [(4, 4)]
    """

    def __init__(self, model: nn.Module, dense: Ticket, kind: Kind, counts: dict[str, int]) -> None:
        self._model, self._dense, self._kind, self._counts = model, dense, kind, counts
        self.scores: dict[str, nn.Parameter] = {}
        for name, count in counts.items():
            weight = bare(model).get_parameter(name)
            drawn = first_scores(kind, weight, count=count, seed=dense.seeds.derive("scores", name))
            # Also for a half-precision weight: its type would draw, sample and move scores in steps of 1/256.
            wide = torch.promote_types(weight.dtype, torch.float32)
            self.scores[name] = nn.Parameter(drawn.to(weight.device, wide))

    def parameters(self) -> list[nn.Parameter]:
        """The scores: pass them to your optimiser."""
        return list(self.scores.values())

    @property
    def mask(self) -> Mask:
        """The mask that the current scores select, with exactly the requested number of weights in every layer."""
        keep = {}
        for name, score in self.scores.items():
            best = best_scores(self._kind, score.detach().unsqueeze(0), count=self._counts[name])
            keep[name] = best.squeeze(0).cpu()
        return replace(self._dense.mask, keep=keep)

    @property
    def ticket(self) -> Ticket:
        """The current mask with the weights and buffers that the model had before the block."""
        return replace(self._dense, mask=self.mask, origin="ticket")

    def __repr__(self) -> str:
        return f"Learned({self.ticket})"

    @contextmanager
    def _training(self) -> Iterator[Learned]:
        warn_of_emptied("the mask that is learned", self.mask, model=None, stacklevel=_CALLER)
        module, first = bare(self._model), {n: s.detach().clone() for n, s in self.scores.items()}
        with ExitStack() as stack:
            for parameter in module.parameters():
                stack.callback(
                    setattr, parameter, "grad", parameter.grad
                )  # an optimiser would apply it again
                parameter.grad = None
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
            settle = ExitStack()
            stack.enter_context(settle)
            for name, score in self.scores.items():
                chosen = _Chosen(self._kind, score, self._counts[name])
                weight = module.get_parameter(name)
                for path, attribute in holders(module, [weight]):
                    layer = module.get_submodule(path)
                    order = list(layer._parameters)
                    register_parametrization(layer, attribute, chosen, unsafe=True)
                    stack.callback(_take_off, layer, attribute, order)
            settle.callback(self._settle)
            before = torch.compiler.disable(self._before_step)  # type: ignore[no-untyped-call]
            stack.callback(register_optimizer_step_pre_hook(before).remove)
            yield self
        if wild := [name for name, score in self.scores.items() if not bool(score.isfinite().all())]:
            warnings.warn(
                f"scores of {', '.join(wild)} are not finite: the training has diverged, and the mask is meaningless; "
                "lower the learning rate",
                RuntimeWarning,
                stacklevel=_CALLER,
            )
        if all(torch.equal(first[n].to(s.device), s.detach()) for n, s in self.scores.items()):
            warnings.warn(
                "no score has changed within the block, so the mask is a random one; make the optimiser over "
                "parameters() of what the block yields, and run a backward pass through the model",
                RuntimeWarning,
                stacklevel=_CALLER,
            )

    @torch.no_grad()
    def _settle(self) -> None:
        for name, keep in self.mask.keep.items():
            weight = bare(self._model).get_parameter(name)
            weight.data.masked_fill_(~keep.to(weight.device), 0)

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        scores = {id(score) for score in self.scores.values()}
        if updates(optimizer, self._model) and not any(
            id(p) in scores for group in optimizer.param_groups for p in group["params"]
        ):
            raise ValueError(
                f"this {type(optimizer).__name__} trains weights of the model, but no weight may change while the mask "
                "is learned; make the optimiser over parameters() of what the block yields"
            )


class _Chosen(nn.Module):
    """A weight under the mask that its score selects or, in training mode if `kind` is "sampled", under a sample."""

    def __init__(self, kind: Kind, score: nn.Parameter, count: int) -> None:
        super().__init__()
        self.kind, self.score, self.count = kind, score, count

    def forward(self, weight: Tensor) -> Tensor:
        drawn = self.training and self.kind == "sampled"
        masked: Tensor = _StraightThrough.apply(self.score, weight, self.kind, self.count, drawn)  # type: ignore[no-untyped-call]
        return masked


class _StraightThrough(torch.autograd.Function):
    """The masked weight; its gradient is passed on to the score."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, weight: Tensor, kind: Kind, count: int, drawn: bool) -> Tensor:  # noqa: PLR0917
        ctx.save_for_backward(score, weight)
        ctx.kind = kind
        keep = sampled(score) if drawn else best_scores(kind, score.unsqueeze(0), count=count).squeeze(0)
        return torch.where(keep, weight, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        score, weight = ctx.saved_tensors
        return straight_through(ctx.kind, gradients[0], weight=weight, score=score), None, None, None, None


@contextmanager
def edge_popup(
    model: nn.Module,
    density: Density,
    *,
    allocate: Allocate = layerwise,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seeds: Seeds | None = None,
) -> Iterator[Learned]:
    """Edge-popup: train a score for every weight, and keep the weights with the largest |score| in each layer.

    Ramanujan et al. 2020, §3: the gradient of a masked weight, times the weight, becomes the gradient of its score.
    Scores are drawn from `seeds`, within ±1/√fan-in. Within the block no parameter of the model changes or has a
    gradient, including biases and normalisation; buffers such as BatchNorm's statistics do change. The paper's best
    weights are signed constants. `learned.mask` keeps exactly as many weights in each layer as `allocate` assigns to
    it; `learned.ticket` is that mask with the weights and buffers from before the block.

    After the block, even if it raised, the model has its own weights again, bit for bit, except that pruned ones are 0:
    the untrained subnetwork. Within the block the weights are parametrized (`torch.nn.utils.parametrize`), so names in
    the state dict differ there. Wrap a model in DistributedDataParallel within the block, so that the scores are among
    its parameters, and pass the same arguments on every rank.

    `density`, `include`, `exclude` and `seeds` are as in `prune`. Raises ValueError, before any training, for the
    reasons that `prune` does, if the allocation does not work layer by layer, if the model is already wrapped, or if
    another block controls its mask; also if an optimiser over the weights steps. Warns (RuntimeWarning) if no score has
    changed.

    >>> import torch, winticket
    >>> model = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> with winticket.edge_popup(model, 0.5) as learned:
    ...     optimizer = torch.optim.SGD(learned.parameters(), lr=0.1, momentum=0.9)
    ...     for _ in range(10):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(8, 10)).square().mean().backward()
    ...         optimizer.step()
    >>> learned.ticket.mask.density()
    0.5
    """
    with claimed(model, alone=True):
        begun = _begun(
            "edge_popup", model, density, allocate=allocate, include=include, exclude=exclude, seeds=seeds
        )
        with begun._training() as learned:
            yield learned


@contextmanager
def supermask(
    model: nn.Module,
    density: Density,
    *,
    allocate: Allocate = layerwise,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seeds: Seeds | None = None,
) -> Iterator[Learned]:
    """Learned supermask: train, for every weight, the probability of keeping it.

    Zhou et al. 2019, §5.1. Scores are the logits of the probabilities. The probabilities start at the density, and
    their logits need about a hundred times the learning rate of weights. In training mode each use of a weight draws a
    mask from torch's global generator, as dropout does. In evaluation mode, in `learned.mask` and after the block each
    layer keeps its most probable weights, exactly as many as requested. (In the paper the density is an outcome, and
    sampled masks are evaluated.) Everything else is as in `edge_popup`.

    >>> import torch, winticket
    >>> model = torch.nn.Linear(10, 4)
    >>> with winticket.supermask(model, 0.5) as learned:
    ...     optimizer = torch.optim.SGD(learned.parameters(), lr=10.0)
    ...     model(torch.randn(8, 10)).square().mean().backward()
    ...     optimizer.step()
    >>> learned.mask.count(), model(torch.ones(1, 10)).shape
    (20, torch.Size([1, 4]))
    """
    with claimed(model, alone=True):
        begun = _begun(
            "supermask", model, density, allocate=allocate, include=include, exclude=exclude, seeds=seeds
        )
        with begun._training() as learned:
            yield learned


def _begun(
    method: str,
    model: nn.Module,
    density: Density,
    *,
    allocate: Allocate,
    include: Sequence[str],
    exclude: Sequence[str],
    seeds: Seeds | None,
) -> Learned:
    if distributed(model) is not None or isinstance(model, DataParallel):
        raise ValueError(
            f"{method} adds scores to the model, and the wrapper has to see them among the parameters: pass the bare "
            "model, and wrap it within the block"
        )
    check_by_layer(method, allocate)
    seeds = seeds_for(model, seeds)
    dense = whole(model, include=include, exclude=exclude, seeds=seeds, stacklevel=_CALLER - 1)
    check_densities(dense, [density], allocate)
    mask = random_mask(dense.mask, dense.seeds, density=density, allocate=allocate)
    dense = replace(dense, about={"method": method, "allocate": name_of(allocate)})
    counts = {name: kept for name, (kept, _) in mask.layers().items()}
    return Learned(model, dense, KINDS[method], counts)


def _take_off(layer: nn.Module, attribute: str, order: Sequence[str]) -> None:
    """Give the layer its parameter back, under its name and in its position, by which optimisers count."""
    remove_parametrizations(layer, attribute, leave_parametrized=False)
    parameters = {name: layer._parameters.pop(name) for name in order}
    layer._parameters.update(parameters)
