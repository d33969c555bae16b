"""The break-even density of single layers on one core, and how their products run fastest.

Each shape is measured as a first training measures it (`winticket.sparse.measuring`), n times. For each, this prints
the median break-even and its range, the median processor seconds of a measurement, and at each density the way chosen
most often: blocks of columns and rows, and the instruction set of each product if it is not the first one. Last come
the milliseconds of a step: dense, sparse in the chosen way, and in the usual way if that is another.

    python benchmarks/break_even.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections import Counter

import torch

from winticket.sparse import Shape, Tuning, instruction_sets
from winticket.sparse.choices import PROBES, Choice
from winticket.sparse.measuring import measure, steps
from winticket.sparse.windows import Window

SHAPES = {
    "Linear 300x784": Shape(rows=300, columns=784, stack=5, batch=60, threads=1),
    "Linear 100x300": Shape(rows=100, columns=300, stack=5, batch=60, threads=1),
    "Linear 10x100": Shape(rows=10, columns=100, stack=5, batch=60, threads=1),
    "Linear 1024x1024": Shape(rows=1024, columns=1024, stack=5, batch=60, threads=1),
    "Conv 3x3, 64->64, 16x16": Shape(
        rows=64,
        columns=576,
        stack=1,
        batch=60,
        threads=1,
        window=Window(64, (3, 3), (1, 1), (1, 1)),
        size=(16, 16),
    ),
}


def described(choice: Choice) -> str:
    others = [f"{product} {name}" for product, name in choice.sets.items() if name != instruction_sets()[0]]
    return ", ".join([f"{choice.blocks[0]} and {choice.blocks[1]}", *others])


def usual(shape: Shape, density: float) -> Choice:
    """The way without measurement."""
    return Choice(
        density, dict.fromkeys(shape.products, instruction_sets()[0]), Tuning(shape, 0.0).blocks(density)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    measure(SHAPES["Linear 10x100"], instruction_sets())  # what torch imports at first use is no part of it
    for name, shape in SHAPES.items():
        tunings, seconds = [], []
        for _ in range(rounds):
            began = time.process_time()
            tunings.append(measure(shape, instruction_sets()))
            seconds.append(time.process_time() - began)
        densities = [tuning.break_even for tuning in tunings]
        print(
            f"{name}: break-even {statistics.median(densities):.2f} ({min(densities):.2f}–{max(densities):.2f}), "
            f"measured in {statistics.median(seconds):.2f} s"
        )
        for number, density in enumerate(PROBES):
            chosen = Counter(described(tuning.choices[number]) for tuning in tunings)
            way, times = chosen.most_common(1)[0]
            choice = next(t.choices[number] for t in tunings if described(t.choices[number]) == way)
            others = [other for other in [usual(shape, density)] if other != choice]
            timed = [steps(shape, [choice, *others]) for _ in range(rounds)]
            dense = statistics.median(dense for dense, _ in timed)
            sparse, *without = (statistics.median(way) for way in zip(*(s for _, s in timed), strict=True))
            print(
                f"  d = {density:.2f}: {way} ({times} of {rounds}); dense {1000 * dense:.3f} ms, "
                f"sparse {1000 * sparse:.3f}"
                + (f" ({1000 * without[0]:.3f} with {described(usual(shape, density))})" if without else "")
            )
    print(
        f"one thread, kernels {', '.join(instruction_sets())}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, medians and ranges of n = {rounds}"
    )


if __name__ == "__main__":
    main()
