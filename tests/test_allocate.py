"""Allocation: exact counts, ties, which share holds for which layer, and masks that only shrink."""

from __future__ import annotations

import math
import re
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from winticket import allocate as allocations
from winticket import models
from winticket.allocate import Allocate, global_top, layerwise, quotas
from winticket.criteria import Evidence, magnitude
from winticket.ticket import Mask, Scores, State, same_bits
from winticket.units import layouts

BOTH = pytest.mark.parametrize("allocate", [layerwise, global_top])


def whole(**sizes: int) -> Mask:
    return Mask({name: torch.ones(1, size, dtype=torch.bool) for name, size in sizes.items()})


def kept(mask: Mask) -> dict[str, int]:
    return {name: count for name, (count, _) in mask.layers().items()}


def test_layerwise_by_eye() -> None:
    scores = {"a": torch.tensor([[0.1, 5.0, 3.0, 4.0]]), "b": torch.tensor([[9.0], [8.0], [7.0], [6.0]])}
    mask = layerwise(scores, Mask.full(scores), density=0.5)
    assert mask.keep["a"].tolist() == [[False, True, False, True]]
    assert mask.keep["b"].tolist() == [[True], [True], [False], [False]]


def test_global_top_by_eye() -> None:
    scores = {"a": torch.tensor([[0.1, 5.0, 3.0, 4.0]]), "b": torch.tensor([[9.0], [8.0], [7.0], [6.0]])}
    mask = global_top(scores, Mask.full(scores), density=0.5)
    assert mask.keep["a"].tolist() == [[False] * 4]
    assert mask.keep["b"].tolist() == [[True]] * 4
    assert mask.emptied() == ("a",)  # a layer that loses all it has is visible


def test_a_pruned_weight_stays_pruned_whatever_its_score() -> None:
    scores = {"a": torch.tensor([[9.0, 1.0, 2.0, 9.0]])}
    mask = Mask({"a": torch.tensor([[False, True, True, True]])})
    assert layerwise(scores, mask, density=0.5).keep["a"].tolist() == [[False, False, True, True]]


@BOTH
def test_zero_and_negative_weights_are_not_pruned_for_that(allocate: Allocate) -> None:
    weights = {"a": torch.tensor([[-3.0, 0.0, 0.5, -0.1]])}
    state = State(weights, {}, {}, 1)
    full = Mask.full(weights)
    scores = magnitude(Evidence(state, state, full, torch.Generator()))
    assert allocate(scores, full, density=1.0).count() == 4  # the zero is kept where nothing is to go
    assert allocate(scores, full, density=0.75).keep["a"].tolist() == [[True, False, True, True]]
    assert allocate(scores, full, density=0.25).keep["a"].tolist() == [[True, False, False, False]]
    # A weight that became 0 stays in the running where another is already pruned.
    mask = Mask({"a": torch.tensor([[True, True, False, True]])})
    assert allocate(scores, mask, density=0.75).keep["a"].tolist() == [[True, True, False, True]]


@BOTH
@pytest.mark.parametrize("total", [1, 2, 3, 7, 200, 1000])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.25, 0.5, 0.8, 0.999, 1.0])
def test_tied_scores_keep_exactly_the_first(allocate: Allocate, total: int, density: float) -> None:
    mask = allocate({"a": torch.zeros(1, total)}, whole(a=total), density=density)
    count = math.floor(density * total + 0.5)
    assert mask.keep["a"][0].tolist() == [True] * count + [False] * (total - count)


