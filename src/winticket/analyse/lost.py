"""What is lost: accuracy by class, and calibration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from winticket.analyse.facts import Cells, Lines, analysis, part, together
from winticket.analyse.networks import parts as data_of
from winticket.analyse.predicted import Networks, Predicted, beside_dense, predicted_from, require
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.judge import mean_interval
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table, Value

REVISION = 1
BINS, DRAWS = 15, 50


def calibration_error(logits: Tensor, labels: Tensor, *, bins: int = BINS) -> float:
    """Expected calibration error (ECE), in 0..1: how far confidence is from accuracy, on average over predictions.

    logits: [..., classes]; labels: int64 [...]. Confidence is the probability of the predicted class. Predictions are
    sorted by it into `bins` bins of equal width, (0, 1/bins], (1/bins, 2/bins], ...; the error is the mean of
    |accuracy - mean confidence| over bins, weighted by their numbers of predictions. Guo et al. 2017 (On Calibration of
    Modern Neural Networks), eq. 3, with their 15 bins. With few examples the error is too large, because chance alone
    moves a bin's accuracy; see `calibration_floor`. ValueError without examples.

    >>> logits = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]).log()
    >>> calibration_error(logits, torch.tensor([0, 0, 0, 1])), calibration_error(logits, torch.tensor([0, 0, 1, 1]))
    (0.0, 0.25)
    """
    found = predicted_from(logits, labels)
    return _calibration(found["confidence"], found["predicted"] == found["label"], bins=bins)


def calibration_floor(logits: Tensor, *, bins: int = BINS, draws: int = DRAWS, seed: int = 0) -> float:
    """The calibration error to expect of a network with these confidences if they were exactly right.

    The mean of `calibration_error` over `draws` draws, in each of which a prediction is right with the probability that
    its confidence states: consistency resampling (Bröcker & Smith 2007, Increasing the Reliability of Reliability
    Diagrams). It is above 0 because chance moves the accuracy of a bin, and more so with fewer examples. ValueError
    without examples.

    >>> logits = torch.tensor([[0.75, 0.25]]).log().expand(100, 2)
    >>> calibration_floor(logits) > calibration_floor(logits.repeat(100, 1))
    True
    """
    labels = torch.zeros(logits.shape[:-1], dtype=torch.int64)  # confidences do not depend on them
    return _floor(predicted_from(logits, labels)["confidence"], bins, draws, seed)


def _floor(confidence: Tensor, bins: int = BINS, draws: int = DRAWS, seed: int = 0) -> float:
    generator = torch.Generator().manual_seed(seed)
    errors = [
        _calibration(confidence, torch.rand(len(confidence), generator=generator) < confidence, bins=bins)
        for _ in range(draws)
    ]
    return sum(errors) / draws


def _calibration(confidence: Tensor, right: Tensor, *, bins: int = BINS) -> float:
    if not len(confidence):
        raise ValueError("without examples there is no calibration error")
    number = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    zeros = torch.zeros(bins, dtype=torch.float64)
    gaps = zeros.index_add(0, number, right.double() - confidence.double())
    return float(gaps.abs().sum()) / len(confidence)


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
    error = _calibration(one["confidence"], one["predicted"] == one["label"])
    return error, _floor(one["confidence"]), float(one["loss"].double().mean())


def calibration_says(table: Table) -> list[str]:
    """Calibration of the dense network and of the tickets at the sparsest level, and the change."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    density = min(float(str(d)) for d in table.column("density"))
    at = {arm: table.where(arm=arm) for arm in ("dense", "ticket")}
    at["ticket"] = at["ticket"].where(density=density)

    def mean(arm: str, column: str) -> dict[str, Value]:
        return summarised(at[arm], column, ["arm"]).rows()[0]

    if not all(part.values for part in at.values()):
        return ["No dense network or no ticket finished, so there is nothing to compare."]
    names = {"dense": "the dense network", "ticket": f"the ticket at a density of {kept_percent(density)}"}
    sentences = [
        f"The calibration error of {names[arm]} is {said(mean(arm, 'error'), 'error', share=True)}. With "
        f"confidences that are exactly right, so few examples would show "
        f"{said(mean(arm, 'floor'), 'floor', share=True)}."
        for arm in at
    ]
    if at["ticket"].has("beyond_change"):
        change = [mean("ticket", name) for name in ("beyond_change", "loss_change")]
        sentences.append(
            f"From the dense network to the ticket of the same replicate, the excess over that floor changes by "
            f"{_points(change[0], 'beyond_change')}, and the negative log likelihood by "
            f"{said(change[1], 'loss_change')} from {said(mean('dense', 'loss'), 'loss')}."
        )
    return sentences


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


