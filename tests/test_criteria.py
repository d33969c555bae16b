"""Criteria by hand-computed scores, and what every public criterion promises."""

from collections.abc import Callable
from typing import cast

import pytest
import torch

from winticket import criteria
from winticket.criteria import Criterion, Evidence
from winticket.ticket import Mask, Scores, State, same_bits

START = {
    "a.weight": torch.tensor([[9.0, 9.0, 9.0]]),
    "a.bias": torch.tensor([9.0]),
    "b.weight": torch.ones(2, 2),
}
NOW = {
    "a.weight": torch.tensor([[0.5, -2.0, 0.0]]),
    "a.bias": torch.tensor([7.0]),
    "b.weight": torch.tensor([[-1.0, 1.0], [0.25, -0.125]]),
}
MASK = Mask({"a.weight": torch.tensor([[True, True, False]]), "b.weight": torch.ones(2, 2, dtype=torch.bool)})
PUBLIC = [name for name in criteria.__all__ if name not in ("Criterion", "Evidence")]


def evidence(seed: int = 0) -> Evidence:
    return Evidence(State(NOW, {}, {}, 5), State(START, {}, {}, 0), MASK, torch.Generator().manual_seed(seed))


def criterion(name: str) -> Criterion:
    return cast(Callable[[Evidence], Scores], getattr(criteria, name))


def test_magnitude_is_the_absolute_trained_weight() -> None:
    wanted = {
        "a.weight": torch.tensor([[0.5, 2.0, 0.0]]),
        "b.weight": torch.tensor([[1.0, 1.0], [0.25, 0.125]]),
    }
    assert same_bits(criteria.magnitude(evidence()), wanted)


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


def test_the_public_list_is_not_empty() -> None:
    assert {"magnitude", "random"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_criterion_scores_every_eligible_weight(name: str) -> None:
    given = evidence()
    before = {k: v.clone() for k, v in given.now.weights.items()}
    scores = criterion(name)(given)
    assert list(scores) == list(MASK.keep)
    for layer, score in scores.items():
        assert score.shape == MASK.keep[layer].shape
        assert torch.isfinite(score).all()
    assert same_bits(given.now.weights, before)  # nothing is written to


@pytest.mark.parametrize("name", PUBLIC)
def test_every_criterion_repeats_itself(name: str) -> None:
    assert same_bits(criterion(name)(evidence(7)), criterion(name)(evidence(7)))
