"""Examples that only tickets get wrong: what pruning costs, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from winticket.analyse.facts import Cells, Lines, analysis, part, together
from winticket.analyse.predicted import Networks, beside_dense, require
from winticket.analyse.summary import kept_percent
from winticket.run import Task
from winticket.table import Table

REVISION = 1


def lost_examples(dense: Tensor, tickets: Tensor, labels: Tensor, *, least: int = 3) -> Tensor:
    """The examples that most dense networks get right and most tickets get wrong, bool [N].

    dense, tickets: predicted classes [networks, N], -1 where a network was not tested on an example. labels: [N]. An
    example counts if at least `least` networks of either kind were tested on it; most are more than half. With dense
    and tickets exchanged, these are the examples that most dense networks get wrong and most tickets right.

    >>> dense, tickets = torch.tensor([[1, 0], [1, 0], [0, 0]]), torch.tensor([[0, 0], [0, 0], [1, 1]])
    >>> lost_examples(dense, tickets, torch.tensor([1, 0]))
    tensor([ True, False])
    """
    right, wrong = (_share_right(one, labels) for one in (dense, tickets))
    return _judged(dense, tickets, least) & (right > 0.5) & (wrong < 0.5)


def pruning_exemplars(dense: Tensor, tickets: Tensor, *, classes: int, least: int = 3) -> Tensor:
    """The examples whose most frequent prediction differs between dense networks and tickets, bool [N].

    Hooker et al. 2019: pruning identified exemplars. An example without one most frequent prediction, because two are
    equally frequent, is none. Arguments as for `lost_examples`.

    >>> dense, tickets = torch.tensor([[1, 0], [1, 0], [0, 0]]), torch.tensor([[0, 0], [0, 0], [1, 1]])
    >>> pruning_exemplars(dense, tickets, classes=2)
    tensor([ True, False])
    """
    (one, one_clear), (other, other_clear) = (_modal(predicted, classes) for predicted in (dense, tickets))
    return _judged(dense, tickets, least) & one_clear & other_clear & (one != other)


def _judged(dense: Tensor, tickets: Tensor, least: int) -> Tensor:
    return ((dense >= 0).sum(0) >= least) & ((tickets >= 0).sum(0) >= least)


def _share_right(predicted: Tensor, labels: Tensor) -> Tensor:
    return (predicted == labels).sum(0).double() / (predicted >= 0).sum(0)


def _modal(predicted: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The most frequent prediction of each example, and whether it is the only one as frequent."""
    counts = torch.stack([(predicted == label).sum(0) for label in range(classes)])
    most = counts.max(0)
    return most.indices, (counts == most.values).sum(0) == 1


COLUMNS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "kind": "which examples these are",
    "examples": "test examples on which enough dense networks and tickets were tested",
    "count": "how many of them are of the kind",
    "share": "count / examples",
    "low": "lower end of its 95 % interval (exact binomial, over examples)",
    "high": "upper end of its 95 % interval",
    "always": "how many of them all networks of one side get wrong and none of the other",
    "which": "their rows in the dataset, from 0: among its own test rows, or among its training rows if it has none",
}
LOST, GAINED = "only most tickets wrong", "only most dense networks wrong"
DIFFERENT = "most frequent predictions differ"


