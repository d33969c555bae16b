"""Recipes: the learning rates by hand, the evaluation grid, and every refusal with its words."""

from __future__ import annotations

import itertools
import re
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from winticket.train import Recipe
from winticket.train.recipe import ADDED


def rates(**options: Any) -> list[float]:
    recipe = Recipe(lr=0.8, **options)
    return [recipe.rate(step) for step in range(recipe.steps)]


def test_a_constant_rate_is_constant() -> None:
    assert rates(steps=4) == [0.8] * 4


def test_warm_up_rises_in_equal_parts_to_the_rate() -> None:
    # Four steps of warm-up: 1/4, 2/4, 3/4, 4/4 of 0.8, then 0.8.
    assert rates(steps=6, warmup=4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rel=1e-15)


def test_step_schedule_drops_at_its_fractions() -> None:
    # Milestones .5 and .75 of 8 steps: from step 4 a tenth, from step 6 a hundredth.
    assert rates(steps=8, schedule="step") == pytest.approx([0.8] * 4 + [0.08] * 2 + [0.008] * 2, rel=1e-15)
    assert rates(steps=5, schedule="step", milestones=(0.2,), gamma=0.5) == [0.8, 0.4, 0.4, 0.4, 0.4]
    assert rates(steps=3, schedule="step", milestones=()) == [0.8] * 3


def test_a_recipe_of_twice_the_length_keeps_its_shape() -> None:
    assert rates(steps=16, schedule="step")[::2] == rates(steps=8, schedule="step")
    assert rates(steps=16, schedule="cosine")[::2] == pytest.approx(rates(steps=8, schedule="cosine"))


def test_cosine_falls_from_the_rate_towards_zero() -> None:
    # 0.4 · (1 + cos(π t / 6)): cosines of 0, 30, 60, 90, 120 and 150 degrees.
    root = 3**0.5 / 2
    wanted = [0.4 * (1 + c) for c in (1, root, 0.5, 0, -0.5, -root)]
    assert rates(steps=6, schedule="cosine") == pytest.approx(wanted, rel=1e-12)


def test_warm_up_multiplies_the_schedule() -> None:
    assert rates(steps=4, schedule="step", warmup=2, milestones=(0.5,)) == pytest.approx(
        [0.4, 0.8, 0.08, 0.08]
    )
    assert rates(steps=4, schedule="cosine", warmup=2)[:2] == pytest.approx([0.4, 0.4 * (1 + 0.5**0.5)])


@pytest.mark.parametrize(
    ("steps", "every", "start", "grid"),
    [
        (10, 4, 0, [0, 4, 8, 10]),
        (8, 4, 0, [0, 4, 8]),
        (8, 4, 3, [3, 4, 8]),
        (8, 4, 4, [4, 8]),
        (8, 4, 8, [8]),
        (3, 100, 0, [0, 3]),
        (3, 1, 0, [0, 1, 2, 3]),
    ],
)
def test_the_regular_grid_has_the_start_the_multiples_and_the_end(
    steps: int, every: int, start: int, grid: list[int]
) -> None:
    recipe = Recipe(steps=steps, evaluate_every=every)
    assert recipe.regular(start) == grid
    assert replace(recipe, early_points=False).grid(start) == grid
    assert set(grid) <= set(recipe.grid(start))


@pytest.mark.parametrize(
    ("steps", "every", "grid"),
    [
        (1, 1, [0, 1]),
        (2, 1, [0, 1, 2]),
        (3, 1, [0, 1, 2, 3]),
        (3, 100, [0, 1, 2, 3]),
        # A sixth of 12 is 2, of 18 is 3, of 24 is 4: as far apart as the regular points, which go on.
        (40, 4, [*range(13), 14, 16, 18, 20, 21, 24, 28, 32, 36, 40]),
        (30, 100, [*range(13), 14, 16, 18, 21, 24, 28, 30]),
    ],
)
def test_early_points_are_a_sixth_of_their_step_apart(steps: int, every: int, grid: list[int]) -> None:
    assert Recipe(steps=steps, evaluate_every=every).grid() == grid


