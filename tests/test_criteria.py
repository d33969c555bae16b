"""Criteria by hand-computed scores, against plain float64 derivations, and what every public criterion promises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from winticket import allocate, criteria, models, prune
from winticket.criteria import Criterion, Evidence
from winticket.criteria.evidence import DATA, NETWORK, needed, rounds_at_init, scores_units, usual_allocate
from winticket.ticket import Mask, Scores, State, same_bits
from winticket.units import layouts

START = {
    "a.weight": torch.tensor([[1.0, -3.0, 9.0]]),
    "a.bias": torch.tensor([9.0]),
    "b.weight": torch.tensor([[0.5, 1.0], [2.0, -0.25]]),
}
NOW = {
    "a.weight": torch.tensor([[0.5, 2.0, 0.0]]),
    "a.bias": torch.tensor([7.0]),
    "b.weight": torch.tensor([[-1.0, 1.0], [0.25, -0.125]]),
}
MASK = Mask({"a.weight": torch.tensor([[True, True, False]]), "b.weight": torch.ones(2, 2, dtype=torch.bool)})
OF_STRUCTURES = ("head_importance",)  # which needs attention heads: see tests/units/test_structures.py
PUBLIC = [name for name in criteria.__all__ if name not in ("Criterion", "Evidence", *OF_STRUCTURES)]

Floats = NDArray[np.float64]

# One row per criterion that looks at weights alone: its scores of NOW and START, layer by layer, by hand.
BY_HAND: dict[str, tuple[list[Any], list[Any]]] = {
    "magnitude": ([[0.5, 2, 0]], [[1, 1], [0.25, 0.125]]),
    "small_final": ([[-0.5, -2, 0]], [[-1, -1], [-0.25, -0.125]]),
    "large_init": ([[1, 3, 9]], [[0.5, 1], [2, 0.25]]),
    "small_init": ([[-1, -3, -9]], [[-0.5, -1], [-2, -0.25]]),
    # Ranks from the end, of two alive in a and of four in b; of the equal weights in b the earlier ranks higher.
    "large_init_large_final": ([[0.5, 1, 0]], [[0.5, 0.75], [0.5, 0.25]]),
    "small_init_small_final": ([[1, 0.5, 0]], [[0.5, 0.25], [0.25, 1]]),
    "magnitude_increase": ([[-0.5, -1, -9]], [[0.5, 0], [-1.75, -0.125]]),
    # Squares 1/4, 4 and 1, 1, 1/16, 1/64: each over the sum of itself and those before it in falling order.
    "lamp": ([[0.25 / 4.25, 1, 0]], [[1, 1 / 2], [0.0625 / 2.0625, 0.015625 / 2.078125]]),
    "movement": ([[0.5, 5, 9]], [[1.5, 0], [1.75, 0.125]]),
    "large_final_same_sign": ([[0.5, 0, 0]], [[0, 1], [0.25, 0.125]]),
    "large_final_diff_sign": ([[0, 2, 0]], [[1, 0], [0, 0]]),
    "magnitude_increase_same_sign": ([[-0.5, 0, 0]], [[0, 0], [-1.75, -0.125]]),
    "magnitude_increase_diff_sign": ([[0, -1, -9]], [[0.5, 0], [0, 0]]),
    "l1_units": ([[2.5, 2.5, 2.5]], [[2, 2], [0.375, 0.375]]),
    "l2_units": ([[4.25**0.5] * 3], [[2**0.5] * 2, [0.078125**0.5] * 2]),
    # b's rows (-1, 1) and (1/4, -1/8) are sqrt(1.25² + 1.125²) apart; a has but one.
    "geometric_median": ([[0, 0, 0]], [[2.828125**0.5] * 2] * 2),
}


def evidence(seed: int = 0) -> Evidence:
    return Evidence(State(NOW, {}, {}, 5), State(START, {}, {}, 0), MASK, torch.Generator().manual_seed(seed))


def criterion(name: str) -> Criterion:
    return cast(Callable[[Evidence], Scores], getattr(criteria, name))


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_by_hand(name: str) -> None:
    scores = criterion(name)(evidence())
    for layer, wanted in zip(("a.weight", "b.weight"), BY_HAND[name], strict=True):
        torch.testing.assert_close(
            scores[layer].double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-7
        )


def test_what_looks_at_weights_alone_has_its_row() -> None:
    alone = {name for name in PUBLIC if not needed(criterion(name)) & {NETWORK, DATA}}
    assert alone - {"random"} == set(BY_HAND)


def test_random_is_uniform_and_its_generators_alone() -> None:
    shape = (200, 200)
    mask = Mask({"w": torch.ones(shape, dtype=torch.bool)})
    state = State({"w": torch.zeros(shape)}, {}, {}, 0)
    scores = criteria.random(Evidence(state, state, mask, torch.Generator().manual_seed(3)))["w"]
    # Mean 1/2 and variance 1/12 of 40,000 uniform draws, each within four standard errors.
    assert abs(float(scores.mean()) - 0.5) < 4 * (1 / 12 / 40_000) ** 0.5
    assert abs(float(scores.var()) - 1 / 12) < 4 * (1 / 180 / 40_000) ** 0.5
    before = torch.get_rng_state()
    assert same_bits(criteria.random(evidence(1)), criteria.random(evidence(1)))
    assert not same_bits(criteria.random(evidence(1)), criteria.random(evidence(2)))
    assert torch.equal(torch.get_rng_state(), before)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3, stride=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 3),
    )


class Attention(nn.Module):
    """Tokens through an embedding, one layer of a transformer with dropout, and their mean into three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)
        self.norm, self.drop = nn.LayerNorm(8), nn.Dropout(0.2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        look = torch.softmax(self.query(x) @ self.key(x).mT / 8**0.5, -1)
        x = self.norm(x + self.drop(look @ self.value(x)))
        out: Tensor = self.head((x + self.down(torch.relu(self.up(x)))).mean(-2))
        return out


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "mlp": (mlp, lambda n: torch.randn(n, 6)),
    "convolutional": (convolutional, lambda n: torch.randn(n, 2, 8, 8)),
    "transformer": (Attention, lambda n: torch.randint(11, (n, 7))),
    # As people are given them: residual sums with 1x1 shortcuts, and an answer at every character.
    "resnet-20": (
        lambda: models.build("resnet-20", input_shape=(2, 8, 8), classes=3, generator_seed=0),
        lambda n: torch.randn(n, 2, 8, 8),
    ),
    "chargpt": (
        lambda: models.build("chargpt", input_shape=(7,), classes=11, generator_seed=0, tokens=True),
        lambda n: torch.randint(11, (n, 7)),
    ),
}
WHOLE = ("resnet-20", "chargpt")
OUTPUT = {"convolutional": "7", "resnet-20": "fc"}
"""The layer behind which no BatchNorm stands, of networks that have some."""


