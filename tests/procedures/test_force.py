"""FORCE and Iterative SNIP: scores under a mask, revival, densities and counts."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from winticket import allocate, criteria
from winticket.criteria import Evidence
from winticket.criteria.applied import scores_of
from winticket.criteria.gradients import foresight
from winticket.data import find_dataset
from winticket.experiment import Experiment, plan
from winticket.procedures import Setup, force, iter_snip
from winticket.run import stored_needs
from winticket.stages import dense_ticket, evidence, prune_with_foresight, scored
from winticket.stages import foresight as stage
from winticket.ticket import Mask, Scores, Seeds, State, Ticket, Weights, same_bits
from winticket.train import Recipe


@pytest.fixture(scope="module")
def setup() -> Setup:
    source = find_dataset("digits")
    words = (source.fingerprint, source.input_shape, source.classes, "lenet-12-8", "glorot-normal")
    return Setup("digits", *words, Recipe(steps=6))


WEIGHTS = {
    "0.weight": torch.tensor([[1.0, 3.0], [2.0, -1.0]]),
    "1.weight": torch.tensor([[2.0, 7.0], [4.0, 1.0]]),
}


def by_hand(mask: Mask, weights: Weights = WEIGHTS) -> Evidence:
    """Two linear layers, two units each, and one example: x = (1, 2) of class 0."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    state = State(weights, {}, {}, 0)
    example = torch.tensor([[1.0, 2.0]])
    batches = [(example, torch.tensor([0]))]
    return Evidence(state, state, mask, torch.Generator(), network=network, example=example, batches=batches)


def test_a_pruned_weight_is_scored_by_its_own_value_and_the_pruned_networks_gradient() -> None:
    """Hidden values are (1, -2) and both logits 2, so ∂L/∂logits is (-1/2, 1/2) and ∂L/∂hidden (1, 1/2)."""
    mask = Mask(
        {
            "0.weight": torch.tensor([[True, False], [False, True]]),
            "1.weight": torch.tensor([[True, False], [True, True]]),
        }
    )
    scores = foresight(by_hand(mask))
    assert scores["0.weight"].tolist() == [[1, 6], [1, 1]]  # |w · ∂L/∂w|, with ∂L/∂w = ((1, 2), (1/2, 1))
    assert scores["1.weight"].tolist() == [[1, 7], [2, 1]]  # and ((-1/2, 1), (1/2, -1))
    # SNIP gives a pruned weight 0, so it could never come back.
    snip = criteria.snip(by_hand(mask))
    assert snip["0.weight"].tolist() == [[1, 0], [0, 1]]
    assert snip["1.weight"].tolist() == [[1, 0], [2, 1]]


def test_with_nothing_pruned_it_is_snip() -> None:
    whole = Mask.full(WEIGHTS)
    assert same_bits(foresight(by_hand(whole)), criteria.snip(by_hand(whole)))


