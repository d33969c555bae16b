"""A whole search with LeNet-300-100: winticket against the plain-PyTorch way, as ratios in one run.

Both do the same trainings: for each replicate the dense network, then per level ticket, re-init and random mask. Both
use the same number of processes with one thread each. `plain.py` is the plain way, with replicates distributed over the
processes. The two alternate. Prints the median ratio and its range with n, device and versions, and both mean final
accuracies of the dense network and of the ticket at the last level.

    python benchmarks/search.py [DATA] [--levels 16] [--replicates 5] [--steps N] [--rounds 1] [--workers 2]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from plain import Job, replicate

from winticket import data
from winticket.experiment import Experiment, conduct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
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
    recipe = experiment.recipe
    job = Job(
        arguments.data,
        (300, 100),
        steps=recipe.steps,
        batch=recipe.batch,
        every=recipe.evaluate_every,
        lr=recipe.lr,
        cosine=recipe.schedule == "cosine",
    )
    ratios = []
    trainings = arguments.replicates * (1 + 3 * arguments.levels)
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            result = conduct(experiment, store=Path(folder) / "store", workers=arguments.workers)
            ours = time.perf_counter() - began
        began = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
            works = [(job, r, arguments.levels) for r in range(arguments.replicates)]
            accuracies = pool.map(replicate, works, 1)
        plain = time.perf_counter() - began
        assert sum(map(len, accuracies)) == trainings
        ratios.append(plain / ours)
        print(
            f"round {number + 1}: plain {plain:.1f} s, winticket {ours:.1f} s, report and figures included, "
        )
        levels = result.document["levels"]
        for what, at, theirs in (
            ("dense", levels[0]["arms"]["dense"], 0),
            (f"ticket at d = {levels[-1]['density']:.3f}", levels[-1]["arms"]["ticket"], -3),
        ):
            mean = statistics.mean(a[theirs] for a in accuracies)
            low, high = at["accuracy_ci"] or (math.nan, math.nan)
            print(f"  {what}: plain {mean:.4f}, winticket {at['accuracy']:.4f} ({low:.4f} to {high:.4f})")
    print(
        f"{trainings} trainings of {recipe.steps} steps on {arguments.data}: winticket is "
        f"{statistics.median(ratios):.2f} times as fast (median of n = {len(ratios)}; "
        f"{min(ratios):.2f} to {max(ratios):.2f}), "
        f"{arguments.workers} processes of one thread, {platform.processor() or platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
