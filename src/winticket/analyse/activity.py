"""What ReLU has to do with it: how many outputs are zero, and which units never fire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from winticket.analyse.facts import Cells, Lines, NothingToAnalyseError, analysis, part, present, together
from winticket.analyse.networks import BATCH, drawn_examples, last, outputs, parts
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, State, Trajectory

REVISION = 2
RECTIFIERS = frozenset(("relu", "relu_", "relu6", "threshold", "threshold_"))
"""Functions that give exactly 0 for a range of inputs, as modules call them and as functions."""


@dataclass(frozen=True)
class Rectified:
    """What one ReLU of a network does to some examples.

    zeros    share of its outputs that are 0
    silent   bool [units], the units whose output is 0 for every example, at every position
    outputs  number of its outputs, over examples, units and positions
    """

    zeros: float
    silent: Tensor
    outputs: int


def rectified(model: nn.Module, x: Tensor, *, batch: int = BATCH) -> list[Rectified]:
    """Zeros and silent units after every ReLU of a network, in the order in which it calls them, in evaluation mode.

    x: inputs [N, ...]. A ReLU is a module or a function (also ReLU6 and threshold); one that is called twice counts
    twice. Units are dimension 1 of its output; of an output with three dimensions, they are the last one if inputs are
    whole numbers (tokens). The list is empty for a network without ReLUs.

    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
    >>> rectified(model, torch.tensor([[1.0], [-1.0]]))
    [Rectified(zeros=0.75, silent=tensor([False,  True]), outputs=4)]
    """
    values = dict(model.named_parameters()), dict(model.named_buffers())
    return _rectified(model, *values, x, batch=batch)


def _rectified(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    *,
    batch: int = BATCH,
) -> list[Rectified]:
    counts: list[_Counts] = []
    for rows in torch.split(x, batch):
        with _Listening(counts, units_last=not x.is_floating_point()):
            outputs(module, weights, buffers, rows, batch=batch)
    return [Rectified(one.zeros / one.values, ~one.fired, one.values) for one in counts]


@dataclass
class _Counts:
    """Running counts of one ReLU."""

    zeros: int = 0
    values: int = 0
    fired: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def add(self, output: Tensor, units: int) -> None:
        positive = output != 0
        self.zeros += int((~positive).sum())
        self.values += output.numel()
        fired = positive.movedim(units, 0).flatten(1).any(1)
        self.fired = self.fired | fired if len(self.fired) else fired


class _Listening(TorchFunctionMode):
    """Counts the zeros that each ReLU of a pass gives: the n-th call adds to the n-th of `counts`."""

    def __init__(self, counts: list[_Counts], *, units_last: bool) -> None:
        super().__init__()
        self.counts, self.units_last, self.calls = counts, units_last, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in RECTIFIERS and output.ndim > 1:
            if self.calls == len(self.counts):
                self.counts.append(_Counts())
            self.counts[self.calls].add(output, -1 if output.ndim == 3 and self.units_last else 1)
            self.calls += 1
        return output


COLUMNS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "arm": "dense network, ticket or control",
    "when": "trained, or before: at the start of its training",
    "replicate": "number of the replicate, from 1",
    "relu": "number of the ReLU in the order of the network's calls, or all of them together",
    "units": "units of the ReLU",
    "zeros": "share of its outputs that are 0, over validation examples, units and positions",
    "silent": "share of its units that are 0 for every validation example",
}
ALL = "all"
START, END = "before training", "trained"


def activity_of_stack(
    setup: Setup, stack: Sequence[Trajectory | Failed], *, arm: str, level: int, density: float, examples: int
) -> Table:
    """Zeros and silent units after every ReLU of a stack's networks, at the start and at the end of their training."""
    rows: list[tuple[Any, ...]] = []
    module = setup.module()
    for number, path in present(stack):
        x = drawn_examples(parts(setup, number).validation, path.ticket.seeds, examples).x
        start = path.ticket.settled(module)
        states = {
            START: State(start.mask.apply(start.start.weights), start.start.buffers, {}, 0),
            END: last(path),
        }
        for when, state in states.items():
            found = _rectified(module, state.weights, state.buffers, x)
            rows += [(level, density, arm, when, number + 1, *row) for row in _rows_of(found)]
    return Table(tuple(COLUMNS), tuple(rows))


