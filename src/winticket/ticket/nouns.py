"""Mask, State, Seeds, Ticket, Trajectory, Failed: frozen values that every stage takes and gives.

Tensors inside them are never written to; a stage that changes a weight makes a new one. Mappings are
copied into plain dictionaries, so that the values can be pickled and sent to another process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from winticket.ticket import file
from winticket.ticket.curve import Curve
from winticket.ticket.file import TicketFileError
from winticket.units import PLAIN, Layout, dead_parameters, zeroed

Weights: TypeAlias = Mapping[str, Tensor]
Scores: TypeAlias = Mapping[str, Tensor]
JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

SHOWN = 8
"""Output units that are named, where more of them have no weight left."""


def output_units(layer: str, units: Sequence[int]) -> str:
    """Some units of the output layer in words, as "fc3.weight (output units 0, 7)"."""
    shown = ", ".join(map(str, units[:SHOWN])) + (f" and {len(units) - SHOWN} more" if units[SHOWN:] else "")
    return f"{layer} (output {'unit' if len(units) == 1 else 'units'} {shown})"


@dataclass(frozen=True, eq=False)
class Mask:
    """Which eligible weights are alive. A state of its own: never inferred from zeros in the weights.

    `keep` has one bool tensor per eligible weight, of that weight's shape; True is alive. `layout` says, for weights
    that are not [units, inputs, *positions], which axis is what (`winticket.units.layouts(model)` knows, of a
    transposed convolution for instance); allocations, criteria and controls go by it.
    Raises TypeError, naming the layer, where a tensor is not bool.
    """

    __storable__: ClassVar[bool] = True

    keep: Mapping[str, Tensor]
    layout: Mapping[str, Layout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, keep in self.keep.items():
            if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
                given = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
                raise TypeError(
                    f"the mask of layer {name!r} is {given}, not torch.bool; compare to make one (scores > 0)"
                )
        object.__setattr__(self, "keep", dict(self.keep))
        special = {n: self.layout[n] for n in self.keep if self.layout.get(n, PLAIN) != PLAIN}
        object.__setattr__(self, "layout", special)

    @classmethod
    def full(cls, weights: Weights, *, layout: Mapping[str, Layout] | None = None) -> Mask:
        """The mask that keeps every one of `weights` (give the eligible ones only), which are laid out so."""
        keep = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        return cls(keep, layout or {})

    def laid_out(self, name: str) -> Layout:
        """Which axis of a layer's weight is what."""
        return self.layout.get(name, PLAIN)

    def empty_units(self, name: str) -> tuple[int, ...]:
        """The units of a layer that no weight goes into, by number."""
        rows = self.laid_out(name).by_unit(self.keep[name]).flatten(1)
        return tuple(torch.nonzero(~rows.any(1)).flatten().tolist()) if rows.numel() else ()

    def layers(self) -> dict[str, tuple[int, int]]:
        """Layer name -> (weights kept, weights in all), in the mask's own order."""
        return {name: (int(keep.sum()), keep.numel()) for name, keep in self.keep.items()}

    def count(self) -> int:
        """Weights kept."""
        return sum(kept for kept, _ in self.layers().values())

    def total(self) -> int:
        """Eligible weights, kept or not."""
        return sum(keep.numel() for keep in self.keep.values())

    def density(self) -> float:
        """Kept / eligible, in 0..1. Raises ValueError for a mask over no weights."""
        if not self.total():
            raise ValueError("a mask over no weights has no density; the model has no eligible weight")
        return self.count() / self.total()

    def emptied(self, *, output: str | None = None) -> tuple[str, ...]:
        """Names of the layers that have weights but keep none: nothing passes through them.

        Of the layer called `output`, whose units are the classes, those too that no weight goes into, in words.
        """
        names = tuple(name for name, (kept, total) in self.layers().items() if total and not kept)
        if output is None or output not in self.keep or output in names:
            return names
        lost = self.empty_units(output)
        return (*names, output_units(output, lost)) if lost else names

    def within(self, wider: Mask) -> bool:
        """True where every weight kept here is kept in `wider` too. ValueError if the layers differ."""
        _same_layers("the two masks", self.keep, wider.keep)
        return not any(
            bool((keep & ~wider.keep[name].to(keep.device)).any()) for name, keep in self.keep.items()
        )

    def apply(self, weights: Weights) -> dict[str, Tensor]:
        """A copy of `weights` with pruned weights exactly 0.0 and all others, eligible or not, as they are.

        Raises ValueError where a masked layer is absent from `weights` or has another shape.
        """
        _same_layers(
            "mask and weights", self.keep, {name: w for name, w in weights.items() if name in self.keep}
        )
        # masked_fill, not a product: inf * 0 is nan and -1 * 0 is -0.
        return {
            name: w.masked_fill(~self.keep[name].to(w.device), 0) if name in self.keep else w.clone()
            for name, w in weights.items()
        }


