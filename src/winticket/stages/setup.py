"""The setup of a training: data, model and recipe as plain values, the same for every arm and replicate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winticket import data as datasets
from winticket import models, objective, ticket, train, units
from winticket.data import Dataset, DatasetInfo, Reading, Split
from winticket.data.reading import USUAL
from winticket.importing import import_named
from winticket.models import pretrained
from winticket.objective import ACCURACY, LossAndMetric, Objective, Scale
from winticket.run import Unavailable
from winticket.stages.starting import Pretrained
from winticket.ticket import Seeds, State
from winticket.train import Recipe

SPLITS = 64
"""How many splits of data a process keeps."""


@dataclass(frozen=True)
class Setup:
    """Everything that two trainings share, except for their tickets.

    data         the name or path that the user typed; keys hold the fingerprint instead, so a folder may be moved
    fingerprint  the hash of the decoded examples
    seed         the root of all randomness, the split's included
    validation, test  how many examples the parts of the split have
    own_split    whether each replicate draws its own split, so that the verdict is about the data and not about one
                 draw of test examples
    include      patterns of parameter names that are pruned although they are not eligible by default (embeddings,
                 recurrent weights, ...)
    exclude      patterns of eligible weights that are not pruned
    source       the hash of the code of a user's model (`model_source`), so that an edit makes new results
    tokens       whether examples are text (see `winticket.models.check`); the fingerprint holds it too
    reading      how the data are read; the fingerprint holds what comes of it
    noise        0 for the run's own trainings; see `winticket.ticket.Seeds`
    pretrained   the weights that searches start from; None for those that the model draws
    objective    what is minimised and what is judged; None for cross-entropy and accuracy

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> setup.model, setup.input_shape, setup.classes
    ('lenet-300-100', (1, 8, 8), 10)
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
    noise: int = 0
    objective: Objective | None = None
    pretrained: Pretrained | None = None
    reading: Reading = USUAL

    def key_fields(self) -> dict[str, Any]:
        """What keys hold: all but `data`, `reading`, `tokens` and later fields that are unset; rooms' REVISIONs."""
        later = ("noise", "objective", "pretrained")
        outside = {"data", "reading", "tokens", *(name for name in later if not getattr(self, name))}
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in outside}
        known["model"] = models.keyed(self.model)
        rooms = {"data": datasets, "models": models, "ticket": ticket, "train": train, "units": units}
        if self.objective is not None:
            # The metric and its unit do change what a training stores: its curves.
            known["objective"] = asdict(self.objective)
            rooms["objective"] = objective
        if self.pretrained is not None:
            known["pretrained"] = {"digest": self.pretrained.digest, "redraw": self.pretrained.redraw}
        revisions = {name: room.REVISION for name, room in rooms.items()}
        return {**known, "revisions": revisions}

    def in_words(self) -> dict[str, str]:
        """Data, model and recipe as a listing of the store names them; of a path of data, the last part.

        >>> from winticket.experiment import Experiment
        >>> Experiment.of("digits", steps=20).setup().in_words()["recipe"]
        '20 steps, adam 0.0012, batch 60'
        """
        recipe = self.recipe
        data = Path(self.data).name if Path(self.data).exists() else self.data
        return {
            "data": data,
            "model": models.title(self.model),
            "recipe": f"{recipe.steps} steps, {recipe.optimizer} {recipe.lr:g}, batch {recipe.batch}"
            + (f", other SGD noise ({self.noise})" if self.noise else ""),
        }

    def module(self) -> nn.Module:
        """The network, for its computation only; its weights do not matter. One object per process keeps traces."""
        self._require_source()
        return _module(
            self.model,
            self.source,
            shape=self.input_shape,
            classes=self.classes,
            init=self.init,
            tokens=self.tokens,
            target=self.target,
        )

    def loss_and_metric(self) -> LossAndMetric | None:
        """The objective as functions for these data; None for cross-entropy and accuracy.

        Class weights and the unit that numbers are trained in come from the first replicate's training examples, so
        that all replicates minimise the same loss.
        """
        if self.objective is None:
            return None
        self._require_source()
        return _loss_and_metric(self.objective, self, outputs=self.classes)

    @property
    def target(self) -> str:
        """What an example is answered by; see `winticket.models.check`."""
        kinds = {"regression": "numbers", "multi-label": "labels", "segmentation": "positions"}
        return kinds.get(self.objective.task, "classes") if self.objective else "classes"

    def scale(self) -> Scale:
        """The scale of the numbers that networks are judged by."""
        return ACCURACY if self.objective is None else self.objective.scale()

    def blank(self, rows: int) -> Tensor:
        """Zeros [rows, *input_shape] of the type of the network's inputs."""
        return torch.zeros(rows, *self.input_shape, dtype=torch.int64 if self.tokens else torch.float32)

    def initial(self, seed: int) -> State:
        """The state that a search starts from: drawn from `seed`, and pretrained where there are such weights."""
        drawn = self.drawn(seed)
        if self.pretrained is None:
            return drawn
        tensors = pretrained.for_network(self.module(), self.pretrained.tensors())
        taken = pretrained.fit(self.module(), tensors).taken
        return State(
            pretrained.overlaid(drawn.weights, tensors, taken),
            pretrained.overlaid(drawn.buffers, tensors, taken),
            {},
            0,
        )

    def redrawn(self, seed: int) -> State:
        """The state of a re-initialised control: another draw, or the pretrained weights in another order."""
        if self.pretrained is None or self.pretrained.redraw == "fresh":
            return self.drawn(seed)
        start = self.initial(seed)
        generator = torch.Generator().manual_seed(seed)
        return replace(start, weights=pretrained.shuffled(start.weights, list(start.weights), generator))

    def drawn(self, seed: int) -> State:
        """The state of the network as the model initialises it from `seed`."""
        self._require_source()
        module = models.build(
            self.model,
            input_shape=self.input_shape,
            classes=self.classes,
            init=self.init,
            generator_seed=seed,
            tokens=self.tokens,
            target=self.target,
            trust=True,
        )
        weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        return State(weights, {name: b.detach().clone() for name, b in module.named_buffers()}, {}, 0)

    def dataset(self, device: torch.device, replicate: int = 0) -> Dataset:
        """The data of a replicate on a device, split; loaded once per process.

        Errors: Unavailable if the data cannot be read or differ from the planned data.
        """
        split = (self.split_seed(replicate), self.validation, self.test)
        try:
            loaded = _dataset(self.data, *split, str(device), window=self._window(), reading=self.reading)
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
        """A worker that starts late must not store an edited model's results under the key of the old one."""
        users = self.objective.users() if self.objective else ()
        sources = (model_source(self.model), functions_source(users))
        if sources != (self.source, self.objective.source if self.objective else None):
            raise Unavailable(
                f"the source of {', '.join((self.model, *users))} is not the one that the plan was made with; "
                "run again to plan anew"
            )

    def train_examples(self) -> int:
        """How many examples a replicate trains on."""
        facts = self.facts()
        if facts.split_by == "groups":  # Whole groups are held out, of which some rows are not used.
            return len(self.dataset(torch.device("cpu")).train.y)
        return facts.sizes(validation=self.validation, test=self.test)[0]

    def facts(self) -> DatasetInfo:
        """The facts about the data: shapes, classes, sizes."""
        return datasets.find_dataset(self.data, window=self._window(), reading=self.reading)

    def _window(self) -> int | None:
        return self.input_shape[0] if self.tokens else None

    def split_seed(self, replicate: int = 0) -> int:
        """The seed of the split: one for all replicates, or with `own_split` one for each."""
        return Seeds(self.seed, replicate if self.own_split else 0).derive("split")


