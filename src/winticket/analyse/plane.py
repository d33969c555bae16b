"""The information plane of a run: I(X;T) and I(T;Y) of layers over training and density, by every estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from winticket.analyse.facts import (
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    part,
    present,
    setup_of,
    tickets_of,
    together,
)
from winticket.analyse.information import entropy, numbered
from winticket.analyse.information_layers import (
    AS_COMPUTED,
    NOISE,
    OUTPUT,
    ROUNDED,
    SCALED,
    UNITS,
    Estimate,
    Network,
    Scale,
    chosen_layers,
    estimates,
)
from winticket.analyse.information_said import plane_says
from winticket.analyse.networks import drawn_examples, parts
from winticket.run import Task
from winticket.stages import Setup, at_steps
from winticket.table import Table, Value
from winticket.ticket import Failed, Seeds, Trajectory

REVISION = 4
ARMS = ("dense", "ticket", "reinit", "random")
PLANE = {
    "level": "number of the level; 0 is the dense network",
    "density": "share of the eligible weights kept",
    "arm": "whose network",
    "replicate": "number of the replicate, from 1",
    "step": "step after which the network was looked at",
    "share": "that step as a share of the training",
    "at_end": "whether it is the last step",
    "followed": "whether this training is looked at over its steps, and not only at its end",
    "layer": f"T is what this layer reads; {OUTPUT}: T are those, as the network gives them",
    "last_hidden": "whether T is the last hidden representation",
    "units": f"number of values in T; of more than {UNITS}, that many are looked at, evenly spread",
    "estimator": f"{AS_COMPUTED}: entropy of the values themselves; bins: all of one width, between the ends that the "
    "values have after training; quantiles: of the layer's values at that step; lower and upper: bounds by pairwise "
    "distances, with noise whose variance is this share of the layer's total variance after training (scaled noise: "
    f"at that step); {ROUNDED}: exact, for the network whose hidden values are rounded",
    "noise": "variance of the noise added to each unit, in squared units of its values",
    "i_x": "I(X;T), bits",
    "i_y": "I(T;Y), bits; of lower and upper the difference of two bounds, as papers plot it, which is no bound",
    "i_y_shuffled": "I(T;Y) by the same estimator with shuffled classes, bits: what it finds where there is nothing",
    "low_y": "lower bound of I(T;Y) with the noise, bits",
    "high_y": "upper bound of I(T;Y) with the noise, bits",
    "most_x": "H(X) of the examples, log2 of their number if all differ, bits: I(X;T) is never larger",
    "most_y": "H(Y), bits: I(T;Y) is never larger",
}


def plane_of_stack(
    setup: Setup,
    stack: Sequence[Trajectory | Failed],
    *,
    place: tuple[int, float, str],
    examples: int,
    layers: int,
    followed: bool,
) -> Table:
    """All estimates for the layers of a stack's networks on test examples; `place` is level, density and arm.

    At the end of training; if it is `followed`, also at its start and at every saved step. At most `layers` hidden
    layers, evenly spread.
    """
    names = chosen_layers(setup.module(), layers)
    rows: list[tuple[Any, ...]] = []
    for number, path in present(stack):
        x, y = _examples(setup, path.ticket.seeds, examples)
        most = entropy(x.flatten(1)), entropy(y)
        classes = numbered(y), numbered(np.random.default_rng(number).permutation(y))
        end = path.saved[max(path.saved)]
        last = Network.of(setup, path, end, x, names)
        scales = {name: Scale.of(name, values) for name, values in last.values.items()}
        states = [path.ticket.start, *path.saved.values()] if followed else [end]
        for state in states:
            network = last if state is end else Network.of(setup, path, state, x, names)
            when = (state.step, state.step / setup.recipe.steps, state is end, followed)
            for name, values in network.values.items():
                made = estimates(values, network.codes[name], classes, scales[name])
                what = (name, bool(names) and name == names[-1], values.shape[1])
                rows += [(*place, number + 1, *when, *what, *_cells(*one), *most) for one in made.items()]
    return Table(tuple(PLANE), tuple(rows))


def _cells(estimator: str, made: Estimate) -> tuple[Any, ...]:
    return estimator, made.noise, made.x, made.y, made.shuffled, *made.bounds


def _examples(setup: Setup, seeds: Seeds, most: int) -> tuple[Tensor, NDArray[Any]]:
    """Test examples drawn at random, and the class of each: of a text, the token that follows its last position."""
    test = drawn_examples(parts(setup, seeds.replicate).test, seeds, most)
    y = test.y.numpy()
    return test.x, y[:, -1] if setup.tokens else y


_MIDDLE = f"{100 * NOISE[1]:g} % noise"
_SCALED = f"{100 * SCALED:g} % scaled noise"
OVER_TRAINING = (
    AS_COMPUTED, "2 bins", "2 quantiles", ROUNDED,
    f"lower bound at {_MIDDLE}", f"upper bound at {_MIDDLE}", f"lower bound at {_SCALED}", f"upper bound at {_SCALED}",
)  # fmt: skip
AT_END = (
    "2 bins", "8 bins", "2 quantiles", ROUNDED,
    f"lower bound at {100 * NOISE[0]:g} % noise", f"lower bound at {_MIDDLE}", f"upper bound at {_MIDDLE}",
    f"upper bound at {100 * NOISE[2]:g} % noise",
)  # fmt: skip


def _lines(y: str, *, over: str, y_label: str, series: str = "arm", **where: Value) -> Lines:
    training = over == "share"
    rows: Mapping[str, Value] = {"followed": True, **where} if training else {"at_end": True, **where}
    return Lines(
        x=over, y=y, series=series, panel="estimator", panels=OVER_TRAINING if training else AT_END,
        x_label="step (% of the training)" if training else "weights kept", y_label=f"{y_label}, bits",
        x_percent=training, scale="linear" if training else "density", where=rows,
        ceiling="most_x" if y == "i_x" else "most_y", level_label="H(X)" if y == "i_x" else "H(Y)",
        baseline=None if y == "i_x" else "i_y_shuffled", baseline_label="with shuffled classes",
    )  # fmt: skip


@analysis(
    "information",
    answers="classes",
    title="What do layers know of input and class? It depends on the estimator",
    source="what is estimated: Goldfeld et al. 2019; bins: Saxe et al. 2018; pairwise bounds: Kolchinsky & Tracey "
    "2017; rounded: Lorenzen, Igel & Nielsen 2022",
    says=plane_says,
    lines=(
        _lines("i_x", over="share", y_label="I(X;T), last hidden layer", last_hidden=True),
        _lines("i_y", over="share", y_label="I(T;Y), last hidden layer", last_hidden=True),
        _lines("i_x", over="density", y_label="I(X;T), last hidden layer", last_hidden=True),
        _lines("i_y", over="density", y_label="I(T;Y), last hidden layer", last_hidden=True),
        _lines("i_x", over="share", y_label="I(X;T), dense network", series="layer", arm="dense"),
    ),
    columns=PLANE,
)
def information(
    cells: Cells,
    *,
    shares: tuple[float, ...] = (0.05, 0.2, 0.5),
    density: float = 0.1,
    replicates: int = 5,
    levels: int = 3,
    layers: int = 4,
    examples: int = 400,
) -> Task:
    """Estimates by sixteen estimators what layers know of input and class, and shows how far estimators disagree.

    Networks are looked at on `examples` test examples: at the end of training at `levels` levels, and over training (at
    its start and after `shares` of it) for the dense network, and for tickets and controls at the level whose density
    is nearest to `density`. At most `layers` hidden layers and the output.
    """
    if any(not 0 < share < 1 for share in shares):
        raise ValueError(f"shares is {shares}; each lies between the start and the end, so between 0 and 1")
    if not 0 < density <= 1:
        raise ValueError(
            f"density is {density}; it is the share of the weights that tickets keep, above 0 and at most 1"
        )
    steps = tuple(sorted({round(share * cells.setup.recipe.steps) for share in shares}))
    followed = _followed(cells, density)
    tasks = []
    for arm in ARMS:
        chosen = {*cells.chosen_levels(arm, levels), followed} & {*cells.levels(arm)}
        for level in sorted(chosen):
            over = level in (0, followed)
            for stack in cells.stacks(level, arm, replicates=replicates):
                seen = _at(cells, level, stack, steps) if over else stack
                made = part(
                    plane_of_stack,
                    setup_of(stack),
                    seen,
                    name="information",
                    place=(level, cells.densities[level], arm),
                    examples=examples,
                    layers=layers,
                    followed=over,
                )
                tasks.append(made)
    if not tasks:
        raise NothingToAnalyseError("no training has finished")
    return together(tasks, name="information")


def _followed(cells: Cells, density: float) -> int:
    """The level of tickets whose density is nearest to that one, on a logarithmic scale; 0 if there are none."""
    levels = cells.levels("ticket")
    return min(levels, key=lambda level: abs(math.log(cells.densities[level] / density)), default=0)


def _at(cells: Cells, level: int, stack: Task, steps: Sequence[int]) -> Task:
    """The training of a stack with its states after those steps, of which those before its own start are left out."""
    setup, start = setup_of(stack), cells.rewind_step if level else 0
    wanted = tuple(step for step in steps if start < step < setup.recipe.steps)
    return at_steps(setup, tickets_of(stack), stack, wanted)
