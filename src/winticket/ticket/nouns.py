"""State, Seeds, Ticket, Trajectory, Failed: frozen values that every stage takes and returns, as it does `Mask`.

Their tensors are never written to; a stage that changes a weight makes a new tensor. Mappings are copied into plain
dictionaries, so that the values can be pickled and sent to another process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from winticket.ticket import file
from winticket.ticket.building import named_model
from winticket.ticket.curve import Curve
from winticket.ticket.file import TicketFileError
from winticket.ticket.mask import Mask, Weights, same_layers
from winticket.units import Layout, dead_parameters, zeroed

Scores: TypeAlias = Mapping[str, Tensor]
JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


@dataclass(frozen=True, eq=False)
class State:
    """A network at one training step: enough to continue from, bit for bit.

    weights: all parameters, eligible or not. buffers: such as BatchNorm's statistics. optimizer: the optimiser's
    tensors by name; empty if it starts afresh. step: the number of updates made so far. Raises ValueError if it is
    negative.

    >>> import torch
    >>> from winticket.ticket import State
    >>> State({"fc.weight": torch.ones(2, 2)}, buffers={}, optimizer={}, step=0).step
    0
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


SGD_NOISE = ("order", "augment", "dropout")
"""The purposes whose seeds depend on a replicate's noise."""


@dataclass(frozen=True)
class Seeds:
    """The origin of all randomness of one replicate: the experiment's root seed and the replicate's number.

    noise: 0 for the run's own training. Another number gives the same replicate other SGD noise: the order of examples,
    augmentation and dropout differ, and nothing else does (Frankle et al. 2020 call such trainings children).

    >>> from winticket.ticket import Seeds
    >>> Seeds(root=0, replicate=1).derive("order", 3) == Seeds(0, 1).derive("order", "3")
    False
    """

    __storable__: ClassVar[bool] = True

    root: int
    replicate: int
    noise: int = 0

    def key_fields(self) -> dict[str, int]:
        """What keys hold; the run's own noise is left out, so that its keys are those from before there was another."""
        return {"root": self.root, "replicate": self.replicate} | (
            {"noise": self.noise} if self.noise else {}
        )

    def derive(self, *purpose: str | int) -> int:
        """A 63-bit seed for one purpose, such as `seeds.derive("order", 3)`.

        It is the first 63 bits of the SHA-256 of the JSON list [root, replicate, *purpose]. So a new consumer of
        randomness changes no other seed, and "3" and 3 are different purposes. Raises TypeError if a part is neither
        text nor an integer.
        """
        for part in purpose:
            if not isinstance(part, str | int) or isinstance(part, bool):
                raise TypeError(f"a seed's purpose consists of text and integers, not {part!r}")
        source: list[object] = [self.root, self.replicate, *purpose]
        if self.noise and purpose[0] in SGD_NOISE:
            source.append({"noise": self.noise})
        text = json.dumps(source, separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, eq=False)
