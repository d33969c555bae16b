"""What a criterion sees: `Evidence`, and the declaration of what it needs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from winticket.criteria import losses
from winticket.criteria.batches import Batch, Inputs, cut, each_tensor, examples, first, inputs_of
from winticket.criteria.calling import Mode, called, cast_to, drawing
from winticket.criteria.losses import Loss, require_logits
from winticket.ticket import Mask, Scores, Seeds, State, Ticket

REVISION = 1
"""Raised when what criteria receive, or what is computed from their scores (`applied.py`, `losses.py`), changes."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The state to score, the initial weights, the mask, and a generator for randomness.

    `start` is the state in which the whole search began, at every level and under every rewind. So w₀ is a weight's
    initial value, not the value that the last training started from.

    Criteria that need the network's computation also get `network`, an `example` [1, ...] of its inputs and, if they
    need data, `batches` of training examples: (x [B, ...], y [B, ...]), several inputs and a target (x1, x2, y), or
    mappings such as {"input_ids": ..., "labels": ...}, of which `forward` gets what it has parameters for. `loss` is a
    function of the network's output and the target, the last part of a tuple or the whole mapping, that returns the
    mean loss of the batch. By default it is the cross-entropy of logits and classes y, and for mappings the `loss` in
    the network's output.

    The weights used are those in `now`, not the network's. It computes with pruned weights 0, in float64 if network and
    loss can (`dtype`; whole numbers stay as they are), and in the `mode` that the criterion declares (`needs`).
    Evaluation mode has no dropout and uses BatchNorm's running statistics. Training mode uses the statistics of each
    batch and draws dropout from `generator`'s seed; the running statistics that it would move are copies.
    `classes_last` says that the network's logits are [B, ..., classes], for shapes that leave this open.
    """

    now: State
    start: State
    mask: Mask
    generator: torch.Generator
    network: nn.Module | None = None
    example: Inputs | None = None
    batches: Sequence[Batch] = ()
    mode: Mode = "evaluation"
    classes_last: bool = False
    loss: Loss | None = None

    @classmethod
    def of(
        cls,
        weights: Mapping[str, Tensor],
        *,
        start: Mapping[str, Tensor] | None = None,
        keep: Mapping[str, Tensor] | None = None,
        network: nn.Module | None = None,
        batches: Sequence[Batch] = (),
        loss: Loss | None = None,
        seed: int = 0,
    ) -> Evidence:
        """Evidence from plain tensors, to try a criterion on values that can be checked by eye.

        `start` are the initial weights (default: `weights`). `keep` is the mask, bool in the weights' shapes (default:
        all weights of two dimensions or more, none pruned).

        >>> e = Evidence.of({"fc": torch.tensor([[1.0, -3.0]]), "bias": torch.zeros(1)})
        >>> e.mask.keep
        {'fc': tensor([[True, True]])}
        """
        if keep is None:
            keep = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items() if w.ndim > 1}
        buffers = dict(network.named_buffers()) if network is not None else {}
        now = State(weights, buffers, {}, 0)
        return cls(
            now=now,
            start=now if start is None else State(start, buffers, {}, 0),
            mask=Mask(keep),
            generator=torch.Generator().manual_seed(seed),
            network=network,
            example=inputs_of(first(batches[0])) if batches else None,
            batches=batches,
            loss=loss,
        )

    @classmethod
    def of_ticket(cls, ticket: Ticket, now: State, *, start: State, **seen: Any) -> Evidence:
        """What a criterion is given of a ticket's training: its mask, the state `now`, and a generator of its seeds.

        `seen` is what else it may look at: network, example, batches, classes_last, loss.
        """
        generator = torch.Generator().manual_seed(ticket.seeds.derive("criterion", ticket.mask.count()))
        return cls(now=now, start=start, mask=ticket.mask, generator=generator, **seen)

    @functools.cached_property
    def dtype(self) -> torch.dtype | None:
        """float64, or None for the network's own dtypes if it, or the loss, cannot compute in float64.

        Both are run once to see. A RuntimeWarning reports that it is None. Raises ValueError if the network cannot
        compute at all.
        """
        batch = first(self.batches[0]) if self.batches else None
        x = self.example if self.example is not None or batch is None else inputs_of(batch)
        if self.network is None or x is None:
            return torch.float64
        weights = self.mask.apply(self.now.weights)
        what = type(self.network).__name__
        try:
            self._computed(weights, x, mode="evaluation", dtype=torch.float64)
            error = self._complaint(weights, batch)
            if error is None:
                return torch.float64
            what = f"the loss of {what}"
        except ValueError as failed:
            self._computed(weights, x, mode="evaluation", dtype=None)
            error = failed
        types = {str(w.dtype) for w in weights.values() if w.is_floating_point()}
        warnings.warn(
            f"{what} does not compute in float64 ({error.__cause__ or error}), so it is scored in its own "
            f"{' and '.join(sorted(types))}, less precisely",
            RuntimeWarning,
            stacklevel=2,
        )
        return None

    def _complaint(self, weights: Mapping[str, Tensor], batch: Batch | None) -> ValueError | None:
        """Why the user's loss computes in the network's dtypes but not in float64; None if it does, or in neither.

        A loss that fails on one example in both may still take whole batches.
        """
        if self.loss is None or batch is None:
            return None
        try:
            self._mean_loss(weights, batch, mode="evaluation", dtype=torch.float64)
        except ValueError as error:
            try:
                self._mean_loss(weights, batch, mode="evaluation", dtype=None)
            except ValueError:
                return None
            return error
        return None

    def weights(self) -> dict[str, Tensor]:
        """All weights of `now` in `dtype`, pruned ones 0; the eligible ones are leaves that require gradients."""
        masked = self.mask.apply(self.now.weights)
        return {
            n: cast_to(w, self.dtype).detach().requires_grad_(n in self.mask.keep) for n, w in masked.items()
        }

    def module(self) -> nn.Module:
        """The network, in the evidence's mode. Raises ValueError if there is none."""
        return self._network().train(self.mode == "training")

    def output(self, weights: Mapping[str, Tensor], x: Inputs, *, draw: int = 0) -> Any:
        """Whatever the network returns for inputs x with these weights.

        x is one tensor [B, ...], a tuple of positional arguments, or a mapping of arguments by name. In training mode,
        the same `draw` gives the same dropout. Raises ValueError, with the cause, if the network fails on x.
        """
        return self._computed(weights, x, mode=self.mode, dtype=self.dtype, draw=draw)

    def logits(self, weights: Mapping[str, Tensor], x: Inputs, *, draw: int = 0) -> Tensor:
        """The network's output, as of `output`, or its part `logits`.

        Raises ValueError also if that is not a floating-point tensor.
        """
        return require_logits(self.output(weights, x, draw=draw), type(self.network).__name__)

    def mean_loss(
        self, weights: Mapping[str, Tensor], batch: Batch, *, temperature: float = 1.0, draw: int = 0
    ) -> Tensor:
        """The mean loss of a batch, by the evidence's `loss`, a floating-point number; `draw` as in `output`.

        The default is the cross-entropy over all answers of the batch, of logits divided by `temperature`, or for a
        mapping the loss that the network returns; `temperature` changes no loss but the cross-entropy. Raises
        ValueError if the loss fails or is no finite number, if targets of the cross-entropy are not classes, or if they
        do not fit the logits.

        >>> batch = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0]])
        >>> weights = {"weight": torch.tensor([[1.0, 1.0]])}
        >>> network = nn.Linear(2, 1, bias=False)
        >>> e = Evidence.of(weights, network=network, batches=[batch], loss=nn.functional.mse_loss)
        >>> e.mean_loss(e.weights(), batch).item()  # (3 - 1)²
        4.0
        """
        return self._mean_loss(
            weights, batch, mode=self.mode, dtype=self.dtype, temperature=temperature, draw=draw
        )

    def shares(self, batches: Sequence[Batch]) -> list[float]:
        """Each batch's share of all, which weighs its mean loss: by answers for the cross-entropy, else by examples.

        Raises ValueError if nothing counts.
        """
        return losses.shares(batches, loss=self.loss)

    def one(self) -> Inputs:
        """An example of the inputs [1, ...], for shapes and dtypes. Raises ValueError if there is none."""
        if self.example is None:
            raise ValueError(
                "this criterion needs the shape of an input; give the evidence one (example=...)"
            )
        return self.example

    def examples(self) -> Sequence[Batch]:
        """The batches. Raises ValueError if there are none."""
        if not self.batches:
            raise ValueError("this criterion needs training examples; give the evidence some (batches=...)")
        return self.batches

    def single_examples(self) -> list[Batch]:
        """The examples one by one, each a batch of one, without those that have no answer to be scored by."""
        each = [cut(batch, i, i + 1) for batch in self.examples() for i in range(examples(batch))]
        return [example for example, share in zip(each, self.shares(each), strict=True) if share]

    def of_eligible(self, tensors: Iterable[Tensor | None]) -> Scores:
        """Tensors, in the mask's order, under the mask's names and in float64; None, for no influence, becomes 0."""
        return {
            name: torch.zeros(keep.shape, dtype=torch.float64) if t is None else t.detach().double()
            for (name, keep), t in zip(self.mask.keep.items(), tensors, strict=True)
        }

    def _network(self) -> nn.Module:
        if self.network is None:
            raise ValueError("this criterion needs the network; give the evidence one (network=...)")
        return self.network

    def _mean_loss(
        self,
        weights: Mapping[str, Tensor],
        batch: Batch,
        *,
        mode: Mode,
        dtype: torch.dtype | None,
        temperature: float = 1.0,
        draw: int = 0,
    ) -> Tensor:
        # One stream for network and loss, since a user's loss may draw as well.
        with self._drawing(draw):
            output = self._called(weights, inputs_of(batch), mode=mode, dtype=dtype)
            if self.loss is not None:  # it gets copies, so it may write to them
                batch = each_tensor(lambda t: cast_to(t, dtype).clone(), batch)
            return losses.mean_loss(
                output,
                batch,
                loss=self._loss_in(dtype),
                network=type(self.network).__name__,
                temperature=temperature,
                classes_last=self.classes_last,
            )

    def _loss_in(self, dtype: torch.dtype | None) -> Loss | None:
        if dtype not in self._fitted:
            like = next(iter(self.now.weights.values()), None)
            self._fitted[dtype] = losses.fitted(self.loss, like, dtype)
        return self._fitted[dtype]

    @functools.cached_property
    def _fitted(self) -> dict[torch.dtype | None, Loss | None]:
        return {}

    def _computed(
        self,
        weights: Mapping[str, Tensor],
        x: Inputs,
        *,
        mode: Mode,
        dtype: torch.dtype | None,
        draw: int = 0,
    ) -> object:
        with self._drawing(draw):
            return self._called(weights, x, mode=mode, dtype=dtype)

    def _drawing(self, draw: int) -> AbstractContextManager[None]:
        return drawing(Seeds(self.generator.initial_seed(), draw).derive("dropout of a criterion"))

    def _called(
        self, weights: Mapping[str, Tensor], x: Inputs, *, mode: Mode, dtype: torch.dtype | None
    ) -> object:
        return called(self._network(), weights, self.now.buffers, x, mode=mode, dtype=dtype)