@dataclass(frozen=True, eq=False)
class State:
    """A network at one training step: enough to go on from, bit for bit.

    `weights` are all parameters (eligible or not), `buffers` such as BatchNorm's statistics, `optimizer`
    the optimiser's tensors by name (empty where it starts afresh); `step` counts updates made so far.
    """

    __storable__: ClassVar[bool] = True

    weights: Weights
    buffers: Weights
    optimizer: Weights
    step: int

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"step {self.step} is negative; a state is at step 0 (init) or later")
        for part in ("weights", "buffers", "optimizer"):
            object.__setattr__(self, part, dict(getattr(self, part)))


@dataclass(frozen=True)
class Seeds:
    """Where all randomness of one replicate comes from: the experiment's root and the replicate's number."""

    __storable__: ClassVar[bool] = True

    root: int
    replicate: int

    def derive(self, *purpose: str | int) -> int:
        """A 63-bit seed for one purpose, as `seeds.derive("order", 3)`.

        The first 63 bits of the SHA-256 of the JSON list [root, replicate, *purpose], so a new consumer
        of randomness shifts nobody else's, and "3" and 3 are different purposes.
        """
        for word in purpose:
            if not isinstance(word, str | int) or isinstance(word, bool):
                raise TypeError(f"a seed's purpose is words and whole numbers, not {word!r}")
        text = json.dumps([self.root, self.replicate, *purpose], separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, eq=False)
