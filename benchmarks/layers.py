"""Single layers, forward and both gradients, by density: the sparse kernels against the best dense ones, on one core.

Linear compares a stack of five 300x784 layers in batches of 64 with MKL's batched SGEMM. It also gives the rate as a
share of that of a large SGEMM on the same core. Conv2d compares the layers of one Conv-4 (batch 60) and one ResNet-20
(batch 128) at CIFAR-10's sizes with oneDNN, on contiguous or channels-last images, whichever is faster. Every sum
includes the gradient by input, except that of the first convolution. All times are medians over the rounds.

    python benchmarks/layers.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from winticket.sparse import Structure, instruction_sets, products, structure, windows
from winticket.sparse.windows import Window

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution with padding 1, and the number of times that a network contains it."""

    batch: int
    channels: int
    filters: int
    size: int
    stride: int = 1
    times: int = 1
    first: bool = False


NETWORKS = {
    "Conv-4, batch 60": [
        Layer(60, 3, 64, 32, first=True),
        Layer(60, 64, 64, 32),
        Layer(60, 64, 128, 16),
        Layer(60, 128, 128, 16),
    ],
    "ResNet-20, batch 128": [
        Layer(128, 3, 16, 32, first=True),
        Layer(128, 16, 16, 32, times=6),
        Layer(128, 16, 32, 32, stride=2),
        Layer(128, 32, 32, 16, times=5),
        Layer(128, 32, 64, 16, stride=2),
        Layer(128, 64, 64, 8, times=5),
    ],
}


def median(work: Callable[[], object], rounds: int) -> float:
    """Milliseconds per call, after one call to warm up."""
    work()
    times = []
    for _ in range(rounds):
        began, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - began < 0.05:
            work()
            calls += 1
        times.append(1000 * (time.perf_counter() - began) / calls)
    return statistics.median(times)


def linear(rounds: int) -> None:
    big = torch.randn(1024, 1024)
    peak = 2e-6 * 1024**3 / median(lambda: big @ big, rounds)
    stack, batch, rows, columns = 5, 64, 300, 784
    x, grad = torch.randn(stack, batch, columns), torch.randn(stack, batch, rows)
    weight = torch.randn(stack, rows, columns)
    dense = [
        median(lambda: torch.bmm(x, weight.mT), rounds),
        median(lambda: torch.bmm(grad, weight), rounds),
        median(lambda: torch.bmm(grad.mT, x), rounds),
    ]
    print(f"Linear 300x784, stack of 5, batch 64; SGEMM of this core: {peak:.0f} GFLOP/s")
    print(f"  dense: forward {dense[0]:.2f}, by input {dense[1]:.2f}, by weight {dense[2]:.2f} ms")
    for density in DENSITIES:
        layout = structure(torch.rand(stack, rows, columns) < density, batch=batch)
        times = sparse_linear(layout, x, grad, rounds)
        rates = [2e-6 * batch * int(layout.start[:, -1, -1].sum()) / t / peak for t in times]
        print(
            f"  d = {density:4.2f}: {times[0]:.3f}, {times[1]:.3f}, {times[2]:.3f} ms; "
            f"{', '.join(f'{rate * peak:.0f}' for rate in rates)} GFLOP/s, "
            f"{', '.join(f'{100 * rate:.0f}' for rate in rates)} % of SGEMM; "
            f"dense / sparse {sum(dense) / sum(times):.2f}"
        )


def sparse_linear(layout: Structure, x: Tensor, grad: Tensor, rounds: int) -> list[float]:
    """Milliseconds of the forward pass, the gradient by input and the gradient by weight."""
    x, grad = products.batch_last(x), products.batch_last(grad)
    values = torch.randn(layout.index.shape)
    columns = (layout.by_column, layout.row_of, layout.order)
    return [
        median(lambda: products.linear(x, values, None, layout.start, layout.place), rounds),
        median(lambda: products.linear_grad_input(grad, values, *columns), rounds),
        median(lambda: products.linear_grad_weight(grad, x, layout.start, layout.place), rounds),
    ]


def dense_convolution(layer: Layer, rounds: int) -> float:
    x = torch.randn(layer.batch, layer.channels, layer.size, layer.size)
    weight = torch.randn(layer.filters, layer.channels, 3, 3)
    grad = torch.randn_like(torch.conv2d(x, weight, stride=layer.stride, padding=1))
    best = []
    for form in (torch.contiguous_format, torch.channels_last):
        a, w, g = (t.contiguous(memory_format=form) for t in (x, weight, grad))

        def both(a: Tensor = a, w: Tensor = w, g: Tensor = g) -> None:
            torch.conv2d(a, w, stride=layer.stride, padding=1)
            torch.ops.aten.convolution_backward(
                g, a, w, None, [layer.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
                [not layer.first, True, False],
            )  # fmt: skip

        best.append(median(both, rounds))
    return min(best)


def sparse_convolution(layer: Layer, density: float, rounds: int) -> float:
    window = Window(layer.channels, (3, 3), (layer.stride, layer.stride), (1, 1))
    x = torch.randn(1, layer.batch, layer.channels, layer.size, layer.size)
    keep = torch.rand(1, layer.filters, layer.channels, 3, 3) < density
    layout = structure(keep, columns_in=window.numbered())
    values = layout.pack(torch.randn(keep.shape))
    rows = (layout.start, layout.place)
    columns = [layout.by_column, layout.row_of, layout.order, layout.column_of]
    grad = torch.randn_like(windows.conv2d(x, values, None, *rows, window=window))

    def both() -> None:
        windows.conv2d(x, values, None, *rows, window=window)
        windows.conv2d_backward(grad, x, values, rows, columns, window=window, input_wanted=not layer.first)

    return median(both, rounds)


def convolutions(rounds: int) -> None:
    for name, layers in NETWORKS.items():
        print(f"{name}: milliseconds of forward and backward, dense / sparse by density {DENSITIES}")
        dense_total, totals = 0.0, dict.fromkeys(DENSITIES, 0.0)
        for layer in layers:
            dense = dense_convolution(layer, rounds)
            sparse = {d: sparse_convolution(layer, d, rounds) for d in DENSITIES}
            dense_total += layer.times * dense
            for d, t in sparse.items():
                totals[d] += layer.times * min(t, dense)
            by_density = ", ".join(f"{t:.1f} ({dense / t:.2f}x)" for t in sparse.values())
            print(
                f"  {layer.times} x {layer.channels}->{layer.filters}, {layer.size}x{layer.size}, "
                f"stride {layer.stride}: dense {dense:.1f}; {by_density}"
            )
        by_density = ", ".join(f"{dense_total / t:.2f}x" for t in totals.values())
        print(f"  all, each layer by whichever is faster: {by_density}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    linear(arguments.rounds)
    convolutions(arguments.rounds)
    sets = instruction_sets()
    print(
        f"one thread, kernels {sets[0] if sets else 'none'}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, medians of n = {arguments.rounds}"
    )


if __name__ == "__main__":
    main()
