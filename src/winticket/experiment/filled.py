"""Fill in the usual values for data, model and method next to the choices of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from winticket import allocate, data, models
from winticket.data import DatasetInfo
from winticket.experiment.choices import check_effect, check_learning_rate, proportionate
from winticket.experiment.names import facts, methods, usual_allocation, usual_criterion
from winticket.experiment.objectives import check_margin, objective_of, usual_margin
from winticket.experiment.presets import fitting
from winticket.objective import ACCURACY
from winticket.train import Recipe


def filled_in(data_name: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of an experiment and of its recipe: the `choices`, and usual values for the others.

    Looks the data up. Raises ValueError if choices do not go together, or if the model does not fit the data.
    """
    dataset = data.find_dataset(
        data_name, window=models.context(str(choices.get("model", ""))), reading=choices.get("reading")
    )
    usual = fitting(dataset, choices)
    check_fit(usual["model"], dataset)
    method = str(choices.get("method") or "imp")
    criterion = str(choices.get("criterion") or usual_criterion(method))
    allocation = usual_allocation(method, criterion)
    if allocation != "layerwise" or facts(method).allocate or facts(method).gradual:
        usual.pop("allocate", None)  # The preset's is for magnitude, in deep networks.
    allocation = str(choices.get("allocate") or usual.get("allocate") or allocation)
    if allocation in methods(allocate) and allocation != "layerwise":
        # A separate rate would keep convolutions out of the common ranking.
        usual.pop("conv_rate", None)
    objective = objective_of(dataset, {**usual, **choices})
    scale = objective.scale() if objective else ACCURACY
    if choices.get("margin_pp") is None:
        usual |= usual_margin(scale)
    chosen = {**usual, **choices}
    if isinstance(margin := chosen.get("margin_pp", 0.5), int | float):  # the experiment refuses other types
        check_margin(margin, scale, relative=chosen.get("relative_margin", False))
    check_learning_rate(choices, usual)
    if choices.get("density") or choices.get("final_density") is not None:
        for name in ("rate", "levels")[: 2 if choices.get("density") else 1]:
            if choices.get(name) is not None:
                other = "density" if choices.get("density") else "final_density"
                raise ValueError(f"{name} does not go with {other}; leave one of them out")
        chosen.pop("conv_rate", None) if "conv_rate" not in choices else None
    check_effect(choices, schedule=chosen.get("schedule", "constant"))
    chosen.update(
        proportionate(
            choices,
            steps=usual["steps"],
            evaluate_every=usual.get("evaluate_every", Recipe.evaluate_every),
        )
    )
    return chosen


def check_fit(model: str, dataset: DatasetInfo) -> None:
    """ValueError if the model cannot take the examples of the dataset."""
    models.check(
        model,
        input_shape=dataset.input_shape,
        classes=dataset.classes,
        tokens=dataset.tokens,
        target="classes" if dataset.tokens else dataset.target,
    )
