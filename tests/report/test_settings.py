"""The page's list of settings: only what had an effect, with the values that were used."""

from __future__ import annotations

import re
from typing import Any

import pytest

from winticket.experiment import Experiment
from winticket.experiment.counts import densities
from winticket.report.settings import in_words, method_words, output_rate, settings

DATA: Any = {"validation": 150, "test": 450, "split": "own"}


def described(**choices: Any) -> Any:
    """The question of an experiment, as a document holds it."""
    return Experiment.of("digits", **{"replicates": 5, **choices}).describe()


def shown(question: Any) -> dict[str, str]:
    return dict(in_words(question, DATA))


def test_settings_without_effect_are_left_out() -> None:
    usual = shown(described())
    assert not {"momentum", "nesterov", "milestones", "gamma", "pruning", "flip", "crop", "warmup"} & set(
        usual
    )
    assert not {"mask changes every", "learning rate of the search", "clip norm", "rewind step"} & set(usual)
    assert "–" not in usual.values()
    stepped = shown(described(optimizer="sgd", lr=0.1, momentum=0.9, schedule="step"))
    assert (stepped["momentum"], stepped["milestones"], stepped["gamma"]) == ("0.9", "0.5, 0.75", "0.1")
    assert shown(described(final_density=0.1, levels=4, pruning="cubic"))["pruning"] == "cubic"


def test_values_are_those_that_were_used() -> None:
    usual = shown(described())
    assert (usual["validation"], usual["test"]) == ("150 examples", "450 examples")
    assert usual["split of the data"] == "each replicate draws its own"
    assert usual["output rate"] == "0.1"
    assert usual["gate"] == "yes: the dense network is also trained for twice the steps"
    assert shown(described(gate=False))["gate"] == "no"
    assert "precision check" not in usual, "in float32 there is nothing to check"
    assert shown(described(precision="bf16"))["precision check"].startswith("yes: the dense network is also")
    assert shown(described(method="rigl"))["mask changes every"] == "default"
    assert shown(described(method="rigl", every=20))["mask changes every"] == "20 steps"
    assert shown(described(method="supermask"))["learning rate of the search"] == "default"


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"rate": 0.3},
        {"output_rate": 0.05},
        {"model": "lenet-20-10"},
        {"allocate": "global_top"},
        {"model": "conv-2"},
    ],
)
def test_the_output_layers_rate_is_the_one_by_which_it_was_pruned(choices: dict[str, Any]) -> None:
    """Against the densities that the plan computes."""
    experiment = Experiment.of("digits", replicates=5, **choices)
    module = experiment.setup().module()
    eligible = [name for name, weight in module.named_parameters() if weight.dim() > 1]
    first: Any = densities(experiment, module, eligible)[0]
    kept = first["output"] if isinstance(first, dict) else first
    stated = output_rate(experiment.describe())
    assert (experiment.rate if stated is None else stated) == pytest.approx(1 - kept)


def test_an_output_layer_that_may_be_left_out_has_no_stated_rate() -> None:
    assert output_rate(described(exclude=("fc3.*",))) is None
    assert output_rate(described(density=(0.5,))) is None


def test_a_transfer_has_the_rates_of_the_model_in_which_tickets_were_found() -> None:
    question: Any = {**described(), "source": described(), "model": "mylab:build", "carried": [1, 2]}
    assert output_rate(question) == 0.1
    assert shown(question)["levels of the source"] == "1, 2"
    assert "source" not in shown(question)
    html = settings({"experiment": question, "data": DATA})  # type: ignore[typeddict-item]
    (folded,) = re.findall(
        r"<details><summary>Settings of the source of the tickets</summary>(.*?)</details>", html, re.S
    )
    assert "<dt>method</dt>" in folded
    assert "gate" not in folded, "it had no part in finding the tickets"


def test_methods_in_words() -> None:
    assert method_words(described()) == "iterative pruning by magnitude (imp)"
    assert method_words(described(method="at-init")) == "at-init"
    unknown: Any = {"method": "of a later version"}
    assert method_words(unknown) == "of a later version"
    assert method_words({}) is None
