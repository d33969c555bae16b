"""Zeros after ReLU and silent units, against networks that are computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from analysing import made_of
from winticket import analyse
from winticket.analyse import facts
from winticket.analyse.networks import parts
from winticket.experiment import Run


class Twice(nn.Module):
    """ReLU as a function, as a method and as a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 3, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(x))
        h = self.relu(h - 1)
        h = (h - 0.5).relu()
        flat: Tensor = self.relu(h.flatten(1) - 0.2)
        return flat


def test_every_call_of_relu_is_counted_by_itself_whatever_the_batch() -> None:
    torch.manual_seed(0)
    model, x = Twice(), 3 * torch.randn(11, 1, 6, 6)
    with torch.no_grad():
        model.get_parameter("conv.bias")[1] = -100  # a silent unit
        one = torch.relu(model.conv(x))
        two = torch.relu(one - 1)
        three = torch.relu(two - 0.5)
        four = torch.relu(three.flatten(1) - 0.2)
    for batch in (500, 4, 1):
        found = analyse.rectified(model, x, batch=batch)
        assert len(found) == 4
        for output, rectified in zip((one, two, three, four), found, strict=True):
            assert rectified.zeros == pytest.approx(float((output == 0).double().mean()), abs=1e-12)
            assert rectified.outputs == output.numel()
            flat = output.transpose(0, 1).flatten(1) if output.ndim == 4 else output.T
            assert torch.equal(rectified.silent, (flat == 0).all(1))
    assert found[0].silent.tolist() == [False, True, False]


def test_units_of_a_network_of_tokens_are_its_last_dimension() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.ReLU())
    with torch.no_grad():
        model.get_parameter("1.bias")[2] = -100
    (found,) = analyse.rectified(model, torch.arange(6).view(2, 3))
    assert len(found.silent) == 5
    assert bool(found.silent[2])


def test_other_activations_are_not_counted_and_the_mode_of_the_model_stays() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Dropout(0.5)).train()
    assert analyse.rectified(model, torch.zeros(1, 2)) == []
    assert model.training


def test_activity_of_a_run_is_that_of_its_networks_before_and_after_training(run: Run) -> None:
    made = made_of(run, "activity")
    assert made.reason is None
    assert set(made.table.column("arm")) == {"dense", "ticket", "reinit", "random"}
    training = run.training("ticket", level=2, replicate=1)
    x = parts(run.plan.setup, 1).validation.x.flatten(1)
    masked = training.mask.apply(training.start.weights)
    for when, weights in (("trained", training.weights), ("before training", masked)):
        first = torch.relu(x @ weights["fc1.weight"].T + weights["fc1.bias"])
        second = torch.relu(first @ weights["fc2.weight"].T + weights["fc2.bias"])
        rows = made.table.where(arm="ticket", level=2, replicate=2, when=when)
        shares = [float((h == 0).double().mean()) for h in (first, second)]
        both = torch.cat([first, second], 1)
        expected = [float((both == 0).double().mean()), *shares]
        assert rows.column("relu") == ["all", "1", "2"]
        # Sums in another order move values at the border of 0.
        assert rows.numbers("zeros").tolist() == pytest.approx(expected, abs=1e-3)
        silent = [float((h == 0).all(0).double().mean()) for h in (both, first, second)]
        assert rows.numbers("silent").tolist() == pytest.approx(silent, abs=1e-9)
    assert "In the ticket at a density of 20.0 %" in made.sentences[1]


def test_a_network_without_relu_is_not_analysed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from winticket.stages import Setup

    monkeypatch.setattr(Setup, "module", lambda _: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh()))
    with pytest.raises(facts.NothingToAnalyseError, match="no ReLU"):
        analyse.ANALYSES["activity"].plan(run.cells())


def test_without_any_training_nothing_is_analysed(run: Run) -> None:
    with pytest.raises(facts.NothingToAnalyseError, match="no training has finished"):
        analyse.ANALYSES["activity"].plan(replace(run.cells(), trainings={}))
