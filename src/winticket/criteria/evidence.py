"""What a criterion sees: `Evidence`, and the declaration of what it needs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket.criteria.losses import cross_entropy, require_logits
from winticket.ticket import Mask, Scores, Seeds, State, Ticket
from winticket.trouble import short_of_memory

REVISION = 1
"""Raised when what criteria receive, or what is computed from their scores (`applied.py`, `losses.py`), changes."""

Batch = tuple[Tensor, Tensor]
"""Inputs x [B, ...] and classes y [B], or y [B, ...] if an input has an answer at each of several positions."""

Mode = Literal["evaluation", "training"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The state to score, the initial weights, the mask, and a generator for randomness.

    `start` is the state in which the whole search began, at every level and under every rewind. So w₀ is a weight's
    initial value, not the value that the last training started from.

    Criteria that need the network's computation also get `network`, an `example` [1, ...] of its inputs and, if they
    need data, `batches` of training examples. The weights used are those in `now`, not the network's. It computes with
    pruned weights 0, in float64 (`dtype`) and in the `mode` that the criterion declares (`needs`). Evaluation mode has
    no dropout and uses BatchNorm's running statistics. Training mode uses the statistics of each batch and draws
    dropout from `generator`'s seed; the running statistics that it would move are copies. `classes_last` says that the
    network's logits are [B, ..., classes], for shapes that leave this open.
    """

    now: State
    start: State
    mask: Mask
    generator: torch.Generator
    network: nn.Module | None = None
    example: Tensor | None = None
    batches: Sequence[Batch] = ()
    mode: Mode = "evaluation"
    classes_last: bool = False

    @classmethod
    def of(
        cls,
        weights: Mapping[str, Tensor],
        *,
        start: Mapping[str, Tensor] | None = None,
        keep: Mapping[str, Tensor] | None = None,
        network: nn.Module | None = None,
        batches: Sequence[Batch] = (),
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
            example=batches[0][0][:1] if batches else None,
            batches=batches,
        )

    @classmethod
    def of_ticket(cls, ticket: Ticket, now: State, *, start: State, **seen: Any) -> Evidence:
        """What a criterion is given of a ticket's training: its mask, the state `now`, and a generator of its seeds.

        `seen` is what else it may look at: network, example, batches, classes_last.
        """
        generator = torch.Generator().manual_seed(ticket.seeds.derive("criterion", ticket.mask.count()))
        return cls(now=now, start=start, mask=ticket.mask, generator=generator, **seen)

    @functools.cached_property
    def dtype(self) -> torch.dtype | None:
        """float64, or None for the network's own dtypes if it cannot compute in float64.

        The network is run once to see. A RuntimeWarning reports that it is None. Raises ValueError if the network
        cannot compute at all.
        """
        x = self.example if self.example is not None or not self.batches else self.batches[0][0][:1]
        if self.network is None or x is None:
            return torch.float64
        weights = self.mask.apply(self.now.weights)
        try:
            self._computed(weights, x, mode="evaluation", dtype=torch.float64)
        except ValueError as error:
            self._computed(weights, x, mode="evaluation", dtype=None)
            types = {str(w.dtype) for w in weights.values() if w.is_floating_point()}
            warnings.warn(
                f"{type(self.network).__name__} does not compute in float64 ({error.__cause__}), so it is scored in "
                f"its own {' and '.join(sorted(types))}, less precisely",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return torch.float64

    def weights(self) -> dict[str, Tensor]:
        """All weights of `now` in `dtype`, pruned ones 0; the eligible ones are leaves that require gradients."""
        masked = self.mask.apply(self.now.weights)
        return {n: _as(w, self.dtype).detach().requires_grad_(n in self.mask.keep) for n, w in masked.items()}

    def module(self) -> nn.Module:
        """The network, in the evidence's mode. Raises ValueError if there is none."""
        return self._network().train(self.mode == "training")

    def logits(self, weights: Mapping[str, Tensor], x: Tensor, *, draw: int = 0) -> Tensor:
        """The network's output for x [B, ...] with these weights.

        In training mode, the same `draw` gives the same dropout. Raises ValueError, with the cause, if the network
        fails on x, or if its output is not a floating-point tensor.
        """
        output = self._computed(weights, x, mode=self.mode, dtype=self.dtype, draw=draw)
        return require_logits(output, type(self.network).__name__)

    def loss(
        self, weights: Mapping[str, Tensor], batch: Batch, *, temperature: float = 1.0, draw: int = 0
    ) -> Tensor:
        """Mean cross-entropy over all answers of a batch, of logits divided by `temperature`; `draw` as in `logits`.

        Raises ValueError if the targets are not classes, or do not fit the logits.
        """
        x, y = batch
        logits = self.logits(weights, x, draw=draw) / temperature
        return cross_entropy(logits, y, classes_last=self.classes_last)

    def one(self) -> Tensor:
        """An input [1, ...], for its shape and dtype. Raises ValueError if there is none."""
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

    def _computed(
        self,
        weights: Mapping[str, Tensor],
        x: Tensor,
        *,
        mode: Mode,
        dtype: torch.dtype | None,
        draw: int = 0,
    ) -> object:
        network = self._network()
        # Copies, since training mode writes statistics in place.
        buffers = {name: _as(b, dtype).clone() for name, b in self.now.buffers.items()}
        cast_weights = {name: _as(w, dtype) for name, w in weights.items()}
        seed = Seeds(self.generator.initial_seed(), draw).derive("dropout of a criterion")
        with modes_kept(network), torch.random.fork_rng(devices=[]):
            network.train(mode == "training")
            torch.default_generator.manual_seed(seed)
            try:
                return functional_call(network, (cast_weights, buffers), (_as(x, dtype),))
            except Exception as error:
                if short_of_memory(error):
                    raise
                single = mode == "training" and len(x) < 2
                few = "; a batch of one example has no statistics" if single else ""
                raise ValueError(
                    f"{type(network).__name__} does not compute on inputs {list(x.shape)} of {x.dtype} in {mode} mode: "
                    f"{type(error).__name__}: {error}{few}"
                ) from error


@contextmanager
def modes_kept(network: nn.Module | None) -> Iterator[None]:
    """When the block ends, the network and all its parts are in their previous modes, training or evaluation."""
    modes = {} if network is None else {m: m.training for m in network.modules()}
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


def _as(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x.to(dtype) if dtype is not None and x.is_floating_point() else x


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
    """True if the criterion gives all weights of an output unit one score, so that only whole units can be pruned."""
    return usual_allocate(criterion) == "units"