Criterion = Callable[[Evidence], Scores]
C = TypeVar("C", bound=Criterion)

NETWORK, DATA, TRAINING, RANDOM = "network", "data", "training", "random"


def needs(
    *what: str,
    rounds: int = 1,
    mode: Mode = "evaluation",
    layer_by_layer: bool = False,
    allocate: str = "layerwise",
    also: Sequence[str] = (),
    in_layer: str = "",
) -> Callable[[C], C]:
    """A decorator that declares what a criterion needs besides weights and mask, and how its paper uses it.

    `what` lists `NETWORK`, `DATA`, `TRAINING` (the network must have been trained before) and `RANDOM` (it draws from
    the generator). `rounds` is the number of rounds, of exponentially falling density, over which its paper prunes a
    network at initialisation. `mode` is the mode in which its authors run the network, and overrides the evidence's.
    With `layer_by_layer`, layers are scored and pruned one after another, in the order in which they compute, so each
    is scored with the earlier ones already pruned. `allocate` names the allocation of its paper, which is the default
    for the criterion (`criterion.usual_allocate`); `also` names others that its paper uses. `in_layer` names a
    criterion that ranks the weights within one layer in the same way.
    """

    def mark(criterion: C) -> C:
        marked = criterion
        if mode != "evaluation":

            @functools.wraps(criterion)
            def in_its_mode(e: Evidence) -> Scores:
                return criterion(replace(e, mode=mode))

            marked = cast(C, in_its_mode)
        marks = {
            "needs": frozenset(what),
            "rounds": rounds,
            "mode": mode,
            "layer_by_layer": layer_by_layer,
            "usual_allocate": allocate,
            "also": tuple(also),
            "in_layer": in_layer,
        }
        for name, value in marks.items():
            setattr(marked, name, value)
        return marked

    return mark


