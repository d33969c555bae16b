"""Experiment: the question, declared. Everything that the numbers depend on, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from inspect import signature
from math import prod
from pathlib import Path
from typing import Any, Literal, Self, cast

from winticket import allocate, data, models, pairing, rewind, schedules
from winticket.catalogue import choose, typed_again
from winticket.data import DatasetInfo
from winticket.experiment.choices import effective, proportionate
from winticket.experiment.filled import check_fit, filled_in
from winticket.experiment.names import (
    ARMS,
    BY_LAYER,
    METHODS,
    check_carried,
    facts,
    functions,
    methods,
    resolve,
    usual_allocation,
    usual_criterion,
)
from winticket.limits import EXPERIMENT as LIMITS
from winticket.limits import check as check_limits
from winticket.results import Question
from winticket.rewind import takes_step
from winticket.stages import Setup, model_source, require_unedited
from winticket.text import nearest
from winticket.train import Recipe

SPLITS = dict.fromkeys(("auto", "shared", "own"))
SMALL = 2**24
"""Values in a dataset up to which each replicate may hold a split of its own (64 MiB as float32)."""
MOST_TRAININGS = 200_000
RECIPE_FIELDS = tuple(f.name for f in fields(Recipe))
CARRIED = ("source", "carried")
"""Fields of a transfer alone, which are no choices."""
FOUND_BY = (
    *(
        "method",
        "criterion",
        "allocate",
        "rewind",
        "rewind_step",
        "rate",
        "pruning",
        "final_density",
        "density",
    ),
    *("output_rate", "conv_rate", "exclude"),
)
"""Fields that a transfer describes with its source's values."""


