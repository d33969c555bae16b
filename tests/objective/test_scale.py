"""Scales of metrics: directions, units and how numbers are written."""

from __future__ import annotations

import math

import pytest

from winticket.objective import ACCURACY, Scale

RMSE = Scale("RMSE", "lower", "mm", 0.0)


def test_a_gain_is_positive_whenever_ours_is_better() -> None:
    assert RMSE.gain(2.0, 1.5) == 0.5
    assert RMSE.gain(1.5, 2.0) == -0.5
    assert ACCURACY.gain(0.9, 0.95) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("gain", "text"),
    [(0.0123, "+1.23 pp"), (-0.0123, "-1.23 pp"), (-0.00001, "+0.00 pp"), (0.0, "+0.00 pp")],
)
def test_differences_of_accuracies_are_signed_percentage_points(gain: float, text: str) -> None:
    assert ACCURACY.difference(gain) == text


@pytest.mark.parametrize(
    ("gain", "text"),
    [(0.25, "0.25 mm better"), (-12345.6, "12346 mm worse"), (0.0, "no difference (0 mm)")],
)
def test_other_differences_say_which_is_better(gain: float, text: str) -> None:
    assert RMSE.difference(gain) == text


def test_a_percentage_of_which_less_is_better_says_so_too() -> None:
    assert Scale("error", "lower", "%", 0.0, 1.0).difference(-0.005) == "0.50 pp worse"


def test_the_ends_of_the_range_follow_the_direction() -> None:
    assert (RMSE.perfect, RMSE.useless, RMSE.bounded) == (0.0, math.inf, False)
    assert (ACCURACY.perfect, ACCURACY.useless, ACCURACY.bounded) == (1.0, 0.0, True)


@pytest.mark.parametrize("scale", [ACCURACY, RMSE, Scale("R²", high=1.0)])
def test_a_document_keeps_the_scale(scale: Scale) -> None:
    assert Scale.of_json(scale.as_json(constant=0.1)) == scale


def test_older_documents_are_about_accuracy() -> None:
    assert Scale.of_json(None) == ACCURACY


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": " "}, "no name"),
        ({"name": "x", "better": "up"}, "'higher' or 'lower'"),
        ({"name": "x", "low": 1.0, "high": 1.0}, "below its high end"),
    ],
)
def test_impossible_scales_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scale(**options)  # type: ignore[arg-type]
