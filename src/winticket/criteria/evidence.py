"""What a criterion may see."""

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
"""Raised when what criteria get, or what is made of their scores (`applied.py`, `losses.py`), changes."""

Batch = tuple[Tensor, Tensor]
"""Inputs x [B, ...] and classes y [B], or y [B, ...] where an input wants an answer at each of several positions."""

Mode = Literal["evaluation", "training"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The state to score, the initial weights, the mask, and randomness of its own.

    `start` is where the whole search began, at every level and under every rewind: w₀ is a weight's initial value, not
    the one that the last training set out from.

    Criteria that look at the network's computation are also given `network`, of whose weights only those in `now`
    count, with an `example` [1, ...] of its inputs, and, where they need data, `batches` of training examples. It
    computes with pruned weights 0, in float64 (`dtype`), and in the `mode` that the criterion asks for (`needs`):
    in evaluation without dropout and with BatchNorm's running statistics, in training with those of each batch, and
    dropout drawn from `generator`'s seed; statistics that training mode would move are copies.
    `classes_last` says that the network's logits are [B, ..., classes] where their shape would leave it open.
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
    def of(cls, ticket: Ticket, now: State, *, start: State, **seen: Any) -> Evidence:
        """What a criterion is given of a ticket's training: its mask, the state `now`, and a generator of its seeds.

        `seen` is what else it may look at: network, example, batches, classes_last.
        """
        generator = torch.Generator().manual_seed(ticket.seeds.derive("criterion", ticket.mask.count()))
        return cls(now=now, start=start, mask=ticket.mask, generator=generator, **seen)

    @functools.cached_property
    def dtype(self) -> torch.dtype | None:
        """float64; None, for the network's own types, where it computes in no other.

        Found by trying; a RuntimeWarning tells of the second. ValueError where the network cannot compute at all.
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
                f"its own {' and '.join(sorted(types))}, less exactly",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return torch.float64

    def weights(self) -> dict[str, Tensor]:
        """All weights of `now` in `dtype`, pruned ones 0; those under the mask are leaves that take gradients."""
        masked = self.mask.apply(self.now.weights)
        return {n: _as(w, self.dtype).detach().requires_grad_(n in self.mask.keep) for n, w in masked.items()}

    def module(self) -> nn.Module:
        """The network, in the evidence's mode. ValueError where none was given."""
        return self._network().train(self.mode == "training")

    def logits(self, weights: Mapping[str, Tensor], x: Tensor, *, draw: int = 0) -> Tensor:
        """The network's output for x [B, ...] with these weights.

        In training mode the same `draw` drops out the same. ValueError, with the cause, where the network does not take
        x, or gives something else than a tensor.
        """
        output = self._computed(weights, x, mode=self.mode, dtype=self.dtype, draw=draw)
        return require_logits(output, type(self.network).__name__)

    def loss(
        self, weights: Mapping[str, Tensor], batch: Batch, *, temperature: float = 1.0, draw: int = 0
    ) -> Tensor:
        """Mean cross-entropy over all answers of a batch, of logits divided by `temperature`; `draw` as in `logits`.

        ValueError where targets are no classes, or do not fit the logits.
        """
        x, y = batch
        logits = self.logits(weights, x, draw=draw) / temperature
        return cross_entropy(logits, y, classes_last=self.classes_last)

    def one(self) -> Tensor:
        """An input [1, ...], for its shape and type. ValueError where none was given."""
        if self.example is None:
            raise ValueError("this criterion needs an input's shape; give the evidence one (example=...)")
        return self.example

    def examples(self) -> Sequence[Batch]:
        """The batches. ValueError where there are none."""
        if not self.batches:
            raise ValueError("this criterion needs training examples; give the evidence some (batches=...)")
        return self.batches

    def of_eligible(self, tensors: Iterable[Tensor | None]) -> Scores:
        """Tensors in the mask's order under the mask's names, in float64; None, of a weight without influence, as 0."""
        return {
            name: torch.zeros(keep.shape, dtype=torch.float64) if t is None else t.detach().double()
            for (name, keep), t in zip(self.mask.keep.items(), tensors, strict=True)
        }

    def _network(self) -> nn.Module:
        if self.network is None:
            raise ValueError("this criterion looks at the network; give the evidence one (network=...)")
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
        given = {name: _as(w, dtype) for name, w in weights.items()}
        seed = Seeds(self.generator.initial_seed(), draw).derive("dropout of a criterion")
        with modes_kept(network), torch.random.fork_rng(devices=[]):
            network.train(mode == "training")
            torch.default_generator.manual_seed(seed)
            try:
                return functional_call(network, (given, buffers), (_as(x, dtype),))
            except Exception as error:
                if short_of_memory(error):
                    raise
                few = (
                    "; batches of one example have no statistics" if mode == "training" and len(x) < 2 else ""
                )
                raise ValueError(
                    f"{type(network).__name__} does not compute on inputs {list(x.shape)} of {x.dtype} in {mode} mode: "
                    f"{type(error).__name__}: {error}{few}"
                ) from error


@contextmanager
def modes_kept(network: nn.Module | None) -> Iterator[None]:
    """The network and all within it are in the modes of before, training or evaluation, when the block ends."""
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
    """Mark a criterion by what it needs beside weights and mask, and by how its paper uses it.

    `what`: `NETWORK`, `DATA`; `TRAINING` to have gone before; `RANDOM`, numbers from the generator. `rounds` is over
    how many rounds, of exponentially falling density, its paper prunes a network at initialisation. `mode` is that in
    which the network computes for it, whatever the evidence says: its authors'. With `layer_by_layer`, layers are
    scored and pruned one after the other, in the order in which they compute, so that each is scored with those before
    it pruned. `allocate` is the allocation of its paper and the default beside it (`criterion.usual_allocate`), `also`
    names others that its paper uses. `in_layer` names the criterion that ranks the weights of one layer in the same
    way.
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
    """What a criterion needs beside weights and mask; nothing unless it says so."""
    return frozenset(_marked(criterion, "needs", ()))


def rounds_at_init(criterion: Criterion) -> int:
    """Rounds that its paper takes to prune at initialisation."""
    return int(_marked(criterion, "rounds", 1))


def usual_allocate(criterion: Criterion) -> str:
    """The name of the allocation that its paper uses; layerwise unless it says another."""
    return str(_marked(criterion, "usual_allocate", "layerwise"))


def mode_of(criterion: Criterion) -> Mode:
    """The mode in which the network computes for a criterion."""
    mode: Mode = _marked(criterion, "mode", "evaluation")
    return mode


def is_layer_by_layer(criterion: Criterion) -> bool:
    """Whether each layer is scored with those before it pruned already."""
    return bool(_marked(criterion, "layer_by_layer", False))


def _marked(criterion: Criterion, name: str, default: Any) -> Any:
    """What was said of a criterion by `needs`, also of one whose options were filled in by `functools.partial`."""
    while isinstance(criterion, functools.partial) and not hasattr(criterion, name):
        criterion = criterion.func
    return getattr(criterion, name, default)


def scores_units(criterion: Criterion) -> bool:
    """Whether it gives all weights of an output unit one score, so that only whole units can go."""
    return usual_allocate(criterion) == "units"
