"""Densities of layers and degrees of units, against counting by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from analysing import made_of
from winticket import Mask, allocate, analyse
from winticket.analyse import facts
from winticket.experiment import Run
from winticket.table import Table, Value
from winticket.units import layouts


def test_gini_is_half_the_relative_mean_difference_of_all_pairs() -> None:
    counts = torch.tensor([0, 3, 3, 1, 10, 0, 7])
    pairs = itertools.product(counts.tolist(), repeat=2)
    expected = sum(abs(a - b) for a, b in pairs) / len(counts) ** 2 / 2 / counts.double().mean().item()
    assert math.isclose(analyse.gini(counts), expected)
    assert math.isclose(analyse.gini(counts[torch.randperm(7)] * 5), expected)


def test_gini_at_its_ends() -> None:
    assert analyse.gini(torch.full((9,), 4)) == 0
    assert math.isclose(analyse.gini(torch.tensor([0, 0, 0, 8])), 1 - 1 / 4)
    assert math.isnan(analyse.gini(torch.zeros(3)))
    assert math.isnan(analyse.gini(torch.zeros(0)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(5, 4),
        nn.Conv2d(6, 4, 3),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 2, groups=2),
        nn.Conv1d(4, 8, 3, groups=4),
    ],
    ids=["linear", "conv", "groups", "transposed groups", "depthwise"],
)
def test_degrees_are_those_of_the_weights_that_connect_units(layer: nn.Module) -> None:
    """An independent way: which weights does the gradient of one unit's output reach, and which one input's?"""
    generator = torch.Generator().manual_seed(0)
    weight = layer.get_parameter("weight")
    keep = torch.rand(weight.shape, generator=generator) < 0.4
    found_in, found_out = analyse.degrees(Mask({"weight": keep}, layouts(layer)))["weight"]
    inputs = int(getattr(layer, "in_channels", 0) or getattr(layer, "in_features", 0))
    shape = (1, inputs) if weight.ndim == 2 else (1, inputs, *[5] * (weight.ndim - 2))
    used = []
    for unit in range(4 if weight.ndim != 3 else 8):
        (gradient,) = torch.autograd.grad(layer(torch.ones(shape))[:, unit].sum(), weight)
        used.append((gradient != 0) & keep)
    assert found_in.tolist() == [int(one.sum()) for one in used]
    read = []
    for channel in range(inputs):
        x = torch.zeros(shape)
        x[:, channel] = 1
        (gradient,) = torch.autograd.grad(layer(x).sum(), weight)
        read.append(int(((gradient != 0) & keep).sum()))
    assert found_out.tolist() == read


def test_layers_of_a_run_are_its_masks_and_the_erk_rule(run: Run) -> None:
    made = made_of(run, "layers")
    assert made.reason is None
    mask = run.training("ticket", level=2, replicate=1).mask
    ticket = made.table.where(level=2, replicate=2, counts="ticket")
    assert list(zip(ticket.column("kept"), ticket.column("total"), strict=True)) == list(
        mask.layers().values()
    )
    assert ticket.column("layer") == list(mask.layers())
    assert ticket.column("position") == [1, 2, 3]
    relative = [kept / total / mask.density() for kept, total in mask.layers().values()]
    assert ticket.column("relative") == pytest.approx(relative, abs=1e-12)
    ones = {name: torch.ones(keep.shape) for name, keep in mask.keep.items()}
    rule = allocate.erk(ones, Mask.full(ones), density=mask.density())
    erk = made.table.where(level=2, replicate=2, counts="ERK rule")
    assert erk.column("kept") == [kept for kept, _ in rule.layers().values()]
    assert sum(float(str(kept)) for kept in erk.column("kept")) == mask.count()


def test_sentences_on_layers_give_the_share_in_other_layers() -> None:
    """Of 100 + 100 weights the ticket keeps 10 + 30; alike it would be 20 + 20, and by the rule 15 + 25."""
    rows: list[dict[str, Value]] = [
        {
            "density": 0.2, "counts": counts, "replicate": replicate, "layer": layer, "kept": kept, "total": 100,
            "layer_density": kept / 100,
        }
        for replicate in (1, 2)
        for counts, by_layer in (("ticket", (10, 30)), ("ERK rule", (15, 25)))
        for layer, kept in zip(("a", "b"), by_layer, strict=True)
    ]  # fmt: skip
    said = analyse.ANALYSES["layers"].says(Table.from_rows(rows))
    assert said[0] == (
        "At a density of 20.0 %, b is the densest layer and keeps 30 % of its weights; a is the sparsest and keeps "
        "10 %."
    )
    assert "25 % of the kept weights" in said[1]
    assert said[1].endswith("ERK rule, 12.5 %.")
    assert said[2].startswith("All replicates have the same counts")
    rows[0]["kept"] = 9
    assert len(analyse.ANALYSES["layers"].says(Table.from_rows(rows))) == 2


def test_layers_of_one_density_are_said_to_be_alike(run: Run) -> None:
    assert made_of(run, "layers").sentences == ("At a density of 20.0 %, all layers keep 20 %.",)


def test_units_of_a_run_are_counted_in_its_masks(run: Run) -> None:
    made = made_of(run, "units")
    keep = run.training("ticket", level=2, replicate=2).mask.keep["fc1.weight"]
    (row,) = made.table.where(level=2, replicate=3, mask="ticket", layer="fc1.weight").rows()
    into, out_of = keep.sum(1), keep.sum(0)
    assert (row["units"], row["inputs"]) == (30, 64)
    assert row["without_inputs"] == int((into == 0).sum()) / 30
    assert row["unread"] == int((out_of == 0).sum()) / 64
    assert (row["in_most"], row["out_most"]) == (int(into.max()), int(out_of.max()))
    assert row["in_mean"] == pytest.approx(int(keep.sum()) / 30)
    assert row["in_gini"] == pytest.approx(analyse.gini(into))
    assert set(made.table.column("mask")) == {"ticket", "random"}
    assert set(made.table.column("shown")) == {True}


def test_at_most_four_layers_are_drawn_the_first_and_the_last_among_them() -> None:
    from winticket.analyse.shape import _spread_evenly

    names = [f"layer{n}" for n in range(22)]
    assert _spread_evenly(names, 4) == ["layer0", "layer7", "layer14", "layer21"]
    assert _spread_evenly(names[:3], 4) == names[:3]


@pytest.mark.parametrize("name", ["layers", "paths", "units", "locality", "pixels"])
def test_without_finished_tickets_nothing_is_analysed(run: Run, name: str) -> None:
    cells = run.cells()
    dense = {cell: stacks for cell, stacks in cells.trainings.items() if cell[1] == "dense"}
    with pytest.raises(facts.NothingToAnalyseError, match="no level's tickets have finished"):
        analyse.ANALYSES[name].plan(replace(cells, trainings=dense))
