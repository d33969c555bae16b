"""The plain-PyTorch way, as one would write it in an afternoon: the baseline of the comparisons in this folder.

It holds tensors in memory and trains one network at a time with autograd and fused Adam. It multiplies the weights by
the mask after every step. It evaluates validation examples on the same grid as winticket, and test examples at the
least validation loss and at the end.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from winticket import data

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """A LeNet on a dataset: hidden widths, steps of Adam, batch, steps between evaluations."""

    data: str
    widths: tuple[int, ...]
    steps: int
    batch: int
    every: int
    lr: float
    cosine: bool

    def sizes(self, inputs: int, classes: int) -> list[tuple[int, int]]:
        every = [inputs, *self.widths, classes]
        return list(itertools.pairwise(every))


def network(job: Job, inputs: int, classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in job.sizes(inputs, classes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def draw(job: Job, seed: int) -> Weights:
    """Glorot-normal weights, biases 0."""
    loaded = data.load(job.data)
    generator = torch.Generator().manual_seed(seed)
    made = {}
    sizes = job.sizes(math.prod(loaded.input_shape), loaded.classes)
    for position, (fan_in, fan_out) in enumerate(sizes):
        spread = math.sqrt(2 / (fan_in + fan_out))
        made[f"{1 + 2 * position}.weight"] = torch.randn(fan_out, fan_in, generator=generator) * spread
        made[f"{1 + 2 * position}.bias"] = torch.zeros(fan_out)
    return made


def training(job: Job, start: Weights, mask: Weights, seed: int) -> tuple[Weights, float]:
    """Train once; returns the trained weights and the final test accuracy (a fraction)."""
    loaded = data.load(job.data)
    model = network(job, math.prod(loaded.input_shape), loaded.classes)
    model.load_state_dict(start)
    weights = dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=job.lr, fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(loaded.train.y), generator=generator)
    at, least, best = 0, math.inf, start
    with torch.no_grad():
        for name, keep in mask.items():
            weights[name].mul_(keep)
    for step in range(job.steps):
        if at + job.batch > len(order):
            order, at = torch.randperm(len(loaded.train.y), generator=generator), 0
        rows, at = order[at : at + job.batch], at + job.batch
        if job.cosine:
            optimizer.param_groups[0]["lr"] = job.lr * 0.5 * (1 + math.cos(math.pi * step / job.steps))
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(loaded.train.x[rows]), loaded.train.y[rows]))
        optimizer.step()
        with torch.no_grad():
            for name, keep in mask.items():
                weights[name].mul_(keep)
            if (step + 1) % job.every == 0 or step + 1 == job.steps:
                loss, _ = score(model, loaded.validation)
                if loss < least:
                    least, best = loss, {name: p.detach().clone() for name, p in weights.items()}
    last = {name: p.detach().clone() for name, p in weights.items()}
    with torch.no_grad():
        _, accuracy = score(model, loaded.test)
        model.load_state_dict(best)
        score(model, loaded.test)  # at the early stop
    return last, accuracy


def score(model: nn.Module, part: data.Split) -> tuple[float, float]:
    """Mean loss and accuracy (a fraction)."""
    logits = model(part.x)
    return F.cross_entropy(logits, part.y).item(), (logits.argmax(1) == part.y).float().mean().item()


def replicate(work: tuple[Job, int, int]) -> list[float]:
    """Run all trainings of one replicate, level by level; returns their final test accuracies (fractions)."""
    job, number, levels = work
    torch.set_num_threads(1)
    start = draw(job, number)
    mask = {name: torch.ones_like(w) for name, w in start.items() if name.endswith("weight")}
    last = list(mask)[-1]
    trained, accuracy = training(job, start, {}, number)
    accuracies = [accuracy]
    for level in range(1, levels + 1):
        for name, keep in mask.items():
            share = 0.9**level if name == last else 0.8**level
            best = (trained[name].abs() * keep).flatten().topk(round(share * keep.numel())).indices
            mask[name] = torch.zeros(keep.numel()).index_fill(0, best, 1.0).view_as(keep)
        trained, accuracy = training(job, start, mask, number)
        generator = torch.Generator().manual_seed(level)
        shuffled = {
            n: k.flatten()[torch.randperm(k.numel(), generator=generator)].view_as(k) for n, k in mask.items()
        }
        controls = [(draw(job, 1000 * level + number), mask), (start, shuffled)]
        accuracies += [accuracy, *(training(job, begin, keep, number)[1] for begin, keep in controls)]
    return accuracies
