"""The information plane of a run: I(X;T) and I(T;Y) of hidden layers over training and density, by every estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from winticket import models
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
from winticket.analyse.information import (
    LEVELS_OF_EXACT,
    Information,
    discrete_information,
    entropy,
    estimates,
    quantised,
)
from winticket.analyse.networks import activations, drawn_examples, outputs, parts
from winticket.analyse.summary import said, summarised
from winticket.run import Task
from winticket.stages import Setup, at_steps
from winticket.table import Table
from winticket.ticket import Failed, State, Trajectory

REVISION = 3
OUTPUT = "output"
EXACT = f"exact, {LEVELS_OF_EXACT} levels"
PLANE = {
    "level": "number of the level; 0 is the dense network",
    "density": "share of the eligible weights kept",
    "arm": "whose network",
    "share": "step as a share of the training",
    "at_end": "whether it is the last step",
    "replicate": "number of the replicate, from 1",
    "layer": "the layer that reads the representation T; output: T are the probabilities of the classes",
    "estimator": "how it was estimated: values in equally wide bins or in quantiles; by pairwise distances with noise "
    f"added; or exactly, for the network whose hidden values are rounded to {LEVELS_OF_EXACT} levels",
    "i_x": "I(X;T), bits",
    "i_y": "I(T;Y), bits",
    "i_y_shuffled": "I(T;Y) by the same estimator with shuffled classes, bits: the estimator's own share",
    "most_x": "log2 of the number of examples: no estimate of I(X;T) can be larger",
    "most_y": "H(Y), bits: I(T;Y) is never larger",
}


def plane_of_stack(
    setup: Setup,
    stack: Sequence[Trajectory | Failed],
    *,
    place: tuple[int, float, str],
    examples: int,
    noise: float,
) -> Table:
    """All estimates for every hidden layer of a stack, at the start and at every saved step."""
    module = setup.module()
    layers = hidden_layers(module)
    rows: list[tuple[Any, ...]] = []
    for number, path in present(stack):
        test = drawn_examples(parts(setup, number).test, path.ticket.seeds, examples)
        x, y = test.x, test.y.numpy()
        other = y[np.random.default_rng(number).permutation(len(y))]
        most = (float(np.log2(len(y))), entropy(y))
        final = max(path.saved)
        start = path.ticket.start
        for state in (start, *path.saved.values()):
            weights = path.ticket.mask.apply(state.weights)
            known = State(weights, state.buffers, {}, state.step)
            when = (state.step / setup.recipe.steps, state.step == final and state is not start)
            for layer, made, baseline in _layers(module, known, x, (y, other), layers=layers, noise=noise):
                at = (*place, *when, number + 1, layer)
                rows += [(*at, name, i.x, i.y, baseline[name].y, *most) for name, i in made.items()]
    return Table(tuple(PLANE), tuple(rows))


def hidden_layers(module: nn.Module) -> list[str]:
    """The layers whose input is a hidden representation: all with eligible weights but the first, in their order."""
    names = [name.rpartition(".")[0] for name in models.eligible(module)]
    return [name for name in names[1:] if name]


def _layers(
    module: nn.Module,
    state: State,
    x: Tensor,
    classes: tuple[Any, Any],
    *,
    layers: Sequence[str],
    noise: float,
) -> list[tuple[str, dict[str, Information], dict[str, Information]]]:
    """Per hidden layer its name, its estimates, and the same with shuffled classes."""
    seen = activations(
        module, state.weights, state.buffers, x, layers, of=lambda inputs, _: inputs[0].flatten(1)
    )
    exact = _rounded(module, state, x, layers, seen)
    seen[OUTPUT] = outputs(module, state.weights, state.buffers, x).double().softmax(-1)
    made = []
    for layer, found in seen.items():
        values = found.double().numpy()
        known = estimates(values, *classes, noise=noise)
        codes = exact[layer]
        known[EXACT] = tuple(Information(entropy(codes), discrete_information(codes, y)) for y in classes)
        first, second = ({name: pair[n] for name, pair in known.items()} for n in (0, 1))
        made.append((layer, first, second))
    return made


def _rounded(
    module: nn.Module, state: State, x: Tensor, layers: Sequence[str], seen: dict[str, Tensor]
) -> dict[str, Any]:
    """Hidden values of the network in which each hidden layer's values are rounded before the next layer reads them.

    Lorenzen, Igel & Nielsen 2022 (Information Bottleneck: Exact Analysis of (Quantized) Neural Networks): these are
    discrete, so their entropies are no estimates.
    """
    ends = {name: (float(values.min()), float(values.max())) for name, values in seen.items()}
    kept: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def rounded(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            low, high = ends[name]
            values = quantised(inputs[0].double().numpy(), low, high, LEVELS_OF_EXACT)
            step = (high - low) / LEVELS_OF_EXACT or 1.0
            codes = np.rint((values - low) / step - 0.5).astype(np.int64)
            kept.setdefault(name, []).append(codes.reshape(len(codes), -1))
            return (torch.from_numpy(values).to(inputs[0].dtype), *inputs[1:])

        return rounded

    handles = [module.get_submodule(name).register_forward_pre_hook(hook(name)) for name in layers]
    try:
        logits = outputs(module, state.weights, state.buffers, x)
    finally:
        for handle in handles:
            handle.remove()
    levels = LEVELS_OF_EXACT
    probabilities = np.minimum((levels * logits.double().softmax(-1).numpy()).astype(np.int64), levels - 1)
    return {**{name: np.concatenate(rows) for name, rows in kept.items()}, OUTPUT: probabilities}


def plane_says(table: Table) -> list[str]:
    """How far the estimators disagree, whether they see compression, and what tickets' outputs know of the classes."""
    lasts = table.where(layer=OUTPUT)
    if not lasts.values:
        return ["No training has finished."]
    most_x, most_y = (float(lasts.numbers(name)[0]) for name in ("most_x", "most_y"))
    dense = lasts.where(arm="dense")
    lines = []
    if dense.values:
        ends = summarised(dense.where(at_end=True), "i_x", ["estimator"])
        values = [float(str(v)) for v in ends.column("i_x")]
        pinned = sum(value > most_x - 0.01 for value in values)
        lines.append(
            f"For the output of the trained dense network, {len(values)} estimates of I(X;T) go from "
            f"{min(values):.3g} to {max(values):.3g} bits. {pinned} of them are at log2 of the number of examples, "
            f"{most_x:.3g}: such an estimate says that every example has a code of its own, and nothing else."
        )
        falls = [name for name in map(str, ends.column("estimator")) if _falls(dense.where(estimator=name))]
        lines.append(
            f"{len(falls)} of {len(values)} estimators see it fall between some step and the end of training, by more "
            f"than its interval{': ' + ', '.join(falls) if falls else ''}. So "
            + (
                "whether layers compress depends on the estimator."
                if 0 < len(falls) < len(values)
                else "they agree here."
            )
        )
    ends = lasts.where(at_end=True)
    sparsest = min(float(str(d)) for d in ends.column("density"))
    for estimator in (EXACT, "16 quantiles"):
        means = summarised(ends.where(estimator=estimator), "i_y", ["arm", "density"])
        words = [f"dense {said(row, 'i_y')}" for row in means.where(arm="dense").rows()[:1]]
        for arm in ("ticket", "reinit", "random"):
            words += [f"{arm} {said(row, 'i_y')}" for row in means.where(arm=arm, density=sparsest).rows()]
        shuffled = float(ends.where(estimator=estimator, density=sparsest).numbers("i_y_shuffled").mean())
        lines.append(
            f"I(T;Y) of the output at a density of {100 * sparsest:.3g} %, by {estimator}: {', '.join(words)} bits, of "
            f"H(Y) = {most_y:.3g}; with shuffled classes the estimator still gives {shuffled:.3g}."
        )
    return lines


