"""Half of the filters of a VGG-11 and a ResNet-20: the masked network against the narrow one that `compact` makes.

    python benchmarks/narrow.py [--rounds 9]

Filters are chosen by their L1 norm: in every layer by itself, and for ResNet-20 also once for all layers that a
residual sum ties together, so that the sums become narrow too. Images have CIFAR-10's size, weights are as initialised,
BatchNorm has seen some noise. One thread. In every round the masked and the narrow network take turns; medians of their
milliseconds per batch and of the rounds' ratios are printed, with the range. Bytes are those of all parameters and
buffers. Before anything is timed, both must agree to 1e-6 of the largest output.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
from torch import Tensor, nn

import winticket
from winticket import Mask, criteria, models
from winticket.align import symmetry
from winticket.ship import Compact

SHAPE = (3, 32, 32)
BATCHES = (1, 64)


def network(name: str) -> nn.Module:
    """A network in evaluation whose BatchNorm statistics are those of noise."""
    model = models.build(name, input_shape=SHAPE, classes=10, generator_seed=0)
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, *SHAPE))
    return model.eval()


def by_layer(model: nn.Module) -> Mask:
    """Half of the filters of every layer."""
    return winticket.prune(model, 0.5, criterion=criteria.l1_units).mask


def by_sum(model: nn.Module) -> Mask:
    """Half of the channels of every group of layers that are summed, and of every other layer."""
    names = [name for name in models.eligible(model) if name != models.output_layer(model)]
    weights = {name: model.get_parameter(name).detach() for name in names}
    keep = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    for group in symmetry(model, SHAPE):
        made = [axis.name for axis in group.axes if axis.dim == 0 and axis.name in weights]
        norms = torch.stack([weights[name].flatten(1).abs().mean(1) for name in made]).mean(0)
        for name in made:
            keep[name][norms.argsort()[: group.size // 2]] = False
    return Mask(keep)


def size(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def milliseconds(module: nn.Module, x: Tensor, *, least: float = 0.2) -> float:
    """Milliseconds per call, over calls that take `least` seconds together."""
    began, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < least:
        module(x)
        calls += 1
    return 1000 * spent / calls


@torch.no_grad()
def compare(title: str, model: nn.Module, mask: Mask, rounds: int) -> None:
    small: Compact = winticket.compact(model, mask, example=torch.zeros(1, *SHAPE))
    with winticket.masked(model, mask):
        pass  # sets the pruned weights to 0, and with them what dies with a filter
    x = torch.randn(16, *SHAPE)
    gap = float((model(x) - small(x)).abs().max() / model(x).abs().max())
    assert gap <= 1e-6, gap
    widths = [str(m.out_channels) for m in small.modules() if isinstance(m, nn.Conv2d)]
    print(
        f"{title}: {size(model)} bytes, narrow {size(small)} ({size(model) / size(small):.2f} times smaller)"
    )
    print(f"  filters: {' '.join(widths)}; outputs agree to {gap:.1e}")
    for batch in BATCHES:
        x = torch.randn(batch, *SHAPE)
        for module in (model, small):
            milliseconds(module, x)
        pairs = [(milliseconds(model, x), milliseconds(small, x)) for _ in range(rounds)]
        ratios = [dense / narrow for dense, narrow in pairs]
        dense, narrow = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"  batch {batch}: {dense:.2f} ms, narrow {narrow:.2f} ms, {statistics.median(ratios):.2f} times faster "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds, at least 7")
    rounds = max(7, parser.parse_args().rounds)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}, "
        f"Python {platform.python_version()}, medians of n = {rounds}"
    )
    for name in ("vgg-11", "resnet-20"):
        model = network(name)
        compare(f"{name}, half of the filters of every layer", model, by_layer(model), rounds)
    model = network("resnet-20")
    compare("resnet-20, half of the filters of all that are summed", model, by_sum(model), rounds)


if __name__ == "__main__":
    main()
