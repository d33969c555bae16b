"""What a training is asked for: data, model and recipe as plain values, the same for every arm and replicate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winticket import data as datasets
from winticket import models, ticket, train, units
from winticket.data import Dataset, DatasetInfo, Split
from winticket.importing import import_named
from winticket.run import Unavailable
from winticket.ticket import Seeds, State
from winticket.train import Recipe


@dataclass(frozen=True)
class Setup:
    """Everything that two trainings share apart from their tickets.

    `data` is the name or path that the user gave; the plan's keys hold `fingerprint`, the hash of the decoded
    examples, in its place, so a folder may be moved. `seed` is the root of all randomness, the split's included.
    `validation` and `test` are sizes of the split. With `own_split`, each replicate draws a
    split of its own, so that the verdict speaks of the data and not of one draw of test examples. `include` are
    patterns of parameter names that are pruned although they are not eligible by default (embeddings, recurrent
    weights, ...), and `exclude` patterns of eligible weights that are not pruned. `source` is the hash of a user's own
    model's source (`model_source`), so that editing it makes new results. With `tokens`, examples are text (see
    `winticket.models.check`), which the fingerprint says too.
    """

    data: str
    fingerprint: str
    input_shape: tuple[int, ...]
    classes: int
    model: str
    init: str | None
    recipe: Recipe
    seed: int = 0
    validation: int | None = None
    test: int | None = None
    own_split: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    source: str | None = None
    tokens: bool = False

    def key_fields(self) -> dict[str, Any]:
        """What the plan hashes: all but the data's name and kind, and the rooms' revisions."""
        unsaid = ("data", "tokens")
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in unsaid}
        rooms = {"data": datasets, "models": models, "ticket": ticket, "train": train, "units": units}
        revisions = {name: room.REVISION for name, room in rooms.items()}
        return {**known, "revisions": revisions}

    def module(self) -> nn.Module:
        """The network's computation; its weights are of no account. One object per process, so traces are kept."""
        self._require_source()
        return _module(
            self.model,
            self.source,
            shape=self.input_shape,
            classes=self.classes,
            init=self.init,
            tokens=self.tokens,
        )

    def blank(self, rows: int) -> Tensor:
        """So many inputs of nothing, [rows, *input_shape], for their shape and type."""
        return torch.zeros(rows, *self.input_shape, dtype=torch.int64 if self.tokens else torch.float32)

    def initial(self, seed: int) -> State:
        """The network freshly initialised from `seed`."""
        self._require_source()
        module = models.build(
            self.model,
            input_shape=self.input_shape,
            classes=self.classes,
            init=self.init,
            generator_seed=seed,
            tokens=self.tokens,
            trust=True,
        )
        weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        return State(weights, {name: b.detach().clone() for name, b in module.named_buffers()}, {}, 0)

    def dataset(self, device: torch.device, replicate: int = 0) -> Dataset:
        """A replicate's split data on a device, loaded once per process.

        Raises Unavailable where the data cannot be read, or are no longer the planned ones.
        """
        split = (self.split_seed(replicate), self.validation, self.test)
        try:
            loaded = _dataset(self.data, *split, str(device), window=self._window())
        except (OSError, ValueError, LookupError, ImportError) as error:
            raise Unavailable(
                f"{self.data} cannot be read now, though it could when the plan was made: {error}"
            ) from error
        if loaded.fingerprint != self.fingerprint:
            raise Unavailable(
                f"{self.data} has changed since the plan was made: fingerprint {loaded.fingerprint[:12]}, planned "
                f"{self.fingerprint[:12]}; plan again"
            )
        return loaded

    def _require_source(self) -> None:
        """A worker that starts late must not import a model edited meanwhile, and keep its results as the old one's."""
        if model_source(self.model) != self.source:
            raise Unavailable(
                f"the source of {self.model} is not the one that the plan was made with; run again to plan anew"
            )

    def train_examples(self) -> int:
        """How many examples a replicate trains on."""
        return self.found().sizes(validation=self.validation, test=self.test)[0]

    def found(self) -> DatasetInfo:
        """What there is to know of the data."""
        return datasets.find_dataset(self.data, window=self._window())

    def _window(self) -> int | None:
        return self.input_shape[0] if self.tokens else None

    def split_seed(self, replicate: int = 0) -> int:
        """What decides the split: one for all replicates unless each has its own."""
        return Seeds(self.seed, replicate if self.own_split else 0).derive("split")


def model_source(model: str) -> str | None:
    """Hash of the file that a user's `package.module:build` is in, as this process imported it; else None.

    ValueError for a function that is in no file.
    """
    if ":" not in model:
        return None
    name, file = _file(model)
    spec = import_named(name).__spec__
    if name not in _IMPORTED or _IMPORTED[name][0] is not spec:  # for the first time, or reloaded since
        _IMPORTED[name] = (spec, hashlib.sha256(file.read_bytes()).hexdigest())
    return _IMPORTED[name][1]


def require_unedited(model: str) -> None:
    """ValueError where a user's model was edited after it was imported: what runs is not what is written there."""
    if ":" in model:
        _, file = _file(model)
        if hashlib.sha256(file.read_bytes()).hexdigest() != model_source(model):
            raise ValueError(
                f"{file} has changed since it was imported; start Python anew, or reload the module"
            )


_IMPORTED: dict[str, tuple[ModuleSpec | None, str]] = {}
"""For each user's module: the spec that it was loaded by, and its file's hash then."""


def _file(model: str) -> tuple[str, Path]:
    name = model.partition(":")[0]
    file = getattr(import_named(name), "__file__", None)
    if file is None:  # defined interactively, where no worker could find it either
        raise ValueError(f"model {model!r}: {name} is in no file; put it into a module of its own")
    return name, Path(file)


@lru_cache(maxsize=8)
def _module(
    model: str, source: str | None, *, shape: tuple[int, ...], classes: int, init: str | None, tokens: bool
) -> nn.Module:
    del source  # part of what is remembered, since an edited model is another one
    return models.build(
        model, input_shape=shape, classes=classes, init=init, generator_seed=0, tokens=tokens, trust=True
    )


@lru_cache(maxsize=64)
def _dataset(
    name: str, seed: int, validation: int | None, test: int | None, device: str, *, window: int | None
) -> Dataset:
    loaded = datasets.load(name, seed=seed, validation=validation, test=test, window=window)
    if device == "cpu":
        return loaded
    parts = (loaded.train, loaded.validation, loaded.test)
    moved = [Split(part.x.to(device), part.y.to(device)) for part in parts]
    return replace(loaded, train=moved[0], validation=moved[1], test=moved[2])
