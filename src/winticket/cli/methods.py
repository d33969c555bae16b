"""`winticket methods`: everything that an option can name, with a line and its paper."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from winticket.cli.answers import print_json, show
from winticket.cli.options import AsJson

KINDS = {
    "method": "Methods: how a ticket is found (--method)",
    "criterion": "Criteria: which weights to keep (--criterion)",
    "allocate": "Allocations: how many weights each layer keeps (--allocate)",
    "pruning": "Schedules: how the density falls from level to level (--pruning)",
    "rewind": "Rewinds: the weights that a ticket starts from (--rewind)",
    "control": "Controls: what could explain a ticket away (--control)",
}


def methods(*, as_json: AsJson = False) -> None:
    """List every method, criterion, allocation, rewind and control, each with a line and its paper."""
    from winticket.experiment import offered
    from winticket.experiment.names import METHODS, usual_allocation, usual_criterion

    rows = {kind: {name: described(f) for name, f in each.items()} for kind, each in offered().items()}
    for name, row in rows["criterion"].items():
        row["allocate"] = usual_allocation("imp", name)
    for name, row in rows["method"].items():
        row["criterion"] = usual_criterion(name) if _takes_criterion(METHODS[name]) else ""
        row["allocate"] = usual_allocation(name, usual_criterion(name))
    if as_json:
        print_json(rows)
        return
    width = max(len(name) for each in rows.values() for name in each)
    for kind, title in KINDS.items():
        show(f"\n{title}")
        for name, row in rows[kind].items():
            needs = f" (needs {row['needs']})" if row["needs"] else ""
            show(f"  {name:<{width}}  {row['line']}{needs}")
            usual = [f"--{what} {row[what]}" for what in ("criterion", "allocate") if row.get(what)]
            if usual:
                show(f"  {'':<{width}}  default: {' '.join(usual)}")
            if row["paper"]:
                show(f"  {'':<{width}}  {row['paper']}")
    show("\nName a function of yours by its import path, as in --criterion mylab.scores:mine.")


def _takes_criterion(method: Callable[..., Any]) -> bool:
    return "criterion" in inspect.signature(method).parameters


def described(method: Callable[..., Any]) -> dict[str, str]:
    """A method's first sentence, the sentence of its docstring that names its paper, and what it needs."""
    from winticket.criteria.evidence import needed

    doc = " ".join(inspect.cleandoc(method.__doc__ or "").partition(">>>")[0].split())  # without the example
    sentences = re.split(r"(?<=[.;?])\s+(?=[A-Z`Α-Ͽ])", doc)
    paper = next((s for s in sentences if re.search(r"\b(19|20)\d\d\b", s)), "")
    line = sentences[0] if sentences[0] != paper else paper
    needs = {"network": "the network", "data": "training examples", "training": "training before it"}
    return {
        "line": line.rstrip("."),
        "paper": "" if paper == line else re.split(r"[:;]\s", paper)[0].rstrip(".;"),
        "needs": " and ".join(words for need, words in needs.items() if need in needed(method)),
    }
