"""What do MNIST-1D's tickets carry over? Their masks on fresh, shuffled, flipped and cut data, and with a new init.

python experiments/mnist1d_variants.py docs/evidence.md   # about ten minutes on one core; without a file it prints

These are the five variants of the notebook "lottery-tickets" of Greydanus & Kobak (MNIST-1D, 2024). The masks were
found on the frozen data. Each is trained for 6000 steps with batches of 500 on other signals (the generator's next
seed), beside a random mask of the same layer counts and from the same initial weights. Shuffled: one permutation of the
40 positions; flipped: in reverse; chunks: the quarters of a signal in the order 3, 4, 1, 2. The authors show single
runs; here there are five replicates, and every number has its interval.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray

import winticket
from winticket import Recipe, data, judge
from winticket.controls import random_mask
from winticket.data.mnist1d import SEED, TRAIN, generate
from winticket.experiment import Experiment, Run, conduct
from winticket.ticket import Seeds, State, Ticket, Trajectory
from winticket.train import train

STORE = Path("runs/mnist1d-variants")
DENSITY, REPLICATES = 0.08, 5
RECIPE = Recipe(steps=6000, batch=500, optimizer="adam", lr=2e-2, evaluate_every=6000, early_points=False)
Signals = NDArray[np.float64]
POSITIONS = np.random.RandomState(0).permutation(40)
VARIANTS: dict[str, tuple[Callable[[Signals], Signals], str]] = {
    "fresh data": (lambda x: x, "66.8, 58.4"),
    "positions shuffled": (lambda x: x[:, POSITIONS], "62.6, 59.5"),
    "series flipped": (lambda x: x[:, ::-1], "63.8, 59.6"),
    "chunks shuffled": (lambda x: x[:, [*range(20, 40), *range(20)]], "62.4, 59.0"),
    "fresh data, new init": (lambda x: x, "66.3, 60.1"),
}
"""What is done to the signals, and the authors' accuracies of ticket and random mask, percent."""


def searched() -> Run:
    """The search that found the masks, resumed if it was stopped."""
    steps = {"final_density": DENSITY, "levels": 10, "replicates": REPLICATES, "stack": REPLICATES}
    experiment = Experiment.of("mnist1d", **steps, controls=(), gate=False)
    conduct(experiment, store=STORE / "store", out=STORE / "search", workers=1)
    return winticket.open(STORE / "search")


def examples(x: Signals, y: NDArray[np.int64]) -> SimpleNamespace:
    """Signals [N, 40] as a dataset: the first four fifths to train on, the rest to test."""
    inputs, labels = torch.tensor(np.ascontiguousarray(x), dtype=torch.float32)[:, None], torch.tensor(y)
    parts = [data.Split(inputs[rows], labels[rows]) for rows in (slice(None, TRAIN), slice(TRAIN, None))]
    return SimpleNamespace(train=parts[0], validation=parts[1], test=parts[1])


def accuracies(run: Run, tickets: list[Ticket], on: SimpleNamespace) -> list[float]:
    """Test accuracies in percent after the last step."""
    paths = train(run.plan.setup.module(), on, data, tickets, RECIPE)
    return [100 * p.curve.last()["test_accuracy"] for p in paths if isinstance(p, Trajectory)]


def started(run: Run, ticket: Ticket, *, seed: int | None) -> Ticket:
    """The ticket's mask on its own initial weights, or on those of another seed."""
    if seed is None:
        return ticket
    weights = run.plan.setup.initial(seed).weights
    return replace(ticket, start=State(ticket.mask.apply(weights), {}, {}, 0))


def rows() -> list[str]:
    """The table in Markdown."""
    run = searched()
    tickets = [run.training("ticket", density=DENSITY, replicate=r).ticket for r in range(REPLICATES)]
    x, y = generate(seed=SEED + 1)
    lines = [
        "| | ticket | random mask | difference | the authors' ticket, random mask |",
        "|---|---|---|---|---|",
    ]
    for name, (change, theirs) in VARIANTS.items():
        sys.stderr.write(f"{name}\n")
        on = examples(change(x), y)
        arms: dict[str, list[float]] = {"ticket": [], "random": []}
        for arm in arms:
            stack = []
            for number, ticket in enumerate(tickets):
                weights = run.training("dense", level=0, replicate=number).start
                whole = replace(ticket, start=replace(weights, weights=ticket.mask.apply(weights.weights)))
                chosen = (
                    whole if arm == "ticket" else random_mask(replace(ticket, start=weights), seed=number)
                )
                seed = Seeds(1, number).derive("init") if "new init" in name else None
                stack.append(started(run, chosen, seed=seed))
            arms[arm] = accuracies(run, stack, on)
        differences = [a - b for a, b in zip(*arms.values(), strict=True)]
        cells = [_cell(values) for values in (*arms.values(), differences)]
        lines.append(f"| {name} | {' | '.join(cells)} | {theirs} |")
    return lines


def _cell(values: list[float]) -> str:
    low, high = judge.mean_interval(values) or (float("nan"),) * 2
    return f"{sum(values) / len(values):.1f} ({low:.1f} to {high:.1f})".replace("-", "−")


def main() -> None:
    table = "\n".join(rows())
    if len(sys.argv) < 2:
        sys.stdout.write(f"{table}\n")
        return
    page = Path(sys.argv[1])
    text = page.read_text(encoding="utf-8")
    mark = re.compile(r"<!-- mnist1d variants -->.*?<!-- end -->", re.DOTALL)
    page.write_text(mark.sub(f"<!-- mnist1d variants -->\n\n{table}\n\n<!-- end -->", text), encoding="utf-8")


if __name__ == "__main__":
    main()
