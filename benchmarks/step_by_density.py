"""One training step of LeNet-300-100 by density: a stack of five with winticket against plain PyTorch, on one core.

The setting: MNIST's shapes (784 inputs, batches of 60), data in memory, SGD or Adam (fused) at a constant learning
rate, and random masks of equal density in every layer. The plain way trains one network with autograd and multiplies by
the masks after every step. With `--compile` it is also timed under `torch.compile`, since a tuned dense baseline is the
faster of the two. winticket is `train` with engines auto and dense, in seconds per step of one replicate. All ways
alternate in one process with one thread. Prints medians and ranges over the rounds; `--figure` draws them to
docs/images/step_by_density.png.

    python benchmarks/step_by_density.py [--rounds 5] [--optimizer sgd] [--compile] [--figure]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from winticket import data, models
from winticket.sparse import instruction_sets
from winticket.ticket import Mask, Seeds, State, Ticket
from winticket.train import Engine, Recipe, train

DENSITIES = (1.0, 0.8, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
STACK, BATCH, STEPS = 5, 60, 400


@dataclass(frozen=True)
class Examples:
    train: data.Split
    validation: data.Split
    test: data.Split


def noise(count: int) -> data.Split:
    generator = torch.Generator().manual_seed(0)
    return data.Split(torch.randn(count, 1, 28, 28, generator=generator), torch.arange(count) % 10)


EXAMPLES = Examples(noise(12_000), noise(1), noise(1))


def stack(density: float) -> list[Ticket]:
    tickets = []
    for r in range(STACK):
        module = models.build("lenet-300-100", input_shape=(1, 28, 28), classes=10, generator_seed=r)
        weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        generator = torch.Generator().manual_seed(r)
        keep = {
            name: torch.rand(weights[name].shape, generator=generator) < density
            for name in models.eligible(module)
        }
        tickets.append(Ticket(Mask(keep), State(weights, {}, {}, 0), "ticket", Seeds(0, r)))
    return tickets


def ours(density: float, recipe: Recipe, engine: Engine) -> Callable[[], float]:
    """Times milliseconds per step and replicate; a short training removes the fixed cost of a training."""
    module = models.build("lenet-300-100", input_shape=(1, 28, 28), classes=10, generator_seed=0)
    tickets, short = stack(density), replace(recipe, steps=20, evaluate_every=20)

    def run() -> float:
        seconds = []
        for each in (short, recipe):
            began = time.perf_counter()
            train(module, EXAMPLES, data, tickets, each, engine=engine)
            seconds.append(time.perf_counter() - began)
        return 1000 * (seconds[1] - seconds[0]) / (recipe.steps - short.steps) / STACK

    run()
    return run


def plain(density: float, recipe: Recipe, *, compiled: bool) -> Callable[[], float]:
    ticket = stack(density)[0]
    model = models.build("lenet-300-100", input_shape=(1, 28, 28), classes=10, generator_seed=0)
    call: Callable[[Tensor], Tensor] = torch.compile(model) if compiled else model
    if recipe.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, fused=True)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True)
    pairs = [(model.get_parameter(name), keep.float()) for name, keep in ticket.mask.keep.items()]
    x, y = EXAMPLES.train.x, EXAMPLES.train.y
    order = torch.randperm(len(y))

    def step(at: int) -> None:
        rows = order[at % 200 * BATCH : (at % 200 + 1) * BATCH]
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(call(x[rows]), y[rows]))
        optimizer.step()
        with torch.no_grad():
            for weight, mask in pairs:
                weight.mul_(mask)

    def run() -> float:
        began = time.perf_counter()
        for at in range(recipe.steps):
            step(at)
        return 1000 * (time.perf_counter() - began) / recipe.steps

    run()
    return run


def draw(densities: list[float], ways: list[list[list[float]]], caption: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    looks = [
        ("plain PyTorch, masked", "#767676", "s"),
        ("winticket, dense", "#0072b2", "o"),
        ("winticket, auto", "#d55e00", "D"),
    ]
    for columns, (label, colour, marker) in zip(ways, looks, strict=False):
        axes.plot(
            densities, [statistics.median(c) for c in columns], color=colour, marker=marker, label=label
        )
        low, high = [min(c) for c in columns], [max(c) for c in columns]
        axes.fill_between(densities, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="density", ylabel="milliseconds per step and network")
    marks = [d for d in DENSITIES if d != 0.8]  # Its label would overlap the next one.
    axes.set_xticks(marks, [f"{100 * d:g} %" for d in marks])
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1.0, 1.5], ["0.05", "0.1", "0.2", "0.5", "1", "1.5"])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.legend(frameon=False)
    axes.set_title("A training step of LeNet-300-100 costs what is left", loc="left", fontsize=11)
    figure.text(0.01, -0.04, caption, fontsize=7, color="#555555")
    target = Path(__file__).parents[1] / "docs" / "images" / "step_by_density.png"
    figure.savefig(target, dpi=160, bbox_inches="tight")
    print(f"drawn: {target}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--compile", action="store_true", help="time torch.compile'd plain steps as well")
    parser.add_argument("--figure", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lr = 0.01 if arguments.optimizer == "sgd" else 1e-4
    recipe = Recipe(steps=STEPS, batch=BATCH, optimizer=arguments.optimizer, lr=lr, evaluate_every=STEPS)
    timed: list[list[list[float]]] = [[], [], []]
    print(
        "density  plain ms (range)         dense ms  auto ms (range)          plain / auto (range)  dense / auto"
    )
    for density in DENSITIES:
        ways = [
            plain(density, recipe, compiled=False),
            ours(density, recipe, "dense"),
            ours(density, recipe, "auto"),
        ]
        if arguments.compile:
            ways.append(plain(density, recipe, compiled=True))
        rounds = [[way() for way in ways] for _ in range(arguments.rounds)]
        columns = [list(column) for column in zip(*rounds, strict=True)]
        ratio = [a / b for a, b in zip(columns[0], columns[2], strict=True)]
        against = [a / b for a, b in zip(columns[1], columns[2], strict=True)]
        middles = [statistics.median(column) for column in columns]
        print(
            f"{density:7.2f}  {middles[0]:.3f} ({min(columns[0]):.3f}–{max(columns[0]):.3f})    {middles[1]:.3f}     "
            f"{middles[2]:.3f} ({min(columns[2]):.3f}–{max(columns[2]):.3f})    {statistics.median(ratio):.2f} "
            f"({min(ratio):.2f}–{max(ratio):.2f})     {statistics.median(against):.2f}"
            + (f"   compiled {middles[3]:.3f}" if arguments.compile else "")
        )
        for way, column in zip(timed, columns, strict=False):
            way.append(column)
    sets = instruction_sets()
    caption = (
        f"n = {arguments.rounds} rounds of {STEPS} steps, medians and ranges; one thread, "
        f"kernels {sets[0] if sets else 'none'}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, {arguments.optimizer}, stack of {STACK}, "
        f"batch {BATCH}"
    )
    print(caption)
    if arguments.figure:
        draw(list(DENSITIES), timed, caption)


if __name__ == "__main__":
    main()
