"""What a run cost: how many trainings, and per replicate the steps, operations and time of each network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from winticket.procedures import METHODS, method_of
from winticket.report.durations import duration, run_time
from winticket.report.elements import section, table
from winticket.report.evidence import deciding_level
from winticket.report.reading import (
    arm_name,
    density_percent,
    is_in,
    is_transfer,
    levels,
    pruned_levels,
    question_of,
)
from winticket.results import Cost, Document


def costs_section(document: Document) -> str:
    """The section on costs; empty if the document has none."""
    costs = document.get("costs") or []
    if not costs:
        return ""
    whole = next((cost for cost in costs if cost["arm"] == "dense"), None)
    level = deciding_level(document)
    sparsest = [level["density"] for level in pruned_levels(document)][-1:]
    at = level["density"] if level is not None else sparsest[0] if sparsest else None
    chosen = [c for c in costs if c["arm"] == "dense" or (at is not None and is_in(c["density"], (at,)))]
    includes = (
        ": that of a ticket includes the dense network and the tickets of all denser levels"
        if _by_levels(document)
        else ""
    )
    caption = (
        "The table gives the mean cost of one replicate, with every training that was needed to find the network's "
        f"mask{includes}. The time is that of one process."
    )
    details = table(
        _HEAD, _rows(costs, whole), caption="This table has every arm at every density.", worded=True
    )
    return section(
        "Costs",
        *(f"<p>{escape(text)}</p>" for text in (trainings(document), _time(document)) if text),
        table(_HEAD, _rows(chosen, whole), caption=caption, worded=True),
        f"<details><summary>Costs at every density</summary>{details}</details>",
    )


def _by_levels(document: Document) -> bool:
    """Whether each ticket was pruned from the one before it. A transfer's were found elsewhere."""
    procedure = METHODS.get(question_of(document).get("method", ""))
    return procedure is not None and method_of(procedure).levels and not is_transfer(document)


_HEAD = ("network", "density", "steps", "steps / dense", "GFLOP", "time")


def _rows(costs: Sequence[Cost], whole: Cost | None) -> list[list[str]]:
    return [
        [
            escape(arm_name(cost["arm"])),
            escape(density_percent(cost["density"])),
            _number(cost["steps"]),
            _ratio(cost, whole),
            "–" if cost["flops"] is None else f"{cost['flops'] / 1e9:,.1f}",
            "–" if cost["seconds"] is None else duration(cost["seconds"]),
        ]
        for cost in costs
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _ratio(cost: Cost, whole: Cost | None) -> str:
    if whole is None or not whole["steps"] or cost["steps"] is None:
        return "–"
    return f"{cost['steps'] / whole['steps']:.3g}"


def trainings(document: Document) -> str:
    """How many trainings the run consists of, and which: `1,500 trainings: ...`.

    >>> dense = {"accuracies": [0.9, 0.9]}
    >>> level = {"density": 0.5, "arms": {"ticket": dense, "reinit": dense}}
    >>> trainings({"levels": [{"density": 1.0, "arms": {"dense": dense}}, level], "dense_doubled": dense})
    '8 trainings: in each of 2 replicates the dense network, 2 arms at one density, and the dense network for twice \
the steps, to see whether it was trained enough.'
    """
    arms = [arm for level in levels(document) for arm in level["arms"].values()]
    beside = [arm for arm in (document.get("dense_doubled"),) if arm is not None]
    effect = document.get("precision_effect")
    exact = None if effect is None else effect["float32"]
    count = sum(len(arm.get("accuracies", ())) for arm in (*arms, *beside, *([exact] if exact else [])))
    replicates = max((len(arm.get("accuracies", ())) for arm in arms), default=0)
    tried = pruned_levels(document)
    if not count or not tried:
        return ""
    parts = ["the dense network", _arms([len(level["arms"]) for level in tried])]
    if beside:
        parts.append("the dense network for twice the steps, to see whether it was trained enough")
    if exact:
        parts.append("the dense network in float32, to see what the precision changes")
    within = "in the one replicate" if replicates == 1 else f"in each of {replicates} replicates"
    return f"{count:,} trainings: {within} {', '.join(parts[:-1])}, and {parts[-1]}."


def _arms(counts: Sequence[int]) -> str:
    most = max(counts)
    arms = (
        "1 arm" if most == 1 else f"{most} arms" if min(counts) == most else f"{min(counts)} to {most} arms"
    )
    return f"{arms} at {'one density' if len(counts) == 1 else f'each of {len(counts)} densities'}"


def _time(document: Document) -> str:
    if document.get("seconds") is None:
        return ""
    engine = document.get("engine")
    how = f", with the engine {engine}" if engine and engine != "auto" else ""
    steps = question_of(document).get("steps")
    each = "" if steps is None else f" A training has {steps:,} steps."
    return f"The run took {run_time(document)}{how}.{each}"
