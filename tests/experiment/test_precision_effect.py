"""What another precision changes is measured on the dense network, by training it in float32 as well."""

from __future__ import annotations

from typing import Any

import pytest

from winticket.experiment import Experiment, plan
from winticket.experiment.documents import experiment_of
from winticket.experiment.plan import EXACT
from winticket.judge import mean_interval

from .conftest import Search

ROUNDED: dict[str, Any] = {"precision": "bf16", "replicates": 4, "stack": 2, "levels": 1, "gate": False}


def test_the_difference_is_that_of_two_trainings_of_each_replicate(search: Search) -> None:
    document = search(**ROUNDED).document
    effect = document["precision_effect"]
    assert effect is not None
    dense, exact = document["levels"][0]["arms"]["dense"]["accuracies"], effect["float32"]["accuracies"]
    by_hand = [a - b for a, b in zip(dense, exact, strict=True) if a is not None and b is not None]
    assert effect["differences"] == by_hand
    assert effect["difference"] == pytest.approx(sum(by_hand) / 4)
    assert effect["difference_ci"] == pytest.approx(
        mean_interval(by_hand, floor=1 / document["data"]["test"])
    )
    assert effect["precision"] == "bf16"
    assert EXACT not in document["levels"][0]["arms"]
    assert EXACT not in {cost["arm"] for cost in document["costs"]}


def test_the_float32_trainings_are_those_of_a_search_in_float32(search: Search) -> None:
    exact = search(**{**ROUNDED, "precision": "float32"})
    assert exact.document["precision_effect"] is None
    rounded = search(**ROUNDED)
    assert rounded.document["precision_effect"] is not None
    dense = exact.document["levels"][0]["arms"]["dense"]
    assert rounded.document["precision_effect"]["float32"]["accuracies"] == dense["accuracies"]
    assert (
        len(rounded.outcomes.reused) == 2
    )  # both stacks of the dense network, from the first search's store


def test_without_the_check_nothing_more_is_trained_and_no_key_changes(search: Search) -> None:
    experiment = Experiment.of("digits", model="lenet-20-10", steps=20, levels=1, precision="bf16")
    whole, without = plan(experiment), plan(experiment.but(precision_check=False))
    assert {cell[1] for cell in whole.tasks} - {cell[1] for cell in without.tasks} == {EXACT}
    assert all(whole.tasks[cell].key == task.key for cell, task in without.tasks.items())
    assert search(**ROUNDED, precision_check=False).document["precision_effect"] is None


def test_a_document_of_before_the_check_had_none() -> None:
    experiment = Experiment.of("digits", precision="bf16", precision_check=False)
    described: dict[str, Any] = dict(experiment.describe())
    del described["precision_check"]
    assert experiment_of(described).precision_check is False
    with pytest.raises(TypeError, match="precision_check is 'no'; it is True or False"):
        Experiment.of("digits", precision_check="no")
