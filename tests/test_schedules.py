"""Schedules by hand, and what all of them promise."""

from __future__ import annotations

from itertools import pairwise

import pytest

from winticket import schedules
from winticket.experiment import Experiment, plan
from winticket.experiment.names import methods


def test_by_hand() -> None:
    assert schedules.geometric(0.125, 3) == pytest.approx([0.5, 0.25, 0.125])
    assert schedules.linear(0.1, 3) == pytest.approx([0.7, 0.4, 0.1])
    # 1 - l/L is 2/3, 1/3, 0; cubed 8/27, 1/27, 0; times .9, plus .1.
    assert schedules.cubic(0.1, 3) == pytest.approx([0.366667, 0.133333, 0.1], abs=1e-6)


@pytest.mark.parametrize("name", methods(schedules))
@pytest.mark.parametrize("levels", [1, 2, 17])
def test_densities_fall_to_the_last(name: str, levels: int) -> None:
    found = methods(schedules)[name](0.037, levels)
    assert len(found) == levels
    assert found[-1] == 0.037
    assert all(1 > a > b for a, b in pairwise(found))
    with pytest.raises(ValueError, match=r"final_density is 1\.0; it must lie in \(0, 1\)"):
        methods(schedules)[name](1.0, levels)


def test_an_experiment_takes_a_schedule_or_a_list() -> None:
    model = {"model": "lenet-12-8", "steps": 5}
    cubic = Experiment.of("digits", pruning="cubic", final_density=0.1, levels=3, **model)
    assert plan(cubic).densities() == pytest.approx([1, 0.3667, 0.1333, 0.1], abs=0.002)
    listed = Experiment.of("digits", density=(0.5, 0.2), **model)
    assert plan(listed).densities() == pytest.approx([1, 0.5, 0.2], abs=0.002)
    assert listed.levels == 2
    assert listed.describe()["rate"] is None
    # A density more runs only what is new.
    more = plan(listed.but(density=(0.5, 0.2, 0.1)))
    assert {t.key for t in plan(listed).tasks.values()} < {t.key for t in more.tasks.values()}


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"pruning": "cubik", "final_density": 0.1}, r"unknown pruning 'cubik' \(did you mean 'cubic'\?\)"),
        ({"pruning": "cubic"}, "pruning cubic ends at a final density; set it"),
        (
            {"density": (0.2, 0.5)},
            r"density is \[0.2, 0.5\]; densities are shares of the weights kept, in \(0, 1\) and falling",
        ),
        ({"density": (0.5,), "final_density": 0.1}, "leave pruning and final_density out"),
        ({"density": (0.5,), "levels": 3}, "levels does not go with density; leave one of them out"),
        ({"final_density": 0.1, "rate": 0.3}, "rate does not go with final_density; leave one of them out"),
        ({"final_density": 1.5}, r"final_density is 1.5; it must lie in \(0, 1\)"),
        ({"density": (0.5,), "output_rate": 0.1}, "with densities, every layer gets the same"),
    ],
)
def test_what_does_not_go_together_is_told(choices: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Experiment.of("digits", **choices)


@pytest.mark.parametrize(
    "choices", [{"density": None}, {"density": ["0.5"]}, {"final_density": "0.1"}, {"controls": None}]
)
def test_what_is_no_density_or_list_is_told(choices: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=r"must be a list|densities are numbers in \(0, 1\)"):
        Experiment.of("digits", **choices)


def test_one_density_is_a_list_of_one() -> None:
    assert Experiment.of("digits", density=0.5).density == (0.5,)