def test_two_hundred_asked_for_are_two_hundred() -> None:
    # A threshold taken from sorted scores and compared with <= takes all its ties too: 201, or everything.
    scores = {"a": torch.tensor([[float(i // 500) for i in range(1000)]])}
    assert layerwise(scores, whole(a=1000), density=0.8).count() == 800
    assert global_top(scores, whole(a=1000), density=0.8).count() == 800


def test_ties_across_layers_break_by_the_order_of_layers() -> None:
    scores = {"a": torch.zeros(1, 3), "b": torch.zeros(1, 3)}
    assert kept(global_top(scores, whole(a=3, b=3), density=4 / 6)) == {"a": 3, "b": 1}


def test_halves_are_rounded_up() -> None:
    assert kept(layerwise({"a": torch.rand(1, 5)}, whole(a=5), density=0.5)) == {"a": 3}
    assert kept(layerwise({"a": torch.rand(1, 1)}, whole(a=1), density=0.5)) == {"a": 1}


def test_a_tiny_layer_that_is_emptied_is_named() -> None:
    scores = {"tiny": torch.rand(1, 2), "b": torch.rand(1, 100)}
    mask = layerwise(scores, whole(tiny=2, b=100), density=0.2)
    assert kept(mask) == {"tiny": 0, "b": 20}
    assert mask.emptied() == ("tiny",)


@BOTH
def test_the_share_is_over_eligible_weights_only(allocate: Allocate) -> None:
    module = models.build("lenet-300-100", input_shape=(784,), classes=10, generator_seed=0)
    weights = {name: p.detach() for name, p in module.named_parameters()}
    output = models.output_layer(module)
    full = Mask.full({n: weights[n] for n in models.eligible(module) if n != output})
    state = State(weights, {}, {}, 0)
    mask = allocate(magnitude(Evidence(state, state, full, torch.Generator())), full, density=0.2)
    # 784 · 300 + 300 · 100 = 265,200 eligible weights; 266,200 with the output layer, 266,610 with biases.
    assert full.total() == 265_200
    assert mask.count() == 53_040
    assert output not in mask.keep


SHAPES = {"c.weight": (2, 1, 3, 3), "h1.weight": (4, 5), "h2.weight": (4, 5), "out.weight": (2, 10)}


def scores_of(shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("density", "counts"),
    [
        (0.5, [9, 10, 10, 10]),
        ({"*": 0.5}, [9, 10, 10, 10]),
        ({"*": 0.5, "output": 0.9}, [9, 10, 10, 18]),
        ({"conv": 1.0, "linear": 0.5}, [18, 10, 10, 10]),
        ({"conv": 1.0, "linear": 0.5, "output": 0.9}, [18, 10, 10, 18]),  # output before linear
        ({"*": 0.1, "linear": 0.5}, [2, 10, 10, 10]),  # linear before *
        ({"output": 0.9, "out*": 0.25, "*": 0.5}, [9, 10, 10, 5]),  # a pattern before output
        ({"h*": 0.5, "h1*": 0.25, "*": 1.0}, [18, 5, 10, 20]),  # the longer pattern
        ({"h1.weight": 0.75, "h*": 0.5, "*": 1.0}, [18, 15, 10, 20]),  # the name before a pattern
        ({"*.weight": 0.5, "*": 1.0}, [9, 10, 10, 10]),
    ],
)
def test_the_most_particular_share_holds(density: Any, counts: list[int]) -> None:
    scores = scores_of()
    mask = layerwise(scores, Mask.full(scores), density=density)
    assert [count for count, _ in mask.layers().values()] == counts


def test_a_layer_with_a_share_of_its_own_stays_out_of_the_competition() -> None:
    scores = scores_of()
    scores["out.weight"] += 100  # it would win every comparison
    full = Mask.full(scores)
    mask = global_top(scores, full, density={"*": 0.5, "output": 0.1})
    assert kept(mask)["out.weight"] == 2
    assert mask.count() == 2 + 29  # half of 18 + 20 + 20 compete
    rest = torch.cat([scores[n].flatten() for n in list(SHAPES)[:3]])
    alive = torch.cat([mask.keep[n].flatten() for n in list(SHAPES)[:3]])
    assert rest[alive].min() > rest[~alive].max()


def test_quotas_are_known_before_any_score() -> None:
    full = Mask.full(scores_of())
    assert quotas(full, 0.5, competing=False) == [
        ((n,), c) for n, c in zip(SHAPES, (9, 10, 10, 10), strict=True)
    ]
    assert quotas(full, 0.5, competing=True) == [(tuple(SHAPES), 39)]
    groups = quotas(full, {"*": 0.5, "output": 0.9}, competing=True)
    assert groups == [(("out.weight",), 18), (tuple(SHAPES)[:3], 29)]


@BOTH
@pytest.mark.parametrize(
    ("density", "words"),
    [
        (0.0, "density 0.0 of '*' is not in (0, 1]"),
        (1.5, "density 1.5 of '*' is not in (0, 1]"),
        (-0.2, "density -0.2 of '*' is not in (0, 1]"),
        (float("nan"), "density nan of '*' is not in (0, 1]"),
        ({"*": 0.5, "conv": 20}, "density 20 of 'conv' is not in (0, 1]"),
        ({"conv": 0.5}, "there is no density for layer 'h1.weight', only for conv; add '*' for the rest"),
        (
            {"*": 0.5, "h3.weight": 0.1},
            "there is a density for 'h3.weight', which matches none of the layers c.weight",
        ),
        (
            {"*": 0.5, "features.*": 0.1},
            "there is a density for 'features.*', which matches none of the layers",
        ),
    ],
)
def test_shares_that_make_no_sense_are_refused(allocate: Allocate, density: Any, words: str) -> None:
    scores = scores_of()
    with pytest.raises(ValueError, match=re.escape(words)):
        allocate(scores, Mask.full(scores), density=density)


@BOTH
def test_pruning_cannot_revive(allocate: Allocate) -> None:
    mask = Mask({"a": torch.tensor([[True, False, False, True]])})
    words = "a: this density keeps 3 of 4 weights, but only 2 are alive; pruning cannot revive weights"
    with pytest.raises(ValueError, match=re.escape(words)):
        allocate({"a": torch.rand(1, 4)}, mask, density=0.75)


@BOTH
@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({}, "layer 'a' of shape (1, 2) has no scores"),
        ({"a": torch.ones(2)}, "layer 'a' of shape (1, 2) has scores of shape (2,)"),
        ({"a": torch.tensor([[1.0, math.nan]])}, "the scores of layer 'a' are not all finite"),
        ({"a": torch.tensor([[1.0, math.inf]])}, "the scores of layer 'a' are not all finite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(allocate: Allocate, scores: Scores, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        allocate(scores, whole(a=2), density=0.5)


@BOTH
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    levels=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4),
    values=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_mask_only_shrinks_to_exact_counts(
    allocate: Allocate, sizes: list[int], levels: list[float], values: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = whole(**{f"l{i}": size for i, size in enumerate(sizes)})
    for density in sorted(levels, reverse=True):
        # Few different scores, so that most of them tie.
        scores = {
            n: torch.randint(values, k.shape, generator=generator).float() for n, k in mask.keep.items()
        }
        smaller = allocate(scores, mask, density=density)
        assert smaller.within(mask)
        counts = [c for _, c in quotas(mask, density, competing=allocate is global_top)]
        assert smaller.count() == sum(counts)
        for name, keep in smaller.keep.items():
            dropped = scores[name][mask.keep[name] & ~keep]
            if len(dropped) and bool(keep.any()):
                assert dropped.max() <= scores[name][keep].min()
        mask = smaller


# Patterns. Shapes of a small convolutional network, and scores without ties.

PATTERNED = {"conv": (8, 4, 3, 3), "fc": (16, 32), "out": (4, 16)}
PATTERNS = ["uniform", "erk", "constant_fan_in", "n_of_m", "blocks", "units"]


def drawn(seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in PATTERNED.items()}


def pattern(name: str) -> Allocate:
    return cast(Allocate, getattr(allocations, name))


def test_the_patterns_are_the_rooms() -> None:
    others = {
        "Allocate",
        "global_top",
        "layerwise",
        "structures",
    }  # the last one: tests/units/test_structures.py
    assert {*PATTERNS, *others} == set(allocations.__all__)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_patterns_count_is_the_same_for_all_scores_and_its_mask_only_shrinks(name: str) -> None:
    one, two = (pattern(name)(drawn(seed), Mask.full(drawn()), density=0.5) for seed in (1, 2))
    assert one.layers() == two.layers()
    assert not same_bits(one.keep, two.keep)
    further = pattern(name)(drawn(3), one, density=0.25)
    assert further.within(one)
    assert further.count() < one.count()


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_one_density(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} takes one density for all layers"):
        pattern(name)(drawn(), Mask.full(drawn()), density={"*": 0.5, "output": 0.75})
    assert pattern(name)(drawn(), Mask.full(drawn()), density={"*": 0.5}).count() > 0
    with pytest.raises(ValueError, match=r"density 0.0 is not in \(0, 1\]"):
        pattern(name)(drawn(), Mask.full(drawn()), density=0.0)


def test_erk_by_hand() -> None:
    """Counts go as the sums of dimensions, 18 + 48 + 20 = 86; of 864 weights a tenth is 86."""
    mask = allocations.erk(drawn(), Mask.full(drawn()), density=0.1)
    assert kept(mask) == {"conv": 18, "fc": 48, "out": 20}
    # At .5, 432 weights: by the rule out would keep 100 of 64. Kept whole, 368 go to the others, 18 : 48.
    mask = allocations.erk(drawn(), Mask.full(drawn()), density=0.5)
    assert kept(mask) == {"conv": 100, "fc": 268, "out": 64}
    assert mask.count() == 432


@pytest.mark.parametrize("density", [0.013, 0.07, 0.2, 0.37, 0.6, 0.9, 1.0])
def test_erk_keeps_exactly_what_is_asked_for(density: float) -> None:
    assert allocations.erk(drawn(), Mask.full(drawn()), density=density).count() == math.floor(
        density * 864 + 0.5
    )


def test_every_unit_keeps_as_many_inputs() -> None:
    mask = allocations.constant_fan_in(drawn(), Mask.full(drawn()), density=0.3)
    for name, count in (("conv", 11), ("fc", 10), ("out", 5)):  # .3 of 36, 32 and 16
        assert set(mask.keep[name].flatten(1).sum(1).tolist()) == {count}
    scores = {"a": torch.tensor([[0.1, 5.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0]])}
    best = allocations.constant_fan_in(scores, Mask.full(scores), density=0.5)
    assert best.keep["a"].tolist() == [[False, True, False, True], [True, True, False, False]]


@pytest.mark.parametrize(("density", "n"), [(0.25, 1), (0.5, 2), (0.75, 3)])
def test_n_of_four_is_exact_in_every_run(density: float, n: int) -> None:
    mask = allocations.n_of_m(drawn(), Mask.full(drawn()), density=density)
    for keep in mask.keep.values():
        # As NVIDIA's apex lays a convolution [K, C, R, S] out before it looks for 2:4: rows of input channels.
        rows = keep.permute(2, 3, 0, 1).reshape(-1, keep.shape[1]) if keep.ndim == 4 else keep
        assert set(rows.reshape(-1, 4).sum(1).tolist()) == {n}
    scores = {"a": torch.tensor([[1.0, 4.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]])}
    two = allocations.n_of_m(scores, Mask.full(scores), density=0.5).keep["a"]
    assert two.tolist() == [[False, True, False, True, True, True, False, False]]


def test_what_is_no_pattern_is_refused() -> None:
    full = Mask.full(drawn())
    with pytest.raises(
        ValueError, match=r"density 0.4 does not give a pattern of 4; possible: 0.25, 0.5, 0.75"
    ):
        allocations.n_of_m(drawn(), full, density=0.4)
    odd = {"a": torch.rand(3, 6)}
    with pytest.raises(
        ValueError, match="the units of a read 6 inputs each, which is not a multiple of 4; exclude it"
    ):
        allocations.n_of_m(odd, Mask.full(odd), density=0.5)
    with pytest.raises(ValueError, match="a has 3 units x 6 inputs, which do not divide into blocks of 4"):
        allocations.blocks(odd, Mask.full(odd), density=0.5)
    few = Mask({"a": torch.tensor([[True, False, False, False]])})
    with pytest.raises(ValueError, match="a run of 4 inputs of a has 1 weights alive, but should keep 2"):
        allocations.n_of_m({"a": torch.rand(1, 4)}, few, density=0.5)


def test_blocks_are_whole() -> None:
    mask = allocations.blocks(drawn(), Mask.full(drawn()), density=0.5)
    for name, keep in mask.keep.items():
        rows, columns, positions = keep.flatten(2).shape if keep.ndim > 2 else (*keep.shape, 1)
        counts = keep.reshape(rows // 4, 4, columns // 4, 4, positions).sum((1, 3, 4)).flatten()
        assert set(counts.tolist()) == {0, 16 * positions}
        assert int((counts > 0).sum()) == math.floor(len(counts) / 2 + 0.5), name
    scores = {"a": torch.zeros(4, 8)}
    scores["a"][2, 5] = 1.0
    assert allocations.blocks(scores, Mask.full(scores), density=0.5).keep["a"][:, 4:].all()


def test_blocks_of_a_convolution_are_of_input_and_output_channels() -> None:
    """Gray et al. 2017: a block of features at all positions of the kernel, not of positions."""
    scores = {"conv": torch.zeros(4, 8, 3, 3)}
    scores["conv"][1, 6, 0, 2] = 1.0
    keep = allocations.blocks(scores, Mask.full(scores), density=0.5).keep["conv"]
    assert keep[:, 4:].all()
    assert not keep[:, :4].any()


def test_two_of_four_are_input_channels_at_one_position() -> None:
    """[K=1, C=4, 1, 2]: at the first position channels 1 and 3 are the largest, at the second 0 and 2."""
    scores = {"conv": torch.tensor([[[[1.0, 8.0]], [[4.0, 5.0]], [[2.0, 7.0]], [[3.0, 6.0]]]])}
    keep = allocations.n_of_m(scores, Mask.full(scores), density=0.5).keep["conv"]
    assert keep[0, :, 0, 0].tolist() == [False, True, False, True]
    assert keep[0, :, 0, 1].tolist() == [True, False, True, False]


TRANSPOSED = nn.ConvTranspose2d(8, 6, 3, groups=2, bias=False)  # weight [8, 3, 3, 3]: a unit reads 4 inputs
SCORES = {"weight": torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(3))}


def outputs(keep: torch.Tensor) -> torch.Tensor:
    """What the transposed convolution makes of ones when its weights are 1 where they are kept: [units], each a count.

    Every weight meets every position that is read once, so a unit's sum is its kept weights times 4 · 4 positions.
    """
    out = nn.functional.conv_transpose2d(torch.ones(1, 8, 4, 4), keep.float(), groups=2)
    return out.sum((0, 2, 3)) / 16


def test_units_and_fan_in_of_a_transposed_convolution_are_its_outputs() -> None:
    full = Mask.full(SCORES, layout=layouts(TRANSPOSED))
    kept_units = allocations.units(SCORES, full, density=0.5).keep["weight"]
    assert sorted(outputs(kept_units).tolist()) == [0, 0, 0, 36, 36, 36]
    fan_in = allocations.constant_fan_in(SCORES, full, density=0.25).keep["weight"]
    assert outputs(fan_in).tolist() == [9] * 6
    # The best three by their own mean score: units of group 0 are [:4, u], of group 1 [4:, u].
    means = torch.cat([SCORES["weight"][:4].mean((0, 2, 3)), SCORES["weight"][4:].mean((0, 2, 3))])
    assert set(outputs(kept_units).nonzero().flatten().tolist()) == set(means.topk(3).indices.tolist())
    two = allocations.n_of_m(SCORES, full, density=0.5).keep["weight"]
    assert set(two.view(2, 4, -1).sum(1).flatten().tolist()) == {2}  # of the four inputs of a group
    # Without being told, a transposed convolution's weight cannot be told from a convolution's.
    told = allocations.units(SCORES, Mask.full(SCORES), density=0.5).keep["weight"]
    assert outputs(told).tolist() != outputs(kept_units).tolist()


def test_blocks_stay_within_a_group() -> None:
    layer = nn.Conv2d(16, 8, 1, groups=4)
    scores = {"weight": torch.rand(8, 4, 1, 1)}
    full = Mask.full(scores, layout=layouts(layer))
    with pytest.raises(
        ValueError, match="weight has 8 units x 4 inputs in 4 groups, which do not divide into blocks of 4"
    ):
        allocations.blocks(scores, full, density=0.5)
    assert allocations.blocks(scores, full, density=0.5, size=2).count() == 16


@pytest.mark.parametrize("name", ["layerwise", "global_top", "uniform", "erk", "constant_fan_in", "units"])
def test_a_mask_goes_on_being_laid_out_so(name: str) -> None:
    full = Mask.full(SCORES, layout=layouts(TRANSPOSED))
    assert getattr(allocations, name)(SCORES, full, density=0.5).layout == full.layout
    assert full.layout["weight"].inputs_first


def test_units_go_whole() -> None:
    scores = drawn()
    mask = allocations.units(scores, Mask.full(scores), density=0.25)
    for name, count in (("conv", 2), ("fc", 4), ("out", 1)):
        rows = mask.keep[name].flatten(1)
        assert set(rows.sum(1).tolist()) == {0, rows.shape[1]}
        best = scores[name].flatten(1).mean(1).topk(count).indices
        assert set(rows.any(1).nonzero().flatten().tolist()) == set(best.tolist())


# What holds for every allocation, with the shapes that all of them fit.

EVERY = ["global_top", "layerwise", *PATTERNS]


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25, deadline=None)
@given(values=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_what_was_pruned_stays_pruned_even_with_the_best_scores(name: str, values: int, seed: int) -> None:
    """As where pruned weights are scored by the values that they were reset to. Scores tie, or are negative."""
    generator = torch.Generator().manual_seed(seed)
    mask = Mask.full(drawn())
    for density in (0.75, 0.5, 0.25):
        scores = {
            n: torch.randint(-values, values + 1, k.shape, generator=generator).where(k, torch.tensor(100.0))
            for n, k in mask.keep.items()
        }
        smaller = pattern(name)(scores, mask, density=density)
        assert smaller.within(mask)
        assert smaller.count() == pattern(name)(drawn(), Mask.full(drawn()), density=density).count()
        mask = smaller


@pytest.mark.parametrize("density", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", EVERY)
def test_equal_scores_keep_what_comes_first(name: str, density: float) -> None:
    """Scores that are all the same are scores that fall from place to place."""
    same = {n: torch.zeros(s) for n, s in PATTERNED.items()}
    places = torch.arange(sum(math.prod(s) for s in PATTERNED.values()))
    parts = torch.split(-places.float(), [math.prod(s) for s in PATTERNED.values()])
    falling = {n: part.view(s) for part, (n, s) in zip(parts, PATTERNED.items(), strict=True)}
    one, two = (pattern(name)(scores, Mask.full(scores), density=density) for scores in (same, falling))
    assert same_bits(one.keep, two.keep)


@pytest.mark.parametrize(
    "name", ["global_top", "layerwise", "uniform", "erk", "constant_fan_in", "n_of_m", "units"]
)
def test_layers_too_small_to_prune(name: str) -> None:
    """One unit, few inputs: the count is a whole number, of weights that are there."""
    tiny = {"a": torch.rand(1, 4), "b": torch.rand(4, 4), "c": torch.rand(1, 4)}
    mask = pattern(name)(tiny, Mask.full(tiny), density=0.25)
    counts = {"units": [4, 4, 4], "erk": [2, 3, 1]}.get(name, [1, 4, 1])
    if name == "global_top":
        assert mask.count() == 6
    else:
        assert list(kept(mask).values()) == counts


def drawn_scores(kind: str, size: int, generator: torch.Generator) -> torch.Tensor:
    if kind == "ties":
        return torch.randint(0, 3, (size,), generator=generator).double()
    if kind == "signed zeros":
        return torch.randint(-1, 2, (size,), generator=generator) * torch.tensor(-0.0)
    scores = torch.randn(size, generator=generator)
    if kind == "a few levels":
        return (2 * scores).round() / 2
    return (100 * scores).to(getattr(torch, kind))


@pytest.mark.parametrize(
    "kind", ["float32", "float64", "bfloat16", "float16", "int64", "ties", "signed zeros", "a few levels"]
)
def test_the_best_are_those_of_a_stable_sort(kind: str) -> None:
    """Every count of small vectors, a third of them pruned before: the selection against the sort it stands for."""
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 7, 24, 40):
        scores = drawn_scores(kind, size, generator)
        for alive in (torch.ones(size, dtype=torch.bool), torch.rand(size, generator=generator) < 0.7):
            places = torch.nonzero(alive).squeeze(1)
            order = places[torch.sort(scores[places], descending=True, stable=True).indices]
            for count in range(len(places) + 1):
                keep = torch.zeros(size, dtype=torch.bool)
                keep[order[:count]] = True
                assert torch.equal(allocations._top(scores, alive, count, "it"), keep)
