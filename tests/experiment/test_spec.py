"""What an experiment is by default, what can be chosen, and what is refused while it is being written."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket.experiment import Experiment, load_spec, plan
from winticket.experiment.machine import cores, processes
from winticket.experiment.presets import preset
from winticket.experiment.resolved import resolve
from winticket.experiment.transfers import transferred
from winticket.stages import Setup

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_the_usual_experiment_can_be_planned(name: str) -> None:
    planned = plan(Experiment.of(name))
    densities = planned.densities()
    assert densities[0] == 1
    assert all(after < before for before, after in itertools.pairwise(densities))
    assert len(densities) == planned.experiment.levels + 1


def test_digits_by_default_is_the_calibrated_case() -> None:
    """FIELD's case: LeNet-300-100, Adam 1.2e-3, batch 60, 800 steps, 16 levels, output at half rate; 30 replicates."""
    experiment = Experiment.of("digits")
    told: Any = experiment.describe()
    wanted = {"model": "lenet-300-100", "optimizer": "adam", "lr": 1.2e-3, "batch": 60, "steps": 800}
    assert {name: told[name] for name in wanted} == wanted
    assert (told["replicates"], told["levels"], told["init"]) == (30, 16, "glorot-normal")
    planned = plan(experiment)
    assert planned.counts[0] == 64 * 300 + 300 * 100 + 100 * 10
    assert planned.counts[1] == 19200 * 0.8 + 30000 * 0.8 + 1000 * 0.9
    assert sum(planned.count(first) for _, _, first in planned.tasks) == 30 * (1 + 1 + 16 * 3)


@pytest.mark.parametrize(
    ("file", "variants"),
    [("digits.py", ["experiment"]), ("mnist1d.py", ["experiment", "fine", "quick"])],
)
def test_the_specs_of_the_house_can_be_planned(file: str, variants: list[str]) -> None:
    for variant in variants:
        assert plan(load_spec(EXPERIMENTS / file, variant=variant)).tasks


def test_but_changes_what_is_said_and_nothing_else() -> None:
    one = Experiment.of("digits", levels=3)
    two = one.but(steps=100, levels=4)
    assert (two.recipe.steps, two.levels) == (100, 4)
    assert two.but(steps=800, levels=3) == one
    with pytest.raises(TypeError, match=r"no choice 'stepps' \(did you mean 'steps'\?\)"):
        one.but(stepps=3)


@pytest.mark.parametrize(
    ("data", "choices", "every"),
    [
        ("digits", {}, 40),
        ("digits", {"steps": 200}, 10),  # a twentieth, as of 800
        ("digits", {"steps": 1600}, 80),
        ("digits", {"steps": 200, "evaluate_every": 100}, 100),  # what is given holds
        ("digits", {"steps": 30}, 2),
        ("digits", {"steps": 3}, 1),
        ("digits", {"steps": 2}, 1),
        ("digits", {"steps": 1}, 1),
        ("mnist1d", {"steps": 150}, 10),
    ],
)
def test_the_grid_goes_with_the_number_of_steps(data: str, choices: dict[str, Any], every: int) -> None:
    experiment = Experiment.of(data, **choices)
    assert experiment.recipe.evaluate_every == every
    assert Experiment.of(data).but(**choices) == experiment
    regular = experiment.recipe.regular()
    assert len(regular) > 2 or experiment.recipe.steps == 1 or "evaluate_every" in choices
    assert transferred(Experiment.of("digits"), **choices).recipe.evaluate_every == (
        every if data == "digits" else 8
    )


def test_steps_that_are_no_number_are_refused_by_the_recipe() -> None:
    for steps in (0, -5, 1.5, True):
        with pytest.raises(ValueError, match=r"steps is .*; it is a whole number of at least 1"):
            Experiment.of("digits", steps=steps)


