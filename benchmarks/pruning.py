"""Time `winticket.prune` against the global pruning of torch.

    python benchmarks/pruning.py [--millions 20] [--rounds 5]

Linear layers of 1000 x 1000 are pruned by magnitude to a density of .1, with one thread. The two alternate in one
process. Prints medians with their range.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import winticket
from winticket.allocate import global_top, layerwise


def seconds(model: nn.Module) -> dict[str, float]:
    """Seconds of one call of each."""
    timed = {}
    for allocate in (layerwise, global_top):
        begun = time.perf_counter()
        winticket.prune(model, 0.1, allocate=allocate)
        timed[f"winticket, {allocate.__name__}"] = time.perf_counter() - begun
    copied = [(layer, "weight") for layer in deepcopy(model).children()]
    begun = time.perf_counter()
    torch_prune.global_unstructured(copied, torch_prune.L1Unstructured, amount=0.9)
    timed["torch.nn.utils.prune, global"] = time.perf_counter() - begun
    return timed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--millions", type=int, default=20, help="weights, in millions")
    options.add_argument("--rounds", type=int, default=5, help="calls of each")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    model = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(arguments.millions)))
    rounds = [seconds(model) for _ in range(arguments.rounds)]
    print(
        f"{arguments.millions} million weights, n = {arguments.rounds}, torch {torch.__version__}, "
        f"{platform.processor()}"
    )
    for name in rounds[0]:
        times = [each[name] for each in rounds]
        ratio = [each[name] / each["torch.nn.utils.prune, global"] for each in rounds]
        print(
            f"{name}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}), "
            f"{statistics.median(ratio):.2f} of torch's"
        )


if __name__ == "__main__":
    main()
