"""What a training is asked for: data, model and recipe as plain values, the same for every arm and replicate."""

import hashlib
import importlib
import inspect
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from winticket import data as datasets
from winticket import models
from winticket.data import Dataset, Split
from winticket.ticket import Seeds, State
from winticket.train import Recipe


@dataclass(frozen=True)
class Setup:
    """Everything that two trainings share apart from their tickets.

    `data` is the name or path that the user gave; the plan's keys hold `fingerprint`, the hash of the decoded
    examples, in its place, so a folder may be moved. `seed` is the root of all randomness, the split's included.
    `validation` and `test` are sizes of the split (None: the dataset's own). `exclude` are patterns of parameter
    names that are not to be pruned though they are eligible.
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
    exclude: tuple[str, ...] = ()

    def key_fields(self) -> dict[str, Any]:
        """What the plan hashes: all but the data's name, and the source of a user's own model."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data"}
        return {**known, "model_source": model_source(self.model)}

    def module(self) -> nn.Module:
        """The network's computation; its weights are of no account. One object per process, so traces are kept."""
        return _module(self.model, self.input_shape, self.classes, self.init)

    def initial(self, seed: int) -> State:
        """The network freshly initialised from `seed`."""
        module = models.build(
            self.model,
            input_shape=self.input_shape,
            classes=self.classes,
            init=self.init,
            generator_seed=seed,
        )
        weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        return State(weights, {name: b.detach().clone() for name, b in module.named_buffers()}, {}, 0)

    def dataset(self, device: torch.device) -> Dataset:
        """The split data on a device, loaded once per process. ValueError where they are no longer the planned ones."""
        loaded = _dataset(self.data, self.split_seed(), self.validation, self.test, str(device))
        if loaded.fingerprint != self.fingerprint:
            raise ValueError(
                f"{self.data} has changed since the plan was made: fingerprint {loaded.fingerprint[:12]}, planned "
                f"{self.fingerprint[:12]}; plan again"
            )
        return loaded

    def split_seed(self) -> int:
        return Seeds(self.seed, 0).derive("split")


def model_source(model: str) -> str | None:
    """Hash of the source of a user's `package.module:build`, so that editing it makes new results; else None."""
    if ":" not in model:
        return None
    module = importlib.import_module(model.partition(":")[0])
    return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()


@lru_cache(maxsize=8)
def _module(model: str, input_shape: tuple[int, ...], classes: int, init: str | None) -> nn.Module:
    return models.build(model, input_shape=input_shape, classes=classes, init=init, generator_seed=0)


@lru_cache(maxsize=2)
def _dataset(name: str, seed: int, validation: int | None, test: int | None, device: str) -> Dataset:
    loaded = datasets.load(name, seed=seed, validation=validation, test=test)
    if device == "cpu":
        return loaded
    parts = (loaded.train, loaded.validation, loaded.test)
    moved = [Split(part.x.to(device), part.y.to(device)) for part in parts]
    return replace(loaded, train=moved[0], validation=moved[1], test=moved[2])
