"""What is usual for data, model and method, filled in beside what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from winticket import allocate, data, models
from winticket.data import DatasetInfo
from winticket.experiment.choices import effective, own_rate, proportionate
from winticket.experiment.names import facts, methods, usual_allocation, usual_criterion
from winticket.experiment.presets import fitting
from winticket.train import Recipe


def filled_in(data_name: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of an experiment and of its recipe: the `choices`, and the usual values of the others.

    Looks the data up. ValueError for choices that do not go together, or a model that does not fit the data.
    """
    source = data.find_dataset(data_name, window=models.context(str(choices.get("model", ""))))
    usual = fitting(source, choices)
    check_fit(usual["model"], source)
    method = str(choices.get("method") or "imp")
    criterion = str(choices.get("criterion") or usual_criterion(method))
    allocation = usual_allocation(method, criterion)
    if allocation != "layerwise" or facts(method).allocate or facts(method).gradual:
        usual.pop("allocate", None)  # a preset's is for magnitude, whose weights compete in deep networks
    allocation = str(choices.get("allocate") or usual.get("allocate") or allocation)
    if allocation in methods(allocate) and allocation != "layerwise":
        # With a rate of their own, convolutions would stay out of a common ranking.
        usual.pop("conv_rate", None)
    chosen = {**usual, **choices}
    own_rate(choices, usual)
    if choices.get("density") or choices.get("final_density") is not None:
        for name in ("rate", "levels")[: 2 if choices.get("density") else 1]:
            if choices.get(name) is not None:
                said = "density" if choices.get("density") else "final_density"
                raise ValueError(f"{name} does not go with {said}; leave one of them out")
        chosen.pop("conv_rate", None) if "conv_rate" not in choices else None
    effective(choices, schedule=chosen.get("schedule", "constant"))
    chosen.update(
        proportionate(
            choices,
            steps=usual["steps"],
            evaluate_every=usual.get("evaluate_every", Recipe.evaluate_every),
        )
    )
    return chosen


def check_fit(model: str, source: DatasetInfo) -> None:
    """ValueError if the model cannot take the source's examples."""
    models.check(model, input_shape=source.input_shape, classes=source.classes, tokens=source.tokens)