def _falls(table: Table) -> bool:
    """Whether I(X;T) is higher at an earlier step than at the end, beyond both intervals."""
    by_share = summarised(table, "i_x", ["share"]).rows()
    if len(by_share) < 2:
        return False
    end = by_share[-1]["high"]
    return any(
        row["low"] is not None and end is not None and float(row["low"]) > float(end) for row in by_share[:-1]
    )


SHOWN = ("16 bins", "16 quantiles", "pairwise, upper", EXACT)


@analysis(
    "information",
    title="What do layers know of input and class? It depends on the estimator",
    source="bins: Saxe et al. 2018; pairwise: Kolchinsky & Tracey 2017; exact: Lorenzen et al. 2022",
    says=plane_says,
    lines=(
        Lines(
            x="share", y="i_x", series="layer", panel="estimator", panels=SHOWN, x_label="step (%)",
            y_label="I(X;T) of the dense network, bits", x_percent=True, scale="linear", ceiling="most_x",
            level_label="log2 N", where={"arm": "dense"},
        ),
        Lines(
            x="density", y="i_y", series="arm", panel="estimator", panels=SHOWN, x_label="weights kept",
            y_label="I(T;Y) of the output, bits", ceiling="most_y", level_label="H(Y)",
            where={"layer": OUTPUT, "at_end": True},
        ),
        Lines(
            x="density", y="i_y_shuffled", series="arm", panel="estimator", panels=SHOWN, x_label="weights kept",
            y_label="the same with shuffled classes, bits", ceiling="most_y", level_label="H(Y)",
            where={"layer": OUTPUT, "at_end": True},
        ),
    ),
    columns=PLANE,
)  # fmt: skip
def information(
    cells: Cells,
    *,
    shares: tuple[float, ...] = (0.05, 0.2, 0.5),
    replicates: int = 5,
    levels: int = 3,
    examples: int = 400,
    noise: float = 0.1,
) -> Task:
    """Estimates the information of hidden layers with inputs and classes by nine estimators, and shows how they differ.

    On `examples` test examples, over training for the dense network and tickets (at `shares` of it), and at the end for
    controls. `noise` is the variance that the pairwise bounds add, relative to the mean variance of a layer's units.
    """
    if cells.setup.tokens:
        raise NothingToAnalyseError(
            "a text's examples have an answer at every position, so classes of examples are not known"
        )
    if any(not 0 < share < 1 for share in shares):
        raise ValueError(f"shares is {shares}; each lies between the start and the end, so between 0 and 1")
    splits = tuple(sorted({round(share * cells.setup.recipe.steps) for share in shares}))
    tasks = []
    for arm in ("dense", "ticket", "reinit", "random"):
        for level in cells.chosen_levels(arm, levels):
            for stack in cells.stacks(level, arm, replicates=replicates):
                setup, seen = setup_of(stack), stack
                if arm in ("dense", "ticket"):
                    start = cells.rewind_step if level else 0
                    seen = at_steps(setup, tickets_of(stack), stack, tuple(s for s in splits if s > start))
                place = (level, cells.densities[level], arm)
                made = (setup, seen)
                tasks.append(
                    part(
                        plane_of_stack, *made, name="information", place=place, examples=examples, noise=noise
                    )
                )
    if not tasks:
        raise NothingToAnalyseError("no training has finished")
    return together(tasks, name="information")