def test_the_doubled_training_has_as_many_regular_points_and_no_early_ones() -> None:
    planned = plan(Experiment.of("digits", steps=200))
    setup = planned.tasks[0, "dense doubled", 0].inputs[0]
    assert isinstance(setup, Setup)
    assert (setup.recipe.steps, setup.recipe.evaluate_every) == (400, 20)
    assert setup.recipe.grid() == [*range(0, 401, 20)]


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"levls": 3}, r"no choice 'levls' \(did you mean 'levels'\?\); there are allocate, alpha"),
        ({"data": "x"}, "no choice 'data'"),
        ({"levels": 2.0}, "levels is 2.0; it is a whole number"),
        ({"replicates": True}, "replicates is True; it is a whole number"),
        ({"seed": "a"}, "seed is 'a'; it is a whole number"),
        (
            {"gamma": 0.5, "schedule": "cosine"},
            "gamma belongs to the step schedule, but the schedule is cosine",
        ),
    ],
)
def test_choices_that_are_none(choices: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        Experiment.of("digits", **choices)


def test_a_misspelt_choice_is_told_before_the_data_are_looked_for() -> None:
    with pytest.raises(TypeError, match="no choice 'levls'"):
        Experiment.of("no such data", levls=3)


@pytest.mark.parametrize(
    ("rates", "first"),
    [
        ({}, {"*": 0.8, "output": 0.9}),
        ({"output_rate": 0.5}, {"*": 0.8, "output": 0.5}),
        ({"allocate": "global_top"}, 0.8),
        ({"allocate": "global_top", "output_rate": 0.1}, {"*": 0.8, "output": 0.9}),
        ({"rate": 0.5, "output_rate": 0.2, "conv_rate": 0.1}, {"*": 0.5, "output": 0.8, "conv": 0.9}),
    ],
)
def test_densities_follow_from_the_rates(rates: dict[str, Any], first: Any) -> None:
    experiment = Experiment.of("digits", levels=2, **rates)
    densities = resolve(experiment).densities
    assert densities[0] == pytest.approx(first)
    squared = first**2 if isinstance(first, float) else {name: share**2 for name, share in first.items()}
    assert densities[1] == pytest.approx(squared)


def test_the_convolutions_rate_goes_with_the_usual_model_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that suit conv-2 by default: with another model, the default rate of convolutions is not spoken of."""
    from winticket.experiment import presets

    usual = {"model": "conv-2", "conv_rate": 0.1, "steps": 5, "levels": 1, "replicates": 1}
    monkeypatch.setattr(presets, "preset", lambda *_: usual)
    assert Experiment.of("digits").conv_rate == 0.1
    assert Experiment.of("digits", model="conv-4").conv_rate == 0.1
    assert Experiment.of("digits", model="lenet-5").conv_rate is None
    assert plan(Experiment.of("digits")).counts[0] > 0


def test_own_splits_where_small_data_have_no_test_split() -> None:
    own, shared = Experiment.of("digits", steps=5), Experiment.of("digits", steps=5, split="shared")
    assert own.setup().own_split
    assert not shared.setup().own_split
    assert not Experiment.of("mnist1d", steps=5).setup().own_split
    assert own.setup().split_seed(0) != own.setup().split_seed(1)
    assert shared.setup().split_seed(0) == shared.setup().split_seed(1)


def test_data_by_a_relative_path_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Callable[[Path], None]
) -> None:
    pictures(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    setup = Experiment.of("set", model="lenet-4", steps=2, batch=4, levels=1).setup()
    assert setup.data == str(tmp_path / "set")
    assert Experiment.of("digits", steps=2).setup().data == "digits"


@pytest.fixture
def pictures() -> Callable[[Path], None]:
    from PIL import Image

    def pictures(folder: Path) -> None:
        for label in ("a", "b"):
            (folder / label).mkdir(parents=True)
            for shade in range(10):
                Image.new("L", (4, 4), color=20 * shade + len(label)).save(folder / label / f"{shade}.png")

    return pictures


def test_cores_are_those_one_may_use() -> None:
    assert cores() >= 1


def test_a_gpu_gets_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes() == (1 if torch.cuda.is_available() else cores())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes() == 1


def test_a_kept_choice_of_every_split_works() -> None:
    for split in ("auto", "shared", "own"):
        assert plan(Experiment.of("digits", model="lenet-4", steps=2, levels=1, split=split)).tasks


def test_what_decides_the_numbers_is_in_the_keys(tmp_path: Path) -> None:
    """The same digits from a folder of PNGs' values are scaled and split otherwise: nothing may be shared."""
    import pandas as pd
    from PIL import Image
    from sklearn.datasets import load_digits

    raw = load_digits()
    rows = []
    for pixels, label in zip(raw.images.astype("uint8"), raw.target, strict=True):
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "PNG")
        rows.append({"image": {"bytes": held.getvalue(), "path": None}, "label": int(label)})
    (tmp_path / "digits").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "digits" / "train.parquet")
    choices = {"levels": 1, "replicates": 2, "steps": 5, "gate": False}
    theirs = plan(Experiment.of(tmp_path / "digits", **choices))
    ours = plan(Experiment.of("digits", **choices))
    assert not {t.key for t in ours.tasks.values()} & {t.key for t in theirs.tasks.values()}
    # What is drawn by default and the same size asked for are one thing.
    asked = plan(Experiment.of("digits", validation=150, test=450, **choices))
    assert {t.key for t in ours.tasks.values()} == {t.key for t in asked.tasks.values()}


def test_a_single_name_is_as_good_as_a_tuple_of_one() -> None:
    one = Experiment.of("digits", controls="reinit", exclude="fc3.*")
    assert (one.controls, one.exclude) == (("reinit",), ("fc3.*",))
    with pytest.raises(TypeError, match="gate is 'no'; it is True or False"):
        Experiment.of("digits", gate="no")


@pytest.mark.parametrize(
    ("data", "model", "wanted"),
    [
        ("digits", "lenet-20-10", (1.2e-3, None)),
        ("digits", "conv-4", (3e-4, 0.1)),
        ("digits", "conv-2", (2e-4, 0.1)),
        ("mnist1d", "lenet-300-100", (1.2e-3, None)),
        ("mnist1d", "mlp1d", (2e-2, None)),
    ],
)
def test_a_model_brings_its_own_rates(data: str, model: str, wanted: tuple[float, float | None]) -> None:
    experiment = Experiment.of(data, model=model)
    assert (experiment.recipe.lr, experiment.conv_rate) == wanted


def test_a_preset_is_for_data_of_its_shape() -> None:
    assert preset("some/digits", (1, 8, 8))["levels"] == 16
    assert preset("some/digits", (1, 32, 32))["levels"] == 12
    assert preset("mnist1d", (3, 32, 32))["model"] == "conv-2"


def test_deep_networks_come_with_openlths_recipe() -> None:
    deep = Experiment.of("digits", model="resnet-8")
    assert (deep.recipe.optimizer, deep.recipe.lr, deep.recipe.momentum) == ("sgd", 0.1, 0.9)
    assert (deep.recipe.weight_decay, deep.recipe.batch, deep.allocate) == (1e-4, 128, "global_top")
    assert Experiment.of("digits", model="resnet-14-8", momentum=0.5, allocate="erk").recipe.momentum == 0.5
    assert Experiment.of("digits", model="resnet-8", optimizer="adam", lr=1e-3).recipe.momentum == 0
