"""Transfer: train the tickets of another experiment on other data, by another recipe, or in another width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import log
from typing import Any

from winticket.data import Data, as_path
from winticket.data.reading import FIELDS as READING_FIELDS
from winticket.data.reading import folded
from winticket.experiment.choices import check_effect, check_learning_rate, proportionate
from winticket.experiment.objectives import CHOICES as OBJECTIVE_FIELDS
from winticket.experiment.resolved import resolve
from winticket.experiment.spec import CARRIED, RECIPE_FIELDS, Experiment
from winticket.train import Recipe

CHOICES = (
    "model",
    "controls",
    "replicates",
    "margin_pp",
    "relative_margin",
    *OBJECTIVE_FIELDS,
    "alpha",
    "gate",
    "precision_check",
    "validation",
    "test",
    "split",
    "reading",
    *READING_FIELDS,
)
"""Choices, next to those of the recipe; everything else is taken from the source."""
DEFAULTS: Mapping[str, Any] = {
    "rewind": "to_init",
    "rewind_step": 0,
    "density": (),
    "final_density": None,
    "pruning": "geometric",
    "controls": ("reinit", "random"),
}
"""Fields of a transfer that are not inherited from the source: those of the search, and the controls."""


def transferred(
    source: Experiment, data: Data | None = None, *, density: Sequence[float] = (), **choices: Any
) -> Experiment:
    """The experiment that trains the tickets of `source` on `data` (default: the data of the source).

    `density` selects the source's levels with the nearest densities (default: all levels). `choices` are fields of
    `Recipe`, and CHOICES; the others are those of the source. Raises TypeError for any other choice, and ValueError if
    the tickets cannot be transferred.

    >>> source = Experiment.of("digits", steps=20, levels=3, replicates=5)
    >>> transfer = transferred(source, density=(0.6,), lr=0.01)
    >>> transfer.carried, transfer.recipe.lr, transfer.replicates
    ((2,), 0.01, 5)
    """
    known = (*CHOICES, *RECIPE_FIELDS)
    for name in choices:
        if name not in known:
            raise TypeError(
                f"a transfer has no choice {name!r}, since the tickets determine it; there are {', '.join(known)}"
            )
    if data is not None:
        data = str(as_path(data))
    choices = folded({"reading": source.reading, **choices}, source.data if data is None else data)
    recipe = _recipe(source.recipe, choices)
    others = {name: value for name, value in choices.items() if name not in RECIPE_FIELDS}
    if (data is not None and data != source.data) or others["reading"] != source.reading:
        others = {"validation": None, "test": None, **others}
    if source.source is not None:
        raise TypeError("the source is a transfer itself; pass the experiment that found the tickets")
    inherited = {f.name: getattr(source, f.name) for f in fields(Experiment) if f.name not in CARRIED}
    if "replicates" in others:
        source = replace(source, replicates=others["replicates"])
    levels = _nearest_levels(source, density) if density else tuple(range(1, source.levels + 1))
    chosen = {
        "data": source.data if data is None else data,
        "recipe": recipe,
        "levels": len(levels),
        **others,
    }
    return Experiment(**{**inherited, **DEFAULTS, **chosen}, source=source, carried=levels)


def _recipe(recipe: Recipe, choices: Mapping[str, Any]) -> Recipe:
    """The source's recipe with the `choices` that are its fields. ValueError for choices that do not go together."""
    check_learning_rate(choices, {"optimizer": recipe.optimizer, "lr": recipe.lr})
    check_effect(choices, schedule=choices.get("schedule", recipe.schedule))
    changed = {name: value for name, value in choices.items() if name in RECIPE_FIELDS}
    if changed.get("optimizer", "sgd") != "sgd":
        changed = {"momentum": 0.0, "nesterov": False, **changed}
    changed.update(proportionate(choices, steps=recipe.steps, evaluate_every=recipe.evaluate_every))
    return replace(recipe, **changed)


def _nearest_levels(source: Experiment, densities: Sequence[float]) -> tuple[int, ...]:
    """The levels with the nearest densities on a logarithmic scale."""
    for d in densities:
        if not 0 < d < 1:
            raise ValueError(f"density is {d}; the density of a ticket must lie in (0, 1)")
    counts = resolve(source).counts
    logarithms = {level: log(count / counts[0]) for level, count in enumerate(counts) if level}
    return tuple(
        sorted({min(logarithms, key=lambda level: abs(logarithms[level] - log(d))) for d in densities})
    )