@pytest.mark.parametrize("revive", [True, False])
def test_a_weight_comes_back_in_force_and_stays_pruned_in_iterative_snip(
    revive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 8 weights to 4 and to 2.

    In the whole network the second hidden value is 2 - 2 · 7/8 = 1/4, so the 7 that reads it scores 7/4 and is pruned.
    Its unit loses the weight -7/8, which leaves it 2: then the 7 scores 7 · 2 = 14 and is second to the 4 with
    4 · 6 = 24 (both times 1 - p, about 1).
    """
    masks: list[Mask] = []

    def watched(scores: Scores, mask: Mask, *, density: float) -> Mask:
        masks.append(allocate.global_top(scores, mask, density=density))
        return masks[-1]

    weights = {**WEIGHTS, "0.weight": torch.tensor([[1.0, 3.0], [2.0, -0.875]])}
    whole = Mask.full(weights)
    monkeypatch.setattr(stage, "evidence", lambda *_: by_hand(whole, weights))
    monkeypatch.setattr(stage, "scored", lambda *_: by_hand(whole).batches)
    bare = cast(Setup, SimpleNamespace(module=nn.Sequential))
    ticket = prune_with_foresight(
        bare,
        Ticket(whole, State(weights, {}, {}, 0), "dense", Seeds(0, 0)),
        density=0.25,
        allocate=watched,
        iterations=2,
        revive=revive,
    )
    assert [mask.count() for mask in masks] == [4, 2]
    assert masks[0].keep["0.weight"].tolist() == [[False, True], [True, False]]
    assert masks[0].keep["1.weight"].tolist() == [[True, False], [True, False]]
    assert bool(ticket.mask.keep["1.weight"][0, 1]) == revive
    assert ticket.mask.within(masks[0]) != revive
    assert bool(ticket.mask.keep["1.weight"][1, 0])
    assert same_bits(ticket.start.weights, weights)
    assert ticket.origin == "ticket"


@pytest.mark.parametrize("revive", [True, False])
def test_densities_fall_as_in_the_paper_and_counts_are_exact(setup: Setup, revive: bool) -> None:
    """k_t = exp(α log k + (1 - α) log m) with α = t / T, m weights at first and k at the end."""
    seen: list[tuple[float, Mask, Mask]] = []

    def watched(scores: Scores, mask: Mask, *, density: float) -> Mask:
        seen.append((density, mask, allocate.global_top(scores, mask, density=density)))
        return seen[-1][2]

    ticket, iterations, density = dense_ticket(setup, 0), 12, 0.02
    found = prune_with_foresight(
        setup, ticket, density=density, allocate=watched, iterations=iterations, revive=revive
    )
    m = ticket.mask.total()
    paper = [
        math.exp(t / iterations * math.log(density * m) + (1 - t / iterations) * math.log(m))
        for t in range(1, iterations + 1)
    ]
    assert [d * m for d, _, _ in seen] == pytest.approx(paper)
    assert [after.count() for _, _, after in seen] == [math.floor(k + 0.5) for k in paper]
    assert found.mask.count() == math.floor(density * m + 0.5)
    assert [before.count() for _, before, _ in seen] == (
        [m] * iterations if revive else [m, *(after.count() for _, _, after in seen[:-1])]
    )
    nested = all(new.within(old) for (_, _, old), (_, _, new) in pairwise(seen))
    assert nested != revive


def test_each_iteration_draws_its_own_examples_and_a_replicate_repeats_itself(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []

    def watched(criterion: Any, e: Evidence) -> Scores:
        drawn.append(torch.cat([x for x, _ in e.batches]))
        assert torch.bincount(torch.cat([y for _, y in e.batches])).tolist() == [10] * 10
        return scores_of(criterion, e)

    monkeypatch.setattr(stage, "scores_of", watched)
    how: dict[str, Any] = {
        "density": 0.1,
        "allocate": allocate.global_top,
        "iterations": 3,
        "revive": True,
    }
    one, again = (prune_with_foresight(setup, dense_ticket(setup, 0), **how) for _ in range(2))
    assert same_bits(one.mask.keep, again.mask.keep)
    assert all(torch.equal(a, b) for a, b in zip(drawn[:3], drawn[3:], strict=True))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_one_iteration_is_snip_in_the_same_mode_on_the_same_examples(setup: Setup) -> None:
    ticket = dense_ticket(setup, 0)
    found = prune_with_foresight(
        setup, ticket, density=0.3, allocate=allocate.global_top, iterations=1, revive=True
    )
    batches = scored(setup, Seeds(ticket.seeds.derive("scored", 1), 0))
    seen = replace(evidence(setup, ticket, ticket.start, criteria.snip), batches=batches)
    once = allocate.global_top(criteria.snip(seen), ticket.mask, density=0.3)
    assert same_bits(found.mask.keep, once.keep)


def test_every_density_is_a_search_of_its_own_that_waits_for_no_training(setup: Setup) -> None:
    pairs = [list(procedure(setup, [0.5, 0.2], (0, 1))) for procedure in (force, iter_snip)]
    keys = [found.ticket.key for pair in pairs for found in pair]
    assert len(set(keys)) == 4
    assert all(stored_needs(found.ticket) == () for pair in pairs for found in pair)


def test_a_pattern_that_the_densities_on_the_way_do_not_fit_is_refused_while_planning() -> None:
    asked = Experiment.of(
        "digits", method="force", allocate="n_of_m", density=(0.5,), steps=20, exclude=("fc3.weight",)
    )
    with pytest.raises(ValueError, match="method force prunes a little at a time, which allocate n_of_m"):
        plan(asked)


def test_its_criterion_is_part_of_the_method() -> None:
    with pytest.raises(ValueError, match="method force takes no criterion"):
        Experiment.of("digits", method="force", criterion="magnitude")
