"""A dense training step in bfloat16 against float32: a stack of LeNet-300-100, and Conv-2, on one core.

The setting: MNIST's shapes in a stack of five, or CIFAR's shapes for one Conv-2; batches of 60, data in memory, Adam at
a constant learning rate, engine dense. Three ways alternate in one process with one thread: float32; bfloat16 by
autocast, which casts every weight and every gradient in every step; and bfloat16 as winticket trains, with copies that
the update writes. Times are the thread's own processor time, since other work may run beside it, without the fixed cost
of a training. Prints medians, and of the ratios their range, over the rounds; then the least milliseconds of an update
of the stack of LeNets by torch's fused Adam with what belongs to it, and in one pass.

    python benchmarks/precision.py [--rounds 7] [--density 1.0]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from winticket import data, models
from winticket.sparse import OnePass, Rule, Target, instruction_sets
from winticket.ticket import Mask, Seeds, State, Ticket
from winticket.train import Recipe, stretch, train

WAYS = ("float32", "autocast", "bf16")


@dataclass(frozen=True)
class Examples:
    train: data.Split
    validation: data.Split
    test: data.Split


@dataclass(frozen=True)
class Case:
    """A network with its shapes, the size of its stack, and the steps of a round."""

    model: str
    shape: tuple[int, int, int]
    stack: int
    steps: int

    def examples(self) -> Examples:
        return Examples(self._noise(6_000), self._noise(1), self._noise(1))

    def _noise(self, count: int) -> data.Split:
        generator = torch.Generator().manual_seed(0)
        return data.Split(torch.randn(count, *self.shape, generator=generator), torch.arange(count) % 10)

    def tickets(self, density: float) -> list[Ticket]:
        made = []
        for r in range(self.stack):
            module = models.build(self.model, input_shape=self.shape, classes=10, generator_seed=r)
            weights = {name: p.detach().clone() for name, p in module.named_parameters()}
            generator = torch.Generator().manual_seed(r)
            keep = {
                name: torch.rand(weights[name].shape, generator=generator) < density
                for name in models.eligible(module)
            }
            made.append(Ticket(Mask(keep), State(weights, {}, {}, 0), "ticket", Seeds(0, r)))
        return made


CASES = (Case("lenet-300-100", (1, 28, 28), 5, 120), Case("conv-2", (3, 32, 32), 1, 12))


def timed(case: Case, way: str, density: float) -> Callable[[], float]:
    """Times milliseconds per step of the whole stack; a short training removes the fixed cost of a training."""
    module = models.build(case.model, input_shape=case.shape, classes=10, generator_seed=0)
    examples, tickets = case.examples(), case.tickets(density)
    recipe = Recipe(
        steps=case.steps,
        lr=1e-4,
        evaluate_every=case.steps,
        early_points=False,
        precision="float32" if way == "float32" else "bf16",
    )
    short = replace(recipe, steps=case.steps // 4, evaluate_every=case.steps // 4)

    def run() -> float:
        seconds = []
        for each in (short, recipe):
            began = time.thread_time()
            if way == "autocast":
                with patch.object(stretch, "supported", lambda _: False):
                    train(module, examples, data, tickets, each, engine="dense")
            else:
                train(module, examples, data, tickets, each, engine="dense")
            seconds.append(time.thread_time() - began)
        return 1000 * (seconds[1] - seconds[0]) / (recipe.steps - short.steps)

    run()
    return run


def updates() -> dict[str, tuple[float, float]]:
    """Least milliseconds of an update of 5 x 266 610 weights by Adam: by torch's operators, and in one pass."""
    weight, mean, square = (torch.rand(5 * 266_610) for _ in range(3))
    gradient, mask = torch.rand_like(weight), torch.ones_like(weight)
    half, copy, count = gradient.bfloat16(), weight.bfloat16(), torch.tensor(1.0)
    fixed: Any = {
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
        "maximize": False,
    }
    slots = (mean, square)

    def adam(by: Tensor) -> None:
        torch._fused_adam_([weight], [by], [mean], [square], [], [count], lr=1e-9, **fixed)

    def masked() -> None:
        adam(gradient)
        torch._foreach_mul_([weight], [mask])

    def rounded() -> None:
        adam(half.float())
        copy.copy_(weight)

    def once(target: Target, by: Tensor) -> Callable[[], None]:
        update = OnePass([target], Rule("adam"))
        return lambda: update([by], 1e-9, taken=1)

    pairs: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "dense": (lambda: adam(gradient), once(Target(weight, slots), gradient)),
        "masked": (masked, once(Target(weight, slots, mask), gradient)),
        "bf16, with the casts": (rounded, once(Target(weight, slots, None, copy, half=True), half)),
    }
    return {name: (least(by_torch), least(ours)) for name, (by_torch, ours) in pairs.items()}


def least(work: Callable[[], None]) -> float:
    times = []
    for _ in range(40):
        began = time.thread_time()
        work()
        times.append(1000 * (time.thread_time() - began))
    return min(times)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    having = torch.cpu.get_capabilities()
    kinds = [kind for kind in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if having.get(kind)]
    return f"{names[0] if names else platform.processor()} ({', '.join(kinds) or 'none of AVX2 to AMX'})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--density", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "network, stack        float32 ms  autocast ms  bf16 ms  float32 / bf16 (range)   autocast / bf16 (range)"
    )
    for case in CASES:
        ways = [timed(case, way, arguments.density) for way in WAYS]
        rounds = [[way() for way in ways] for _ in range(arguments.rounds)]
        exact, autocast, ours = (list(column) for column in zip(*rounds, strict=True))
        middles = [f"{statistics.median(column):.2f}" for column in (exact, autocast, ours)]
        ratios = []
        for other in (exact, autocast):
            ratio = [a / b for a, b in zip(other, ours, strict=True)]
            ratios.append(f"{statistics.median(ratio):.2f} ({min(ratio):.2f}–{max(ratio):.2f})")
        print(f"{case.model}, {case.stack}:   {'   '.join(middles)}   {'   '.join(ratios)}")
    for name, (by_torch, once) in updates().items():
        print(f"update, {name}: {by_torch:.2f} ms by torch, {once:.2f} ms in one pass")
    sets = instruction_sets()
    print(
        f"n = {arguments.rounds} rounds, density {arguments.density:g}, medians and ranges, "
        f"processor time of one thread; {processor()}, kernels {sets[0] if sets else 'none'}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, Adam, batch {Recipe(steps=1).batch}"
    )


if __name__ == "__main__":
    main()
