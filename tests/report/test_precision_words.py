"""What the report says of a precision other than float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from winticket.report.precision import precision_sentence

Build = Callable[..., Any]


def rounded(build: Build, **effect: Any) -> Any:
    document = build()
    document["experiment"]["precision"] = "bf16"
    document["environment"] = {"device": "cpu", "instructions for bf16": "amx_bf16"}
    document["precision_effect"] = {
        "precision": "bf16",
        "difference": -0.0012,
        "difference_ci": [-0.0031, 0.0007],
        "differences": [-0.001, None, -0.0014],
        **effect,
    }
    return document


def test_the_effect_is_said_with_its_interval(build: Build) -> None:
    assert precision_sentence(rounded(build)) == (
        "Precision: bf16 changed the dense network's test accuracy by −0.12 percentage points (95 % interval −0.31 to "
        "+0.07; 2 replicates trained in float32 as well)."
    )
    assert "by 0.00 percentage" in (precision_sentence(rounded(build, difference=-0.00001)) or "")
    single = precision_sentence(rounded(build, difference_ci=None, differences=[-0.0012])) or ""
    assert "(no interval; 1 replicate trained in float32 as well)" in single
    lost = precision_sentence(rounded(build, difference=None, differences=[None])) or ""
    assert "not known, since no replicate finished in both precisions" in lost


def test_float32_needs_no_words(build: Build) -> None:
    assert precision_sentence(build()) is None


def test_what_was_not_measured_or_gains_nothing_is_said(build: Build) -> None:
    document = rounded(build)
    document["precision_effect"] = None
    assert "not measured (--no-precision-check)" in (precision_sentence(document) or "")
    document["environment"]["instructions for bf16"] = "none"
    assert (precision_sentence(document) or "").endswith("so that bf16 saves no time here.")
    document["environment"]["device"] = "a GPU"
    assert "saves no time" not in (precision_sentence(document) or "")