def looked_at(name: str, *, density: float = 0.7, exclude: str = "") -> Evidence:
    """A network that has been at work, a mask over its Linear and Conv2d weights, two batches."""
    make, draw = NETWORKS[name]
    torch.manual_seed(0)
    module = make()
    start = {n: p.detach().clone() for n, p in module.named_parameters()}
    module.train()
    for _ in range(3):
        module(draw(20))  # moves BatchNorm's statistics
    now = {n: w + 0.1 * torch.randn_like(w) for n, w in start.items()}
    buffers = {n: b.detach().clone() for n, b in module.named_buffers()}
    keep = {
        f"{n}.weight": torch.rand(layer.weight.shape) < density
        for n, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and n != exclude
    }
    classes, answers = (11, (10, 7)) if name == "chargpt" else (3, (10,))
    batches = [(draw(10), torch.randint(classes, answers)) for _ in range(2)]
    return Evidence(
        State(now, buffers, {}, 3),
        State(start, buffers, {}, 0),
        Mask(keep),
        torch.Generator().manual_seed(4),
        network=module,
        example=draw(1),
        batches=batches,
    )


FITTING = [
    (network, name)
    for network in NETWORKS
    for name in PUBLIC
    if name != "batchnorm_scale" or network in OUTPUT
]


def given_for(network: str, name: str) -> Evidence:
    return looked_at(network, exclude=OUTPUT[network] if name == "batchnorm_scale" else "")


@pytest.mark.parametrize(("network", "name"), FITTING)
def test_every_criterion_scores_every_eligible_weight(network: str, name: str) -> None:
    given = given_for(network, name)
    assert given.network is not None
    weights, buffers, state = (
        copy.deepcopy(x) for x in (given.now.weights, given.now.buffers, given.network.state_dict())
    )
    noise = torch.get_rng_state()
    scores = criterion(name)(given)
    assert list(scores) == list(given.mask.keep)
    for layer, score in scores.items():
        assert score.shape == given.mask.keep[layer].shape
        assert torch.isfinite(score).all()
        assert not score.requires_grad
    # Nothing is written to, and nobody else's randomness is used.
    assert same_bits(given.now.weights, weights)
    assert same_bits(given.now.buffers, buffers)
    assert same_bits(given.network.state_dict(), state)
    assert torch.equal(torch.get_rng_state(), noise)