class Ticket:
    """A mask, the state to train from, and where both come from.

    `origin` says in a word what made it ("dense", "imp", "reinit", ...); `about` is free JSON (model,
    recipe, data fingerprint). Raises ValueError where mask and weights do not fit each other or `about`
    is not JSON (a nan is not: write None).
    """

    __storable__: ClassVar[bool] = True

    mask: Mask
    start: State
    origin: str
    seeds: Seeds
    about: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        masked = {name: w for name, w in self.start.weights.items() if name in self.mask.keep}
        _same_layers("mask and start weights", self.mask.keep, masked)
        object.__setattr__(self, "about", _plain_json("about", self.about))

    def __repr__(self) -> str:
        kept, eligible = self.mask.count(), self.mask.total()
        return (
            f"Ticket({self.origin!r}, {kept} of {eligible} weights kept (density {self.mask.density():.4g}) in "
            f"{len(self.mask.keep)} layers, from step {self.start.step}, {self.seeds})"
        )

    def excluded(self) -> tuple[str, ...]:
        """Names of the parameters that are not eligible: no mask covers them."""
        return tuple(name for name in self.start.weights if name not in self.mask.keep)

    def model_density(self) -> float:
        """(Kept eligible weights + parameters never pruned) / all parameters, in 0..1."""
        parameters = sum(w.numel() for w in self.start.weights.values())
        if not parameters:
            raise ValueError("a ticket without parameters has no density")
        return (parameters - self.mask.total() + self.mask.count()) / parameters

    def settled(self, model: nn.Module) -> Ticket:
        """The ticket with all that goes with dead units 0 in its start, if its mask takes whole units of `model`."""
        lost = dead_parameters(model, self.mask)
        return (
            replace(self, start=replace(self.start, weights=zeroed(self.start.weights, lost)))
            if lost
            else self
        )

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Put the start state into `model`, pruned weights 0: weights and buffers, in place.

        Under a mask of whole units, what goes with a dead unit is 0 as well (`winticket.units.dead`). A buffer that
        training has given another shape (a queue, an observer) is replaced by the ticket's. ValueError,
        before anything is written, where names, or shapes of parameters, are not the ticket's.
        """
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        _same_layers("ticket and model", self.start.weights, parameters)
        same = {name: self.start.buffers.get(name, buffer) for name, buffer in buffers.items()}
        _same_layers("the buffers of ticket and model", self.start.buffers, same)
        start = zeroed(self.mask.apply(self.start.weights), dead_parameters(model, self.mask))
        for name, value in start.items():
            parameters[name].copy_(value)
        for name, value in self.start.buffers.items():
            if buffers[name].shape == value.shape:
                buffers[name].copy_(value)
            else:
                path, _, attribute = name.rpartition(".")
                model.get_submodule(path)._buffers[attribute] = value.to(buffers[name].device, copy=True)

    def save(self, path: str | Path, **metadata: JSON) -> None:
        """Write the ticket to one file, whole or not at all; `metadata` is added to `about` in the file.

        Layout: `winticket.ticket.file`. Raises ValueError where metadata is not JSON and OSError where
        the file cannot be written.
        """
        about = _plain_json("metadata", {**self.about, **metadata})
        document = {
            "origin": self.origin,
            "step": self.start.step,
            "seeds": {"root": self.seeds.root, "replicate": self.seeds.replicate},
            "about": about,
            "density": self.mask.density(),
            "model_density": self.model_density(),
            "layers": {
                name: {
                    "kept": kept,
                    "total": total,
                    "shape": list(self.mask.keep[name].shape),
                    **({"layout": asdict(self.mask.layout[name])} if name in self.mask.layout else {}),
                }
                for name, (kept, total) in self.mask.layers().items()
            },
            "excluded": list(self.excluded()),
        }
        tensors = {
            "mask": self.mask.keep,
            "weights": self.start.weights,
            "buffers": self.start.buffers,
            "optimizer": self.start.optimizer,
        }
        file.write(Path(path), tensors=tensors, document=document)

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket that `save` wrote, bit for bit.

        Raises TicketFileError, with the reason, where the file is absent, truncated, damaged, not a
        ticket, or of a newer format.
        """
        tensors, document = file.read(Path(path))
        said = {name: layer.get("layout") for name, layer in document["layers"].items()}
        try:
            return cls(
                mask=Mask(
                    tensors["mask"], {name: Layout(**options) for name, options in said.items() if options}
                ),
                start=State(
                    weights=tensors["weights"],
                    buffers=tensors["buffers"],
                    optimizer=tensors["optimizer"],
                    step=document["step"],
                ),
                origin=document["origin"],
                seeds=Seeds(**document["seeds"]),
                about=document["about"],
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise TicketFileError(f"{path} is damaged: {error}") from error


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What one training run left: its ticket, the states saved on the way (by step), and its curve."""

    __storable__: ClassVar[bool] = True

    ticket: Ticket
    saved: Mapping[int, State]
    curve: Curve
    about: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for step, state in self.saved.items():
            if state.step != step:
                raise ValueError(f"the state saved under step {step} says that it is at step {state.step}")
        object.__setattr__(self, "saved", dict(self.saved))
        object.__setattr__(self, "about", _plain_json("about", self.about))


@dataclass(frozen=True)
class Failed:
    """A replicate that diverged: it keeps the replicate's place in a stack and is counted, never dropped.

    `step` is the update at which it failed; None where that is not known. `failed_replicate` marks the class
    for the plan, which hands such a value on through every stage of that replicate.
    """

    __storable__: ClassVar[bool] = True

    failed_replicate: ClassVar[bool] = True

    reason: str
    step: int | None
    seeds: Seeds


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _same_layers(what: str, a: Weights, b: Weights) -> None:
    """Raise ValueError, naming the layers, unless both have the same names and shapes."""
    if a.keys() != b.keys():
        raise ValueError(
            f"{what} do not cover the same layers: {_names(a.keys() ^ b.keys())} only on one side"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise ValueError(
                f"{what} disagree about layer {name!r}: shapes {tuple(a[name].shape)} and "
                f"{tuple(b[name].shape)}"
            )


def _plain_json(what: str, value: Mapping[str, JSON]) -> dict[str, JSON]:
    """`value` as it comes back from a file (tuples become lists); ValueError where it is not JSON."""
    try:
        plain: dict[str, JSON] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} must be JSON (text, finite numbers, true, false, null, lists, objects): {error}"
        ) from error
    return plain
