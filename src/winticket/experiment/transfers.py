"""Transfer: an experiment on the tickets that another one finds, with other data, another recipe or another width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from math import log
from typing import Any

from winticket.experiment.choices import effective, own_rate, proportionate
from winticket.experiment.resolved import resolve
from winticket.experiment.spec import CARRIED, RECIPE_FIELDS, Experiment

CHOICES = (
    "model",
    "controls",
    "replicates",
    "margin_pp",
    "alpha",
    "gate",
    "validation",
    "test",
    "split",
)
"""What may be chosen anew; all else is the source's."""


def transferred(
    source: Experiment, data: str | None = None, *, density: Sequence[float] = (), **choices: Any
) -> Experiment:
    """The experiment that trains `source`'s tickets on `data` (by default where they were found).

    `density` picks the source's levels that are nearest; unless said, all are carried over. `choices` are the recipe's
    fields and CHOICES; the recipe is the source's but for them. Raises TypeError for any other choice, and ValueError
    where the tickets cannot be carried over.
    """
    known = (*CHOICES, *RECIPE_FIELDS)
    for name in choices:
        if name not in known:
            raise TypeError(
                f"a transfer has no choice {name!r}, which the tickets bring; there are {', '.join(known)}"
            )
    old = source.recipe
    own_rate(choices, {"optimizer": old.optimizer, "lr": old.lr})
    effective(choices, schedule=choices.get("schedule", old.schedule))
    changed = {k: v for k, v in choices.items() if k in RECIPE_FIELDS}
    if changed.get("optimizer", "sgd") != "sgd":
        changed = {"momentum": 0.0, "nesterov": False, **changed}
    changed.update(proportionate(choices, steps=old.steps, evaluate_every=old.evaluate_every))
    own = {k: v for k, v in choices.items() if k not in RECIPE_FIELDS}
    if data is not None and data != source.data:
        own = {"validation": None, "test": None, **own}
    if source.source is not None:
        raise TypeError("these tickets were carried over themselves; give the experiment that found them")
    asked = {f.name: getattr(source, f.name) for f in fields(Experiment) if f.name not in CARRIED}
    if "replicates" in own:
        source = replace(source, replicates=own["replicates"])
    levels = _nearest_levels(source, density) if density else tuple(range(1, source.levels + 1))
    begins = {
        "rewind": "to_init",
        "rewind_step": 0,
        "levels": len(levels),
        "density": (),
        "final_density": None,
    }
    begins |= {"pruning": "geometric", "controls": ("reinit", "random")}
    return Experiment(
        **{
            **asked,
            **begins,
            "data": source.data if data is None else data,
            "recipe": replace(old, **changed),
            **own,
        },
        source=source,
        carried=levels,
    )


def _nearest_levels(source: Experiment, densities: Sequence[float]) -> tuple[int, ...]:
    """The levels whose densities are nearest, on a logarithmic scale."""
    for d in densities:
        if not 0 < d < 1:
            raise ValueError(f"density {d} is asked for; a density to carry over lies in (0, 1)")
    counts = resolve(source).counts
    there = {level: log(count / counts[0]) for level, count in enumerate(counts) if level}
    return tuple(sorted({min(there, key=lambda level: abs(there[level] - log(d))) for d in densities}))
