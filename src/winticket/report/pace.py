"""Training steps until a network reaches a value of the metric: the table, the figure's title and a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from winticket.report.metric import Metric, metric_of
from winticket.report.reading import (
    arms,
    claimed,
    dense_arm,
    is_in,
    levels,
    pace,
    pruned_levels,
    question_of,
    replicates,
    time_outcome,
)
from winticket.report.titles import at_densities, lines, sooner_or_later
from winticket.results import Arm, Document, Level, StepsTo
from winticket.table import Table, Value

COLUMNS = (
    "density",
    "model_density",
    "arm",
    "fraction",
    "steps_to",
    "ci_low",
    "ci_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "outcome",
    "never",
    "replicates",
    "failed",
    "claimed",
)


def steps_to_accuracy(document: Document) -> Table:
    """One row per level, arm and target: the median number of steps to it, its 95 % interval, the ratio to dense's.

    `fraction` is the target: a share of the final validation accuracy of the same replicate's dense network, or of the
    way from the best constant answer to that network's final value if another metric than accuracy judges. `never`
    counts the replicates that do not reach it. `steps_to` is missing if the median replicate does not reach it, and
    `ci_high` is missing if the interval has no upper end. A document without these numbers gives an empty table.
    """
    won = claimed(document)
    rows: list[tuple[Value, ...]] = []
    for level in levels(document):
        for name in arms(document):
            arm = level["arms"].get(name)
            if arm is None:
                continue
            for fraction, entry in (arm.get("steps_to") or {}).items():
                wins = name == "ticket" and is_in(level["density"], won)
                rows.append(
                    (
                        level["density"],
                        level.get("model_density"),
                        name,
                        float(fraction),
                        entry["median"],
                        *(entry["ci"] or (None, None)),
                        entry["ratio"],
                        *(entry["ratio_ci"] or (None, None)),
                        entry["outcome"],
                        entry["never"],
                        replicates(arm),
                        arm.get("failed"),
                        wins,
                    )
                )
    return Table(COLUMNS, tuple(rows))


def judged_fraction(document: Document) -> float | None:
    """The target by which a ticket is judged sooner, alike or later; None if the document has no such check."""
    checks = (level.get("checks", {}).get("pace") for level in pruned_levels(document))
    return next((check["fraction"] for check in checks if check is not None), None)


def goal(document: Document, fraction: float | None) -> str:
    """The target that a ticket has to reach, in words; its early stop if no share of a value was judged."""
    if fraction is None:
        return "its early stop"
    return f"{share(document, fraction)} the dense network's final validation {metric_of(document).name}"


def share(document: Document, fraction: float) -> str:
    """A target as a share, up to the dense network's value: 95 % of, or 95 % of the way from a constant answer to."""
    way = "" if metric_of(document).is_accuracy else " the way from the best constant answer to"
    return f"{100 * fraction:g} % of{way}"


def steps_axis(document: Document, fraction: float, *, narrow: bool) -> str:
    """The name of the axis of steps to a target."""
    name = metric_of(document).name
    way = "" if metric_of(document).is_accuracy else " the way to"
    dense = f"dense {name}" if narrow else f"dense validation {name}"
    return f"steps to {100 * fraction:g} % of{way} {dense}"


def to_draw(table: Table, *, fraction: float, steps: int | None) -> Table:
    """The rows of one target; an interval without an upper end is drawn up to the last training step."""
    at = table.columns.index("ci_high")
    low = table.columns.index("ci_low")
    rows = (
        row if row[at] is not None or row[low] is None else (*row[:at], steps, *row[at + 1 :])
        for row in table.where(fraction=fraction).values
    )
    return Table(table.columns, tuple(rows))


def pace_title(document: Document, *, width: int = 72) -> str:
    """The figure's finding: at which densities the ticket reaches the target sooner or later than dense."""
    target = goal(document, judged_fraction(document))
    outcomes = [(level["density"], pace(level)) for level in pruned_levels(document)]
    when = sooner_or_later(
        document,
        sooner=[density for density, outcome in outcomes if outcome == "sooner"],
        later=[density for density, outcome in outcomes if outcome == "later"],
    )
    if all(outcome is None for _, outcome in outcomes):
        return lines(f"Steps to {target}: not judged", width)
    if when is None:
        return lines(f"No difference is shown in how soon the ticket reaches {target}", width)
    return lines(f"The ticket reaches {target} {when}", width)


def pace_sentence(document: Document) -> str | None:
    """How soon the smallest winning ticket reaches the target; None if no ticket won or it was not judged."""
    fraction, won = judged_fraction(document), document["verdict"].get("density")
    level = next(
        (x for x in pruned_levels(document) if won is not None and is_in(x["density"], (won,))), None
    )
    if fraction is None or level is None:
        return None
    entry = level["arms"]["ticket"]["steps_to"][f"{fraction:g}"]
    if entry["outcome"] is None:
        return None
    if entry["outcome"] == "alike":
        return f"No difference is shown in how soon the ticket reaches {goal(document, fraction)}."
    start = f"The ticket reaches {goal(document, fraction)} {entry['outcome']} than the dense network itself"
    sooner = f"{start}{_in_the_steps(entry['ratio'], entry['ratio_ci'])}."
    already = _before_training(document, level["arms"]["ticket"], entry)
    return f"{sooner}{_other_half(document, level, entry['outcome'])}{already}"