@pytest.mark.parametrize(("steps", "every"), [(800, 40), (2400, 240), (50_000, 100), (62_560, 352), (7, 3)])
def test_no_gap_is_wider_than_a_sixth_or_the_regular_one(steps: int, every: int) -> None:
    grid = Recipe(steps=steps, evaluate_every=every).grid()
    assert all(b - a <= min(every, max(1, a // 6)) for a, b in itertools.pairwise(grid))
    assert len(grid) - len(Recipe(steps=steps, evaluate_every=every).regular()) < 50


@pytest.mark.parametrize("start", [1, 7, 17, 40, 41, 799, 800])
def test_the_grid_from_a_later_start_is_the_rest_of_the_whole_one(start: int) -> None:
    recipe = Recipe(steps=800, evaluate_every=40)
    assert recipe.grid(start) == [start, *(step for step in recipe.grid() if step > start)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0; it is a whole number of at least 1"),
        ({"steps": 1.5}, "steps is 1.5; it is a whole number"),
        ({"batch": 0}, "batch is 0; it is a whole number of at least 1"),
        ({"evaluate_every": -1}, "evaluate_every is -1; it is a whole number of at least 1"),
        ({"warmup": -1}, "warmup is -1; it is a whole number of at least 0"),
        ({"crop": -4}, "crop is -4; it is a whole number of at least 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it is finite and not negative"),
        ({"weight_decay": float("nan")}, "weight_decay is nan; it is finite"),
        ({"lr": 0.0}, "lr is 0.0; it is positive and finite"),
        ({"lr": float("inf")}, "lr is inf; it is positive and finite"),
        ({"gamma": -0.1}, "gamma is -0.1; it is positive and finite"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; it is positive and finite"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum is 1.0; it lies in [0, 1)"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; possible: sgd, adam, adamw"),
        ({"schedule": "linear"}, "schedule is 'linear'; possible: constant, step, cosine"),
        ({"stacking": "maybe"}, "stacking is 'maybe'; possible: auto, stacked, one by one"),
        ({"momentum": 0.9}, "momentum and nesterov belong to sgd; adam has its own moments"),
        ({"optimizer": "adamw", "nesterov": True}, "momentum and nesterov belong to sgd; adamw has its own"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov needs a momentum above 0"),
        (
            {"milestones": (0.75, 0.5)},
            "milestones are (0.75, 0.5); give rising fractions of the training in (0, 1)",
        ),
        ({"milestones": (80.0,)}, "milestones are (80.0,); give rising fractions"),
        ({"warmup": 10}, "warmup of 10 steps does not end within the 10 steps of training"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Recipe(**{"steps": 10, **options})


def test_a_field_that_was_added_later_is_in_a_key_only_if_it_changes_the_training() -> None:
    """So results that were stored before it are found, and those under another value of it are others."""
    before = {f.name for f in fields(Recipe)} - {"clip_norm"}
    assert Recipe(steps=3).key_fields().keys() == before
    assert Recipe(steps=3, precision="bf16").key_fields().keys() == before | {"bf16"}
    assert Recipe(steps=3, clip_norm=1.0).key_fields()["clip_norm"] == 1.0
    assert all(next(f.default for f in fields(Recipe) if f.name == n) == v for n, v in ADDED.items())


def test_a_recipe_is_a_plain_value() -> None:
    assert Recipe(steps=3) == Recipe(steps=3)
    assert hash(Recipe(steps=3)) == hash(Recipe(steps=3, batch=60))
    with pytest.raises(FrozenInstanceError):
        Recipe(steps=3).lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("recipe", "last"),
    [
        (Recipe(steps=100, lr=0.1, schedule="step", milestones=(0.5, 0.75), gamma=0.1, warmup=10), 0.001),
        (Recipe(steps=100, lr=0.1, warmup=10), 0.1),
        # .1 · (1 + cos(.75 π)) / 2
        (Recipe(steps=4, lr=0.1, schedule="cosine"), 0.1 * (1 - 0.5**0.5) / 2),
    ],
)
def test_settled_holds_the_last_rate_throughout(recipe: Recipe, last: float) -> None:
    settled = recipe.settled()
    assert [settled.rate(step) for step in (0, 1, recipe.steps - 1)] == pytest.approx([last] * 3)
    assert (settled.steps, settled.batch, settled.optimizer) == (recipe.steps, recipe.batch, recipe.optimizer)


def test_a_constant_rate_is_settled_already() -> None:
    assert Recipe(steps=10).settled() == Recipe(steps=10)
