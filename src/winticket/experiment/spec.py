"""Experiment: the question, declared. Everything that the numbers depend on, and nothing else."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any

from winticket import allocate, controls, criteria, data, models, procedures, rewind
from winticket.allocate import quotas
from winticket.experiment.presets import preset
from winticket.procedures.setup import Setup
from winticket.procedures.stages import Density, prunable
from winticket.ticket import Mask
from winticket.train import Recipe

METHODS = {"imp": procedures.imp, "one-shot": procedures.one_shot}
ARMS = {"reinit": "reinit", "random": "random_mask"}
"""The controls that the verdict knows: name of the arm -> function in `winticket.controls`."""

RECIPE_FIELDS = tuple(f.name for f in fields(Recipe))


@dataclass(frozen=True)
class Experiment:
    """A search for winning tickets with its controls and replicates.

    `levels` rounds of pruning, each taking the share `rate` of the weights that are left (`output_rate` in the output
    layer, by default half of it where layers are pruned on their own; `conv_rate` in convolutions). `replicates` is
    the number of initialisation seeds, each with a mask search of its own; they train in stacks of up to `stack`.
    `margin_pp` is the loss of accuracy, in percentage points, up to which a ticket still matches. With `gate`, the
    dense network is also trained twice as long, to see whether the budget is enough.

    `criterion`, `allocate` and `rewind` are short names in their rooms or import paths (`mylab.scores:fisher`).
    Make one with `Experiment.of(data, ...)`, which fills in what is usual for the data.
    """

    data: str
    model: str
    recipe: Recipe
    init: str | None = None
    method: str = "imp"
    criterion: str = "magnitude"
    allocate: str = "layerwise"
    rewind: str = "to_init"
    controls: tuple[str, ...] = ("reinit", "random")
    levels: int = 12
    rate: float = 0.2
    output_rate: float | None = None
    conv_rate: float | None = None
    exclude: tuple[str, ...] = ()
    replicates: int = 5
    stack: int = 5
    margin_pp: float = 0.5
    alpha: float = 0.05
    gate: bool = True
    seed: int = 0
    validation: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        _choose("method", self.method, METHODS)
        for name in self.controls:
            _choose("control", name, ARMS)
        for name in ("levels", "replicates", "stack"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("rate", "output_rate", "conv_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(
                    f"{name} is {value}; the share pruned per level lies in (0, 1), as 0.2 for a fifth"
                )
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}; an error rate lies in (0, 0.5), usually 0.05")
        if not 0 < self.margin_pp < 100:
            raise ValueError(
                f"margin is {self.margin_pp} percentage points; it lies in (0, 100), usually 0.5"
            )

    @classmethod
    def of(cls, data_name: str, **choices: Any) -> "Experiment":
        """The experiment that is usual for the data, with some choices made otherwise.

        `choices` are fields of `Experiment` or of `Recipe`. Looks the data up (and decodes it the first time).
        Raises ValueError or FileNotFoundError where the data or a choice is not to be had.
        """
        source = data.find_source(data_name)
        chosen = {**preset(data_name, source.input_shape), **choices}
        known = {f.name for f in fields(cls)} | set(RECIPE_FIELDS)
        for name in chosen:
            if name not in known - {"data", "recipe"}:
                raise TypeError(
                    f"an experiment has no choice {name!r}{_nearest(name, known)}; there are {sorted(known)}"
                )
        recipe = Recipe(**{k: v for k, v in chosen.items() if k in RECIPE_FIELDS})
        return cls(
            data=data_name, recipe=recipe, **{k: v for k, v in chosen.items() if k not in RECIPE_FIELDS}
        )

    def but(self, **choices: Any) -> "Experiment":
        """The same with other choices, fields of the experiment or of its recipe."""
        recipe = replace(self.recipe, **{k: v for k, v in choices.items() if k in RECIPE_FIELDS})
        return replace(self, recipe=recipe, **{k: v for k, v in choices.items() if k not in RECIPE_FIELDS})

    def setup(self) -> Setup:
        """Data and model looked up. Raises ValueError where they do not fit each other or the recipe."""
        source = data.find_source(self.data)
        models.check(self.model, input_shape=source.input_shape, classes=source.classes)
        return Setup(
            data=self.data,
            fingerprint=source.fingerprint,
            input_shape=source.input_shape,
            classes=source.classes,
            model=self.model,
            init=self.init or models.default_init(self.model),
            recipe=self.recipe,
            seed=self.seed,
            validation=self.validation,
            test=self.test,
            exclude=self.exclude,
        )

    def densities(self) -> list[Density]:
        """The share kept of each part of the network after levels 1..levels: (1 - rate)^level."""
        rates = {"*": self.rate}
        if self.allocate == "layerwise":
            rates["output"] = self.rate / 2 if self.output_rate is None else self.output_rate
        elif self.output_rate is not None:
            rates["output"] = self.output_rate
        if self.conv_rate is not None:
            rates["conv"] = self.conv_rate
        if rates == {"*": self.rate}:
            return [(1 - self.rate) ** level for level in range(1, self.levels + 1)]
        return [{k: (1 - r) ** level for k, r in rates.items()} for level in range(1, self.levels + 1)]

    def counts(self, setup: Setup) -> list[int]:
        """Eligible weights kept at levels 0..levels. ValueError where a level would keep none of a layer."""
        weights = dict(setup.module().named_parameters())
        whole = Mask.full({n: weights[n].detach() for n in prunable(setup)})
        counts = [whole.total()]
        for level, density in enumerate(self.densities(), 1):
            groups = quotas(whole, density, competing=self.allocate != "layerwise")
            for names, count in groups:
                if count < 1:
                    raise ValueError(
                        f"level {level} would keep none of the {sum(whole.keep[n].numel() for n in names)} weights of "
                        f"{', '.join(names)}: more pruning than weights; ask for at most {level - 1} levels, or a "
                        "smaller rate"
                    )
            counts.append(sum(count for _, count in groups))
        return counts

    def describe(self) -> dict[str, Any]:
        """Every choice under its own name, flat, for people and for the result document."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "recipe"}
        recipe = {name: getattr(self.recipe, name) for name in RECIPE_FIELDS}
        flat = {**own, **recipe, "arms": ["dense", "ticket", *self.controls]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}


