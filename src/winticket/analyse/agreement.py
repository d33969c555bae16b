"""Do two networks compute the same? Their answers, and the geometry of what their layers represent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from winticket import models
from winticket.analyse.facts import (
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    first_replicate,
    part,
    present,
    together,
)
from winticket.analyse.networks import activations, last, outputs, parts
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Trajectory

REVISION = 2
MOST = 1000
"""Examples whose representations are compared: a comparison makes N by N matrices."""
LEAST = 20
"""Examples that a comparison needs."""
ROUNDED = 1000
"""Steps of a number by which examples are recognised; normalising and undoing it changes last digits."""


def disagreement(a: Tensor, b: Tensor) -> float:
    """The share of examples to which two networks give different answers, from their logits [N, K].

    Fort, Hu & Lakshminarayanan 2019 (Deep Ensembles: A Loss Landscape Perspective), section 4, without their division
    by the error rate. ValueError for logits of different shapes.

    >>> import torch
    >>> disagreement(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [3.0, 1.0]]))
    0.5
    """
    if a.shape != b.shape:
        raise ValueError(
            f"logits of shapes {tuple(a.shape)} and {tuple(b.shape)} are not of the same examples"
        )
    return float((a.argmax(-1) != b.argmax(-1)).double().mean())


def cka(x: Tensor, y: Tensor, *, debiased: bool = True) -> float:
    """Linear centred kernel alignment of two representations [N, features] of the same N examples.

    HSIC(XXᵀ, YYᵀ) / sqrt(HSIC(XXᵀ, XXᵀ) HSIC(YYᵀ, YYᵀ)): Kornblith, Norouzi, Lee & Hinton 2019, equation 3. The biased
    HSIC is far above 0 for independent representations unless N is much larger than the number of features, so the
    default uses the unbiased estimate of Song et al. 2012 (equation 5), as Nguyen, Raghu & Kornblith 2021 do; it may
    be below 0. Sums are in float64. ValueError for different N, or fewer than four examples.

    >>> import torch
    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> round(cka(x, 2 * x @ torch.linalg.qr(torch.randn(3, 3))[0]), 6)  # the same up to rotation and scale
    1.0
    """
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(
            f"representations of {len(x)} and {len(y)} examples; both need the same ones, at least 4"
        )
    k, m = (_gram(v) for v in (x, y))
    hsic = _unbiased if debiased else _biased
    return float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt())


def _gram(x: Tensor) -> Tensor:
    rows = x.flatten(1).double()
    return rows @ rows.T


def _biased(k: Tensor, m: Tensor) -> Tensor:
    """tr(K H M H) / (N - 1)², H the centring matrix. Gretton et al. 2005."""
    n = len(k)
    centred = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
    return (centred * m).sum() / (n - 1) ** 2


def _unbiased(k: Tensor, m: Tensor) -> Tensor:
    """Song, Smola, Gretton, Bedo & Borgwardt 2012, equation 5; diagonals are taken as 0."""
    n = len(k)
    a, b = (v - torch.diag(v.diagonal()) for v in (k, m))
    sums = a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a.sum(0) * b.sum(0)).sum()
    return ((a * b).sum() + sums) / (n * (n - 3))


AGREEMENT = {
    "level": "number of the level; 0 is the dense network",
    "density": "share of the eligible weights kept",
    "pair": "which two networks; both were trained on the same data unless it says another init",
    "replicate": "number of the first network's replicate, from 1",
    "disagreement": "share of examples that neither was trained on, to which they give different answers",
    "by_chance": "the same if each made its errors independently of the other's",
    "cka": "debiased linear CKA of the last hidden layer, on the same examples",
}
TICKET_DENSE, REINIT_DENSE, RANDOM_DENSE = "ticket and dense", "re-init and dense", "random mask and dense"
TICKETS, DENSES = "tickets of two inits", "dense networks of two inits"
OF = {"ticket": TICKET_DENSE, "reinit": REINIT_DENSE, "random": RANDOM_DENSE}


def agreement_of_stacks(
    setup: Setup,
    dense: Sequence[Trajectory | Failed],
    arms: Mapping[str, Sequence[Trajectory | Failed]],
    *,
    level: int,
    density: float,
) -> Table:
    """Disagreement and CKA of a level's networks with the dense ones of their replicates, and of two replicates."""
    module = setup.module()
    layer = hidden_layer(module)
    whole = dict(present(dense))
    stacks = {arm: dict(present(stack)) for arm, stack in arms.items()}
    rows: list[tuple[Any, ...]] = []
    for pair, number, (one, other), others in _pairs(whole, stacks):
        *inputs, y = _unseen(setup, number, others)
        if len(y) < LEAST:
            continue
        made = [_outputs(module, path, x, layer) for path, x in zip((one, other), inputs, strict=True)]
        (a, hidden_a), (b, hidden_b) = made
        wrong = [float((logits.argmax(-1) != y.flatten()).double().mean()) for logits in (a, b)]
        classes = a.shape[-1]
        # Both right, or both wrong with the same of the other answers, is agreement.
        same = (1 - wrong[0]) * (1 - wrong[1]) + wrong[0] * wrong[1] / max(classes - 1, 1)
        # Evenly spread over the examples, since a dataset may be sorted by class.
        few = torch.linspace(0, len(a) - 1, min(len(a), MOST)).long()
        alike = None if hidden_a is None or hidden_b is None else cka(hidden_a[few], hidden_b[few])
        rows.append((level, density, pair, number + 1, disagreement(a, b), 1 - same, alike))
    return Table(tuple(AGREEMENT), tuple(rows))


