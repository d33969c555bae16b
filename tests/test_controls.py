"""Controls: each differs from its ticket, keeps every layer's count, and is drawn from what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from inspect import signature
from itertools import combinations
from typing import Any, cast

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from winticket import controls, models
from winticket.align import permuted, symmetry
from winticket.controls import random_mask, reinit
from winticket.ticket import Mask, Seeds, State, Ticket, same_bits
from winticket.units import layouts

PUBLIC = [name for name in controls.__all__ if name != "Control"]


class Attention(nn.Module):
    """A small transformer over the rows of an 8 x 8 image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.block(self.embed(x.flatten(1, 2))).mean(1)))


def convolutions() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(32, 10)),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet": lambda: models.build("lenet-20-10", input_shape=(1, 8, 8), classes=10, generator_seed=0),
    "convolutions": convolutions,
    "transformer": Attention,
    "resnet-20": lambda: models.build("resnet-20", input_shape=(1, 8, 8), classes=10, generator_seed=0),
    "chargpt": lambda: models.build("chargpt", input_shape=(8,), classes=10, generator_seed=0, tokens=True),
}
WHOLE = ("resnet-20", "chargpt")
"""Networks as people are given them; at one density, since they are large."""
CASES = [(n, d) for n in NETWORKS for d in (0.02, 0.3, 0.9) if n not in WHOLE or d == 0.3]
UNMATCHED = {"transformer": "Attention", "chargpt": "CharGpt"}
"""Networks whose hidden units are not matched."""


def drawn(network: str, seed: int) -> State:
    """All weights and statistics from the seed; those of BatchNorm as well, as after training."""
    generator = torch.Generator().manual_seed(seed)
    module = NETWORKS[network]()
    weights = {n: torch.randn(p.shape, generator=generator) for n, p in module.named_parameters()}
    buffers = {
        n: torch.rand(b.shape, generator=generator) + 0.5
        for n, b in module.named_buffers()
        if b.is_floating_point()
    }
    return State(weights, {**buffers, "statistic": torch.tensor([float(seed)])}, {}, 0)


def lenet(seed: int) -> State:
    return drawn("lenet", seed)


def ticket(density: float = 0.3, seed: int = 1, network: str = "lenet") -> Ticket:
    """In each layer the largest of weights drawn for the purpose."""
    start, names = drawn(network, seed), models.eligible(NETWORKS[network]())
    trained = drawn(network, 100 + seed).weights
    keep = {}
    for n in names:
        size = trained[n].numel()
        best = trained[n].abs().flatten().argsort(descending=True)[: max(1, round(density * size))]
        keep[n] = torch.zeros(size, dtype=torch.bool).scatter_(0, best, True).view(trained[n].shape)
    momentum = {f"momentum_buffer/{n}": torch.ones_like(w) for n, w in start.weights.items()}
    state = State(start.weights, start.buffers, momentum, 7)
    return Ticket(Mask(keep), state, "ticket", Seeds(3, 4), {"model": network, "density": density})


FRESH = ("reinit", "sign_in")
"""Controls on a fresh start: its step and buffers."""


def tiny(*keep: bool) -> Ticket:
    mask = Mask({"w": torch.tensor([keep])})
    weights = {"w": torch.arange(1.0, len(keep) + 1).view(1, -1)}
    return Ticket(mask, State(weights, {}, {}, 0), "ticket", Seeds(0, 0))


def make(name: str, given: Ticket, seed: int, network: str = "lenet") -> Ticket:
    control = cast(Callable[..., Ticket], getattr(controls, name))
    taken, options = signature(control).parameters, dict[str, Any]()
    if "draw" in taken:
        options["draw"] = partial(drawn, network)
    if "neighbour" in taken:
        density = given.about["density"]  # as it was asked for, so that layers' counts are rounded alike
        assert isinstance(density, float)
        options["neighbour"] = ticket(density, seed=2, network=network)
    if "end" in taken:
        options["end"] = drawn(network, 101).weights
    if "symmetry" in taken:
        options["ends"] = drawn(network, 101).weights, drawn(network, 102).weights
        options["symmetry"] = symmetry(NETWORKS[network](), (8,) if network == "chargpt" else (1, 8, 8))
    return control(given, seed=seed, **options)


