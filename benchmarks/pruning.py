"""How long `winticket.prune` takes beside torch's own global pruning, in one run.

    python benchmarks/pruning.py [--millions 20] [--rounds 5]

Linear layers of 1000 x 1000, by magnitude to a density of .1, one thread; the two take turns, medians with the range.
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
    """One turn of each."""
    found = {}
    for allocate in (layerwise, global_top):
        begun = time.perf_counter()
        winticket.prune(model, 0.1, allocate=allocate)
        found[f"winticket, {allocate.__name__}"] = time.perf_counter() - begun
    copied = [(layer, "weight") for layer in deepcopy(model).children()]
    begun = time.perf_counter()
    torch_prune.global_unstructured(copied, torch_prune.L1Unstructured, amount=0.9)
    found["torch.nn.utils.prune, global"] = time.perf_counter() - begun
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--millions", type=int, default=20, help="weights, in millions")
    options.add_argument("--rounds", type=int, default=5, help="turns of each")
    asked = options.parse_args()
    torch.set_num_threads(1)
    model = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(asked.millions)))
    rounds = [seconds(model) for _ in range(asked.rounds)]
    print(
        f"{asked.millions} million weights, n = {asked.rounds}, torch {torch.__version__}, {platform.processor()}"
    )
    for name in rounds[0]:
        own = [each[name] for each in rounds]
        ratio = [each[name] / each["torch.nn.utils.prune, global"] for each in rounds]
        print(
            f"{name}: {statistics.median(own):.2f} s ({min(own):.2f} to {max(own):.2f}), "
            f"{statistics.median(ratio):.2f} of torch's"
        )


if __name__ == "__main__":
    main()
