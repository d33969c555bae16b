"""A whole search on digits: winticket against the plain-PyTorch way, as ratios in one run.

Plain: tensors in memory, one network at a time with autograd and `torch.optim.Adam` (fused), the mask multiplied onto
the weights after every step, evaluation on the same grid, replicates shared out over as many processes of one thread
as winticket gets. Both do the same trainings: for each replicate dense, then per level ticket, re-init and random
mask. Rounds alternate; the median ratio and its range are printed, with n, device and versions.

    python benchmarks/digits_search.py [--levels 4] [--replicates 10] [--rounds 3] [--workers 2]
"""

import argparse
import math
import multiprocessing
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from winticket import data
from winticket.experiment import Experiment, conduct

STEPS, BATCH, EVERY, LR = 800, 60, 40, 1.2e-3


def plain_training(
    start: dict[str, torch.Tensor], mask: dict[str, torch.Tensor], seed: int
) -> dict[str, torch.Tensor]:
    """One training as one would write it in an afternoon; returns the trained weights."""
    loaded = data.load("digits")
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    model.load_state_dict(start)
    weights = dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(loaded.train.y), generator=generator)
    at = 0
    with torch.no_grad():
        for name, keep in mask.items():
            weights[name].mul_(keep)
    for step in range(STEPS):
        if at + BATCH > len(order):
            order, at = torch.randperm(len(loaded.train.y), generator=generator), 0
        rows, at = order[at : at + BATCH], at + BATCH
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(loaded.train.x[rows]), loaded.train.y[rows]))
        optimizer.step()
        with torch.no_grad():
            for name, keep in mask.items():
                weights[name].mul_(keep)
            if (step + 1) % EVERY == 0:
                for part in (loaded.validation, loaded.test):
                    logits = model(part.x)
                    F.cross_entropy(logits, part.y).item()
                    (logits.argmax(1) == part.y).float().mean().item()
    return {name: p.detach().clone() for name, p in weights.items()}


def plain_replicate(job: tuple[int, int]) -> int:
    """All trainings of one replicate; returns how many."""
    replicate, levels = job
    torch.set_num_threads(1)

    def draw(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        sizes = ((1, 64, 300), (3, 300, 100), (5, 100, 10))
        made = {}
        for place, fan_in, fan_out in sizes:
            spread = math.sqrt(2 / (fan_in + fan_out))
            made[f"{place}.weight"] = torch.randn(fan_out, fan_in, generator=generator) * spread
            made[f"{place}.bias"] = torch.zeros(fan_out)
        return made

    start = draw(replicate)
    mask = {name: torch.ones_like(w) for name, w in start.items() if name.endswith("weight")}
    trained, count = plain_training(start, {}, replicate), 1
    for level in range(1, levels + 1):
        for name, keep in mask.items():
            share = 0.9**level if name == "5.weight" else 0.8**level
            best = (trained[name].abs() * keep).flatten().topk(round(share * keep.numel())).indices
            mask[name] = torch.zeros(keep.numel()).index_fill(0, best, 1.0).view_as(keep)
        trained = plain_training(start, mask, replicate)
        plain_training(draw(1000 * level + replicate), mask, replicate)
        generator = torch.Generator().manual_seed(level)
        shuffled = {
            n: k.flatten()[torch.randperm(k.numel(), generator=generator)].view_as(k) for n, k in mask.items()
        }
        plain_training(start, shuffled, replicate)
        count += 3
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    data.load("digits")
    choices = {"levels": given.levels, "replicates": given.replicates, "gate": False, "schedule": "constant"}
    experiment = Experiment.of("digits", **choices)
    ratios = []
    trainings = given.replicates * (1 + 3 * given.levels)
    for number in range(given.rounds):
        began = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
            counted = sum(pool.map(plain_replicate, [(r, given.levels) for r in range(given.replicates)], 1))
        plain = time.perf_counter() - began
        assert counted == trainings
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            conduct(experiment, store=Path(folder) / "store", workers=given.workers)
            ours = time.perf_counter() - began
        ratios.append(plain / ours)
        print(
            f"round {number + 1}: plain {plain:.1f} s, winticket {ours:.1f} s with report and figures, "
            f"ratio {ratios[-1]:.2f}"
        )
    print(
        f"{trainings} trainings of {STEPS} steps: winticket is {statistics.median(ratios):.2f} times as fast "
        f"(median of n = {len(ratios)}; {min(ratios):.2f} to {max(ratios):.2f}), "
        f"{given.workers} processes of one thread, "
        f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