@pytest.mark.parametrize(("network", "density"), CASES)
@pytest.mark.parametrize("name", PUBLIC)
def test_every_control_differs_and_keeps_its_counts(name: str, density: float, network: str) -> None:
    own = ticket(density, network=network)
    if name == "other_aligned" and network in UNMATCHED:
        with pytest.raises(ValueError, match=f"the hidden units of {UNMATCHED[network]} cannot be matched: "):
            make(name, own, 11, network)
        return
    control = make(name, own, 11, network)
    assert control.mask.count() == own.mask.count()
    if name != "random_global":
        assert control.mask.layers() == own.mask.layers()
    effective = own.mask.apply(own.start.weights)
    assert not same_bits(control.mask.apply(control.start.weights), effective)
    assert control.seeds == own.seeds  # so it sees the same batches
    assert control.start.step == (0 if name in FRESH else own.start.step)
    assert control.about == own.about
    assert control.origin != own.origin
    assert control.start.optimizer == {}  # another network's momentum is none of its own
    if name not in FRESH:
        assert same_bits(control.start.buffers, own.start.buffers)
    # What the control prunes is stored as 0.
    assert same_bits(control.start.weights, control.mask.apply(control.start.weights))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_control_is_a_function_of_its_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = make(name, ticket(), 11), make(name, ticket(), 11), make(name, ticket(), 12)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(first.start.weights, again.start.weights)
    assert same_bits(first.mask.keep, again.mask.keep)
    # Signs alone, and what another replicate lends, leave nothing to draw.
    nothing_drawn = name in ("signs", "other", "other_aligned")
    assert same_bits(first.start.weights, other.start.weights) == nothing_drawn


def test_sign_in_takes_signs_of_the_end_and_magnitudes_of_the_draw() -> None:
    own = tiny(True, False, True, True)
    fresh = State({"w": torch.tensor([[-0.5, 2.0, 3.0, -4.0]])}, {}, {}, 0)
    end = {"w": torch.tensor([[1.0, -1.0, -9.0, 0.0]])}
    control = controls.sign_in(own, seed=0, draw=lambda _: fresh, end=end)
    # |draw| with the end's sign; pruned: 0; where training ended at 0: as it was drawn.
    assert control.start.weights["w"].tolist() == [[0.5, 0.0, -3.0, -4.0]]
    with pytest.raises(ValueError, match="gave the ticket's own weights"):
        controls.sign_in(own, seed=0, draw=lambda _: own.start, end={"w": torch.ones(1, 4)})


def test_reinit_keeps_the_mask_and_takes_the_draw() -> None:
    own, seeds = ticket(), list[int]()

    def draw(seed: int) -> State:
        seeds.append(seed)
        return lenet(seed)

    control = reinit(own, seed=11, draw=draw)
    assert len(seeds) == 1
    assert 0 <= seeds[0] < 2**32  # as numpy's generator takes it, too
    assert same_bits(control.mask.keep, own.mask.keep)
    assert same_bits(control.start.weights, own.mask.apply(lenet(seeds[0]).weights))
    assert same_bits(control.start.buffers, lenet(seeds[0]).buffers)


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
        reinit(ticket(seed=1), seed=1, draw=lambda seed: lenet(1))


@pytest.mark.parametrize("seed", range(5))
def test_a_control_seeded_as_the_initialisation_draws_other_numbers(seed: int) -> None:
    """Of uniform weights, drawn by torch's default generator as layers are, and all kept in half of the layer."""
    torch.manual_seed(seed)
    weight = torch.rand(300, 100) - 0.5
    half = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(99)).view(weight.shape)
    own = Ticket(
        Mask({"w": half % 2 == 0}),
        State({"w": weight}, {}, {}, 0),
        "ticket",
        Seeds(seed, 0),
        {"density": 0.5},
    )
    few = 4 / weight.numel() ** 0.5  # four standard deviations of a correlation of independent numbers
    for name in ("random_mask", "random_global", "shuffle_units"):
        keep = getattr(controls, name)(own, seed=seed).mask.keep["w"]
        pair = torch.stack([keep.double(), weight.double()]).flatten(1)
        assert abs(float(torch.corrcoef(pair)[0, 1])) < few, name
    flipped = controls.magnitudes(own, seed=seed).start.weights["w"] * weight < 0
    there = own.mask.keep["w"]
    pair = torch.stack([flipped[there].double(), weight[there].double()])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < few * 2**0.5
    fresh = reinit(own, seed=seed, draw=uniform).start.weights["w"]
    assert abs(float(torch.corrcoef(torch.stack([fresh[there], weight[there]]))[0, 1])) < few * 2**0.5


def uniform(seed: int) -> State:
    torch.manual_seed(seed)
    return State({"w": torch.rand(300, 100) - 0.5}, {}, {}, 0)