CLASSES = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "kept_percent": "the same in percent, as text",
    "class": "number of the class",
    "name": "name of the class",
    "replicate": "number of the replicate, from 1",
    "examples": "test examples of the class",
    "dense": "share of them that the dense network gets right",
    "ticket": "share of them that the ticket gets right",
    "difference": "ticket - dense",
    "beyond": "difference less the same difference over all classes: what the class loses more than the average",
}


def accuracy_by_class(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The share of each class' examples that are predicted right, float64 [classes]; nan for a class without examples.

    predicted, labels: int64 [N].

    >>> accuracy_by_class(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 3)
    tensor([0.5000, 1.0000,    nan], dtype=torch.float64)
    """
    right = torch.bincount(labels[predicted == labels], minlength=classes).double()
    return right / torch.bincount(labels, minlength=classes)


def classes_of_stack(
    setup: Setup, dense: Networks, tickets: Networks, *, level: int, density: float
) -> Table:
    """The accuracy by class of a stack's tickets and of the dense networks of their replicates."""
    rows: list[tuple[Any, ...]] = []
    for number in sorted(dense.keys() & tickets.keys()):
        names = data_of(setup, number).class_names
        label = tickets[number]["label"]
        counts = torch.bincount(label, minlength=len(names)).tolist()
        before, after = (
            accuracy_by_class(one[number]["predicted"], label, len(names)).tolist()
            for one in (dense, tickets)
        )
        overall = [float((one[number]["predicted"] == label).double().mean()) for one in (dense, tickets)]
        for at, count in enumerate(counts):
            if count:
                change = after[at] - before[at]
                row = (
                    at,
                    names[at],
                    number + 1,
                    count,
                    before[at],
                    after[at],
                    change,
                    change - overall[1] + overall[0],
                )
                rows.append((level, density, f"{100 * density:.3g} %", *row))
    return Table(tuple(CLASSES), tuple(rows))


def classes_says(table: Table) -> list[str]:
    """Which classes lose more than the average at the sparsest level, with intervals that hold for all classes."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    density = min(float(str(d)) for d in table.column("density"))
    at = table.where(density=density)
    means = summarised(at, "difference", ["class", "name"]).rows()
    worst = min(means, key=lambda row: float(str(row["difference"])))
    best = max(means, key=lambda row: float(str(row["difference"])))
    sentences = [
        f"At a density of {kept_percent(density)}, the change of accuracy from dense networks to tickets is lowest in "
        f"class {worst['name']!r}, {_points(worst, 'difference')}, and highest in class {best['name']!r}, "
        f"{_points(best, 'difference')}."
    ]
    apart = [name for name in dict.fromkeys(at.column("name")) if _apart(at.where(name=name), len(means))]
    if min(int(str(row["n"])) for row in means) < 2:
        return sentences
    listed = ", ".join(repr(name) for name in apart)
    sentences.append(
        f"The change differs from the average over classes in {len(apart)} of {len(means)} classes"
        + (f" ({listed})" if apart else "")
        + ", at 95 % over all classes together (Bonferroni)."
    )
    return sentences


def _points(row: dict[str, Value], column: str) -> str:
    """A row of `summarised` in percentage points: a change of a share, with its interval."""
    mean, low, high = (row[name] for name in (column, "low", "high"))
    text = f"{100 * float(mean or 0):+.2f} pp"
    if low is None or high is None:
        return text
    return f"{text} ({100 * float(low):+.2f} to {100 * float(high):+.2f})"


def _apart(rows: Table, classes: int) -> bool:
    """Whether a class' change differs from the average, at an error of 5 % divided by the number of classes."""
    values = [None if value is None else float(value) for value in rows.column("beyond")]
    interval = mean_interval(values, level=1 - 0.05 / classes)
    return interval is not None and not interval[0] <= 0 <= interval[1]


@analysis(
    "classes",
    answers="classes",
    title="Do some classes lose more than others?",
    source="Hooker et al. 2019 (What Do Compressed Deep Neural Networks Forget?), class accuracy against the average",
    says=classes_says,
    lines=(
        Lines(
            x="class", y="difference", panel="kept_percent", scale="linear", x_label="class",
            y_label="accuracy of the ticket - dense", percent=True, level=0.0,
        ),
    ),
    columns=CLASSES,
)  # fmt: skip
def classes(cells: Cells, *, replicates: int = 30, levels: int = 4) -> Task:
    """Compares the accuracy of tickets with that of dense networks, class by class, on test data.

    Differences are paired: each ticket is compared with the dense network of its replicate.
    """
    planned = [
        part(
            classes_of_stack,
            cells.setup,
            dense,
            task,
            name="classes",
            level=level,
            density=cells.densities[level],
        )
        for level in cells.chosen_levels("ticket", levels)
        for dense, task in beside_dense(cells, "ticket", level, replicates)
    ]
    require(planned)
    return together(planned, name="classes")
