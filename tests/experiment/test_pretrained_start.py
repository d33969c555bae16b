"""Searches that start from pretrained weights: what is taken, drawn, redrawn, keyed and said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from winticket.controls import reinit
from winticket.experiment import Experiment, plan
from winticket.stages import control_ticket, dense_ticket

from .conftest import SMALL, Search


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A lenet-20-10 for other data: its output layer has three classes."""
    setup = Experiment.of("digits", **SMALL).setup()
    drawn = setup.drawn(12345).weights
    tensors = {n: w for n, w in drawn.items() if not n.startswith("fc3")}
    save_file(
        {**tensors, "fc3.weight": torch.zeros(3, 10), "fc3.bias": torch.zeros(3)},
        tmp_path / "net.safetensors",
    )
    return tmp_path / "net.safetensors"


def asked(**choices: Any) -> Experiment:
    return Experiment.of("digits", **{**SMALL, **choices})


def test_every_replicate_starts_from_them_with_a_head_of_its_own(weights: Path) -> None:
    setup, stored = asked(start=str(weights)).setup(), load_file(weights)
    one, two = (dense_ticket(setup, replicate).start.weights for replicate in (0, 1))
    for name in ("fc1.weight", "fc1.bias", "fc2.weight"):
        assert torch.equal(one[name], stored[name])
        assert torch.equal(two[name], stored[name])
    assert not torch.equal(one["fc3.weight"], two["fc3.weight"])


def test_the_key_holds_the_tensors_and_not_the_path(weights: Path, tmp_path: Path) -> None:
    def key(start: Path | None, **choices: Any) -> str:
        experiment = asked(start=None if start is None else str(start), **choices)
        return plan(experiment).tasks[0, "dense", 0].key

    elsewhere = tmp_path / "moved.safetensors"
    shutil.copy(weights, elsewhere)
    assert key(weights) == key(elsewhere) != key(None)
    save_file({**load_file(weights), "fc1.bias": torch.ones(20)}, elsewhere)
    assert key(elsewhere) != key(weights)
    assert key(weights, redraw="shuffled") != key(weights)


@pytest.mark.parametrize("redraw", ["fresh", "shuffled"])
def test_the_reinitialised_control_starts_from_what_was_asked_for(weights: Path, redraw: str) -> None:
    setup = asked(start=str(weights), redraw=redraw).setup()
    ticket = dense_ticket(setup, 0)
    control = control_ticket(setup, ticket, control=reinit).start.weights["fc1.weight"]
    stored = load_file(weights)["fc1.weight"]
    assert not torch.equal(control, stored)
    same_values = torch.equal(control.flatten().sort().values, stored.flatten().sort().values)
    assert same_values == (redraw == "shuffled")


def test_the_document_says_which_question_the_control_answers(weights: Path, search: Search) -> None:
    document = search(start=str(weights), redraw="shuffled", gate=False).document
    assert document["experiment"]["start"] == str(weights)
    notes = " ".join(document["verdict"]["notes"])
    assert "fc3.weight, fc3.bias are drawn for each replicate" in notes
    assert "each weight in its place" in notes
    assert "Chen" not in notes


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"start": "nowhere.safetensors"}, "no such file or folder"),
        ({"redraw": "shuffled"}, "goes with pretrained weights"),
        ({"start": "FILE", "redraw": "new"}, "'fresh' or 'shuffled'"),
        ({"start": "FILE", "model": "lenet-30-10"}, "do not fit the model: fc1.weight"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    weights: Path, choices: dict[str, str], words: str
) -> None:
    given = {name: str(weights) if value == "FILE" else value for name, value in choices.items()}
    with pytest.raises(ValueError, match=words):
        plan(asked(**given))


def test_weights_that_are_not_finite_are_refused(weights: Path) -> None:
    save_file({**load_file(weights), "fc1.bias": torch.full((20,), torch.nan)}, weights)
    with pytest.raises(ValueError, match=r"fc1\.bias that are not finite"):
        plan(asked(start=str(weights)))
