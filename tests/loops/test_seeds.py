"""What methods around a user's loop draw: other numbers in every replicate, and never those of the initialisation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import winticket
from winticket import criteria
from winticket.criteria import Evidence
from winticket.ticket import Mask, Scores, Seeds, same_bits

SIZE = (60, 100)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(SIZE[1], SIZE[0], bias=False))


def pruned(model: nn.Module, seeds: Seeds | None) -> Mask:
    return winticket.prune(model, 0.5, criterion=criteria.random, seeds=seeds).mask


def levels(model: nn.Module, seeds: Seeds | None) -> Mask:
    for level in winticket.Levels(model, [0.5], criterion=criteria.random, seeds=seeds):
        with level:
            level.at(1)
    return level.ticket.mask


def block(name: str) -> Callable[[nn.Module, Seeds | None], Mask]:
    def found(model: nn.Module, seeds: Seeds | None) -> Mask:
        how = {"steps": 20, "every": 2} if name in ("set_", "rigl") else {}
        with pytest.warns(RuntimeWarning), getattr(winticket, name)(model, 0.5, seeds=seeds, **how) as begun:
            mask: Mask = begun.mask
        return mask

    return found


DRAW = {"prune": pruned, "Levels": levels} | {
    n: block(n) for n in ("set_", "rigl", "edge_popup", "supermask")
}


@pytest.mark.parametrize("name", DRAW)
def test_without_seeds_replicates_differ_and_torchs_seed_repeats_them(name: str) -> None:
    one, two, again = (DRAW[name](network(seed), None).keep for seed in (1, 2, 1))
    assert not same_bits(one, two)
    assert same_bits(one, again)
    twice = network(1)
    weights = twice.get_parameter("0.weight").detach().clone()
    one = DRAW[name](twice, None).keep
    with torch.no_grad():
        twice.get_parameter("0.weight").copy_(weights)
    assert not same_bits(one, DRAW[name](twice, None).keep)  # of one network as well


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", DRAW)
def test_masks_have_nothing_to_do_with_an_initialisation_of_the_same_seed(name: str, seed: int) -> None:
    weight = network(seed).get_parameter("0.weight").detach().clone()
    for seeds in (Seeds(seed, 0), Seeds(0, seed), None):
        keep = DRAW[name](network(seed), seeds).keep["0.weight"]
        pair = torch.stack([keep.double(), weight.double()]).flatten(1)
        # Four standard deviations of the correlation of as many independent numbers.
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / weight.numel() ** 0.5


def test_what_draws_nothing_leaves_torchs_generator_alone() -> None:
    model = network(0)
    state = torch.get_rng_state()
    winticket.prune(model, 0.5)
    winticket.Levels(model, [0.5], criterion=criteria.large_init)
    with pytest.warns(RuntimeWarning), winticket.gradual(model, 0.5, steps=20, every=2):
        pass
    assert torch.equal(torch.get_rng_state(), state)
    winticket.prune(model, 0.5, criterion=criteria.random, seeds=Seeds(0, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_criterion_of_ones_own_may_draw() -> None:
    def noise(e: Evidence) -> Scores:
        found: dict[str, Tensor] = {
            n: torch.rand(k.shape, generator=e.generator) for n, k in e.mask.keep.items()
        }
        return found

    one, two = (winticket.prune(network(seed), 0.5, criterion=noise).mask.keep for seed in (1, 2))
    assert not same_bits(one, two)
