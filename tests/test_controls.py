"""Controls: each differs from its ticket, keeps every layer's count, and is drawn from what it says."""

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import cast

import pytest
import scipy.stats
import torch

from winticket import controls, models
from winticket.controls import random_mask, reinit
from winticket.ticket import Mask, Seeds, State, Ticket, same_bits

PUBLIC = [name for name in controls.__all__ if name != "Control"]


def lenet(seed: int) -> State:
    module = models.build("lenet-20-10", input_shape=(30,), classes=10, generator_seed=seed)
    buffers = {"statistic": torch.tensor([float(seed)])}
    return State({n: p.detach().clone() for n, p in module.named_parameters()}, buffers, {}, 0)


def ticket(density: float = 0.3, seed: int = 1) -> Ticket:
    start = lenet(seed)
    names = ("fc1.weight", "fc2.weight", "fc3.weight")
    generator = torch.Generator().manual_seed(0)
    mask = Mask({n: torch.rand(start.weights[n].shape, generator=generator) < density for n in names})
    state = State(start.weights, start.buffers, {"momentum_buffer/fc1.bias": torch.ones(20)}, 7)
    return Ticket(mask, state, "ticket", Seeds(3, 4), {"model": "lenet-20-10"})


def tiny(*keep: bool) -> Ticket:
    mask = Mask({"w": torch.tensor([keep])})
    weights = {"w": torch.arange(1.0, len(keep) + 1).view(1, -1)}
    return Ticket(mask, State(weights, {}, {}, 0), "ticket", Seeds(0, 0))


def make(name: str, given: Ticket, seed: int) -> Ticket:
    control = cast(Callable[..., Ticket], getattr(controls, name))
    return control(given, seed=seed, draw=lenet) if name == "reinit" else control(given, seed=seed)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("density", [0.02, 0.3, 0.9])
def test_every_control_differs_and_keeps_its_counts(name: str, density: float) -> None:
    own = ticket(density)
    control = make(name, own, 11)
    assert control.mask.count() == own.mask.count()
    if name != "random_global":
        assert control.mask.layers() == own.mask.layers()
    effective = own.mask.apply(own.start.weights)
    assert not same_bits(control.mask.apply(control.start.weights), effective)
    assert control.seeds == own.seeds  # so it sees the same batches
    assert control.start.step == (0 if name == "reinit" else own.start.step)
    assert control.about == own.about
    assert control.origin != own.origin
    assert control.start.optimizer == {}  # another network's momentum is none of its own
    # What the control prunes is stored as 0.
    assert same_bits(control.start.weights, control.mask.apply(control.start.weights))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_control_is_a_function_of_its_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = make(name, ticket(), 11), make(name, ticket(), 11), make(name, ticket(), 12)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(first.start.weights, again.start.weights)
    assert same_bits(first.mask.keep, again.mask.keep)
    # Signs alone leave nothing to draw.
    assert same_bits(first.start.weights, other.start.weights) == (name == "signs")


def test_reinit_keeps_the_mask_and_takes_the_draw() -> None:
    own = ticket()
    control = reinit(own, seed=11, draw=lenet)
    assert same_bits(control.mask.keep, own.mask.keep)
    assert same_bits(control.start.weights, own.mask.apply(lenet(11).weights))
    assert same_bits(control.start.buffers, lenet(11).buffers)


def test_reinit_draws_from_the_distribution_of_the_start() -> None:
    # The same scheme, so per layer the two samples are of one distribution (Kolmogorov-Smirnov).
    own = ticket(0.9)
    control = reinit(own, seed=11, draw=lenet)
    for name, keep in own.mask.keep.items():
        one, two = own.start.weights[name][keep], control.start.weights[name][keep]
        assert not torch.equal(one, two)
        assert scipy.stats.ks_2samp(one.numpy(), two.numpy()).pvalue > 0.01


def test_reinit_that_gives_the_ticket_back_is_refused() -> None:
    with pytest.raises(ValueError, match="re-initialising with seed 1 gave the ticket's own weights"):
        reinit(ticket(seed=1), seed=1, draw=lenet)


def test_random_mask_keeps_the_tickets_weights_where_it_keeps_any() -> None:
    own = ticket()
    control = random_mask(own, seed=11)
    for name, keep in control.mask.keep.items():
        assert torch.equal(control.start.weights[name][keep], own.start.weights[name][keep])
        assert not torch.equal(keep, own.mask.keep[name])
    assert torch.equal(control.start.weights["fc1.bias"], own.start.weights["fc1.bias"])
    assert same_bits(control.start.buffers, own.start.buffers)


def test_random_mask_keeps_whole_and_empty_layers() -> None:
    weights = {"a": torch.ones(1, 4), "b": torch.ones(1, 4), "c": torch.ones(1, 4)}
    keep = {
        "a": torch.ones(1, 4, dtype=torch.bool),
        "b": torch.tensor([[True, False, False, False]]),
        "c": torch.zeros(1, 4, dtype=torch.bool),
    }
    control = random_mask(Ticket(Mask(keep), State(weights, {}, {}, 0), "t", Seeds(0, 0)), seed=0)
    assert control.mask.layers() == {"a": (4, 4), "b": (1, 4), "c": (0, 4)}
    assert not torch.equal(control.mask.keep["b"], keep["b"])


def test_random_mask_is_uniform_over_the_other_masks() -> None:
    # Two of five: ten masks, nine without the ticket's own. Chi-square over 1800 seeds, 200 expected each.
    own = tiny(True, True, False, False, False)
    seen = Counter(
        tuple(random_mask(own, seed=s).mask.keep["w"][0].nonzero().flatten().tolist()) for s in range(1800)
    )
    others = [pair for pair in combinations(range(5), 2) if pair != (0, 1)]
    assert set(seen) == set(others)
    assert scipy.stats.chisquare([seen[pair] for pair in others]).pvalue > 0.001


