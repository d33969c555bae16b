"""Pruning a model as it is in one call, held against the procedures that plans are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import winticket
from winticket import allocate, criteria
from winticket.criteria.evidence import TRAINING, needed, scores_units
from winticket.data import find_dataset
from winticket.loops import Levels
from winticket.procedures import Setup
from winticket.rewind import to_init
from winticket.stages import dense_ticket, prune_untrained, scored
from winticket.ticket import Mask, Seeds, same_bits
from winticket.train import Recipe
from winticket.units import dead_parameters, zeroed


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(32, 8, generator=generator), torch.randint(0, 4, (32,), generator=generator)


@pytest.mark.filterwarnings("ignore:.*output unit:RuntimeWarning")
@pytest.mark.parametrize("criterion", [criteria.snip, criteria.synflow, criteria.grasp, criteria.random])
def test_it_is_pruning_at_initialisation_as_plans_have_it(criterion: criteria.Criterion) -> None:
    source = find_dataset("digits")
    setup = Setup(
        "digits",
        source.fingerprint,
        source.input_shape,
        source.classes,
        "lenet-12-8",
        "glorot-normal",
        Recipe(steps=40),
    )
    dense = dense_ticket(setup, 3)
    wanted = prune_untrained(
        setup, dense, density=0.1, criterion=criterion, allocate=allocate.global_top, rewind=to_init
    )
    model = setup.module()
    dense.load_into(model)
    found = winticket.prune(
        model,
        0.1,
        criterion=criterion,
        allocate=allocate.global_top,
        batches=scored(setup, dense.seeds),
        seeds=dense.seeds,
    )
    assert same_bits(found.mask.keep, wanted.mask.keep)
    assert same_bits(found.start.weights, wanted.start.weights)
    assert found.mask.count() == round(0.1 * found.mask.total())
    assert found.origin == "ticket"
    assert found.about == {"criterion": criterion.__name__, "allocate": "global_top"}


def test_it_scores_as_levels_do() -> None:
    model = network()
    levels = Levels(model, [0.3], criterion=criteria.taylor, batches=[batch()], seeds=Seeds(1, 2))
    with (level := levels.first()):
        pass
    wanted = levels.after(level).ticket
    found = winticket.prune(model, 0.3, criterion=criteria.taylor, batches=[batch()], seeds=Seeds(1, 2))
    assert same_bits(found.mask.keep, wanted.mask.keep)
    assert found.seeds == wanted.seeds


def test_by_hand_with_shares_by_layer_and_a_layer_left_whole() -> None:
    model = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    )
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[1.0, -4.0], [0.5, 2.0]]))
        model.get_parameter("1.weight").copy_(torch.tensor([[0.1, 0.2], [-0.4, 0.3]]))
    ticket = winticket.prune(model, {"0.weight": 0.5, "*": 0.25}, exclude=["2.*"])
    assert {n: k.tolist() for n, k in ticket.mask.keep.items()} == {
        "0.weight": [[False, True], [False, True]],
        "1.weight": [[False, False], [True, False]],
    }
    assert ticket.excluded() == ("2.weight",)


# head_importance needs attention heads, which this network lacks.
EVERY = [getattr(criteria, n) for n in criteria.__all__ if n[0].islower() and n != "head_importance"]
EVERY = [criterion for criterion in EVERY if TRAINING not in needed(criterion)]


@pytest.mark.parametrize("criterion", EVERY, ids=lambda c: str(c.__name__))
def test_the_model_is_left_alone(criterion: criteria.Criterion) -> None:
    model = network()
    model[1].eval()
    model(batch(3)[0]).sum().backward()
    before = {n: v.detach().clone() for n, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    modes, noise = [m.training for m in model.modules()], torch.get_rng_state()
    exclude = ["3.weight"] if criterion is criteria.batchnorm_scale else []
    ticket = winticket.prune(
        model, 0.5, criterion=criterion, batches=[batch()], exclude=exclude, seeds=Seeds(0, 0)
    )
    by_units = scores_units(criterion)
    assert ticket.mask.count() == (64 if exclude or by_units else 96)
    assert same_bits(dict(model.state_dict()), before)
    lost = dead_parameters(model, ticket.mask)  # with dead units
    assert bool(lost) == by_units
    assert same_bits({**ticket.start.weights, **ticket.start.buffers}, zeroed(before, lost))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), noise)
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(after) == len(gradients) == 6
    assert all(torch.equal(a, b) for a, b in zip(after, gradients, strict=True))
    with torch.no_grad():  # the ticket has copies
        model.get_parameter("0.weight").zero_()
    assert same_bits(dict(ticket.start.weights), zeroed({n: before[n] for n in ticket.start.weights}, lost))


def test_an_emptied_layer_is_told() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("3.weight").mul_(1e-6)
    with pytest.warns(RuntimeWarning, match=r"density 0.5 keeps no weight in 3.weight") as caught:
        winticket.prune(model, 0.5, allocate=allocate.global_top)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("density", "how", "words"),
    [
        (0.0, {}, "density is 0.0; give the share"),
        (None, {}, "density is None; give the share"),
        (0.5, {"criterion": criteria.movement}, "movement scores what training did to each weight"),
        (1.0, {}, "density is 1.0; give the share"),
        (0.3, {"allocate": allocate.n_of_m}, "density 0.3 does not give a pattern of 4"),
        (0.5, {"exclude": ["9.*"]}, "exclude '9.*' fits no eligible weight; there are 0.weight, 3.weight"),
        (0.5, {"exclude": ["*"]}, "the model has no weight to prune"),
        (0.5, {"criterion": criteria.snip}, "snip needs training examples; pass some as batches="),
        (
            0.5,
            {"criterion": criteria.synflow},
            "synflow needs the shape of an input; pass one as example=...",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_scored(density: float, how: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        winticket.prune(network(), density, **how)


def test_a_pattern_that_rounds_cannot_pass_through_is_told_before_anything_is_scored() -> None:
    scored_once: list[int] = []

    def counting(evidence: criteria.Evidence) -> Any:
        scored_once.append(1)
        return criteria.synflow(evidence)

    in_rounds: Callable[..., Any] = counting
    in_rounds.rounds = 100  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="does not give a pattern of 4") as caught:
        winticket.prune(network(), 0.5, criterion=in_rounds, allocate=allocate.n_of_m)
    assert caught.value.__notes__ == ["counting prunes in 100 rounds of falling density"]
    assert not scored_once


UNITS = [criteria.l1_units, criteria.l2_units, criteria.geometric_median, criteria.batchnorm_scale]


@pytest.mark.parametrize("criterion", UNITS, ids=lambda c: str(c.__name__))
def test_criteria_of_units_take_whole_units_and_leave_the_classes(criterion: criteria.Criterion) -> None:
    """Of a 64-300-100-10 network at density .3 no class loses a weight, as 7 of 10 did where weights went singly."""
    layers = [
        nn.Linear(64, 300),
        nn.BatchNorm1d(300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.BatchNorm1d(100),
        nn.ReLU(),
    ]
    model = nn.Sequential(*layers, nn.Linear(100, 10))
    ticket = winticket.prune(model, 0.3, criterion=criterion, example=torch.zeros(1, 64))
    assert {name: 300 - len(ticket.mask.empty_units(name)) for name in ["0.weight"]} == {"0.weight": 90}
    assert ticket.mask.layers() == {"0.weight": (90 * 64, 300 * 64), "3.weight": (30 * 300, 100 * 300)}
    assert ticket.excluded().count("6.weight") == 1
    assert ticket.about["allocate"] == "units"
    # 90 · 64 and, of the 30 · 300 weights that are kept, those that read the 90.
    assert ticket.about["effective_density"] == (90 * 64 + 30 * 90) / (300 * 64 + 100 * 300)
    for single in (
        allocate.layerwise,
        allocate.global_top,
        allocate.uniform,
        allocate.erk,
        allocate.constant_fan_in,
    ):
        with pytest.raises(
            ValueError,
            match=rf"gives all weights of a unit the same score, and allocate {single.__name__} would choose",
        ):
            winticket.prune(model, 0.3, criterion=criterion, allocate=single, example=torch.zeros(1, 64))
    with pytest.raises(ValueError, match=r"those of the output layer are the classes; exclude '6.weight'"):
        winticket.prune(model, 0.3, criterion=criterion, exclude=["0.weight"], example=torch.zeros(1, 64))
    weights = {n: model.get_parameter(n).detach() for n in ("0.weight", "3.weight", "6.weight")}
    dense = replace(ticket, mask=Mask.full(weights))
    with pytest.raises(ValueError, match=r"those of the output layer are the classes; exclude '6.weight'"):
        Levels(model, [0.5], criterion=criterion, ticket=dense, example=torch.zeros(1, 64))
    first = Levels(model, [0.5], criterion=criterion, example=torch.zeros(1, 64)).first()
    assert list(first.ticket.mask.keep) == ["0.weight", "3.weight"]
    for block in (winticket.set_, winticket.rigl):
        with (
            pytest.raises(
                ValueError,
                match="exchanges weights singly",
            ),
            block(model, 0.3, steps=20, criterion=criterion, example=torch.zeros(1, 64)),
        ):
            pass
    with winticket.gradual(model, 0.3, steps=20, criterion=criterion, example=torch.zeros(1, 64)) as sparse:
        for step in range(1, 21):
            sparse.at(step)
    assert sparse.mask.layers() == ticket.mask.layers()


def test_output_units_that_lose_all_their_weights_are_told() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model.get_parameter("2.weight").copy_(torch.tensor([[1.0] * 4, [9.0] * 4, [2.0] * 4]))
    words = r"density 0.34 keeps no weight in 2.weight \(output units 0, 2\)"
    with pytest.warns(RuntimeWarning, match=words):
        ticket = winticket.prune(model, 0.34)
    assert ticket.mask.emptied() == ()
    assert ticket.mask.emptied(output="2.weight") == ("2.weight (output units 0, 2)",)
    assert ticket.mask.empty_units("2.weight") == (0, 2)