def _rows_of(found: Sequence[Rectified]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [
        (str(at), len(one.silent), one.zeros, float(one.silent.double().mean()))
        for at, one in enumerate(found, 1)
    ]
    units = sum(len(one.silent) for one in found)
    zeros = sum(one.zeros * one.outputs for one in found) / sum(one.outputs for one in found)
    return [(ALL, units, zeros, sum(int(one.silent.sum()) for one in found) / units), *rows]


def activity_says(table: Table) -> list[str]:
    """The share of zeros in the dense network and at the sparsest level, trained and at the start."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    whole = table.where(relu=ALL)
    density = min(float(str(d)) for d in whole.column("density"))
    sentences = []
    for arm, at in (
        ("dense", whole.where(arm="dense")),
        ("ticket", whole.where(arm="ticket", density=density)),
    ):
        zeros = {str(row["when"]): row for row in summarised(at, "zeros", ["when"]).rows()}
        silent = {str(row["when"]): row for row in summarised(at, "silent", ["when"]).rows()}
        if END not in zeros:
            continue
        who = "the dense network" if arm == "dense" else f"the ticket at a density of {kept_percent(density)}"
        sentences.append(
            f"In {who}, {said(zeros[END], 'zeros', share=True)} of the outputs of ReLUs are 0 after training, "
            f"{said(zeros[START], 'zeros', share=True)} before; {said(silent[END], 'silent', share=True)} of "
            "its units never fire on validation data."
        )
    others = [
        f"{row['arm']} {said(row, 'zeros', share=True)}"
        for row in summarised(whole.where(when=END, density=density), "zeros", ["arm"]).rows()
        if row["arm"] not in ("ticket", "dense")
    ]
    if others:
        sentences.append(f"For comparison, trained at this density: {', '.join(others)} zeros.")
    return sentences


@analysis(
    "activity",
    title="How much of the network is silent?",
    source="zeros after ReLU: Glorot, Bordes & Bengio 2011 (Deep Sparse Rectifier Neural Networks)",
    says=activity_says,
    lines=(
        Lines(
            x="density", y="zeros", series="arm", panel="when", x_label="weights kept",
            y_label="outputs of ReLUs that are 0", percent=True, where={"relu": ALL},
        ),
        Lines(
            x="density", y="silent", series="arm", panel="when", x_label="weights kept",
            y_label="units that never fire", percent=True, where={"relu": ALL},
        ),
    ),
    columns=COLUMNS,
)  # fmt: skip
def activity(cells: Cells, *, replicates: int = 5, levels: int = 6, examples: int = 500) -> Task:
    """Counts the outputs of ReLUs that are 0 and the units that never fire, on validation data.

    Dense networks, tickets and the controls re-init and random mask are measured before and after their training, on
    the first `examples` validation examples.
    """
    module = cells.setup.module()
    blank = cells.setup.blank(1)
    if not rectified(module, blank):
        raise NothingToAnalyseError("the network has no ReLU, and other activations are rarely 0")
    planned = [
        part(
            activity_of_stack, cells.setup, stack, name="activity", arm=arm, level=level,
            density=cells.densities[level], examples=examples,
        )
        for arm in ("dense", "ticket", "reinit", "random")
        for level in ((0,) if arm == "dense" else cells.chosen_levels(arm, levels))
        for stack in cells.stacks(level, arm, replicates=replicates)
    ]  # fmt: skip
    if not planned:
        raise NothingToAnalyseError("no training has finished")
    return together(planned, name="activity")
