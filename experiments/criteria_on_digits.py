"""Compare criteria, controls and pruning at initialisation on digits: three tables of docs/evidence.md.

python experiments/criteria_on_digits.py docs/evidence.md    # some minutes on two cores; without a file it prints them

Pruning passes through the densities .5, .2, .1 and .05. Ten replicates differ in initialisation, mask search and split.
The store is runs/criteria, so a second run resumes after a stop.
"""

from __future__ import annotations

import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import scipy.stats

from winticket.experiment import Experiment, conduct

Arms = list[dict[str, list[float]]]  # By level, from the densest down: accuracies of the replicates by arm.
STORE = Path("runs/criteria")
PATH = (0.5, 0.2, 0.1, 0.05)
COLLAPSE = (0.3, 0.1, 0.03, 0.01, 0.005, 0.003)

CRITERIA = {
    "magnitude_increase": "about as good",
    "movement": "a little worse",
    "random": "worse",
    "large_init": "about random",
    "small_init": "worst",
    "taylor": "",
    "fisher": "",
    "wanda": "",
}
LABELS = {"taylor": "taylor, ten examples of each class", "fisher": "fisher, the same examples"}
AT_INIT = ("synflow", "magnitude", "snip", "grasp")


def accuracies(name: str, **choices: Any) -> Arms:
    """Run an experiment on digits; returns the accuracies (fractions) of every level, from the densest down, by arm."""
    experiment = Experiment.of("digits", **{"replicates": 10, "gate": False, "density": PATH, **choices})
    sys.stderr.write(f"{name}\n")
    levels = conduct(experiment, store=STORE / "store", out=STORE / name).document["levels"]
    return [
        {
            arm: [math.nan if a is None else a for a in measured["accuracies"]]
            for arm, measured in level["arms"].items()
        }
        for level in levels
    ]


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t)."""
    if len(set(values)) == 1:
        return values[0], 0.0
    half = (
        float(scipy.stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    )
    return statistics.mean(values), half


def gap(one: list[float], two: list[float]) -> str:
    """The mean paired difference in percentage points with its 95 % interval, as text."""
    mean, half = interval([100 * (a - b) for a, b in zip(one, two, strict=True)])
    return f"{signed(mean)} ({signed(mean - half)} to {signed(mean + half)})"


def signed(value: float) -> str:
    text = f"{abs(value):.2f}".removeprefix("0") if abs(value) < 1 else f"{abs(value):.2f}"
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text


def percent(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.2f}"


def criteria_table() -> list[str]:
    usual = accuracies("magnitude", controls=("reinit", "random"))
    last = usual[-1]
    lines = [
        f"IMP by magnitude, for comparison, at .05: ticket {percent(last['ticket'])}, "
        f"re-init {percent(last['reinit'])}, random mask {percent(last['random'])} %.",
        "",
        "| criterion, against magnitude | d = .1 | d = .05 | Zhou et al. 2019 |",
        "|---|---|---|---|",
    ]
    for name, expected in CRITERIA.items():
        levels = accuracies(name, criterion=name, controls=())
        cells = [gap(levels[i]["ticket"], usual[i]["ticket"]) for i in (-2, -1)]
        lines.append(f"| {LABELS.get(name, name)} | {' | '.join(cells)} | {expected} |")
    return lines


def controls_table() -> list[str]:
    levels = accuracies("controls", controls=("signs", "magnitudes", "random", "inverted"))
    rows = (
        ("signs alone, against the ticket", "signs", "ticket", "signs are enough (Zhou et al.)"),
        ("ticket, against magnitudes alone", "ticket", "magnitudes", "magnitudes are not (Zhou et al.)"),
        (
            "ticket, against random mask",
            "ticket",
            "random",
            "a shuffle within layers hurts IMP (Frankle et al. 2021)",
        ),
        ("ticket, against what was pruned", "ticket", "inverted", ""),
    )
    lines = ["| control | d = .1 | d = .05 | |", "|---|---|---|---|"]
    for label, one, two, expected in rows:
        cells = [gap(levels[i][one], levels[i][two]) for i in (-2, -1)]
        lines.append(f"| {label} | {' | '.join(cells)} | {expected} |")
    lines += [
        "",
        "| pruned at initialisation, layers competing | at .05, % | against its random mask | against its re-init |",
        "|---|---|---|---|",
    ]
    for name in AT_INIT:
        arms = accuracies(
            f"at-init-{name}", method="at-init", criterion=name, allocate="global_top", density=(0.05,),
            controls=("reinit", "random"),
        )[-1]  # fmt: skip
        lines.append(
            f"| {name} | {percent(arms['ticket'])} | {gap(arms['ticket'], arms['random'])} | "
            f"{gap(arms['ticket'], arms['reinit'])} |"
        )
    return lines


def collapse_table() -> list[str]:
    names = ("random", "magnitude", "snip", "grasp", "synflow")
    levels = {
        name: accuracies(
            f"collapse-{name}", method="at-init", criterion=name, allocate="global_top", density=COLLAPSE, controls=()
        )
        for name in names
    }  # fmt: skip
    lines = [f"| d | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for back, density in enumerate(reversed(COLLAPSE), start=1):
        cells = []
        for name in names:
            mean, half = interval([100 * value for value in levels[name][-back]["ticket"]])
            cells.append(f"{mean:.2f} ({mean - half:.2f} to {min(100, mean + half):.2f})")
        lines.append(f"| {f'{density:g}'.removeprefix('0')} | " + " | ".join(cells) + " |")
    return [*lines[:2], *reversed(lines[2:])]


def main() -> None:
    tables = {"criteria": criteria_table(), "controls": controls_table(), "collapse": collapse_table()}
    if len(sys.argv) < 2:
        sys.stdout.write("\n\n".join("\n".join(lines) for lines in tables.values()) + "\n")
        return
    page = Path(sys.argv[1])
    text = page.read_text(encoding="utf-8")
    for name, lines in tables.items():
        block = "\n".join(["", *lines, "", ""])
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{block}\g<2>", text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
