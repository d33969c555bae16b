"""`Experiment`: the question, with everything on which the numbers depend and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from inspect import signature
from math import prod
from pathlib import Path
from typing import Any, Literal, Self, cast

from winticket import allocate, data, models, pairing, rewind
from winticket.catalogue import choose
from winticket.data import Data, DatasetInfo, Reading
from winticket.data.reading import FIELDS as READING_FIELDS
from winticket.data.reading import USUAL, folded
from winticket.experiment.choices import (
    check_count,
    check_effect,
    check_reading,
    proportionate,
    refuse_execution,
    require_known,
    require_whole,
)
from winticket.experiment.density_choices import check_densities, listed, require_densities
from winticket.experiment.filled import check_fit, filled_in
from winticket.experiment.names import (
    ARMS,
    BY_LAYER,
    METHODS,
    check_transferable,
    facts,
    functions,
    methods,
    usual_allocation,
    usual_criterion,
)
from winticket.experiment.objectives import (
    APART,
    CHOICES,
    check_margin,
    described,
    objective_of,
    pretrained_of,
)
from winticket.limits import EXPERIMENT as LIMITS
from winticket.limits import check as check_limits
from winticket.objective import ACCURACY
from winticket.results import Question
from winticket.rewind import takes_step
from winticket.stages import Setup, model_source, require_unedited
from winticket.train import Recipe

SPLITS = dict.fromkeys(("auto", "shared", "own"))
SMALL = 2**24
"""Most values in a dataset of which each replicate holds another split by default (64 MiB as float32)."""
RECIPE_FIELDS = tuple(f.name for f in fields(Recipe))
CARRIED = ("source", "carried")
"""Fields of a transfer, which are not choices."""
FOUND_BY = (
    *("method", "criterion", "allocate", "rewind", "rewind_step"),
    *("rate", "pruning", "final_density", "density", "output_rate", "conv_rate", "exclude"),
)
"""Fields that a transfer reports with the values of its source."""


@dataclass(frozen=True)
class Experiment:
    """A search for winning tickets with its controls and replicates.

    `Experiment.of(data, ...)` makes one and fills in what is usual for the data. Raises TypeError or ValueError for a
    field that does not exist, is out of range, or does not go with another field.

    **Densities.** Each of the `levels` rounds prunes the share `rate` of the remaining weights. In the output layer the
    share is `output_rate` (default: half of `rate` in LeNet and Conv networks that are pruned layer by layer, as in the
    2019 paper), and in convolutions it is `conv_rate`. Instead, `final_density` is the density of the last level, which
    the schedule `pruning` approaches, or `density` lists the densities of all levels. Both apply to the whole network,
    or to each layer alike, depending on `allocate`.

    **Replicates.** `replicates` is the number of initialisation seeds. Each has a separate mask search. Up to `stack`
    of them train together. `split` is "shared" if replicates share one split of the data and "own" if each draws
    another one. "auto" is "own" if the data have no test split and are small: a verdict over one draw of 450 test
    digits is about those 450 alone.

    **Start.** `start` is a safetensors file or Hub-layout folder of pretrained weights, from which every replicate
    starts; what it lacks of the output layer is drawn. `redraw` is what the re-initialised control starts from then.

    **Objective.** `loss` and `metric` are names of the task's (`winticket.objective`), or `package.module:function`;
    the targets of the data decide the task. `class_weights` is None or "balanced"; `unit` is that of the targets.

    **Verdict.** A ticket still matches if it loses less than `margin_pp` percentage points of accuracy; of another
    metric, so much in the unit of its differences, or with `relative_margin` in percent of the dense network's value.
    `alpha` is the error rate of the verdict. With `gate`, the dense network is also trained twice as long, to see
    whether the steps are enough; with `precision_check`, in float32 beside another precision, to see what that changes.

    **Methods.** `criterion`, `allocate` and `rewind` are short names in their rooms, or import paths
    (`mylab.scores:fisher`). The default criterion is that of the method's paper (snip for at-init, magnitude for most).
    The default allocation is that of the method's paper (erk for set and rigl), or else of the criterion's paper
    (global_top for snip and lamp, layerwise for magnitude). `rewind_step` is the step to which `to_step` and others
    rewind. `every` is the number of steps between mask changes in methods that change the mask during training
    (default: 100, or a twentieth of a short training). `search_lr` is the learning rate of methods that learn a mask
    (default: the recipe's; in supermask a hundred times that).

    **Data.** `reading` says how a file is read: its labels, missing values and splits. `of` also takes its fields.

    **Transfers.** `transferred` makes an experiment with a `source`: the experiment whose tickets train here, at its
    levels `carried`. Every replicate takes the ticket of the same replicate. Dense network and ticket start from the
    source's weights (θ₀, or θ_k if the source rewinds to step k), at step 0 of this recipe. If the data have another
    number of classes, the output layer is drawn again, identically for both, and is not pruned. If the model has other
    numbers of hidden units, only masks are transferred, and dense network and ticket start from the initialisation of
    that model.

    >>> experiment = Experiment.of("digits", replicates=5)
    >>> experiment.model, experiment.levels, experiment.criterion, experiment.recipe.steps
    ('lenet-300-100', 16, 'magnitude', 800)
    >>> Experiment.of("digits", levels=2.0)
    Traceback (most recent call last):
    TypeError: levels is 2.0; it is a whole number
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
    loss: str | None = None
    metric: str | None = None
    class_weights: str | None = None
    unit: str = ""
    start: str | None = None
    redraw: str = "fresh"
    margin_pp: float = 0.5
    relative_margin: bool = False
    alpha: float = 0.05
    gate: bool = True
    precision_check: bool = True
    seed: int = 0
    validation: int | None = None
    test: int | None = None
    split: Literal["auto", "shared", "own"] = "auto"
    reading: Reading = USUAL
    source: Experiment | None = None
    carried: tuple[int, ...] = ()

    def __new__(cls, *_: Any, **choices: Any) -> Self:
        refuse_execution(choices)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", os.fspath(self.data))
        for name in ("controls", "include", "exclude", "density"):
            value = getattr(self, name)
            if not isinstance(value, str | int | float | Iterable) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}; it must be a list")
            object.__setattr__(self, name, (value,) if isinstance(value, str | int | float) else tuple(value))
        require_densities(self)
        if self.density:
            object.__setattr__(self, "levels", len(self.density))
        check_reading(self.reading, self.split)
        for name in ("gate", "precision_check", "relative_margin"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}; it is True or False")
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
            require_whole(name, getattr(self, name))
        if self.every is not None:
            require_whole("every", self.every)
        check_limits(LIMITS, {name: getattr(self, name) for name in LIMITS})
        check_count(self.replicates, self.stack, self.levels * (1 + len(self.controls)))
        check_densities(self)
        if self.metric is None and not self.unit and not self.relative_margin and not self.reading.chosen():
            check_margin(self.margin_pp, ACCURACY, relative=False)
        self._check_method()
        self._check_rewind(self.functions()["rewind"])
        if self.source is not None:
            if self.source.source is not None:
                raise TypeError("the source is a transfer itself; pass the experiment that found the tickets")
            check_transferable(self.source.method, self.source.functions()["rewind"])

    def _check_method(self) -> None:
        """ValueError for a choice that the method does not take."""
        if rule := facts(self.method).changes:
            rule.check(self.method, self.recipe.steps, self.every)
        takes = signature(METHODS[self.method]).parameters
        for name in ("criterion", "allocate", "rewind", "rewind_step", "every", "search_lr"):
            usual = next(f.default for f in fields(self) if f.name == name)
            usual = usual_criterion(self.method) if name == "criterion" else usual
            if name not in takes and getattr(self, name) != usual:
                others = [m for m, procedure in METHODS.items() if name in signature(procedure).parameters]
                raise ValueError(
                    f"method {self.method} takes no {name}, but {name} is {getattr(self, name)!r}; leave it out, or "
                    f"choose a method that takes it: {', '.join(others)}"
                )
        if (
            facts(self.method).fixed_counts
            and self.allocate in methods(allocate)
            and self.allocate not in BY_LAYER
        ):
            raise ValueError(
                f"method {self.method} keeps the number of weights of every layer, but {self.allocate} decides more "
                f"than these numbers; possible: {', '.join(BY_LAYER)}, or package.module:function"
            )
        self.variant()

    def variant(self) -> str | None:
        """A warning if criterion and allocation together are a variant of the published criterion; else None.

        Raises ValueError if the allocation undoes the criterion.

        >>> Experiment.of("digits", method="at-init", criterion="snip").variant() is None
        True
        """
        if "criterion" not in signature(METHODS[self.method]).parameters:
            return None
        parts = self.functions()
        if facts(self.method).fixed_counts:
            pairing.check_exchange(parts["criterion"], f"method {self.method}")
        rates = [name for name in ("output_rate", "conv_rate") if getattr(self, name) is not None]
        if rates and self.allocate == "global_top" == usual_allocation(self.method, self.criterion):
            return (
                f"{' and '.join(rates)} takes layers out of the ranking of all weights that the paper of criterion "
                f"{self.criterion} makes: these are results of a variant, not of {self.criterion} as published"
            )
        sentence = pairing.variant(parts["criterion"], parts["allocate"])
        return sentence if facts(self.method).allocate is None else None  # Else the method decides.

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Criterion, allocation and rewind as functions, by the option that names each.

        >>> Experiment.of("digits").functions()["allocate"].__name__
        'layerwise'
        """
        return functions(self.criterion, self.allocate, self.rewind)

    def _check_rewind(self, rewinding: Callable[..., Any]) -> None:
        if self.rewind_step >= self.recipe.steps:
            raise ValueError(f"rewind_step is {self.rewind_step}, but training has {self.recipe.steps} steps")
        if self.rewind_step and not takes_step(rewinding):
            raise ValueError(
                f"rewind {self.rewind} takes no step; with rewind_step {self.rewind_step} choose to_step, "
                "to_step_with_optimizer, learning_rate or fine_tune"
            )
        if not self.rewind_step and rewinding in (rewind.to_step, rewind.to_step_with_optimizer):
            raise ValueError(
                f"rewind {self.rewind} needs a step; set it (rewind_step=, --rewind-step), or choose to_init"
            )
        if takes_step(rewinding) and facts(self.method).before_training:
            raise ValueError(
                f"method {self.method} prunes before any training, so there is no later step to rewind to"
            )

    @classmethod
    def of(cls, data_name: Data, **choices: Any) -> Experiment:
        """The usual experiment for the data, except for the `choices`: fields of `Experiment`, `Recipe` or `Reading`.

        `data_name` is a name or path, or an object that `winticket.data.as_path` takes. The default of `evaluate_every`
        is in proportion to `steps`. Looks the data up, and decodes them the first time.
        Raises TypeError for an unknown choice, ValueError for one that is impossible, and ValueError or
        FileNotFoundError if the data cannot be loaded.

        >>> experiment = Experiment.of("digits", steps=200, controls=("reinit",))
        >>> experiment.recipe.steps, experiment.recipe.evaluate_every
        (200, 10)
        """
        require_known(choices, OFFERED)
        data_name = str(data.as_path(data_name))
        choices = folded(choices, data_name)
        chosen = filled_in(data_name, choices)
        recipe = Recipe(**{k: v for k, v in chosen.items() if k in RECIPE_FIELDS})
        others = {k: v for k, v in chosen.items() if k not in RECIPE_FIELDS}
        experiment = cls(data=data_name, recipe=recipe, **others)
        if experiment.allocate in ("structures", "units") and "exclude" not in choices:
            spared = models.unpruned_by(experiment.allocate, experiment.setup().module(), experiment.include)
            return replace(experiment, exclude=spared)
        return experiment

    def but(self, **choices: Any) -> Experiment:
        """A copy with other choices: fields of the experiment or of its recipe. Its grid follows other `steps`.

        Raises TypeError for an unknown choice and ValueError for one that is impossible.

        >>> Experiment.of("digits", steps=200).but(steps=400).recipe.evaluate_every
        20
        """
        require_known(choices, OFFERED)
        choices = folded({"reading": self.reading, **choices}, self.data)
        check_effect(choices, schedule=choices.get("schedule", self.recipe.schedule))
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
        """The setup with data and model looked up. Raises ValueError if they do not fit each other or the recipe.

        >>> setup = Experiment.of("digits", steps=20).setup()
        >>> setup.input_shape, setup.classes
        ((1, 8, 8), 10)
        """
        dataset = data.find_dataset(self.data, window=models.context(self.model), reading=self.reading)
        check_fit(self.model, dataset)
        require_unedited(self.model)
        objective = objective_of(dataset, {name: getattr(self, name) for name in CHOICES})
        scale = objective.scale() if objective else ACCURACY
        check_margin(self.margin_pp, scale, relative=self.relative_margin)
        _, validation, test = dataset.sizes(validation=self.validation, test=self.test)
        path = Path(self.data).expanduser()
        local = self.data not in data.names() and path.exists()
        return Setup(
            # Absolute, since a worker process may have another working directory.
            data=str(path.absolute()) if local else self.data,
            fingerprint=dataset.fingerprint,
            input_shape=dataset.input_shape,
            classes=dataset.classes,
            model=self.model,
            init=self.init or models.default_init(self.model),
            recipe=self.recipe,
            seed=self.seed,
            # Resolved, so that a default and the same number chosen explicitly have the same keys.
            validation=validation,
            test=test,
            own_split=self._own_split(dataset),
            include=self.include,
            exclude=self.exclude,
            source=model_source(self.model),
            tokens=dataset.tokens,
            reading=self.reading,
            objective=objective,
            pretrained=pretrained_of(self.start, self.redraw),
        )

    def _own_split(self, dataset: DatasetInfo) -> bool:
        if self.split != "auto":
            return self.split == "own"
        if dataset.split_by != "rows":
            return False
        return not dataset.stored_test and dataset.stored_train * prod(dataset.input_shape) <= SMALL

    def describe(self) -> Question:
        """Every choice by name in a flat dictionary, for people and for the result document; JSON.

        >>> description = Experiment.of("digits", steps=20).describe()
        >>> description["method"], description["steps"], description["arms"]
        ('imp', 20, ['dense', 'ticket', 'reinit', 'random'])
        """
        apart = ("recipe", "reading", *CARRIED, *APART)
        choices = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        choices |= described(self)
        choices["init"] = self.init or models.default_init(self.model)
        if listed(self):
            choices["rate"] = None
        takes = signature(METHODS[self.method]).parameters
        choices |= dict.fromkeys(name for name in ("criterion", "rewind") if name not in takes)
        choices |= {name: getattr(self.recipe, name) for name in RECIPE_FIELDS}
        choices["arms"] = ["dense", "ticket", *self.controls]
        choices |= {"reading": reading} if (reading := self.reading.chosen()) else {}
        if self.source is not None:
            source: dict[str, Any] = {**self.source.describe()}
            choices |= {name: source[name] for name in FOUND_BY}
            choices |= {"carried": self.carried, "source": source}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in choices.items()}
        return cast("Question", plain)


NOT_CHOSEN = {"data", "recipe", *CARRIED}
OFFERED = {*(f.name for f in fields(Experiment)), *RECIPE_FIELDS, *READING_FIELDS} - NOT_CHOSEN
