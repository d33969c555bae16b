"""Inference on one core: the sparse engine beside PyTorch, ONNX Runtime, OpenVINO and LiteRT, by density and batch.

Networks have random masks and random weights. Inputs of LeNet-300-100 are 0 in four fifths of the pixels, as MNIST's
are; --zeros changes that. All runtimes get the same inputs and take turns; every ratio is the median, with its 95 %
interval, of how many times as long a runtime takes as the sparse engine in the same round. torch.compile is tried at
one density alone. The other runtimes are installed in a folder of their own.

It takes about 15 minutes on a quiet core.

    python benchmarks/inference.py [--core 1] [--rounds 21] [--zeros 0.8] [--peers build/peers]
                                        [--network resnet-20] [--batch 1] [--cpu-time]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import inference_peers
import numpy as np
import torch

from winticket import Mask, models
from winticket.ship import Network, capture
from winticket.ship.measure import measure
from winticket.ship.measure_runtimes import ENGINE, RUNTIMES
from winticket.ship.measure_text import number
from winticket.ship.measurement import Measurement

NETWORKS = {"lenet-300-100": (1, 28, 28), "resnet-20": (3, 32, 32), "vgg-11": (3, 32, 32)}
DENSITIES = (0.1, 0.05, 0.02)
COMPILED_AT = 0.05
BATCHES = (1, 64)
FEW = 9
"""Rounds of batches of images, which take seconds each."""
LENET, SMALL, LARGE = "lenet-300-100", (1,), (64,)
AIMS = [
    (LENET, 0.05, 1, "onnxruntime", 3.0),
    (LENET, 0.05, 1, "litert sparse", 2.0),
    (LENET, 0.05, 64, "onnxruntime", 4.0),
    (LENET, 0.02, 1, "onnxruntime", 4.0),
    (LENET, 0.02, 64, "onnxruntime", 8.0),
    ("resnet-20", 0.05, 1, "the best dense runtime", 1.5),
    ("vgg-11", 0.05, 1, "the best dense runtime", 1.5),
]
"""(Network, density, batch, runtime): how many times as fast as that the sparse engine is to be."""


def network(name: str, density: float) -> Network:
    """With a random mask, and with BatchNorm's statistics as training leaves them."""
    model = models.build(name, input_shape=NETWORKS[name], classes=10, generator_seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 1:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    weights = dict(model.named_parameters())
    keep = {n: torch.rand(weights[n].shape, generator=generator) < density for n in models.eligible(model)}
    return capture(model, Mask(keep), example=torch.zeros(1, *NETWORKS[name]))


def runtimes(name: str, density: float) -> list[str]:
    """Those that are worth measuring: LiteRT's own kernels are slow for images, and dense times never differ."""
    left_out = {"torch shrunk", "onnxruntime shrunk"}
    if density != COMPILED_AT:
        left_out.add("torch compiled")
    if name != LENET:
        left_out.add("litert sparse")
    return [one for one in RUNTIMES if one not in left_out]


def case(name: str, density: float, options: argparse.Namespace) -> list[Measurement]:
    made, rng = network(name, density), np.random.default_rng(0)
    x = rng.random((64, *NETWORKS[name]), np.float32)
    if name == LENET:
        x *= rng.random(x.shape) >= options.zeros
    clock = time.process_time if options.cpu_time else time.perf_counter
    names = runtimes(name, density)
    return [
        measure(
            made,
            x,
            batches=(batch,),
            rounds=options.rounds if batch == 1 or name == LENET else min(options.rounds, FEW),
            runtimes=names,
            memory=False,
            energy=False,
            clock=clock,
        )
        for batch in options.batch or BATCHES
    ]


def rows(made: Measurement) -> Iterator[str]:
    engine = next(row for row in made["timings"] if row["runtime"] == ENGINE)
    yield f"  batch {engine['batch']}: {number(engine['microseconds']['median'])} µs, n = {made['rounds']}"
    for row in made["timings"]:
        if row is not engine:
            of = row["engine_faster"]
            rounding = "" if row["exact"] else f"; outputs differ by {100 * row['difference']:.1g} %"
            yield f"    {row['runtime']:<15} {of['median']:6.2f} ({of['low']:.2f}–{of['high']:.2f}){rounding}"
    yield from (f"    {name}: {reason}" for name, reason in made["missing"].items())


def against(made: Measurement, runtime: str) -> Iterator[tuple[str, float]]:
    """(Runtime, how many times as long it takes) for an aim: the one, or the best in float32, and the best of all."""
    others = [row for row in made["timings"] if row["runtime"] != ENGINE]
    if runtime in RUNTIMES:
        others = [row for row in others if row["runtime"] == runtime]
    groups = ([row for row in others if row["exact"]], others)
    for group in groups if any(not row["exact"] for row in others) else groups[:1]:
        if group:
            best = min(group, key=lambda row: row["microseconds"]["median"])
            yield best["runtime"], best["engine_faster"]["median"]


def aims(found: dict[tuple[str, float, int], Measurement]) -> Iterator[str]:
    for name, density, batch, runtime, wanted in AIMS:
        made = found.get((name, density, batch))
        for other, ratio in against(made, runtime) if made else ():
            reached = "reached" if ratio >= wanted else "not reached"
            yield f"{name}, d = {density}, batch {batch}: {ratio:.2f} times as fast as {other}; aim {wanted}: {reached}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--core", type=int, help="run on this core alone")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--zeros", type=float, default=0.8, help="share of LeNet's inputs that are 0")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"))
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this; may be repeated")
    parser.add_argument("--batch", type=int, choices=BATCHES, action="append", help="only this")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time, for a busy machine")
    options = parser.parse_args()
    inference_peers.ready(options.peers)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    began, found = time.monotonic(), {}
    for name in options.network or NETWORKS:
        for density in DENSITIES:
            print(f"{name}, d = {density}", flush=True)
            for made in case(name, density, options):
                found[name, density, made["timings"][0]["batch"]] = made
                print("\n".join(rows(made)), flush=True)
    print("\n".join(aims(found)))
    last = next(reversed(found.values()))
    versions = ", ".join(f"{package} {version}" for package, version in last["versions"].items())
    clock = "processor" if options.cpu_time else "wall"
    print(f"{last['processor']}; {versions}; {clock} time; one thread; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
