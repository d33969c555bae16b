"""How time and memory grow: with replicates, density and width, for LeNets on MNIST's shapes on one core.

The time is milliseconds per training step of the whole stack, from the difference between a long and a short training,
so that work done once per training does not count. The memory is the rise of the process's peak when the stack trains
for the first time. Every case runs in a separate process with one thread. Times are medians over rounds.

    python benchmarks/growth.py [--rounds 3] [--figure]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from step_by_density import BATCH, Examples, noise

from winticket import data, models
from winticket.ticket import Mask, Seeds, State, Ticket
from winticket.train import Recipe, train

SHORT, LONG = 50, 350
WIDTHS = ((100, 33), (300, 100), (600, 200), (1200, 400))
REPLICATES = (1, 2, 5, 10, 20)
DENSITIES = (0.3, 0.2, 0.1, 0.05, 0.02)


def tickets(widths: tuple[int, ...], density: float, count: int) -> tuple[torch.nn.Module, list[Ticket]]:
    name = "lenet-" + "-".join(map(str, widths))
    made = []
    for r in range(count):
        module = models.build(name, input_shape=(1, 28, 28), classes=10, generator_seed=r)
        weights = {key: p.detach().clone() for key, p in module.named_parameters()}
        generator = torch.Generator().manual_seed(r)
        keep = {
            key: torch.rand(weights[key].shape, generator=generator) < density
            for key in models.eligible(module)
        }
        made.append(Ticket(Mask(keep), State(weights, {}, {}, 0), "ticket", Seeds(0, r)))
    return module, made


def case(widths: tuple[int, ...], density: float, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds per step of a stack, and MiB of memory."""
    torch.set_num_threads(1)
    examples = Examples(noise(6000), noise(1), noise(1))
    small, warm = tickets((20,), 0.5, 1)
    train(small, examples, data, warm, Recipe(steps=2))
    module, stack = tickets(widths, density, count)

    def timed(steps: int) -> float:
        begun = time.perf_counter()
        train(module, examples, data, stack, Recipe(steps=steps, batch=BATCH, evaluate_every=steps))
        return time.perf_counter() - begun

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed(SHORT)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    steps = [1000 * (timed(LONG) - timed(SHORT)) / (LONG - SHORT) for _ in range(rounds)]
    return {"ms": statistics.median(steps), "low": min(steps), "high": max(steps), "memory": memory}


def apart(widths: tuple[int, ...], density: float, count: int, rounds: int) -> dict[str, float]:
    """`case` in a separate process."""
    words = [sys.executable, __file__, "--case", json.dumps([widths, density, count, rounds])]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--figure", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        widths, density, count, rounds = json.loads(arguments.case)
        print(json.dumps(case(tuple(widths), density, count, rounds)))
        return
    series: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for density in (1.0, 0.05):
        label = f"replicates, d = {density:g}"
        series[label] = [(r, apart((300, 100), density, r, arguments.rounds)) for r in REPLICATES]
    series["density, stack of 5"] = [(d, apart((300, 100), d, 5, arguments.rounds)) for d in DENSITIES]
    for density in (1.0, 0.05):
        label = f"parameters, d = {density:g}, stack of 5"
        series[label] = [
            (784 * a + a * b + b * 10, apart((a, b), density, 5, arguments.rounds)) for a, b in WIDTHS
        ]
    for label, rows in series.items():
        print(label)
        for at, found in rows:
            print(
                f"  {at:>8g}: {found['ms']:7.3f} ms a step ({found['low']:.3f}-{found['high']:.3f}), "
                f"{found['memory']:6.0f} MiB"
            )
    print(
        f"n = {arguments.rounds}, medians and ranges; one thread, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, Adam, batch {BATCH}"
    )
    if arguments.figure:
        draw(series, Path(__file__).parent.parent / "docs/images/growth.png")


def draw(series: dict[str, list[tuple[float, dict[str, float]]]], to: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, "replicates", "replicates in the stack"),
        (right, "parameters", "weights of one network"),
    )
    for axes, kind, what in panels:
        for (label, rows), color in zip(
            [item for item in series.items() if item[0].startswith(kind)], ("#8a8f98", "#c0392b"), strict=True
        ):
            x, y = [at for at, _ in rows], [found["ms"] for _, found in rows]
            axes.plot(x, y, "o-", color=color, label=label.split(", ")[1], linewidth=1.6, markersize=4)
            axes.annotate(
                label.split(", ")[1], (x[-1], y[-1]), xytext=(-6, 6), textcoords="offset points", ha="right",
                color=color,
            )  # fmt: skip
        ticks = sorted({at for label, rows in series.items() if label.startswith(kind) for at, _ in rows})
        axes.set(xscale="log", yscale="log", xlabel=what, ylabel="milliseconds a step of the stack")
        axes.set_xticks(ticks, [f"{t:g}" if t < 1000 else f"{t / 1000:.0f} k" for t in ticks])
        marks = [0.5, 1, 2, 5, 10, 20]
        axes.set_yticks(marks, [f"{m:g}" for m in marks])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    left.set_title("A step grows with replicates and with weights", loc="left", fontsize=11)
    figure.savefig(to, dpi=150)


if __name__ == "__main__":
    main()
