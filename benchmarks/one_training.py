"""One dense training of LeNet-300-100 on digits: a stack of five against the plain-PyTorch way, on one core.

Both run 800 steps of Adam in batches of 60 and evaluate every 40 steps. `plain.py` is the plain way. After a warm-up of
each, the two alternate in one process with one thread. Prints the median of the ratios (plain seconds / seconds per
replicate of the stack) and their range, with n, device and versions.

    python benchmarks/one_training.py [--pairs 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
from plain import Job, draw, training

from winticket.experiment import Experiment
from winticket.stages import dense_ticket, train_stack


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setup = Experiment.of("digits", schedule="constant").setup()
    stack = tuple(dense_ticket(setup, replicate) for replicate in range(5))
    job = Job("digits", (300, 100), steps=800, batch=60, every=40, lr=1.2e-3, cosine=False)
    start = draw(job, 0)
    mask = {name: torch.ones_like(w) for name, w in start.items() if name.endswith("weight")}
    ratios = []
    for pair in range(arguments.pairs + 1):
        began = time.perf_counter()
        training(job, start, mask, 0)
        middle = time.perf_counter()
        train_stack(setup, stack)
        plain, ours = middle - began, (time.perf_counter() - middle) / len(stack)
        if pair:
            ratios.append(plain / ours)
            print(f"plain {plain:.3f} s, stacked {ours:.3f} s per replicate, ratio {ratios[-1]:.2f}")
    print(
        f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), n = {len(ratios)}, "
        f"one thread, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
