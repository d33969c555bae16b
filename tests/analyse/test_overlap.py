"""Overlap of masks: chance is the hypergeometric one, matching finds a planted permutation, and identical is 1."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import nn

from winticket import Mask, align, analyse
from winticket.experiment import Run


def drawn(generator: torch.Generator, *counts: tuple[int, int]) -> Mask:
    """A mask with a layer of `total` weights, `kept` of them at random, for each (kept, total)."""
    keep = {}
    for number, (kept, total) in enumerate(counts):
        keep[f"fc{number}.weight"] = torch.randperm(total, generator=generator) < kept
    return Mask(keep)


def test_identical_masks_overlap_by_one_and_disjoint_ones_not_at_all() -> None:
    keep = torch.arange(50) < 10
    assert analyse.jaccard(Mask({"w": keep}), Mask({"w": keep})) == 1
    assert analyse.jaccard(Mask({"w": keep}), Mask({"w": ~keep})) == 0
    assert analyse.jaccard(Mask({"w": keep & ~keep}), Mask({"w": keep & ~keep})) == 1


def test_chance_is_the_hypergeometric_distribution_of_every_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = drawn(generator, (30, 100), (5, 40)), drawn(generator, (20, 100), (8, 40))
    both = sum(int((keep & other.keep[name]).sum()) for name, keep in one.keep.items())
    layers = [stats.hypergeom(100, 30, 20), stats.hypergeom(40, 5, 8)]
    mean, variance = sum(d.mean() for d in layers), sum(d.var() for d in layers)
    index, z = analyse.chance(one, other)
    assert math.isclose(index, mean / (63 - mean))
    assert math.isclose(z, (both - mean) / math.sqrt(variance))


def test_independent_masks_are_within_three_deviations_of_chance_in_99_of_100_draws() -> None:
    generator = torch.Generator().manual_seed(1)
    far = 0
    for _ in range(400):
        one, other = (drawn(generator, (200, 2000), (30, 100), (90, 100)) for _ in range(2))
        far += abs(analyse.chance(one, other)[1]) > 3
    assert far <= 4


@pytest.mark.parametrize("kept", [0, 40])
def test_nothing_is_left_to_chance_in_whole_and_empty_layers(kept: int) -> None:
    mask = drawn(torch.Generator().manual_seed(2), (kept, 40))
    assert analyse.chance(mask, mask)[1] == 0


def test_masks_of_other_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="do not cover the same layers"):
        analyse.jaccard(Mask({"a": torch.ones(3).bool()}), Mask({"b": torch.ones(3).bool()}))


def test_matching_recovers_a_planted_permutation_exactly() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4))
    groups = align.symmetry(net, (12,))
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    mask = Mask({name: w.abs() > w.abs().median() for name, w in weights.items() if w.ndim == 2})
    orders = tuple(torch.randperm(group.size) for group in groups)
    renumbered = align.permuted(weights, groups, orders)
    moved = replace(mask, keep=align.permuted(mask.keep, groups, orders))
    assert analyse.jaccard(mask, moved) < 0.5
    assert analyse.jaccard(mask, analyse.matched(moved, weights, renumbered, groups)) == 1


def test_tickets_of_a_run_overlap_more_if_their_inits_are_the_same(run: Run) -> None:
    (made,) = run.analyse("overlap")
    assert made.reason is None
    means = {
        row["pair"]: float(str(row["jaccard"]))
        for row in analyse.summarised(made.table.where(level=2), "jaccard", ["pair"]).rows()
    }
    assert means["same init, new order"] > 2 * means["new init"]
    assert len(made.table.where(level=1, pair="new init")) == 3
    assert all(abs(float(str(z))) < 4 for z in made.table.where(pair="new init").column("z"))
    assert "20" in made.sentences[0]


def test_an_analysis_is_computed_once(run: Run) -> None:
    from winticket.experiment.analysing import plan_analyses

    run.analyse("overlap")
    assert not plan_analyses(run, ["overlap"]).missing()
    assert plan_analyses(run, ["overlap"], options={"overlap": {"levels": "1"}}).missing()