def exemplars_of_level(
    dense: Sequence[Networks], tickets: Sequence[Networks], *, level: int, density: float, least: int
) -> Table:
    """The test examples on which tickets and dense networks disagree, over all replicates that have both."""
    pairs = [(a[n], b[n]) for a, b in zip(dense, tickets, strict=True) for n in sorted(a.keys() & b.keys())]
    if not pairs:
        return Table(tuple(COLUMNS))
    rows = torch.unique(torch.cat([one["example"] for one, _ in pairs]))
    at = [torch.searchsorted(rows, one["example"]) for one, _ in pairs]
    labels = torch.zeros(len(rows), dtype=torch.int64)
    sides = [torch.full((len(pairs), len(rows)), -1, dtype=torch.int64) for _ in range(2)]
    for number, pair in enumerate(pairs):
        labels[at[number]] = pair[0]["label"]
        for side, network in zip(sides, pair, strict=True):
            side[number, at[number]] = network["predicted"]
    examples = int(_judged(sides[0], sides[1], least).sum())
    classes = 1 + int(max(labels.max(), *(side.max() for side in sides)))
    kinds = {
        LOST: lost_examples(sides[0], sides[1], labels, least=least),
        GAINED: lost_examples(sides[1], sides[0], labels, least=least),
        DIFFERENT: pruning_exemplars(sides[0], sides[1], classes=classes, least=least),
    }
    right = [_share_right(side, labels) for side in sides]
    parted = (right[0] - right[1]).abs() == 1
    found = [_row(kind, is_one, parted, rows, examples) for kind, is_one in kinds.items()]
    return Table(tuple(COLUMNS), tuple((level, density, *row) for row in found))


def _row(kind: str, found: Tensor, parted: Tensor, rows: Tensor, examples: int) -> tuple[Any, ...]:
    count, which = int(found.sum()), " ".join(map(str, rows[found].tolist()))
    if not examples:
        return (kind, 0, 0, None, None, None, 0, which)
    from scipy import stats  # takes a second to import, and a report needs none of it

    interval = stats.binomtest(count, examples).proportion_ci(0.95)
    always = int((found & parted).sum())
    return (kind, examples, count, count / examples, float(interval.low), float(interval.high), always, which)


def exemplars_says(table: Table) -> list[str]:
    """How many examples only tickets get wrong at the sparsest level, and whether that is more than the reverse."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    density = min(float(str(d)) for d in table.column("density"))
    rows = {str(row["kind"]): row for row in table.where(density=density).rows()}
    lost, gained, different = (rows[kind] for kind in (LOST, GAINED, DIFFERENT))
    examples = int(str(lost["examples"]))
    if not examples:
        return ["No test example was seen by enough replicates of both; run more replicates, or lower least."]
    from scipy import special  # takes a third of a second to import, and most commands need none of it

    a, b = int(str(lost["count"])), int(str(gained["count"]))
    # The exact sign test; it gives 1 if no example differs.
    p = min(1.0, 2 * float(special.bdtr(min(a, b), a + b, 0.5)))
    share, low, high = (100 * float(str(lost[name])) for name in ("share", "low", "high"))
    return [
        f"At a density of {kept_percent(density)}, most dense networks get {a} of {examples} test examples right that "
        f"most tickets get wrong ({share:.2g} %, {low:.2g} to {high:.2g} %); {lost['always']} of these are right in "
        f"every dense network and wrong in every ticket. The reverse holds for {b} (sign test of the difference: "
        f"p = {p:.2g}).",
        f"The most frequent prediction differs in {different['count']} examples (pruning identified exemplars).",
    ]


@analysis(
    "exemplars",
    answers="classes",
    title="Which examples do only the tickets get wrong?",
    source="Hooker et al. 2019 (What Do Compressed Deep Neural Networks Forget?), pruning identified exemplars",
    says=exemplars_says,
    lines=(
        Lines(
            x="density", y="share", series="kind", x_label="weights kept", y_label="test examples", percent=True,
        ),
    ),
    columns=COLUMNS,
)  # fmt: skip
def exemplars(cells: Cells, *, replicates: int = 30, levels: int = 8, least: int = 3) -> Task:
    """Finds the test examples that most tickets get wrong and most dense networks get right, and the reverse.

    An example counts if at least `least` dense networks and tickets were tested on it. Replicates may have test sets of
    their own, so each example is judged by the networks that did not train on it.
    """
    planned = []
    for level in cells.chosen_levels("ticket", levels):
        pairs = beside_dense(cells, "ticket", level, replicates)
        if pairs:
            dense, tickets = ([pair[side] for pair in pairs] for side in range(2))
            planned.append(
                part(
                    exemplars_of_level, dense, tickets, name="exemplars", level=level,
                    density=cells.densities[level], least=least,
                )
            )  # fmt: skip
    require(planned)
    return together(planned, name="exemplars")
