"""Searches for other tasks, by other losses and metrics: from data to the verdict, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from winticket import models
from winticket.experiment import Experiment, plan
from winticket.results import Metric
from winticket.ticket import Ticket

from .conftest import SMALL, Search

OPTIONS: dict[str, Any] = {"gate": False, "validation": 60, "test": 80}


@pytest.fixture
def presses(tmp_path: Path) -> str:
    """A table of 400 rows whose thickness depends on three columns, written as people do."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 3)) * (8, 90, 4) + (60, 1200, 30)
    y = 12 + 0.1 * (x[:, 0] - 60) + 0.01 * (x[:, 1] - 1200) + generator.normal(size=400) * 0.1
    rows = "\n".join(",".join(f"{v:.4f}" for v in (*row, one)) for row, one in zip(x, y, strict=True))
    (tmp_path / "presses.csv").write_text(f"temperature,speed,torque,thickness\n{rows}\n")
    return str(tmp_path / "presses.csv")


@pytest.fixture
def maps(tmp_path: Path) -> str:
    """Small images in which the class of a pixel is the sign of its value."""
    x = np.random.default_rng(1).normal(size=(300, 1, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "maps.npz", x=x, y=(x[:, 0] > 0).astype(np.int64))
    return str(tmp_path / "maps.npz")


def test_numbers_are_judged_by_rmse_in_their_unit(search: Search, presses: str) -> None:
    options = {**OPTIONS, "replicates": 5, "steps": 120, "batch": 40, "lr": 0.01}
    result = search(presses, label="thickness", unit="mm", **options)
    document = result.document
    metric: Metric = document["metric"]
    assert (metric["name"], metric["better"], metric["unit"]) == ("RMSE", "lower", "mm")
    assert metric["constant"] == pytest.approx(1.2, rel=0.4)
    dense = document["levels"][0]["arms"]["dense"]
    assert dense["accuracy"] is not None
    assert 0 < dense["accuracy"] < 0.7 * 1.2
    check = document["levels"][1]["checks"]["accuracy"]
    assert check is not None
    ticket = document["levels"][1]["arms"]["ticket"]["accuracies"]
    gains = [d - t for d, t in zip(dense["accuracies"], ticket, strict=True) if d and t]
    assert check["estimate"] == pytest.approx(sum(gains) / len(gains))
    verdict = document["verdict"]
    assert verdict["margin_pp"] == 2
    assert document["experiment"]["relative_margin"] is True
    loaded = Ticket.load(Path(document["ticket"] or ""))
    build: Any = loaded.about["build"]
    assert models.build(**build)(torch.zeros(2, 3)).shape == (2, 1)


def test_the_best_ticket_has_the_least_rmse(search: Search, presses: str) -> None:
    document = search(presses, label="thickness", **OPTIONS).document
    saved = document["saved_ticket"]
    assert saved is not None
    trainings = [c for c in search(presses, label="thickness", **OPTIONS).curves if c["arm"] == "ticket"]
    at_level = [c["validation_accuracy"][-1] for c in trainings if c["density"] == saved["density"]]
    assert saved["validation_accuracy"] == min(v for v in at_level if v is not None)


def test_a_class_at_each_pixel_is_judged_by_iou(search: Search, maps: str) -> None:
    document = search(maps, model="fcn-4", task="segmentation", **OPTIONS, steps=60, lr=0.05).document
    assert document["metric"]["name"] == "mean IoU"
    assert document["data"]["target"] == "positions"
    dense = document["levels"][0]["arms"]["dense"]["accuracy"]
    assert dense is not None
    assert dense > (document["metric"]["constant"] or 0) + 0.2


def test_balanced_classes_are_judged_by_balanced_accuracy(search: Search) -> None:
    document = search(metric="balanced-accuracy", class_weights="balanced", gate=False).document
    assert document["metric"]["name"] == "balanced accuracy"
    assert document["metric"]["constant"] == pytest.approx(0.1)
    assert document["experiment"]["margin_pp"] == 0.5


MINE = """
import torch
import winticket

def pinball(outputs, y):
    error = y - outputs
    return torch.maximum(0.9 * error, -0.1 * error).mean()

@winticket.metric("coverage error", better="lower", unit="%", low=0.0, high=0.9)
def coverage(outputs, y):
    return abs(float((y <= outputs).double().mean()) - 0.9)

def undeclared(outputs, y):
    return 0.0

def each(outputs, y):
    return (outputs - y) ** 2

def infinite(outputs, y):
    return (outputs / 0).sum()

@winticket.metric("odd", low=0.0, high=0.1)
def outside(outputs, y):
    return 5.0

@winticket.metric("nothing")
def not_a_number(outputs, y):
    return float("nan") if len(y) > 50 else 0.0

@winticket.metric("broken")
def broken(outputs, y):
    raise ValueError("no way")

def without_gradient(outputs, y):
    return torch.tensor(0.0)
"""


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"wt_objectives_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_loss_and_a_metric_of_ones_own(search: Search, presses: str, mylab: str) -> None:
    chosen = {"loss": f"{mylab}:pinball", "metric": f"{mylab}:coverage"}
    document = search(presses, label="thickness", **chosen, **OPTIONS).document
    assert document["metric"]["name"] == "coverage error"
    assert document["experiment"]["loss"] == chosen["loss"]
    assert document["levels"][0]["arms"]["dense"]["accuracy"] is not None


def test_a_metric_makes_other_keys_and_accuracy_does_not(presses: str) -> None:
    def key(data: str, **choices: Any) -> str:
        return plan(Experiment.of(data, **{**SMALL, **OPTIONS, **choices})).tasks[0, "dense", 0].key

    assert key("digits") == key("digits", metric="accuracy", loss="cross-entropy")
    assert key("digits", class_weights="balanced") != key("digits")
    table = {"label": "thickness"}
    assert key(presses, **table) == key(presses, **table, metric="rmse")
    assert key(presses, **table, metric="mae") != key(presses, **table)
    assert key(presses, **table, margin_pp=0.1) == key(presses, **table)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"metric": "accuracy"}, "regression has no metric 'accuracy'; possible: rmse, mae, r2"),
        ({"metric": "MYLAB:undeclared"}, "does not say what its number is called"),
        ({"loss": "MYLAB:without_gradient"}, "depends on the outputs"),
        ({"loss": "MYLAB:nothing"}, "nothing"),
        ({"loss": "no_such_module:loss"}, "cannot be imported"),
        ({"loss": "MYLAB:each"}, "must return one number, the mean of the batch"),
        ({"loss": "MYLAB:infinite"}, "not finite on outputs of 0"),
        ({"metric": "MYLAB:outside"}, r"gives 5\.0 .* declared to lie in \[0\.0, 0\.1\]"),
        (
            {"metric": "MYLAB:not_a_number"},
            r"gives nan for the best constant answer on the test targets \(80, 1\)",
        ),
        ({"metric": "MYLAB:broken"}, r"fails on test targets \(80, 1\): no way"),
        ({"margin_pp": 0.0}, "margin is 0"),
        ({"class_weights": "balanced"}, "leave it out"),
        ({"metric": "r2", "margin_pp": 2.0, "relative_margin": True}, "cannot be relative"),
        ({"margin_pp": -1.0}, "margin is -1"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    presses: str, mylab: str, choices: dict[str, Any], words: str
) -> None:
    given = {k: v.replace("MYLAB", mylab) if isinstance(v, str) else v for k, v in choices.items()}
    with pytest.raises(ValueError, match=words):
        plan(Experiment.of(presses, **{**SMALL, **OPTIONS, "label": "thickness", **given}))


def test_usual_margins_follow_the_metric(presses: str) -> None:
    def margin(data: str, **choices: Any) -> tuple[float, bool]:
        experiment = Experiment.of(data, **{**SMALL, **OPTIONS, **choices})
        return experiment.margin_pp, experiment.relative_margin

    assert margin("digits") == (0.5, False)
    assert margin(presses, label="thickness") == (2.0, True)
    assert margin(presses, label="thickness", metric="r2") == (0.01, False)
    assert margin(presses, label="thickness", margin_pp=0.1) == (0.1, False)
    assert math.isfinite(margin("digits", metric="perplexity")[0])
