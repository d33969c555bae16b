"""Shipped networks that are judged by another metric than accuracy: evaluated by it, and told in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import winticket
from undrawn import undraw


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metrics")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 4)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=(500 + 30 * x[:, :1] - 10 * x[:, 1:2]).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        winticket.find(
            folder / "data.npz",
            task="regression",
            unit="mm",
            store=folder / "store",
            out=folder / "out",
            workers=0,
            model="lenet-8",
            steps=60,
            lr=0.02,
            batch=30,
            replicates=2,
            density=[0.5],
            controls=(),
            gate=False,
        )
    return folder / "out"


def test_the_file_is_evaluated_by_the_metric_of_the_run(run: Path, tmp_path: Path) -> None:
    trained = winticket.open(run).trained()
    shipment = trained.ship(tmp_path)
    read_back, origin = shipment["read_back"], shipment["origin"]
    assert read_back is not None
    assert origin is not None
    assert origin["metric"]["name"] == "RMSE"
    assert read_back["test_accuracy"] == pytest.approx(origin["test_accuracy"], rel=1e-5)
    card = Path(shipment["card"]).read_text()
    assert f"{origin['test_accuracy']:.4g} mm" in card
    assert "accura" not in card
    assert "costs nothing" in card


def test_outputs_in_the_targets_own_unit_are_as_the_card_says(run: Path) -> None:
    trained = winticket.open(run).trained()
    examples, about = trained.test_examples(), trained.ticket.about["data"]
    outputs = trained.model()(examples.x).detach().numpy()
    assert isinstance(about, dict)
    centre, spread = (np.array(about[name], dtype=np.float64) for name in ("centre", "spread"))
    error = outputs * spread + centre - examples.y.numpy()
    assert float(np.sqrt((error**2).mean())) == pytest.approx(trained.origin["test_accuracy"], rel=1e-4)


def test_no_file_calls_it_an_accuracy(run: Path, tmp_path: Path) -> None:
    trained = winticket.open(run).trained()
    assert "test_RMSE" in trained.network().about
    hub = trained.ship(tmp_path, to="hub")
    assert "type: accuracy" not in Path(hub["card"]).read_text()
