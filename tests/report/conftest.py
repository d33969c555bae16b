"""A result document with the numbers of a measured case (handwritten digits, 64-300-100-10, 10 replicates).

Means by density are the measured ones (16 levels of 20 % layerwise pruning, 10 % in the output layer),
interpolated in log density; replicates scatter around them with the measured standard deviation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

Document = Any  # a test may take away what every run writes
Build = Callable[..., Document]

MEASURED = (1.0, 0.52, 0.42, 0.22, 0.11, 0.09, 0.059, 0.031)
MEANS = {
    "ticket": (98.42, 98.69, 98.76, 98.64, 98.51, 98.49, 98.11, 97.40),
    "reinit": (98.42, 98.49, 98.42, 97.98, 97.84, 97.71, 96.76, 96.13),
    "random": (98.42, 98.40, 98.36, 97.98, 97.22, 97.18, 96.22, 92.98),
}
EARLY_STOPS = {
    "ticket": (330, 290, 310, 370, 470, 520, 640, 760),
    "reinit": (330, 340, 380, 470, 610, 650, 740, 790),
    "random": (330, 350, 390, 480, 660, 690, 760, 800),
}
STEPS = 800


def densities(levels: int = 16) -> list[float]:
    """64-300-100-10: each level keeps 80 % of the hidden layers' weights and 90 % of the output layer's."""
    kept = [19200.0, 30000.0, 1000.0]
    found = []
    for _ in range(levels):
        kept = [kept[0] * 0.8, kept[1] * 0.8, kept[2] * 0.9]
        found.append(sum(kept) / 50200)
    return found


def at(density: float, means: tuple[float, ...]) -> float:
    """A measured mean, interpolated in log density."""
    return float(np.interp(np.log(density), np.log(MEASURED[::-1]), means[::-1]))


def mean_and_interval(values: list[float | None]) -> tuple[float | None, list[float] | None]:
    """Mean and 95 % t interval of the replicates that did not fail."""
    alive = np.array([value for value in values if value is not None])
    if len(alive) == 0:
        return None, None
    if len(alive) == 1:
        return float(alive[0]), None
    half = stats.t.ppf(0.975, len(alive) - 1) * alive.std(ddof=1) / np.sqrt(len(alive))
    return float(alive.mean()), [float(alive.mean() - half), float(alive.mean() + half)]


def arm_entry(accuracies: list[float | None], stops: list[float | None]) -> Document:
    """An arm of the document, from its replicates."""
    earlier = [None if value is None else value - 0.001 for value in accuracies]
    accuracy, accuracy_ci = mean_and_interval(accuracies)
    stop, stop_ci = mean_and_interval(stops)
    early, early_ci = mean_and_interval(earlier)
    return {
        "accuracy": accuracy,
        "accuracy_ci": accuracy_ci,
        "accuracies": accuracies,
        "early_stop_step": stop,
        "early_stop_ci": stop_ci,
        "early_stop_steps": stops,
        "accuracy_at_early_stop": early,
        "accuracy_at_early_stop_ci": early_ci,
        "accuracies_at_early_stop": earlier,
        "failed": sum(value is None for value in accuracies),
    }


def build_document(
    *,
    levels: int = 16,
    replicates: int = 10,
    arms: tuple[str, ...] = ("ticket", "reinit", "random"),
    failed: tuple[tuple[int, str, int], ...] = (),
    seed: int = 0,
) -> Document:
    """The digits case; `failed` lists (level from 1, arm, replicate)."""
    noise = np.random.default_rng(seed)
    shift = noise.normal(0, 0.0025, replicates)

    def replicate_values(arm: str, density: float, level: int) -> Document:
        dead = {r for where, name, r in failed if (where, name) == (level, arm)}
        accuracies: list[float | None] = [
            float(at(density, MEANS[arm]) / 100 + shift[r] + noise.normal(0, 0.002))
            for r in range(replicates)
        ]
        stops: list[float | None] = [
            float(np.clip(10 * round((at(density, EARLY_STOPS[arm]) + noise.normal(0, 40)) / 10), 10, STEPS))
            for r in range(replicates)
        ]
        for replicate in dead:
            accuracies[replicate] = stops[replicate] = None
        return arm_entry(accuracies, stops)

    found: list[Document] = [
        {
            "density": 1.0,
            "model_density": 1.0,
            "arms": {"dense": replicate_values("ticket", 1.0, 0)},
            "checks": {},
            "emptied": {},
        }
    ]
    for number, density in enumerate(densities(levels), start=1):
        entries = {arm: replicate_values(arm, density, number) for arm in arms}
        checks = level_checks(density, entries, found[0]["arms"]["dense"])
        found.append(
            {
                "density": density,
                "model_density": (density * 50200 + 410) / 50610,
                "arms": entries,
                "checks": checks,
                "emptied": {},
            }
        )
    won = [level["density"] for level in found[1:] if 0.085 < level["density"] < 0.5]
    return {
        "winticket": "0.1.0",
        "experiment": experiment(levels=levels, replicates=replicates, arms=arms),
        "environment": {"python": "3.12.3", "torch": "2.13.0+cpu", "device": "cpu", "threads": 1},
        "store": "runs",
        "results": "runs/reports/3f9a17c2",
        "report": "runs/reports/3f9a17c2/report.html",
        "ticket": "runs/reports/3f9a17c2/ticket.safetensors",
        "figures": ["runs/reports/3f9a17c2/accuracy_against_density.png"],
        "failures": [
            {
                "arm": arm,
                "density": found[level]["density"],
                "replicate": replicate,
                "reason": "the training loss became nan at step 120",
            }
            for level, arm, replicate in failed
        ],
        "verdict": verdict(won),
        "levels": found,
        "seconds": 84.2,
    }


def level_checks(density: float, entries: Document, dense: Document) -> Document:
    """Checks with the orderings of the measured case."""
    checks: Document = {}
    if "ticket" in entries:
        checks["accuracy"] = check(entries["ticket"], dense, passed=density > 0.085, margin=0.005)
        checks["time"] = "faster" if density > 0.5 else "as fast" if density > 0.3 else "slower"
    for control in ("reinit", "random"):
        if control in entries and "ticket" in entries:
            passed = density < 0.5
            checks[f"beats_{control}"] = check(entries["ticket"], entries[control], passed=passed, margin=0.0)
    return checks


def check(mine: Document, other: Document, *, passed: bool, margin: float) -> Document:
    """A check as the document carries it."""
    pairs = zip(mine["accuracies"], other["accuracies"], strict=True)
    differences: list[float | None] = [a - b for a, b in pairs if a is not None and b is not None]
    mean, ends = mean_and_interval(differences)
    return {
        "null_pp": -100 * margin,
        "passed": passed,
        "refuted": not passed and mean is not None and mean < -margin,
        "estimate": mean,
        "ci": ends,
        "p": 0.0004 if passed else 0.31,
        "pairs": len(differences),
        "disagreement": [],
    }


def verdict(won: list[float]) -> Document:
    """The verdict of the digits case: won at the densities given."""
    density = min(won) if won else None
    return {
        "outcome": "won" if won else "not won",
        "density": density,
        "reason": "the ticket matches the dense network within 0.5 pp and beats both controls"
        if won
        else "the ticket falls more than 0.5 pp below the dense network at every density",
        "replicates_needed": None,
        "claimed": won,
        "kind": "winning ticket" if won else "no winning ticket",
        "margins": {
            "curve": [
                {"margin_pp": 0.1, "outcome": "inconclusive", "density": None},
                {"margin_pp": 0.2, "outcome": "won", "density": 0.21},
                {"margin_pp": 0.5, "outcome": "won", "density": density},
                {"margin_pp": 1.0, "outcome": "won", "density": 0.059},
            ],
            "smallest_pp": 0.14,
            "by_level": [],
        },
        "warnings": [],
        "trained_enough": {
            "enough": True,
            "gain": 0.0011,
            "ci": [-0.0004, 0.0026],
            "margin_pp": 0.5,
            "sentence": "Doubling the dense network's budget gains +0.11 pp: trained enough.",
        },
    }


def experiment(*, levels: int, replicates: int, arms: tuple[str, ...]) -> Document:
    """The flat experiment of the digits recipe."""
    return {
        "data": "digits",
        "model": "lenet-300-100",
        "init": "glorot-normal",
        "method": "imp",
        "rewind": "to_init",
        "rewind_step": 0,
        "allocate": "layerwise",
        "levels": levels,
        "rate": 0.2,
        "output_rate": 0.1,
        "replicates": replicates,
        "stack": 10,
        "arms": ["dense", *arms],
        "steps": STEPS,
        "batch": 60,
        "optimizer": "adam",
        "lr": 0.0012,
        "schedule": "constant",
        "warmup": 0,
        "evaluate_every": 10,
        "margin_pp": 0.5,
        "alpha": 0.05,
        "seed": 0,
    }


def build_curves(document: Document, *, every: int = 10, seed: int = 1) -> list[Document]:
    """Learning curves that end at the document's accuracies; sparse and control networks are slow."""
    noise = np.random.default_rng(seed)
    step = np.arange(0, STEPS + 1, every)
    found = []
    for level in document["levels"]:
        for name, arm in level["arms"].items():
            for replicate, final in enumerate(arm["accuracies"]):
                if final is None:
                    continue
                pace = (arm["early_stop_step"] or STEPS) / 7
                shape = (1 - np.exp(-step / pace)) / (1 - np.exp(-STEPS / pace))
                accuracy = 0.1 + (final - 0.1) * shape + noise.normal(0, 0.001, len(step))
                accuracy[-1] = final
                loss = 2.3 * np.exp(-step / pace) + 0.08 * (1 + step / STEPS)
                found.append(
                    {
                        "density": level["density"],
                        "arm": name,
                        "replicate": replicate,
                        "step": step.tolist(),
                        "train_loss": (loss * 0.8).tolist(),
                        "validation_loss": loss.tolist(),
                        "validation_accuracy": accuracy.tolist(),
                        "test_loss": [math.nan] * (len(step) - 1) + [float(loss[-1])],
                        "test_accuracy": [math.nan] * (len(step) - 1) + [float(accuracy[-1])],
                    }
                )
    return found


@pytest.fixture(scope="session")
def build() -> Build:
    """Build a document; see build_document."""
    return build_document


@pytest.fixture(scope="session")
def draw_curves() -> Callable[..., list[Document]]:
    """Build the curves that belong to a document; see build_curves."""
    return build_curves


@pytest.fixture
def digits() -> Document:
    """The digits case, won; a fresh copy that a test may change."""
    return copy.deepcopy(build_document())
