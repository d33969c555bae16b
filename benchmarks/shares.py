"""Shares of the time of a whole search: steps, evaluation, the rest of training, store and scheduler.

The search runs in this process (no workers) with one thread and a clock around the functions that do each part. A task
trains, or it scores, prunes and rewinds. The rest of the run (reading inputs, writing results, claims, choosing the
next task) counts as store and scheduler.

    python benchmarks/shares.py [DATA] [--levels 12] [--replicates 5] [--steps N]
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from winticket import data
from winticket.experiment import Experiment, conduct, execution
from winticket.run import work
from winticket.run.desk import Desk
from winticket.stages import training
from winticket.train import curves, loop

CLOCKED = (
    ("steps", loop, "stretch"),
    ("evaluation", curves, "evaluate"),
    ("training", training, "train"),
    ("tasks", work, "evaluate"),
    ("inputs", Desk, "fetch"),
    ("search", execution, "run"),
)
"""What a clock is put around: the name of the part, and the function with the place where it is looked up."""
spent: defaultdict[str, float] = defaultdict(float)


def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def timed(*arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return work(*arguments, **options)
        finally:
            spent[name] += time.perf_counter() - begun

    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--levels", type=int, default=12)
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data.load(arguments.data)
    choices = {
        "model": "lenet-300-100",
        "levels": arguments.levels,
        "replicates": arguments.replicates,
        "gate": False,
    }
    experiment = Experiment.of(
        arguments.data, **choices, **({"steps": arguments.steps} if arguments.steps else {})
    )
    for name, module, function in CLOCKED:
        setattr(module, function, clocked(name, getattr(module, function)))
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        conduct(experiment, store=Path(folder) / "store", workers=0)
        whole = time.perf_counter() - begun
    rest = spent["training"] - spent["steps"] - spent["evaluation"]
    parts = {
        "steps": spent["steps"],
        "evaluation": spent["evaluation"],
        "the rest of training": rest,
        "scoring, pruning, rewinding": spent["tasks"] - spent["inputs"] - spent["training"],
        "store, claims and scheduler": spent["search"] - spent["tasks"] + spent["inputs"],
        "planning, figures, report": whole - spent["search"],
    }
    print(f"{whole:.1f} s, one thread, {experiment.recipe.steps} steps, {arguments.levels} levels")
    for name, seconds in parts.items():
        print(f"  {name}: {seconds:.1f} s, {100 * seconds / whole:.1f} %")


if __name__ == "__main__":
    main()