def model_source(model: str) -> str | None:
    """The hash of the file of a user's `package.module:build`, as this process imported it; None for our models.

    Of a language model's folder, the hash of its configuration. Errors: ValueError for a function that is in no file,
    or a configuration that cannot be read.
    """
    if ":" not in model:
        return models.configured(model)
    name, file = _file(model)
    spec = import_named(name).__spec__
    if name not in _IMPORTED or _IMPORTED[name][0] is not spec:  # for the first time, or reloaded since
        _IMPORTED[name] = (spec, hashlib.sha256(file.read_bytes()).hexdigest())
    return _IMPORTED[name][1]


def functions_source(names: Sequence[str]) -> str | None:
    """One hash of the files of a user's functions `package.module:name`, as `model_source`; None if there are none."""
    sources = [model_source(name) for name in names]
    return hashlib.sha256(repr(sources).encode()).hexdigest() if sources else None


def require_unedited(model: str) -> None:
    """ValueError if a user's model was edited after this process imported it, so that it would run the old code."""
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
    if file is None:  # defined interactively; no worker could find it
        raise ValueError(f"model {model!r}: {name} is in no file; put it into a module of its own")
    return name, Path(file)


@lru_cache(maxsize=8)
def _module(
    model: str,
    source: str | None,
    *,
    shape: tuple[int, ...],
    classes: int,
    init: str | None,
    tokens: bool,
    target: str,
) -> nn.Module:
    del source  # only part of the cache's key: an edited model is another one
    return models.build(
        model,
        input_shape=shape,
        classes=classes,
        init=init,
        generator_seed=0,
        tokens=tokens,
        target=target,
        trust=True,
    )


@lru_cache(maxsize=8)
def _loss_and_metric(chosen: Objective, setup: Setup, *, outputs: int) -> LossAndMetric:
    return objective.functions(chosen, setup.dataset(torch.device("cpu")).train.y, outputs=outputs)


@lru_cache(maxsize=SPLITS)
def _dataset(
    name: str,
    seed: int,
    validation: int | None,
    test: int | None,
    device: str,
    *,
    window: int | None,
    reading: Reading,
) -> Dataset:
    loaded = datasets.load(name, seed=seed, validation=validation, test=test, window=window, reading=reading)
    if device == "cpu":
        return loaded
    parts = (loaded.train, loaded.validation, loaded.test)
    moved = [Split(part.x.to(device), part.y.to(device)) for part in parts]
    return replace(loaded, train=moved[0], validation=moved[1], test=moved[2])