def test_random_mask_overlaps_its_ticket_at_chance() -> None:
    # Kept in both, of 600 with 0.3 · 600 kept in each: hypergeometric. Two-sided, per layer.
    own = ticket()
    control = random_mask(own, seed=11)
    for name, (count, total) in own.mask.layers().items():
        both = int((own.mask.keep[name] & control.mask.keep[name]).sum())
        chance = scipy.stats.hypergeom(total, count, count)
        assert chance.ppf(0.0005) <= both <= chance.ppf(0.9995)


@pytest.mark.parametrize("keep", [(True, True, True), (False, False, False)])
def test_random_mask_of_a_whole_or_empty_network_is_refused(keep: tuple[bool, ...]) -> None:
    with pytest.raises(
        ValueError, match="a random mask of the same counts would be the ticket's own; prune first"
    ):
        random_mask(tiny(*keep), seed=0)


def test_the_smallest_choice_is_the_other_one() -> None:
    for seed in range(20):
        assert random_mask(tiny(True, False), seed=seed).mask.keep["w"].tolist() == [[False, True]]


def test_random_global_lets_layers_trade() -> None:
    own = Ticket(
        Mask({"a": torch.ones(1, 50, dtype=torch.bool), "b": torch.zeros(1, 50, dtype=torch.bool)}),
        State({"a": torch.ones(1, 50), "b": torch.ones(1, 50)}, {}, {}, 0),
        "ticket",
        Seeds(0, 0),
    )
    kept = controls.random_global(own, seed=11).mask.layers()
    assert kept["a"][0] + kept["b"][0] == 50
    # Of 100 with 50 kept, 50 in a: hypergeometric.
    chance = scipy.stats.hypergeom(100, 50, 50)
    assert chance.ppf(0.0005) <= kept["a"][0] <= chance.ppf(0.9995)


def test_shuffling_within_units_keeps_each_units_count() -> None:
    own = ticket()
    control = controls.shuffle_units(own, seed=11)
    for name, keep in own.mask.keep.items():
        assert torch.equal(control.mask.keep[name].sum(1), keep.sum(1))
        assert not torch.equal(control.mask.keep[name], keep)
    whole = {"w": torch.tensor([[True, True], [False, False]])}
    state = State({"w": torch.ones(2, 2)}, {}, {}, 0)
    with pytest.raises(ValueError, match="every unit is kept whole or emptied"):
        controls.shuffle_units(Ticket(Mask(whole), state, "ticket", Seeds(0, 0)), seed=0)


def test_shuffling_within_units_is_uniform() -> None:
    own = tiny(True, True, False, False)
    seen = Counter(
        tuple(controls.shuffle_units(own, seed=s).mask.keep["w"][0].nonzero().flatten().tolist())
        for s in range(1000)
    )
    others = [pair for pair in combinations(range(4), 2) if pair != (0, 1)]
    assert scipy.stats.chisquare([seen[pair] for pair in others]).pvalue > 0.001


def test_inverted_takes_what_was_pruned() -> None:
    own = ticket(0.3)
    control = controls.inverted(own, seed=11)
    assert not any(bool((control.mask.keep[n] & k).any()) for n, k in own.mask.keep.items())
    # Where more is kept than was pruned, all that was pruned is in.
    own = ticket(0.9)
    control = controls.inverted(own, seed=11)
    assert all(bool(control.mask.keep[n][~k].all()) for n, k in own.mask.keep.items())


def test_reshuffle_moves_the_same_values() -> None:
    own = ticket()
    control = controls.reshuffle(own, seed=11)
    for name, keep in own.mask.keep.items():
        one, two = own.start.weights[name][keep], control.start.weights[name][keep]
        assert torch.equal(one.sort().values, two.sort().values)
        assert not torch.equal(one, two)
    assert same_bits(control.mask.keep, own.mask.keep)


def test_signs_alone_by_hand() -> None:
    mask = Mask({"w": torch.tensor([[True, True, False, True]])})
    weights = {"w": torch.tensor([[3.0, -1.0, 2.0, 0.5]]), "b": torch.tensor([7.0])}
    own = Ticket(mask, State(weights, {}, {}, 0), "ticket", Seeds(0, 0))
    # The layer's weights have mean 1.125 and variance 14.25 / 4 - 1.125² = 2.296875.
    size = 2.296875**0.5
    control = controls.signs(own, seed=0)
    torch.testing.assert_close(control.start.weights["w"], torch.tensor([[size, -size, 0.0, size]]))
    assert control.start.weights["b"].tolist() == [7.0]
    with pytest.raises(ValueError, match="signs gives the ticket's own weights back; it would be no control"):
        controls.signs(
            Ticket(
                Mask({"w": torch.ones(1, 2, dtype=torch.bool)}),
                State({"w": torch.tensor([[1.0, -1.0]])}, {}, {}, 0),
                "ticket",
                Seeds(0, 0),
            ),
            seed=0,
        )


def test_magnitudes_alone_keep_every_magnitude() -> None:
    own = ticket()
    control = controls.magnitudes(own, seed=11)
    flipped = total = 0
    for name, keep in own.mask.keep.items():
        one, two = own.start.weights[name][keep], control.start.weights[name][keep]
        assert torch.equal(one.abs(), two.abs())
        flipped, total = flipped + int((one != two).sum()), total + len(one)
    assert scipy.stats.binomtest(flipped, total).pvalue > 0.001