def needed(criterion: Criterion) -> frozenset[str]:
    """What a criterion needs besides weights and mask (default: nothing)."""
    return frozenset(_marked(criterion, "needs", ()))


def rounds_at_init(criterion: Criterion) -> int:
    """The number of rounds in which the criterion's paper prunes at initialisation (default: 1)."""
    return int(_marked(criterion, "rounds", 1))


def usual_allocate(criterion: Criterion) -> str:
    """The name of the allocation that the criterion's paper uses (default: layerwise)."""
    return str(_marked(criterion, "usual_allocate", "layerwise"))


def mode_of(criterion: Criterion) -> Mode:
    """The mode in which the network computes for a criterion (default: evaluation)."""
    mode: Mode = _marked(criterion, "mode", "evaluation")
    return mode


def is_layer_by_layer(criterion: Criterion) -> bool:
    """True if each layer is scored with the layers before it already pruned."""
    return bool(_marked(criterion, "layer_by_layer", False))


def _marked(criterion: Criterion, name: str, default: Any) -> Any:
    """What `needs` declared about a criterion, also if `functools.partial` has filled in its options."""
    while isinstance(criterion, functools.partial) and not hasattr(criterion, name):
        criterion = criterion.func
    return getattr(criterion, name, default)


def scores_units(criterion: Criterion) -> bool:
    """True if the criterion gives all weights of a unit or an attention head one score, so only whole ones can go."""
    return usual_allocate(criterion) in ("structures", "units")
