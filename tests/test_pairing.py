"""Each criterion has the allocation of its paper; what another one makes of it is named, or refused."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import winticket
from winticket import Experiment, allocate, criteria, pairing
from winticket.criteria import Evidence
from winticket.criteria.evidence import needed, needs, rounds_at_init, usual_allocate
from winticket.experiment import plan
from winticket.loops import Levels
from winticket.ticket import Mask, Scores, same_bits

CRITERIA = {name: getattr(criteria, name) for name in criteria.__all__ if name[0].islower()}
OTHERS = {
    # One ranking of the whole network: Lee et al. 2019, eq. 5; Wang et al. 2020, algorithm 1; Tanaka et al. 2020,
    # algorithm 1; Molchanov et al. 2019, §3; LeCun et al. 1990 (deleted by saliency); Lee et al. 2021, §3.
    **dict.fromkeys(("snip", "grasp", "synflow", "taylor", "fisher", "lamp"), "global_top"),
    # Sun et al. 2024, §3: compared within the weights of each output.
    "wanda": "constant_fan_in",
    **dict.fromkeys(("l1_units", "l2_units", "geometric_median", "batchnorm_scale"), "units"),
    "head_importance": "structures",
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(32, 8, generator=generator), torch.randint(0, 4, (32,), generator=generator)


def experiment(**choices: Any) -> Experiment:
    small: dict[str, Any] = {"model": "lenet-20-10", "steps": 8, "evaluate_every": 4, "replicates": 1}
    return Experiment.of("digits", **{**small, "density": (0.3,), **choices})


# ------------------------------------------------------------------------------------------- what is usual


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_carries_the_allocation_of_its_paper(name: str) -> None:
    wanted = OTHERS.get(name, "layerwise")
    assert CRITERIA[name].usual_allocate == wanted
    assert pairing.usual(CRITERIA[name]) is getattr(allocate, wanted)
    assert pairing.variant(CRITERIA[name], getattr(allocate, wanted)) is None
    chosen = experiment(criterion=name)
    assert (chosen.allocate, chosen.describe()["allocate"]) == (wanted, wanted)


def test_a_criterion_of_ones_own_may_name_one() -> None:
    def plain(e: Evidence) -> Scores:
        raise NotImplementedError

    @needs(allocate="erk")
    def named(e: Evidence) -> Scores:
        raise NotImplementedError

    @needs(allocate="ekr")
    def misspelt(e: Evidence) -> Scores:
        raise NotImplementedError

    assert pairing.usual(plain) is allocate.layerwise
    assert pairing.usual(named) is pairing.usual(partial(named)) is allocate.erk
    with pytest.raises(
        ValueError, match="goes with allocation 'ekr', which does not exist; possible: blocks,"
    ):
        pairing.usual(misspelt)


def test_what_is_said_of_a_criterion_holds_with_its_options_filled_in() -> None:
    filled = partial(criteria.synflow)
    assert needed(filled) == {"network"}
    assert (rounds_at_init(filled), usual_allocate(filled)) == (100, "global_top")


@pytest.mark.parametrize(
    ("choices", "criterion", "allocation"),
    [
        ({}, "magnitude", "layerwise"),
        ({"method": "at-init"}, "snip", "global_top"),
        ({"method": "at-init", "criterion": "magnitude"}, "magnitude", "layerwise"),
        ({"method": "at-init", "criterion": "random"}, "random", "layerwise"),
        ({"method": "one-shot", "criterion": "wanda"}, "wanda", "constant_fan_in"),
        ({"method": "early-bird"}, "l1_units", "units"),
        ({"method": "gradual"}, "magnitude", "layerwise"),
        ({"method": "gradual", "criterion": "taylor"}, "taylor", "global_top"),
        ({"method": "set"}, "magnitude", "erk"),
        ({"method": "rigl"}, "magnitude", "erk"),
        ({"method": "rigl", "allocate": "uniform"}, "magnitude", "uniform"),
        ({"method": "edge-popup"}, "magnitude", "layerwise"),
        ({"method": "supermask"}, "magnitude", "layerwise"),
    ],
)
def test_methods_have_the_criterion_and_allocation_of_their_papers(
    choices: dict[str, Any], criterion: str, allocation: str
) -> None:
    of = experiment(**choices)
    assert (of.criterion, of.allocate) == (criterion, allocation)
    steps = {**choices, "density": (0.3,)}
    bare = Experiment("digits", of.model, of.recipe, exclude=of.exclude, replicates=1, **steps)
    assert (bare.criterion, bare.allocate) == (criterion, allocation)
    assert of.variant() is None
    deep = Experiment.of("digits", model="resnet-20", **choices, density=(0.3,))
    competes = allocation == "layerwise" and of.method in ("imp", "one-shot", "at-init")
    # Magnitudes compete in deep networks (Frankle & Carbin 2019, §4); Zhu & Gupta 2017 prune each layer on its own.
    assert deep.allocate == ("global_top" if competes else allocation)


def test_what_was_chosen_by_default_is_chosen_anew() -> None:
    of = experiment()
    assert of.but(criterion="snip").allocate == "global_top"
    assert of.but(criterion="snip").but(criterion="magnitude") == of
    again = of.but(method="at-init")
    assert (again.criterion, again.allocate) == ("snip", "global_top")
    chosen = experiment(allocate="uniform")
    assert chosen.but(method="at-init").allocate == "uniform"
    assert experiment(method="rigl").but(every=2).allocate == "erk"


def test_convolutions_keep_no_rate_of_their_own_in_a_ranking_of_all() -> None:
    usual = {"model": "conv-2", "replicates": 1, "steps": 8, "evaluate_every": 4, "levels": 2}
    assert Experiment.of("digits", **usual).conv_rate == 0.1
    assert Experiment.of("digits", **usual, criterion="lamp").conv_rate is None
    assert Experiment.of("digits", **usual, method="rigl").conv_rate is None
    said = Experiment.of("digits", **usual, criterion="lamp", conv_rate=0.1).variant()
    assert said is not None
    assert said.startswith(
        "conv_rate takes layers out of the ranking of all weights that the paper of criterion lamp makes"
    )
    with pytest.raises(
        ValueError, match="allocate erk takes one density for all layers, but conv_rate gives"
    ):
        Experiment.of("digits", **usual, method="rigl", conv_rate=0.1)


@pytest.mark.parametrize("name", ["l1_units", "geometric_median"])
def test_criteria_of_units_prune_units_and_spare_the_classes(name: str) -> None:
    chosen = experiment(method="one-shot", criterion=name)
    assert (chosen.allocate, chosen.exclude) == ("units", ("fc3.weight",))
    # round(.3 * 20) units of 64 weights, round(.3 * 10) of 20
    assert plan(chosen).counts == (20 * 64 + 10 * 20, 6 * 64 + 3 * 20)


# ------------------------------------------------------------------------------------------- other allocations


@pytest.mark.parametrize("allocation", ["layerwise", "uniform", "erk", "constant_fan_in", "n_of_m"])
def test_lamp_within_layers_is_refused_since_it_is_magnitude(allocation: str) -> None:
    by = getattr(allocate, allocation)
    model, words = network(), f"criterion lamp with allocate {allocation} is magnitude: within a layer"
    weights = {n: p.detach() for n, p in model.named_parameters()}
    mask = Mask.full({n: weights[n] for n in ("0.weight", "3.weight")})
    state = winticket.prune(model, 0.5).start
    evidence = Evidence(state, state, mask, torch.Generator())
    lamp, magnitude = (by(c(evidence), mask, density=0.5) for c in (criteria.lamp, criteria.magnitude))
    assert same_bits(lamp.keep, magnitude.keep)  # which is why
    with pytest.raises(ValueError, match=words):
        pairing.variant(criteria.lamp, by)
    with pytest.raises(ValueError, match=words):
        winticket.prune(model, 0.5, criterion=criteria.lamp, allocate=by)
    with pytest.raises(ValueError, match=words):
        Levels(model, [0.5], criterion=criteria.lamp, allocate=by)
    with pytest.raises(ValueError, match=words):
        experiment(criterion="lamp", allocate=allocation)


@pytest.mark.parametrize("method", ["set_", "rigl"])
def test_lamp_is_refused_where_weights_are_exchanged_within_layers(method: str) -> None:
    with (
        pytest.raises(ValueError, match="criterion lamp ranks them as magnitude does"),
        getattr(winticket, method)(network(), 0.3, steps=20, every=2, criterion=criteria.lamp),
    ):
        raise AssertionError("the block must not begin")
    with pytest.raises(ValueError, match="criterion lamp ranks them as magnitude does"):
        experiment(method=method.removesuffix("_"), criterion="lamp")


@pytest.mark.parametrize(
    "allocation", ["layerwise", "global_top", "erk", "n_of_m", "blocks", "constant_fan_in"]
)
def test_a_criterion_of_units_is_refused_where_units_would_be_cut(allocation: str) -> None:
    words = f"l1_units gives all weights of a unit the same score, and allocate {allocation} would choose among them"
    with pytest.raises(ValueError, match=words):
        pairing.variant(criteria.l1_units, getattr(allocate, allocation))
    with pytest.raises(ValueError, match=words):
        experiment(method="one-shot", criterion="l1_units", allocate=allocation)
    with pytest.raises(ValueError, match=words):
        winticket.prune(network(), 0.5, criterion=criteria.l1_units, allocate=getattr(allocate, allocation))


VARIANTS = [
    (
        "snip",
        "layerwise",
        "snip ranks all weights of the network together in its paper \\(allocate global_top\\)",
    ),
    ("synflow", "erk", "synflow ranks all weights of the network together"),
    ("lamp", "units", "lamp ranks all weights of the network together"),
    ("wanda", "layerwise", "wanda compares the weights of each output unit in its paper"),
]


@pytest.mark.parametrize(("name", "allocation", "told"), VARIANTS)
def test_a_variant_of_a_method_is_named(name: str, allocation: str, told: str) -> None:
    criterion, by = CRITERIA[name], getattr(allocate, allocation)
    options: dict[str, Any] = {"criterion": criterion, "allocate": by, "batches": [batch()]}
    with pytest.warns(RuntimeWarning, match=told) as caught:
        winticket.prune(network(), 0.5, **options)
    with pytest.warns(RuntimeWarning, match=told) as more:
        Levels(network(), [0.5], **options)
    with (  # noqa: PT031
        pytest.warns(RuntimeWarning, match=told) as most,
        winticket.gradual(network(), 0.5, steps=20, every=2, **options) as sparse,
    ):
        for step in range(20):
            sparse.at(step + 1)
    assert {w.filename for w in (caught[0], more[0], most[0])} == {__file__}
    exclude = ("fc3.weight",) if allocation == "units" else ()
    sentence = experiment(criterion=name, allocate=allocation, exclude=exclude).variant()
    assert sentence is not None
    assert sentence.endswith(f"these are results of a variant, not of {name} as published")


@pytest.mark.parametrize(
    ("name", "allocation"),
    [("wanda", "n_of_m"), ("magnitude", "global_top"), ("magnitude", "n_of_m"), ("random", "erk")],
)
def test_what_papers_do_is_not_warned_of(name: str, allocation: str) -> None:
    options: dict[str, Any] = {"criterion": CRITERIA[name], "allocate": getattr(allocate, allocation)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        winticket.prune(network(), 0.5, batches=[batch()], **options)
    assert experiment(criterion=name, allocate=allocation, density=(0.5,)).variant() is None


def test_an_allocation_of_ones_own_is_not_judged() -> None:
    def mine(scores: Scores, mask: Mask, *, density: float) -> Mask:
        return allocate.layerwise(scores, mask, density=density)

    assert pairing.variant(criteria.lamp, mine) is None
    assert pairing.variant(criteria.l1_units, mine) is None


def test_in_a_loop_the_paper_allocates_by_default() -> None:
    options: dict[str, Any] = {"batches": [batch()]}
    for criterion in (criteria.snip, criteria.grasp, criteria.wanda, criteria.lamp, criteria.magnitude):
        by = pairing.usual(criterion)
        one = winticket.prune(network(), 0.3, criterion=criterion, **options)
        two = winticket.prune(network(), 0.3, criterion=criterion, allocate=by, **options)
        assert same_bits(one.mask.keep, two.mask.keep)
        assert one.about["allocate"] == usual_allocate(criterion)
    with (
        pytest.warns(RuntimeWarning, match="ended at step 0"),
        winticket.rigl(network(), 0.3, steps=9) as sparse,
    ):
        erk = {n: kept for n, (kept, _) in sparse.mask.layers().items()}
    # 58 of 192 weights, as (16 + 8) to (4 + 16): 31.4 and 26.2, the larger remainder up.
    assert erk == {"0.weight": 32, "3.weight": 26}
    by_layer = {"0.*": 0.25, "*": 0.5}
    with pytest.warns(RuntimeWarning, match="ended"), winticket.set_(network(), by_layer, steps=9) as sparse:
        assert {n: kept for n, (kept, _) in sparse.mask.layers().items()} == {"0.weight": 32, "3.weight": 32}


def test_wanda_takes_no_allocation_over_several_layers() -> None:
    with pytest.raises(ValueError, match=r"wanda scores layer by layer, .* use allocate constant_fan_in"):
        pairing.variant(criteria.wanda, allocate.global_top)


@pytest.mark.parametrize("method", ["rigl", "set"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("l1_units", r"exchanges weights singly.*of single weights"), ("lamp", r"use criterion magnitude$")],
)
def test_what_exchanges_weights_in_layers_names_a_criterion_that_it_takes(
    method: str, name: str, words: str
) -> None:
    """And no allocation (units, global_top), which such a method would refuse next."""
    around = {"rigl": winticket.rigl, "set": winticket.set_}[method]
    with pytest.raises(ValueError, match=words):
        experiment(method=method, criterion=name)
    with pytest.raises(ValueError, match=words), around(network(), 0.5, steps=100, criterion=CRITERIA[name]):
        pass
    assert experiment(method=method, criterion="magnitude").allocate == "erk"
