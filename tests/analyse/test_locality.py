"""Locality of the first layer, against loops over all pairs of inputs, and against drawn masks."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import winticket
from analysing import made_of
from winticket import analyse
from winticket.analyse import facts
from winticket.analyse.first_layer import first_layer
from winticket.experiment import Experiment, Run
from winticket.stages import Setup

SHAPE = (2, 3, 4)


def drawn(units: int, density: float, seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(units, math.prod(shape), generator=generator) < density


def pairs_of(keep: Tensor) -> list[tuple[int, int]]:
    """Displacements (down, right) of all ordered pairs of two inputs that a unit keeps, in the same channel."""
    channels, height, width = SHAPE
    found = []
    for unit in keep.view(-1, channels, height, width):
        for channel in unit:
            at = [tuple(one) for one in torch.nonzero(channel).tolist()]
            found += [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.permutations(at, 2)]
    return found


def test_displacements_are_those_of_all_pairs() -> None:
    keep = drawn(5, 0.4, 0)
    counts = analyse.displacements(keep, SHAPE)
    expected = torch.zeros(5, 7)
    for down, right in pairs_of(keep):
        expected[down + 2, right + 3] += 1
    assert torch.equal(counts, expected)
    assert torch.equal(counts, counts.flip(0, 1))


def test_neighbours_are_the_share_of_adjacent_pairs_over_that_of_all_pixels() -> None:
    keep = drawn(5, 0.4, 1)
    near = [max(abs(a), abs(b)) == 1 for a, b in pairs_of(keep)]
    pixels = list(itertools.product(range(3), range(4)))
    every = [max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1 for a, b in itertools.permutations(pixels, 2)]
    ratio, _ = analyse.neighbours(keep, SHAPE)
    assert math.isclose(ratio, (sum(near) / len(near)) / (sum(every) / len(every)))


def test_random_masks_are_as_local_as_chance_and_windows_more_so() -> None:
    shape = (1, 8, 8)
    ratio, alone = analyse.neighbours(drawn(4000, 0.1, 2, shape), shape)
    assert abs(ratio - 1) < 0.02
    assert abs(alone - 1) < 0.01
    windows = torch.zeros(36, 8, 8, dtype=torch.bool)
    for unit, (y, x) in enumerate(itertools.product(range(6), range(6))):
        windows[unit, y : y + 3, x : x + 3] = True
    ratio, alone = analyse.neighbours(windows.flatten(1), shape)
    assert ratio > 4 > 1.5 > alone


def test_what_pixels_alone_explain_is_what_shuffling_each_pixel_over_units_leaves() -> None:
    """Shuffles over units keep how often each pixel is read, and break up which ones a unit reads together."""
    generator = torch.Generator().manual_seed(3)
    shape, keep = (1, 6, 6), drawn(400, 0.3, 3, (1, 6, 6))
    keep[:, 14:22] |= torch.rand(400, 8, generator=generator) < 0.6
    for row in range(6):
        keep[row::6, 6 * row : 6 * row + 6] = True
    _, alone = analyse.neighbours(keep, shape)
    shuffled = [
        analyse.neighbours(
            torch.stack([column[torch.randperm(400, generator=generator)] for column in keep.T], 1), shape
        )[0]
        for _ in range(30)
    ]
    mean = sum(shuffled) / len(shuffled)
    deviation = math.sqrt(sum((s - mean) ** 2 for s in shuffled) / 29)
    assert abs(alone - mean) < 4 * deviation / math.sqrt(30) + 1e-3
    assert abs(analyse.neighbours(keep, shape)[0] - alone) > 6 * deviation


def test_centrality_is_the_mean_distance_over_that_of_all_pixels() -> None:
    keep = drawn(6, 0.3, 4)
    away = [math.hypot(y - 1, x - 1.5) for _, y, x in itertools.product(range(2), range(3), range(4))]
    kept = [away[int(at)] for _, at in torch.nonzero(keep)]
    assert math.isclose(analyse.centrality(keep, SHAPE), (sum(kept) / len(kept)) / (sum(away) / len(away)))
    assert analyse.centrality(torch.ones(2, 24, dtype=torch.bool), SHAPE) == pytest.approx(1)


def test_masks_with_nothing_to_compare_give_nan_and_wrong_shapes_an_error() -> None:
    single = torch.eye(24) > 0
    assert math.isnan(analyse.neighbours(single, SHAPE)[0])
    assert math.isnan(analyse.centrality(single & False, SHAPE))
    with pytest.raises(ValueError, match=r"\(24, 24\) is not \[units, inputs\] for inputs of shape \(3, 4\)"):
        analyse.displacements(single, (3, 4))


def test_locality_of_a_run_is_that_of_its_first_layer(run: Run) -> None:
    made = made_of(run, "locality")
    assert made.reason is None
    keep = run.training("ticket", level=2, replicate=0).mask.keep["fc1.weight"]
    ratio, alone = analyse.neighbours(keep, (1, 8, 8))
    (ticket,) = made.table.where(level=2, replicate=1, mask="ticket").rows()
    (pixels,) = made.table.where(level=2, replicate=1, mask="ticket's pixels, drawn for each unit").rows()
    assert (ticket["neighbours"], pixels["neighbours"]) == (ratio, alone)
    assert ticket["beyond"] == ratio / alone
    assert pixels["beyond"] is None
    assert ticket["centrality"] == analyse.centrality(keep, (1, 8, 8))


def test_the_picture_of_a_run_adds_up_to_its_masks(run: Run) -> None:
    table = made_of(run, "pixels").table
    at = table.where(level=2)
    masks = [run.training("ticket", level=2, replicate=n).mask.keep["fc1.weight"] for n in range(3)]
    mean = torch.stack([keep.sum(0) for keep in masks]).double().mean(0)
    assert at.numbers("kept").tolist() == pytest.approx(mean.tolist())
    assert [(row["row"], row["column"]) for row in at.rows()] == list(itertools.product(range(8), range(8)))
    assert at.numbers("share").tolist() == pytest.approx((mean / 30).tolist())
    assert set(at.column("tickets")) == {3}
    assert set(at.column("feature")) == {None}


def test_the_features_of_a_table_are_named_and_have_no_neighbours(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(200, 3))
    lines = [f"{a},{b},{c},{'up' if a > b else 'down'}" for a, b, c in values]
    (tmp_path / "made.csv").write_text("\n".join(["heat,load,noise,state", *lines]))
    winticket.find(
        tmp_path / "made.csv", label="state", model="lenet-20", steps=20, density=[0.5], replicates=1,
        controls=(), store=tmp_path / "store", out=tmp_path / "out", workers=0,
    )  # fmt: skip
    made = winticket.open(tmp_path / "out")
    pixels = made_of(made, "pixels")
    assert pixels.table.where(level=1).column("feature") == ["heat", "load", "noise"]
    (words,) = pixels.sentences
    assert re.search(
        r"of 3 features have half of .* The feature (heat|load|noise) is read by the most", words
    )
    assert made_of(made, "locality").reason == "the features of a table have no neighbours, as pixels have"


class Skipping(nn.Module):
    """Its first Linear layer is never called, and its second reads examples with their axes swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.turned, self.out = nn.Linear(64, 3), nn.Linear(64, 3), nn.Linear(6, 10)
        self.plain = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.turned(x.transpose(-1, -2).flatten(1)), self.plain(x.flatten(1))], 1)
        logits: Tensor = self.out(both)
        return logits


def test_the_first_layer_is_the_one_that_reads_whole_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Experiment.of("digits", model="lenet-20", steps=5).setup()
    assert first_layer(setup, ("fc1.weight", "fc2.weight")) == "fc1.weight"
    with pytest.raises(
        facts.NothingToAnalyseError, match=r"fc1\.weight, which reads the examples, is not pruned"
    ):
        first_layer(setup, ("fc2.weight",))
    with pytest.raises(facts.NothingToAnalyseError, match="text"):
        first_layer(replace(setup, tokens=True), ("fc1.weight",))
    conv = Experiment.of("digits", model="conv-2", steps=5).setup()
    with pytest.raises(
        facts.NothingToAnalyseError, match="kernels of convolutions are local by construction"
    ):
        first_layer(conv, ("conv1.weight",))
    monkeypatch.setattr(Setup, "module", lambda _: Skipping())
    assert first_layer(setup, ("plain.weight", "turned.weight")) == "plain.weight"