@pytest.mark.parametrize("seed", range(3))
def test_inverted_of_a_network_with_the_same_seed_keeps_both_signs(seed: int) -> None:
    """Nine tenths are there to choose from; by the numbers of the initialisation, only positive ones were chosen."""
    torch.manual_seed(seed)
    weight = nn.Linear(784, 300).weight.detach()
    best = torch.zeros(weight.numel(), dtype=torch.bool)
    best[weight.abs().flatten().argsort(descending=True)[: weight.numel() // 10]] = True
    own = Ticket(Mask({"w": best.view_as(weight)}), State({"w": weight}, {}, {}, 0), "ticket", Seeds(seed, 0))
    for name in ("inverted", "random_mask"):
        keep = getattr(controls, name)(own, seed=seed).mask.keep["w"]
        positive = float((weight[keep] > 0).double().mean())
        assert abs(positive - 0.5) < 4 * 0.5 / int(keep.sum()) ** 0.5, name
        assert bool(keep.any(0).all()), name  # some unit keeps each pixel


def test_controls_of_one_seed_draw_from_streams_of_their_own() -> None:
    own = tiny(*[True, False] * 200)
    two = [getattr(controls, name)(own, seed=3).mask.keep["w"] for name in ("random_mask", "random_global")]
    assert not torch.equal(*two)


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


def test_another_replicates_mask_is_taken_as_it_is() -> None:
    own, neighbour = ticket(), ticket(seed=2)
    control = controls.other(own, seed=0, neighbour=neighbour)
    assert same_bits(control.mask.keep, neighbour.mask.keep)
    assert same_bits(control.start.weights, neighbour.mask.apply(own.start.weights))
    with pytest.raises(ValueError, match="both replicates found the same mask, so the other's is no control"):
        controls.other(own, seed=0, neighbour=own)
    with pytest.raises(ValueError, match="the other mask keeps 47 weights and the ticket's 474"):
        controls.other(own, seed=0, neighbour=ticket(0.03, seed=2))


@pytest.mark.parametrize("network", ["lenet", "convolutions"])
def test_an_aligned_mask_is_the_tickets_where_only_the_numbering_differs(network: str) -> None:
    """The neighbour is the ticket with its units renumbered: unaligned it overlaps at chance, aligned wholly."""
    own = ticket(0.2, network=network)
    groups, end = symmetry(NETWORKS[network](), (1, 8, 8)), drawn(network, 101).weights
    orders = tuple(torch.randperm(g.size, generator=torch.Generator().manual_seed(5)) for g in groups)
    moved = Ticket(Mask(permuted(own.mask.keep, groups, orders)), own.start, "ticket", Seeds(3, 5), own.about)
    ends = end, permuted(end, groups, orders)
    # One weight more or less, since a control that is the ticket is refused.
    name = next(iter(moved.mask.keep))
    swapped = moved.mask.keep[name].clone()
    kept, pruned = swapped.nonzero()[0], (~swapped).nonzero()[0]
    swapped[tuple(kept)], swapped[tuple(pruned)] = False, True
    near = Ticket(Mask({**moved.mask.keep, name: swapped}), own.start, "ticket", moved.seeds)
    raw = controls.other(own, seed=0, neighbour=near)
    aligned = controls.other_aligned(own, seed=0, neighbour=near, ends=ends, symmetry=groups)
    count, total = own.mask.count(), own.mask.total()
    both = {
        c.origin: sum(int((c.mask.keep[n] & k).sum()) for n, k in own.mask.keep.items())
        for c in (raw, aligned)
    }
    chance = scipy.stats.hypergeom(total, count, count)
    assert both["other"] < chance.ppf(0.9995)
    assert both["other_aligned"] == count - 1
    with pytest.raises(ValueError, match="both replicates found the same mask"):
        controls.other_aligned(own, seed=0, neighbour=moved, ends=ends, symmetry=groups)


def test_shuffling_within_units_of_a_transposed_convolution_keeps_each_outputs_count() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    keep = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    weights = {"weight": layer.weight.detach().clone()}
    own = Ticket(Mask({"weight": keep}, layouts(layer)), State(weights, {}, {}, 0), "ticket", Seeds(0, 0))
    other = controls.shuffle_units(own, seed=1)

    def outputs(mask: Mask) -> list[float]:
        ones = torch.ones(1, 4, 5, 5)
        return (
            torch.nn.functional.conv_transpose2d(ones, mask.keep["weight"].float(), groups=2)
            .sum((0, 2, 3))
            .tolist()
        )

    assert outputs(other.mask) == outputs(own.mask)
    assert not torch.equal(other.mask.keep["weight"], keep)
    assert other.mask.layout == own.mask.layout
