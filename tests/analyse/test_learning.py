"""What learning did: known movements, signs and gradients; and the tables of a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from winticket import Mask, analyse
from winticket.experiment import Run


def test_displacement_and_signs_count_the_kept_weights_alone() -> None:
    start = {"w": torch.tensor([3.0, -4.0, 100.0]), "bias": torch.tensor([7.0])}
    end = {"w": torch.tensor([-3.0, -4.0, -100.0]), "bias": torch.tensor([-7.0])}
    mask = Mask({"w": torch.tensor([True, True, False])})
    assert analyse.displacement(start, end, mask) == pytest.approx(6 / 5)
    assert analyse.sign_agreement(start, end, mask) == 0.5
    nothing = Mask({"w": torch.zeros(3, dtype=torch.bool)})
    assert math.isnan(analyse.sign_agreement(start, end, nothing))
    with pytest.raises(ValueError, match="all kept weights are 0"):
        analyse.displacement({"w": torch.zeros(3)}, end, mask)


def test_the_gradient_is_autograds_within_the_mask() -> None:
    """With BatchNorm's statistics of the batch, as in training; dropout is off."""
    torch.manual_seed(0)
    layers = [nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 3)]
    module = nn.Sequential(*layers).double().eval()
    x, y = torch.randn(20, 5).double(), torch.randint(0, 3, (20,))
    mask = Mask({"0.weight": torch.rand(7, 5) < 0.5, "4.weight": torch.rand(3, 7) < 0.5})
    values = {**{n: p.detach() for n, p in module.named_parameters()}, **dict(module.named_buffers())}
    before = {name: value.clone() for name, value in values.items()}
    norm = analyse.gradient_norm(module, values, x, y, mask)
    assert all(torch.equal(values[name], value) for name, value in before.items())
    assert not any(layer.training for layer in module.modules())
    module[1].train()
    parameters = dict(module.named_parameters())
    slopes = torch.autograd.grad(
        nn.functional.cross_entropy(module(x), y), [parameters[n] for n in mask.keep]
    )
    wanted = torch.cat([slope[k] for slope, k in zip(slopes, mask.keep.values(), strict=True)]).norm()
    assert norm == pytest.approx(float(wanted))


def test_a_run_says_what_learning_did(run: Run) -> None:
    made, slopes = run.analyse(
        "learning", "gradients", options={"learning": {"shares": "0.5", "levels": "2"}}
    )
    assert (made.reason, slopes.reason) == (None, None)
    ends = made.table.where(arm="ticket", group="all", at_end=True)
    one = run.training("ticket", level=2, replicate=1)
    wanted = analyse.sign_agreement(one.start.weights, one.weights, one.mask)
    assert ends.where(level=2, replicate=2).column("sign_agreement") == [wanted]
    assert set(made.table.where(arm="dense").column("step")) == {30, 60}
    halves = made.table.where(arm="dense", at_end=True, replicate=1)
    assert halves.column("group") == ["all", "kept", "pruned next"]
    kept, pruned = (
        float(str(halves.where(group=g).column("sign_agreement")[0])) for g in ("kept", "pruned next")
    )
    assert kept > pruned  # small weights change their sign sooner
    assert set(slopes.table.column("arm")) == {"dense", "ticket", "reinit", "random"}
    assert (slopes.table.numbers("gradient_norm") > 0).all()
    norm, by_weight = (
        slopes.table.where(arm="ticket", level=2).numbers(n) for n in ("gradient_norm", "per_weight")
    )
    assert norm / by_weight == pytest.approx([one.mask.count() ** 0.5] * 3)
    # Tickets start from the dense network's init, so both agreements are one; a fresh init has other signs.
    tickets = made.table.where(arm="ticket")
    assert tickets.column("init_agreement") == tickets.column("sign_agreement")
    assert set(made.table.where(arm="reinit").column("init_agreement")) == {None}


def test_shares_lie_within_the_training(run: Run) -> None:
    options: dict[str, dict[str, Any]] = {"learning": {"shares": (0.0,)}}
    with pytest.raises(ValueError, match="between 0 and 1"):
        run.analyse("learning", options=options)