def _pairs(
    whole: Mapping[int, Trajectory], stacks: Mapping[str, Mapping[int, Trajectory]]
) -> Iterator[tuple[str, int, tuple[Trajectory, Trajectory], int | None]]:
    """Pairs of networks: name, replicate, the two, and the other replicate if there is one."""
    for arm, paths in stacks.items():
        for number, path in paths.items():
            if number in whole:
                yield OF[arm], number, (path, whole[number]), None
    for name, paths in ((TICKETS, stacks.get("ticket", {})), (DENSES, whole)):
        numbers = sorted(paths)
        for number, following in zip(numbers, [*numbers[1:], *numbers[:1]], strict=True):
            if number != following:
                yield name, number, (paths[number], paths[following]), following


def _unseen(setup: Setup, number: int, other: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Test examples of a replicate, as the first and as the second network takes them, and their classes.

    For two replicates with splits of their own these are the examples in both test parts. Each network takes them
    normalised by its own training part.
    """
    test = parts(setup, number).test
    if other is None or not setup.own_split:
        return test.x, test.x, test.y
    theirs = parts(setup, other).test
    at = {row: index for index, row in enumerate(_rows(setup, other))}
    pairs = [(index, at[row]) for index, row in enumerate(_rows(setup, number)) if row in at]
    mine, others = (
        torch.tensor(indices, dtype=torch.int64) for indices in ([a for a, _ in pairs], [b for _, b in pairs])
    )
    return test.x[mine], theirs.x[others], test.y[mine]


def _rows(setup: Setup, number: int) -> list[bytes]:
    """The test examples of a replicate without its normalisation, so that they can be recognised."""
    loaded = parts(setup, number)
    x = loaded.test.x
    if x.is_floating_point():
        by_channel = (-1, *(1,) * (x.ndim - 2))
        mean, std = (torch.tensor(v).view(by_channel) for v in (loaded.mean, loaded.std))
        x = ((x * std + mean) * ROUNDED).round().to(torch.int32)
    return [row.numpy().tobytes() for row in x]


def hidden_layer(module: nn.Module) -> str | None:
    """The name of the layer that computes the classes, whose input is the last hidden representation.

    None if it is not known.
    """
    weight = models.output_layer(module)
    return None if weight is None else weight.rpartition(".")[0]


def _outputs(
    module: nn.Module, path: Trajectory, x: Tensor, layer: str | None
) -> tuple[Tensor, Tensor | None]:
    """Logits [N, K] and the last hidden representation [N, F]; several answers of an example count as examples."""
    state = last(path)
    logits = outputs(module, state.weights, state.buffers, x)
    flat = logits.flatten(0, -2)
    if not layer:
        return flat, None
    (hidden,) = activations(
        module, state.weights, state.buffers, x, [layer], of=lambda inputs, _: inputs[0]
    ).values()
    return flat, hidden.reshape(len(hidden) if logits.ndim == 2 else len(flat), -1)


def agreement_says(table: Table) -> list[str]:
    """Disagreement at the sparsest level."""
    if not table.values:
        return ["No two networks finished that could be compared."]
    sparsest = min(float(str(d)) for d in table.column("density"))
    at = table.where(density=sparsest)
    lines = []
    answers, shapes = (summarised(at, name, ["pair"]) for name in ("disagreement", "cka"))
    expected = {row["pair"]: row for row in summarised(at, "by_chance", ["pair"]).rows()}
    for row in answers.rows():
        by_chance = float(expected[row["pair"]]["by_chance"] or 0)
        lines.append(
            f"At a density of {kept_percent(sparsest)}, {row['pair']} disagree on "
            f"{said(row, 'disagreement', percent=True)} of the test examples "
            f"({100 * by_chance:.3g} % if they erred independently)."
        )
    words = [f"{row['pair']} {said(row, 'cka')}" for row in shapes.rows()]
    return [
        *lines,
        *([f"Likeness of their last hidden layers (debiased CKA): {'; '.join(words)}."] if words else []),
    ]


@analysis(
    "agreement",
    answers="classes",
    title="Does the ticket compute what the dense network computes?",
    source="disagreement: Fort et al. 2019; CKA: Kornblith et al. 2019, eq. 3, debiased: Song et al. 2012, eq. 5",
    says=agreement_says,
    lines=(
        Lines(
            x="density", y="disagreement", series="pair", x_label="weights kept",
            y_label="answers that differ", percent=True,
        ),
        Lines(
            x="density", y="cka", series="pair", x_label="weights kept",
            y_label="likeness of the last hidden layers (debiased CKA)",
        ),
    ),
    columns=AGREEMENT,
)  # fmt: skip
def agreement(cells: Cells, *, replicates: int = 5, levels: int = 6) -> Task:
    """Compares answers and representations: of tickets and controls with the dense network, and of two inits.

    On test data; for replicates with splits of their own, on examples that are in both test parts.
    """
    dense = {first_replicate(s): s for s in cells.stacks(0, "dense", replicates=replicates)}
    tasks = []
    for level in cells.chosen_levels("ticket", levels):
        arms: dict[int, dict[str, Task]] = {}
        for arm in OF:
            for stack in cells.stacks(level, arm, replicates=replicates):
                arms.setdefault(first_replicate(stack), {})[arm] = stack
        for first, stacks in arms.items():
            if first in dense:
                density = cells.densities[level]
                of = (cells.setup, dense[first], stacks)
                tasks.append(part(agreement_of_stacks, *of, name="agreement", level=level, density=density))
    if not tasks:
        raise NothingToAnalyseError("no level of tickets has finished")
    return together(tasks, name="agreement")