@dataclass(frozen=True)
class Experiment:
    """A search for winning tickets with its controls and replicates.

    `levels` rounds of pruning, each taking the share `rate` of the weights that are left (`output_rate` in the output
    layer, by default half of it in a LeNet or Conv network whose layers are pruned on their own, as in the 2019 paper;
    `conv_rate` in convolutions). Instead, `final_density` is the density to end at, on the schedule `pruning`, or
    `density` are those of all levels; both are for the whole network or, as `allocate` has it, for every layer alike.
    `replicates` is the number of initialisation seeds, each with a mask search of its own; they train in stacks of up
    to `stack`.
    `margin_pp` is the loss of accuracy, in percentage points, up to which a ticket still matches. With `gate`, the
    dense network is also trained twice as long, to see whether the budget is enough.

    `split` says whether replicates share one split of the data or each draws its own; `auto` is their own where the
    data have no test split and are small (a verdict over one draw of 450 test digits speaks of those 450).

    `rewind_step` is the step that tickets are rewound to by a rewind that takes one (`to_step`, ...). `every` is the
    number of steps between changes of the mask in methods that change it while they train (a hundred, or a twentieth
    of a short training), `search_lr` the learning rate of methods that learn a mask
    (the recipe's; in supermask a hundred times that).

    `criterion`, `allocate` and `rewind` are short names in their rooms or import paths (`mylab.scores:fisher`). The
    default criterion is the one in the method's paper (snip for at-init, magnitude for most). The default allocation
    is the one in the method's paper (erk for set and rigl), or else in the criterion's (global_top for snip and lamp,
    layerwise for magnitude).
    Make one with `Experiment.of(data, ...)`, which fills in what is usual for the data.

    A transfer, made by `transferred`, has a `source`: the experiment whose tickets train here, those of its levels
    `carried`. Every replicate takes its own ticket. Dense network and ticket begin at the source's start (θ₀, or θ_k
    where the source rewinds to step k), at step 0 of this recipe. If the data have another number of classes, the
    output layer is drawn anew, the same for both, and is not pruned. Into another model, one of the same kind with
    other numbers of hidden units, masks alone are carried; dense network and ticket then begin at that model's own
    initialisation.
    """

    data: str
    model: str
    recipe: Recipe
    init: str | None = None
    method: str = "imp"
    criterion: str = ""
    allocate: str = ""
    rewind: str = "to_init"
    rewind_step: int = 0
    every: int | None = None
    search_lr: float | None = None
    controls: tuple[str, ...] = ("reinit", "random")
    levels: int = 12
    rate: float = 0.2
    pruning: str = "geometric"
    final_density: float | None = None
    density: tuple[float, ...] = ()
    output_rate: float | None = None
    conv_rate: float | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    replicates: int = 5
    stack: int = 5
    margin_pp: float = 0.5
    alpha: float = 0.05
    gate: bool = True
    seed: int = 0
    validation: int | None = None
    test: int | None = None
    split: Literal["auto", "shared", "own"] = "auto"
    source: Experiment | None = None
    carried: tuple[int, ...] = ()

    def __new__(cls, *_: Any, **choices: Any) -> Self:
        _refuse_execution(choices)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", os.fspath(self.data))
        for name in ("controls", "include", "exclude", "density"):
            value = getattr(self, name)
            if not isinstance(value, str | int | float | Iterable) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}; give a list")
            object.__setattr__(self, name, (value,) if isinstance(value, str | int | float) else tuple(value))
        for value in (*self.density, *([] if self.final_density is None else [self.final_density])):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"a density is {value!r}; give numbers in (0, 1)")
        if self.density:
            object.__setattr__(self, "levels", len(self.density))
        if not isinstance(self.gate, bool):
            raise TypeError(f"gate is {self.gate!r}; it is True or False")
        choose("method", self.method, METHODS)
        object.__setattr__(self, "criterion", self.criterion or usual_criterion(self.method))
        usual = self.allocate or usual_allocation(self.method, self.criterion)
        object.__setattr__(self, "allocate", usual)
        choose("split", self.split, SPLITS)
        for name in self.controls:
            choose("control", name, ARMS)
            if self.controls.count(name) > 1:
                raise ValueError(f"control {name!r} is given twice; each control is one arm")
        for name in ("levels", "replicates", "stack", "seed", "rewind_step"):
            _whole(name, getattr(self, name))
        if self.every is not None:
            _whole("every", self.every)
        check_limits(LIMITS, {name: getattr(self, name) for name in LIMITS})
        stacks = -(-self.replicates // self.stack)
        if stacks * self.levels * (1 + len(self.controls)) > MOST_TRAININGS:
            raise ValueError(
                f"{self.replicates} replicates at {self.levels} levels are more than {MOST_TRAININGS:,} trainings of "
                f"stacks of {self.stack}, the most that one plan has; ask for fewer, or for several experiments with "
                "seeds of their own"
            )
        self._check_densities()
        if not 0 < self.margin_pp < 100:
            raise ValueError(
                f"margin is {self.margin_pp} percentage points; it lies in (0, 100), usually 0.5"
            )
        self._check_method()
        self._check_rewind(self.functions()["rewind"])
        if self.source is not None:
            if self.source.source is not None:
                raise TypeError(
                    "these tickets were carried over themselves; give the experiment that found them"
                )
            check_carried(self.source.method, self.source.functions()["rewind"])

    def _check_method(self) -> None:
        """ValueError for a choice that the method has no use for."""
        if rule := facts(self.method).changes:
            rule.check(self.method, self.recipe.steps, self.every)
        takes = signature(METHODS[self.method]).parameters
        for name in ("criterion", "allocate", "rewind", "rewind_step", "every", "search_lr"):
            usual = next(f.default for f in fields(self) if f.name == name)
            usual = usual_criterion(self.method) if name == "criterion" else usual
            if name not in takes and getattr(self, name) != usual:
                others = [m for m, procedure in METHODS.items() if name in signature(procedure).parameters]
                raise ValueError(
                    f"method {self.method} takes no {name}, but {getattr(self, name)!r} is given; leave it out, or ask "
                    f"for a method that does: {', '.join(others)}"
                )
        if (
            facts(self.method).fixed_counts
            and self.allocate in methods(allocate)
            and self.allocate not in BY_LAYER
        ):
            raise ValueError(
                f"method {self.method} keeps every layer's count of weights, and {self.allocate} does not decide by "
                f"layers alone; possible: {', '.join(BY_LAYER)}, or package.module:function"
            )
        self.variant()

    def variant(self) -> str | None:
        """A sentence if criterion and allocation together are not the method that the criterion is named after.

        ValueError if the allocation undoes the criterion.
        """
        if "criterion" not in signature(METHODS[self.method]).parameters:
            return None
        parts = self.functions()
        if facts(self.method).fixed_counts:
            pairing.check_exchange(parts["criterion"], f"method {self.method}")
        rates = [name for name in ("output_rate", "conv_rate") if getattr(self, name) is not None]
        if rates and self.allocate == "global_top" == usual_allocation(self.method, self.criterion):
            return (
                f"{' and '.join(rates)} takes layers out of the ranking of all weights that criterion {self.criterion} "
                f"makes in its paper: these are results of a variant, not of {self.criterion} as published"
            )
        sentence = pairing.variant(parts["criterion"], parts["allocate"])
        return sentence if facts(self.method).allocate is None else None  # else it is the method's own matter

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Criterion, allocation and rewind as functions, by the option that names them."""
        return functions(self.criterion, self.allocate, self.rewind)

    def _check_densities(self) -> None:
        schedule = resolve(schedules, self.pruning, what="pruning")
        if self.final_density is not None:
            schedule(self.final_density, self.levels)
        elif self.pruning != "geometric":
            raise ValueError(
                f"pruning {self.pruning} goes to a final density; say which (final_density=, --final-density)"
            )
        if self.density and (self.final_density is not None or self.pruning != "geometric"):
            raise ValueError("density lists the levels, so leave pruning and final_density out")
        if any(not 0 < d < 1 for d in self.density) or list(self.density) != sorted(
            set(self.density), reverse=True
        ):
            raise ValueError(
                f"density is {list(self.density)}; densities are shares of the weights kept, in (0, 1) and falling, as "
                + typed_again("--density", ("0.5", "0.2", "0.1"))
            )
        rated = [name for name in ("output_rate", "conv_rate") if getattr(self, name) is not None]
        if rated and self.allocate in methods(allocate) and self.allocate not in ("layerwise", "global_top"):
            raise ValueError(
                f"allocate {self.allocate} takes one density for all layers, and {rated[0]} gives some a rate of their "
                f"own; leave {rated[0]} out, or ask for allocate layerwise or global_top"
            )
        if self._listed() and (self.output_rate is not None or self.conv_rate is not None):
            raise ValueError(
                "output_rate and conv_rate belong to a rate per level; with densities, every layer gets the same"
            )

    def _listed(self) -> bool:
        """Whether densities are said outright and do not follow from rates."""
        return bool(self.density) or self.final_density is not None

    def _check_rewind(self, rewinding: Callable[..., Any]) -> None:
        if self.rewind_step >= self.recipe.steps:
            raise ValueError(f"rewind_step is {self.rewind_step}, but training has {self.recipe.steps} steps")
        if self.rewind_step and not takes_step(rewinding):
            raise ValueError(
                f"rewind {self.rewind} goes to no step; with rewind_step {self.rewind_step} ask for to_step, "
                "to_step_with_optimizer, learning_rate or fine_tune"
            )
        if not self.rewind_step and rewinding in (rewind.to_step, rewind.to_step_with_optimizer):
            raise ValueError(
                f"rewind {self.rewind} goes to a step, and none is said; say which (rewind_step=, --rewind-step), or "
                "ask for to_init"
            )
        if takes_step(rewinding) and facts(self.method).before_training:
            raise ValueError(
                f"method {self.method} prunes before any training, so there is no later step to rewind to"
            )

    @classmethod
    def of(cls, data_name: str | os.PathLike[str], **choices: Any) -> Experiment:
        """The experiment that is usual for the data, with some choices made otherwise.

        `choices` are fields of `Experiment` or of `Recipe`; `evaluate_every` is in proportion to `steps` unless chosen.
        Looks the data up (and decodes it the first time).
        Raises ValueError or FileNotFoundError where the data or a choice is not to be had.
        """
        _known(choices)
        data_name = os.fspath(data_name)
        chosen = filled_in(data_name, choices)
        recipe = Recipe(**{k: v for k, v in chosen.items() if k in RECIPE_FIELDS})
        others = {k: v for k, v in chosen.items() if k not in RECIPE_FIELDS}
        experiment = cls(data=data_name, recipe=recipe, **others)
        if experiment.allocate == "units" and "exclude" not in choices:
            output = models.output_layer(experiment.setup().module())  # its units are the classes
            return experiment if output is None else replace(experiment, exclude=(output,))
        return experiment

    def but(self, **choices: Any) -> Experiment:
        """The same with other choices, fields of the experiment or of its recipe; its grid goes with other `steps`."""
        _known(choices)
        effective(choices, schedule=choices.get("schedule", self.recipe.schedule))
        if "method" in choices or "criterion" in choices:
            usual = {"criterion": usual_criterion(self.method)}
            usual["allocate"] = usual_allocation(self.method, self.criterion)
            # Defaults follow the new method or criterion.
            choices = {**{k: "" for k, v in usual.items() if getattr(self, k) == v}, **choices}
        changed = {k: v for k, v in choices.items() if k in RECIPE_FIELDS}
        old = self.recipe
        changed.update(proportionate(choices, steps=old.steps, evaluate_every=old.evaluate_every))
        recipe = replace(old, **changed)
        return replace(self, recipe=recipe, **{k: v for k, v in choices.items() if k not in RECIPE_FIELDS})

    def setup(self) -> Setup:
        """Data and model looked up. Raises ValueError where they do not fit each other or the recipe."""
        source = data.find_dataset(self.data, window=models.context(self.model))
        check_fit(self.model, source)
        require_unedited(self.model)
        _, validation, test = source.sizes(validation=self.validation, test=self.test)
        path = Path(self.data).expanduser()
        local = self.data not in data.names() and path.exists()
        return Setup(
            # Absolute, since a worker process may have another working directory.
            data=str(path.absolute()) if local else self.data,
            fingerprint=source.fingerprint,
            input_shape=source.input_shape,
            classes=source.classes,
            model=self.model,
            init=self.init or models.default_init(self.model),
            recipe=self.recipe,
            seed=self.seed,
            # What is drawn by default and what is asked for are one thing to the plan's keys.
            validation=validation,
            test=test,
            own_split=self._own_split(source),
            include=self.include,
            exclude=self.exclude,
            source=model_source(self.model),
            tokens=source.tokens,
        )

    def _own_split(self, source: DatasetInfo) -> bool:
        if self.split != "auto":
            return self.split == "own"
        return not source.stored_test and source.stored_train * prod(source.input_shape) <= SMALL

    def describe(self) -> Question:
        """Every choice under its own name, flat, for people and for the result document."""
        choices = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("recipe", *CARRIED)}
        choices["init"] = self.init or models.default_init(self.model)
        if self._listed():
            choices["rate"] = None
        takes = signature(METHODS[self.method]).parameters
        choices |= dict.fromkeys(name for name in ("criterion", "rewind") if name not in takes)
        choices |= {name: getattr(self.recipe, name) for name in RECIPE_FIELDS}
        choices["arms"] = ["dense", "ticket", *self.controls]
        if self.source is not None:
            source: dict[str, Any] = {**self.source.describe()}
            choices |= {name: source[name] for name in FOUND_BY}
            choices |= {"carried": self.carried, "source": source}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in choices.items()}
        return cast("Question", listed)


def _known(choices: Mapping[str, Any]) -> None:
    """TypeError for a choice that no experiment has."""
    _refuse_execution(choices)
    known = {*(f.name for f in fields(Experiment)), *RECIPE_FIELDS} - {"data", "recipe", *CARRIED}
    for name in choices:
        if name not in known:
            raise TypeError(
                f"an experiment has no choice {name!r}{nearest(name, known)}; there are {', '.join(sorted(known))}"
            )


def _refuse_execution(choices: Mapping[str, Any]) -> None:
    """TypeError for an engine, which says how to compute and is no part of the question."""
    if "engine" in choices:
        engine = choices["engine"]
        raise TypeError(
            f"engine is {engine!r}, but an experiment has no engine, since it changes no number: pass "
            f"engine={engine!r} to winticket.find or winticket.experiment.conduct, or --engine {engine} to the command"
        )


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it is a whole number")
