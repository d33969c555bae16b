"""What is lost, in sentences: of calibration, and of accuracy by class."""

from __future__ import annotations

from winticket.analyse.summary import kept_percent, said, summarised
from winticket.judge import mean_interval
from winticket.table import Table, Value


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