class Ticket:
    """A mask, the state to train from, and where both come from.

    origin: what made it ("dense", "imp", "reinit", ...). about: free JSON (model, recipe, data fingerprint). Raises
    ValueError if mask and weights do not fit together, or if `about` is not JSON; a nan is not JSON, so use None.

    >>> import torch
    >>> from winticket import Mask, Ticket
    >>> from winticket.ticket import Seeds, State
    >>> start = State({"fc.weight": torch.ones(2, 2), "fc.bias": torch.zeros(2)}, {}, {}, step=0)
    >>> mask = Mask({"fc.weight": torch.tensor([[True, False], [True, True]])})
    >>> ticket = Ticket(mask, start, "imp", Seeds(0, 0))
    >>> ticket.excluded(), round(ticket.model_density(), 3)
    (('fc.bias',), 0.833)
    """

    __storable__: ClassVar[bool] = True

    mask: Mask
    start: State
    origin: str
    seeds: Seeds
    about: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        masked = {name: w for name, w in self.start.weights.items() if name in self.mask.keep}
        same_layers("mask and start weights", self.mask.keep, masked)
        object.__setattr__(self, "about", _plain_json("about", self.about))

    def __repr__(self) -> str:
        kept, eligible = self.mask.count(), self.mask.total()
        return (
            f"Ticket({self.origin!r}, {kept} of {eligible} weights kept (density {self.mask.density():.4g}) in "
            f"{len(self.mask.keep)} layers, from step {self.start.step}, {self.seeds})"
        )

    def excluded(self) -> tuple[str, ...]:
        """Names of the parameters that are not eligible, so that no mask covers them."""
        return tuple(name for name in self.start.weights if name not in self.mask.keep)

    def model_density(self) -> float:
        """(Kept eligible weights + parameters that are never pruned) / all parameters, in 0..1."""
        parameters = sum(w.numel() for w in self.start.weights.values())
        if not parameters:
            raise ValueError("a ticket without parameters has no density")
        return (parameters - self.mask.total() + self.mask.count()) / parameters

    def settled(self, model: nn.Module) -> Ticket:
        """The ticket whose start has 0 in everything that depends on dead units, if its mask prunes whole units."""
        lost = dead_parameters(model, self.mask)
        return (
            replace(self, start=replace(self.start, weights=zeroed(self.start.weights, lost)))
            if lost
            else self
        )

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Copy the start state into `model`, in place: weights, with pruned ones 0, and buffers.

        If the mask prunes whole units, everything that depends on a dead unit is 0 as well (`winticket.units.dead`). A
        buffer whose shape training has changed (a queue, an observer) is replaced by the ticket's. Raises ValueError,
        before anything is written, if names or shapes of parameters differ from the ticket's.
        """
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        same_layers("ticket and model", self.start.weights, parameters)
        same = {name: self.start.buffers.get(name, buffer) for name, buffer in buffers.items()}
        same_layers("the buffers of ticket and model", self.start.buffers, same)
        start = zeroed(self.mask.apply(self.start.weights), dead_parameters(model, self.mask))
        for name, value in start.items():
            parameters[name].copy_(value)
        for name, value in self.start.buffers.items():
            if buffers[name].shape == value.shape:
                buffers[name].copy_(value)
            else:
                path, _, attribute = name.rpartition(".")
                model.get_submodule(path)._buffers[attribute] = value.to(buffers[name].device, copy=True)

    def build_model(self, *, trust: Sequence[str] = ()) -> nn.Module:
        """The network that the ticket fits, with the ticket's start in it: weights, with pruned ones 0, and buffers.

        `about["build"]` names the network, as `find` and `winticket ship` write it. trust: modules of your own that it
        may import. Raises ValueError if there is no such entry, if a module is not trusted, or if the network does not
        fit the ticket.

        >>> import winticket
        >>> build = {"name": "lenet-20", "input_shape": [4], "classes": 3, "generator_seed": 0}
        >>> ticket = winticket.prune(winticket.models.build(**build), 0.5)
        >>> model = replace(ticket, about={"build": build}).build_model()
        >>> int(model.fc1.weight.count_nonzero())
        40
        """
        parameters = sum(w.numel() for w in self.start.weights.values())
        model = named_model(self.about, parameters=parameters, trust=trust)
        self.load_into(model)
        return model

    def save(self, path: str | Path, **metadata: JSON) -> None:
        """Write the ticket to one file, whole or not at all; `metadata` is added to `about` in the file.

        Layout: `winticket.ticket.file`. Raises ValueError if metadata is not JSON, and OSError if the file cannot be
        written.
        """
        about = _plain_json("metadata", {**self.about, **metadata})
        document = {
            "origin": self.origin,
            "step": self.start.step,
            "seeds": self.seeds.key_fields(),
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

        Raises TicketFileError, with the reason, if the file is absent, truncated, damaged, not a ticket, or of a newer
        format.
        """
        tensors, document = file.read(Path(path))
        layouts = {name: layer.get("layout") for name, layer in document["layers"].items()}
        try:
            return cls(
                mask=Mask(
                    tensors["mask"], {name: Layout(**options) for name, options in layouts.items() if options}
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
    """What one training left: its ticket, the states that it saved (by step), and its curve.

    about: free JSON. Raises ValueError if a state is saved under another step than its own, or if `about` is not JSON.

    >>> import torch
    >>> from winticket.ticket import Curve, Mask, Seeds, State, Ticket, Trajectory
    >>> start = State({"fc.weight": torch.ones(2, 2)}, {}, {}, step=0)
    >>> ticket = Ticket(Mask.full(start.weights), start, "dense", Seeds(0, 0))
    >>> curve = Curve(torch.tensor([0]), *[torch.tensor([0.5]).double() for _ in range(6)])
    >>> Trajectory(ticket, {0: start}, curve).curve.last()["test_accuracy"]
    0.5
    """

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
    """A replicate that diverged: it keeps the replicate's position in a stack and is counted, never dropped.

    step: the update at which it failed; None if that is not known. `failed_replicate` marks the class for the plan,
    which passes such a value through every stage of that replicate.

    >>> from winticket.ticket import Failed, Seeds
    >>> Failed("the loss is not finite", 120, Seeds(0, 3)).step
    120
    """

    __storable__: ClassVar[bool] = True

    failed_replicate: ClassVar[bool] = True

    reason: str
    step: int | None
    seeds: Seeds


def _plain_json(what: str, value: Mapping[str, JSON]) -> dict[str, JSON]:
    """`value` as it comes back from a file (tuples become lists). Raises ValueError if it is not JSON."""
    try:
        plain: dict[str, JSON] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} must be JSON (text, finite numbers, true, false, null, lists, objects): {error}"
        ) from error
    return plain