@pytest.mark.parametrize(("network", "name"), [(n, c) for n, c in FITTING if n not in WHOLE])
def test_every_criterion_repeats_itself(network: str, name: str) -> None:
    assert same_bits(criterion(name)(given_for(network, name)), criterion(name)(given_for(network, name)))


@pytest.mark.parametrize("name", [n for n in PUBLIC if needed(criterion(n)) & {NETWORK, DATA}])
def test_what_is_missing_is_said(name: str) -> None:
    needs = needed(criterion(name))
    assert needs <= {NETWORK, DATA}
    with pytest.raises(ValueError, match=r"network|BatchNorm"):
        criterion(name)(replace(looked_at("mlp"), network=None))
    if DATA in needs:
        with pytest.raises(ValueError, match="needs training examples"):
            criterion(name)(replace(looked_at("mlp"), batches=()))


# An independent derivation for the MLP, in NumPy and float64.


class ByHand:
    def __init__(self, given: Evidence) -> None:
        masked = given.mask.apply(given.now.weights)
        self.w1, self.b1, self.w2, self.b2 = (
            masked[n].double().numpy() for n in ("0.weight", "0.bias", "2.weight", "2.bias")
        )
        self.batches = [(x.double().numpy(), y.numpy()) for x, y in given.batches]

    def together(self) -> tuple[Floats, NDArray[np.int64]]:
        """The examples of all batches."""
        return np.concatenate([x for x, _ in self.batches]), np.concatenate([y for _, y in self.batches])

    def gradient(
        self, w1: Floats, w2: Floats, x: Floats, y: NDArray[np.int64], temperature: float = 1.0
    ) -> tuple[Floats, Floats]:
        """∂(mean cross-entropy)/∂(both weights)."""
        hidden = np.maximum(x @ w1.T + self.b1, 0)
        logits = (hidden @ w2.T + self.b2) / temperature
        share = np.exp(logits - logits.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        share[np.arange(len(y)), y] -= 1
        by_logits = share / (len(y) * temperature)
        by_hidden = by_logits @ w2 * (hidden > 0)
        return by_hidden.T @ x, by_logits.T @ hidden


def agree(given: Evidence, name: str, wanted: tuple[Floats, Floats]) -> None:
    scores = criterion(name)(given)
    for layer, value in zip(("0.weight", "2.weight"), wanted, strict=True):
        np.testing.assert_allclose(scores[layer].numpy(), value, rtol=1e-6, atol=1e-6 * np.abs(value).max())


def test_snip_is_weight_times_gradient() -> None:
    given = looked_at("mlp")
    hand = ByHand(given)
    one, two = hand.gradient(hand.w1, hand.w2, *hand.together())
    agree(given, "snip", (np.abs(hand.w1 * one), np.abs(hand.w2 * two)))


def test_taylor_squares_each_of_equal_batches() -> None:
    """Of at most 64 examples: 100 are two of 50, though they come as 90 and 10."""
    x, y = torch.randn(100, 6), torch.randint(3, (100,))
    given = replace(looked_at("mlp"), batches=[(x[:90], y[:90]), (x[90:], y[90:])])
    hand = ByHand(given)
    halves = [(a.double().numpy(), b.numpy()) for a, b in ((x[:50], y[:50]), (x[50:], y[50:]))]
    each = [hand.gradient(hand.w1, hand.w2, a, b) for a, b in halves]
    agree(
        given,
        "taylor",
        (
            np.mean([(hand.w1 * g) ** 2 for g, _ in each], axis=0),
            np.mean([(hand.w2 * g) ** 2 for _, g in each], axis=0),
        ),
    )


def test_fisher_squares_each_example() -> None:
    given = looked_at("mlp")
    hand = ByHand(given)
    each = [
        hand.gradient(hand.w1, hand.w2, x[i : i + 1], y[i : i + 1])
        for x, y in hand.batches
        for i in range(len(y))
    ]
    one, two = (np.mean([g[i] ** 2 for g in each], axis=0) for i in range(2))
    agree(given, "fisher", (0.5 * hand.w1**2 * one, 0.5 * hand.w2**2 * two))


def test_grasp_is_weight_times_hessian_times_gradient() -> None:
    """H g by central differences of the gradient along g; pruned weights stay where they are."""
    given = looked_at("mlp")
    hand = ByHand(given)

    def whole(step: float, along: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        w1, w2 = hand.w1 + step * along[0], hand.w2 + step * along[1]
        return hand.gradient(w1, w2, *hand.together(), 200.0)

    zero = (np.zeros_like(hand.w1), np.zeros_like(hand.w2))
    g = whole(0.0, zero)
    step = 1e-2  # along a gradient of about 1e-3: no ReLU switches, and the loss is all but quadratic
    up, down = whole(step, g), whole(-step, g)
    hg = tuple((a - b) / (2 * step) for a, b in zip(up, down, strict=True))
    agree(given, "grasp", (hand.w1 * hg[0], hand.w2 * hg[1]))


def test_synflow_is_the_flow_through_each_weight() -> None:
    given = looked_at("mlp")
    hand = ByHand(given)
    a1, a2 = np.abs(hand.w1), np.abs(hand.w2)
    reached = a1.sum(1) + np.abs(hand.b1)
    agree(given, "synflow", (a1 * a2.sum(0)[:, None], a2 * reached[None, :]))


def test_synflow_is_conserved() -> None:
    """Without biases, what flows into a hidden unit flows out of it: layers sum to the same. Tanaka et al. §3."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Linear(6, 9, bias=False),
        nn.ReLU(),
        nn.Linear(9, 7, bias=False),
        nn.ReLU(),
        nn.Linear(7, 3, bias=False),
    )
    weights = {n: p.detach() for n, p in module.named_parameters()}
    state = State(weights, {}, {}, 0)
    given = Evidence(
        state,
        state,
        Mask({n: torch.rand(w.shape) < 0.6 for n, w in weights.items()}),
        torch.Generator(),
        network=module,
        example=torch.zeros(1, 6),
    )
    one, two, three = criteria.synflow(given).values()
    assert one.dtype == torch.float64
    torch.testing.assert_close(one.sum(1), two.sum(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(two.sum(1), three.sum(0), rtol=1e-12, atol=0)
    assert float(one.sum()) == pytest.approx(float(three.sum()), rel=1e-12)
    assert rounds_at_init(criteria.synflow) == 100


def test_wanda_is_weight_times_the_norm_of_its_input() -> None:
    given = looked_at("mlp")
    hand = ByHand(given)
    x = np.concatenate([x for x, _ in hand.batches])
    hidden = np.maximum(x @ hand.w1.T + hand.b1, 0)
    agree(
        given,
        "wanda",
        (np.abs(hand.w1) * np.sqrt((x**2).sum(0)), np.abs(hand.w2) * np.sqrt((hidden**2).sum(0))),
    )


def test_wanda_of_a_convolution_by_loops() -> None:
    given = looked_at("convolutional")
    x = torch.cat([x for x, _ in given.batches]).double()
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    norms = torch.zeros(2, 3, 3, dtype=torch.float64)
    for c in range(2):
        for i in range(3):
            for j in range(3):
                norms[c, i, j] = (padded[:, c, i : i + 8, j : j + 8] ** 2).sum().sqrt()
    masked = given.mask.apply(given.now.weights)["0.weight"].double().abs()
    torch.testing.assert_close(criteria.wanda(given)["0.weight"], masked * norms, rtol=1e-12, atol=1e-12)


def test_wanda_refuses_what_it_does_not_know() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"))
    weights = {n: p.detach() for n, p in module.named_parameters()}
    state = State(weights, {}, {}, 0)
    given = Evidence(
        state,
        state,
        Mask.full({"0.weight": weights["0.weight"]}),
        torch.Generator(),
        network=module,
        example=torch.zeros(1, 1, 4, 4),
        batches=[(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))],
    )
    with pytest.raises(ValueError, match="padded by zeros, not Conv2d"):
        criteria.wanda(given)


class Branching(nn.Module):
    """What torch.fx cannot follow: which way depends on the values; or, without `branch`, on an option."""

    def __init__(self, *, branch: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branch, self.conv, self.norm = branch, nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, doubled: bool = False) -> Tensor:
        hidden: Tensor = self.norm(self.conv(x))
        if doubled or (self.branch and bool(hidden.sum() > 0)):
            hidden = 2 * hidden
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


def test_batchnorm_scale_of_a_model_whose_graph_cannot_be_read_is_refused() -> None:
    example = torch.randn(1, 2, 6, 6)
    options: dict[str, Any] = {"criterion": criteria.batchnorm_scale, "example": example}
    assert prune(Branching(branch=False), 0.5, **options).mask.layers() == {"conv.weight": (36, 72)}
    with pytest.raises(ValueError, match=r"which BatchNorm follows a layer, but its graph cannot be traced"):
        prune(Branching(branch=True), 0.5, **options)


def test_batchnorm_scale_is_that_of_the_batchnorm_behind() -> None:
    given = looked_at("convolutional", exclude="7")
    scores = criteria.batchnorm_scale(given)
    for layer, norm in (("0.weight", "1.weight"), ("3.weight", "4.weight")):
        wanted = given.now.weights[norm].abs().double()
        for unit in range(len(wanted)):
            assert bool((scores[layer][unit] == wanted[unit]).all())
    with pytest.raises(ValueError, match=r"7\.weight has none; exclude it"):
        criteria.batchnorm_scale(looked_at("convolutional"))


def test_filters_that_are_pruned_are_no_filters_of_the_layer() -> None:
    """He et al. 2019, eq. 5, over the layer's filters, which six dead ones are not: by hand, #2 can be replaced best.

    Sums of distances among (10, 0), (10, 1), (9.5, .5) and (4, -3): 8.4150, 8.9182, 7.9331 and 20.4384.
    """
    weight = torch.zeros(10, 2)
    weight[:4] = torch.tensor([[10.0, 0.0], [10.0, 1.0], [9.5, 0.5], [4.0, -3.0]])
    keep = torch.zeros(10, 2, dtype=torch.bool)
    keep[:4] = True
    state = State({"w": weight}, {}, {}, 0)
    scores = criteria.geometric_median(Evidence(state, state, Mask({"w": keep}), torch.Generator()))["w"][
        :, 0
    ]
    root = [2**0.5 / 2, 45**0.5, 52**0.5, (5.5**2 + 3.5**2) ** 0.5]
    by_hand = [
        1 + root[0] + root[1],
        1 + root[0] + root[2],
        2 * root[0] + root[3],
        root[1] + root[2] + root[3],
    ]
    assert scores[:4].tolist() == pytest.approx(by_hand)
    assert scores[4:].tolist() == [0.0] * 6
    mask = allocate.units({"w": scores[:, None].expand(10, 2)}, Mask({"w": keep}), density=0.3)
    assert mask.empty_units("w") == (2, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize("name", ["l1_units", "l2_units", "geometric_median"])
def test_unit_criteria_score_the_outputs_of_a_transposed_convolution(name: str) -> None:
    """Those of the convolution whose weight is the same with units and inputs changed about."""
    layer = nn.ConvTranspose2d(4, 6, 3)
    weight = layer.weight.detach()

    def scored(weight: Tensor, mask: Mask) -> Tensor:
        state = State({"weight": weight}, {}, {}, 0)
        return getattr(criteria, name)(Evidence(state, state, mask, torch.Generator()))["weight"]  # type: ignore[no-any-return]

    scores = scored(weight, Mask.full({"weight": weight}, layout=layouts(layer)))
    plain = scored(weight.transpose(0, 1).contiguous(), Mask.full({"weight": weight.transpose(0, 1)}))
    torch.testing.assert_close(scores.transpose(0, 1), plain)


def test_who_scores_whole_units_says_so() -> None:
    units = {name for name in PUBLIC if scores_units(getattr(criteria, name))}
    assert units == {"l1_units", "l2_units", "geometric_median", "batchnorm_scale"}
    assert {usual_allocate(getattr(criteria, name)) for name in units} == {"units"}


@pytest.mark.parametrize("criterion", [criteria.large_final_diff_sign, criteria.magnitude_increase_diff_sign])
def test_weights_of_the_wrong_sign_are_pruned_by_magnitude_not_by_position(criterion: Criterion) -> None:
    """Nearly all keep their sign: of a hundred weights, those of least magnitude go, wherever they stand."""
    start = torch.ones(10, 10)
    now = (torch.arange(100.0).flip(0) + 1).view(10, 10)
    now[9, 9] = -0.5  # the only one whose sign changed stays, though it is the smallest
    mask = Mask.full({"w": start})
    weights = {"w": now}
    e = Evidence(State(weights, {}, {}, 1), State({"w": start}, {}, {}, 0), mask, torch.Generator())
    kept = allocate.layerwise(criterion(e), mask, density=0.1).keep["w"]
    if criterion is criteria.large_final_diff_sign:
        assert kept.flatten().nonzero().flatten().tolist() == [*range(9), 99]
    else:  # its magnitude fell, so it is behind those that are left at 0
        assert kept.flatten().nonzero().flatten().tolist() == [*range(10)]
    backwards = Evidence(State({"w": now.flip(0, 1)}, {}, {}, 1), e.start, mask, torch.Generator())
    assert torch.equal(allocate.layerwise(criterion(backwards), mask, density=0.1).keep["w"], kept.flip(0, 1))
