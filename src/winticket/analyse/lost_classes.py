"""Which classes lose more accuracy than others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from winticket.analyse.facts import Cells, Lines, analysis, part, together
from winticket.analyse.lost_said import classes_says
from winticket.analyse.networks import parts as data_of
from winticket.analyse.predicted import Networks, beside_dense, require
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table

REVISION = 1

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