def resolve(room: ModuleType, name: str) -> Callable[..., Any]:
    """The function that a short name means in a room, or that an import path `package.module:function` names."""
    if ":" in name:
        place, _, function = name.partition(":")
        try:
            found = getattr(importlib.import_module(place), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{name!r} cannot be imported: {error}; give package.module:function") from error
        if not callable(found):
            raise ValueError(f"{name!r} is a {type(found).__name__}, not a function")
        return found  # type: ignore[no-any-return]
    offered = methods(room)
    _choose(room.__name__.rpartition(".")[2], name, offered)
    return offered[name]


def methods(room: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions of a room: what the command offers."""
    return {n: getattr(room, n) for n in room.__all__ if type(getattr(room, n)).__name__ == "function"}


def stages(experiment: Experiment) -> dict[str, Callable[..., Any]]:
    """The experiment's criterion, allocation and rewind as functions."""
    rooms = {"criterion": criteria, "allocate": allocate, "rewind": rewind}
    return {option: resolve(room, getattr(experiment, option)) for option, room in rooms.items()}


def control(arm: str) -> Callable[..., Any]:
    """The control behind an arm."""
    return resolve(controls, ARMS[arm])


def _choose(what: str, name: str, offered: Mapping[str, Any]) -> None:
    if name not in offered:
        raise ValueError(f"unknown {what} {name!r}{_nearest(name, offered)}; there are {', '.join(offered)}")


def _nearest(name: str, offered: Any) -> str:
    close = difflib.get_close_matches(name, list(offered), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
