"""What is lost of calibration: how tickets state their confidence, beside their dense networks."""

from __future__ import annotations

from typing import Any

from winticket.analyse.calibration import BINS, error_of, floor_of
from winticket.analyse.calibration import REVISION as MEASURES
from winticket.analyse.facts import Cells, Lines, analysis, part, together
from winticket.analyse.lost_said import calibration_says
from winticket.analyse.predicted import Networks, Predicted, beside_dense, require
from winticket.run import Task
from winticket.table import Table

REVISION = MEASURES  # plus 1 for every change of the numbers made here

CALIBRATION = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "arm": "dense network, ticket or control",
    "replicate": "number of the replicate, from 1",
    "accuracy": "share of the test examples that are right",
    "confidence": "mean probability of the predicted class",
    "error": f"expected calibration error with {BINS} bins",
    "floor": "error to expect of these confidences if they were exactly right, from as many examples",
    "beyond": "error - floor",
    "loss": "mean negative log of the label's probability",
    "beyond_change": "beyond less that of the replicate's dense network",
    "loss_change": "loss less that of the replicate's dense network",
}


def calibration_of_stack(
    dense: Networks, networks: Networks, *, arm: str, level: int, density: float
) -> Table:
    """Calibration error and loss of a stack's networks, and their change from the dense networks'."""
    rows: list[tuple[Any, ...]] = []
    for number, one in networks.items():
        error, floor, loss = _calibrated(one)
        right = float((one["predicted"] == one["label"]).double().mean())
        change: tuple[float | None, ...] = (None, None)
        if number in dense:
            before = _calibrated(dense[number])
            change = (error - floor - before[0] + before[1], loss - before[2])
        confidence = float(one["confidence"].double().mean())
        rows.append(
            (level, density, arm, number + 1, right, confidence, error, floor, error - floor, loss, *change)
        )
    return Table(tuple(CALIBRATION), tuple(rows))


def _calibrated(one: Predicted) -> tuple[float, float, float]:
    """Calibration error, its floor, and loss of a network."""
    error = error_of(one["confidence"], one["predicted"] == one["label"])
    return error, floor_of(one["confidence"]), float(one["loss"].double().mean())


@analysis(
    "calibration",
    answers="classes",
    title="Can the ticket's probabilities be trusted?",
    source="Guo et al. 2017 (On Calibration of Modern Neural Networks), eq. 3; floor: Bröcker & Smith 2007",
    says=calibration_says,
    lines=(
        Lines(
            x="density", y="error", series="arm", x_label="weights kept", y_label="expected calibration error",
            percent=True,
        ),
        Lines(
            x="density", y="beyond", series="arm", x_label="weights kept",
            y_label="calibration error beyond chance", percent=True, level=0.0,
        ),
        Lines(x="density", y="loss", series="arm", x_label="weights kept", y_label="negative log likelihood, test"),
    ),
    columns=CALIBRATION,
)  # fmt: skip
def calibration(cells: Cells, *, replicates: int = 30, levels: int = 6) -> Task:
    """Measures the expected calibration error and the negative log likelihood on test data.

    The error is compared with what chance gives if confidences are exactly right. Changes are paired: each ticket is
    compared with the dense network of its replicate.
    """
    planned = [
        part(
            calibration_of_stack, dense, task, name="calibration", arm=arm, level=level,
            density=cells.densities[level],
        )
        for arm in ("dense", "ticket", "reinit", "random")
        for level in ((0,) if arm == "dense" else cells.chosen_levels(arm, levels))
        for dense, task in beside_dense(cells, arm, level, replicates)
    ]  # fmt: skip
    require(planned)
    return together(planned, name="calibration")
