"""Single layers, forward and both gradients, by density: the sparse kernels against the best dense ones, on one core.

Linear compares a stack of five 300x784 layers in batches of 64 with MKL's batched SGEMM. It also gives the rate as a
share of that of a large SGEMM on the same core. Conv2d compares the layers of one Conv-4 (batch 60) and one ResNet-20
(batch 128) at CIFAR-10's sizes with oneDNN, on contiguous or channels-last images, whichever is faster. Every sum
includes the gradient by input, except that of the first convolution. Within a round, dense and sparse take turns; times
are medians of processor time, ratios and shares medians of each round's, with their range.

    python benchmarks/layers.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from winticket.sparse import Structure, instruction_sets, products, structure, windows
from winticket.sparse.windows import Window

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)
PRODUCTS = ("forward", "by input", "by weight")


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


def turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor milliseconds of a call of each work, one figure a round; within a round the works take turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            began, calls = time.thread_time(), 0
            while calls == 0 or time.thread_time() - began < 0.02:
                work()
                calls += 1
            taken[name].append(1000 * (time.thread_time() - began) / calls)
    return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def linear(rounds: int) -> None:
    big = torch.randn(1024, 1024)
    stack, batch, rows, columns = 5, 64, 300, 784
    x, grad = torch.randn(stack, batch, columns), torch.randn(stack, batch, rows)
    weight = torch.randn(stack, rows, columns)
    print("Linear 300x784, stack of 5, batch 64: forward, by input, by weight")
    for density in DENSITIES:
        layout = structure(torch.rand(stack, rows, columns) < density, batch=batch)
        works = {
            "peak": lambda: big @ big,
            "dense forward": lambda: torch.bmm(x, weight.mT),
            "dense by input": lambda: torch.bmm(grad, weight),
            "dense by weight": lambda: torch.bmm(grad.mT, x),
            **sparse_linear(layout, x, grad),
        }
        times = turns(works, rounds)
        dense = [sum(each) for each in zip(*(times[f"dense {name}"] for name in PRODUCTS), strict=True)]
        sparse = [sum(each) for each in zip(*(times[name] for name in PRODUCTS), strict=True)]
        work = 2e-6 * batch * int(layout.start[:, -1, -1].sum())
        whole = 2e-6 * 1024**3
        shares = [
            statistics.median(
                100 * (work / t) / (whole / p) for t, p in zip(times[name], times["peak"], strict=True)
            )
            for name in PRODUCTS
        ]
        print(
            f"  d = {density:4.2f}: {', '.join(f'{statistics.median(times[n]):.3f}' for n in PRODUCTS)} ms; at best "
            f"{', '.join(f'{work / min(times[n]):.0f}' for n in PRODUCTS)} GFLOP/s, "
            f"SGEMM {whole / min(times['peak']):.0f}; "
            f"{', '.join(f'{share:.0f}' for share in shares)} % of SGEMM's rate; dense / sparse {ratio(dense, sparse)}"
        )


def sparse_linear(layout: Structure, x: Tensor, grad: Tensor) -> dict[str, Callable[[], object]]:
    x, grad = products.batch_last(x), products.batch_last(grad)
    values = torch.randn(layout.index.shape)
    columns = (layout.by_column, layout.row_of, layout.order)
    return {
        "forward": lambda: products.linear(x, values, None, layout.start, layout.place),
        "by input": lambda: products.linear_grad_input(grad, values, *columns),
        "by weight": lambda: products.linear_grad_weight(grad, x, layout.start, layout.place),
    }


def dense_convolution(layer: Layer, form: torch.memory_format) -> Callable[[], object]:
    x = torch.randn(layer.batch, layer.channels, layer.size, layer.size)
    weight = torch.randn(layer.filters, layer.channels, 3, 3)
    grad = torch.randn_like(torch.conv2d(x, weight, stride=layer.stride, padding=1))
    a, w, g = (t.contiguous(memory_format=form) for t in (x, weight, grad))

    def both() -> None:
        torch.conv2d(a, w, stride=layer.stride, padding=1)
        torch.ops.aten.convolution_backward(
            g, a, w, None, [layer.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
            [not layer.first, True, False],
        )  # fmt: skip

    return both


def sparse_convolution(layer: Layer, density: float) -> Callable[[], object]:
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

    return both


def convolution(layer: Layer, rounds: int) -> tuple[list[float], dict[float, list[float]]]:
    """Milliseconds by round: dense in the faster form, and sparse by density."""
    forms = {
        str(form): dense_convolution(layer, form) for form in (torch.contiguous_format, torch.channels_last)
    }
    times = turns(forms | {f"{d}": sparse_convolution(layer, d) for d in DENSITIES}, rounds)
    dense = min((times[form] for form in forms), key=statistics.median)
    return dense, {d: times[f"{d}"] for d in DENSITIES}


def convolutions(rounds: int) -> None:
    for name, layers in NETWORKS.items():
        print(f"{name}: milliseconds of forward and backward; dense / sparse by density {DENSITIES}")
        whole, totals = [0.0] * rounds, {d: [0.0] * rounds for d in DENSITIES}
        for layer in layers:
            dense, sparse = convolution(layer, rounds)
            whole = [total + layer.times * t for total, t in zip(whole, dense, strict=True)]
            for d, times in sparse.items():
                faster = min((times, dense), key=statistics.median)
                totals[d] = [total + layer.times * t for total, t in zip(totals[d], faster, strict=True)]
            by_density = ", ".join(f"{statistics.median(t):.1f} ({ratio(dense, t)})" for t in sparse.values())
            print(
                f"  {layer.times} x {layer.channels}->{layer.filters}, {layer.size}x{layer.size}, "
                f"stride {layer.stride}: dense {statistics.median(dense):.1f}; {by_density}"
            )
        by_density = ", ".join(ratio(whole, totals[d]) for d in DENSITIES)
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