def _in_the_steps(ratio: float | None, ends: Sequence[float | None] | None) -> str:
    """The ratio in words, ", typically in 9 % of its steps" or, from a ratio of 1 on, "... in 1.2 times its steps"."""
    if ratio is None:
        return ""
    scale, unit, of = (100, " %", "of its steps") if ratio < 1 else (1, "", "times its steps")
    between = ""
    if ends and ends[0] is not None and ends[1] is not None:
        between = f" (95 % interval {_number(scale * ends[0])} to {_number(scale * ends[1])}{unit})"
    return f", typically in {_number(scale * ratio)}{unit} {of}{between}"


def _number(value: float) -> str:
    """Two significant digits below 10, whole numbers from 10 on."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _other_half(document: Document, level: Level, outcome: str) -> str:
    """A sentence on the early stop, which need not come sooner when a target does; empty if it is not compared.

    outcome: whether the target is reached `sooner` or `later`.
    """
    stop, dense = time_outcome(level), dense_arm(document)
    mine = level["arms"]["ticket"].get("early_stop_step")
    theirs = None if dense is None else dense.get("early_stop_step")
    if stop is None or mine is None or theirs is None:
        return ""
    alone = "tested without a correction for the number of densities"
    steps = f"(step {mine:.0f} against {theirs:.0f} on average; {alone})"
    if stop == "as fast":
        return f" No difference is shown in when its validation loss is lowest {steps}."
    when = "sooner" if stop == "faster" else "later"
    if when == outcome:
        return f" Its validation loss is lowest {when} as well {steps}."
    but = f" But its validation loss is lowest {when} than the dense network's {steps}"
    return f"{but}: it learns faster at first, and improves for longer." if when == "later" else f"{but}."


def _before_training(document: Document, arm: Arm, entry: StepsTo) -> str:
    """A sentence on tickets that reach the target when they start, since their mask is enough; so a ratio can be 0."""
    steps, metric = entry["steps"], metric_of(document)
    count, start = sum(step == 0 for step in steps), arm.get("start_accuracy")
    if not count:
        return ""
    mean = (
        ""
        if start is None
        else f" (the mean validation {metric.name} of all tickets at step 0 is {_rounded(metric, start)})"
    )
    return (
        f" In {count} of {len(steps)} replicates the ticket already has that {metric.name} at step 0, before it is "
        "trained"
        f"{mean}. This is no error: the choice of the kept weights holds so much of what the dense network learnt that "
        "applying the mask to the untrained weights can be enough (supermasks: Zhou et al. 2019)."
    )


def _rounded(metric: Metric, value: float) -> str:
    return metric.scale.value(value, 1) if metric.scale.unit == "%" else metric.value(value)


def pace_cell(arm: Arm | None, fraction: float) -> tuple[str, ...]:
    """The lines of a table cell: ("16, sooner (2 never)", "0.66 ×, 0.47 to 0.95"); a dash if nothing is known."""
    entry = None if arm is None else arm.get("steps_to", {}).get(f"{fraction:g}")
    if entry is None:
        return ("–",)
    steps = "never" if entry["median"] is None else f"{entry['median']:g}"
    steps += f", {entry['outcome']}" if entry["outcome"] else ""
    steps += f" ({entry['never']} never)" if entry["never"] else ""
    if entry["ratio"] is None:
        return (steps,)
    low, high = entry["ratio_ci"] or (None, None)
    between = (
        "" if low is None else f", ≥ {_ratio(low)}" if high is None else f", {_ratio(low)} to {_ratio(high)}"
    )
    return steps, f"{_ratio(entry['ratio'])} ×{between}"


def _ratio(value: float) -> str:
    """Two decimals from 0.1 to 10, else two significant digits, so that an end is not rounded to its estimate."""
    return f"{value:.2f}" if 0.1 <= value < 9.995 else f"{value:.0f}" if value >= 9.995 else f"{value:.2g}"


def early_stops_left_out(document: Document) -> str | None:
    """At which densities early stops are not compared, and why; None if they are compared everywhere."""
    densities = [
        level["density"]
        for level in pruned_levels(document)
        if level.get("checks", {}).get("time_left_out") is not None
    ]
    if not densities:
        return None
    steps = question_of(document).get("steps")
    end = "the last step" if steps is None else f"the last step, {steps}"
    where = at_densities(document, densities)
    return (
        f"Early stops are not compared {where}. In most replicates there, the validation loss of the ticket or of the "
        f"dense network was lowest at {end}: it was still falling when training ended, so where it would have been "
        "lowest is not known."
    )
