"""Small data, networks and tickets for the tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest
import torch
from torch import Tensor, nn

from winticket import models
from winticket.sparse import Tuning
from winticket.ticket import Mask, Seeds, State, Ticket
from winticket.train import engine


@dataclass(frozen=True)
class Examples:
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class SmallData:
    train: Examples
    validation: Examples
    test: Examples


class Dense(Protocol):
    """A ticket of a module: its weights moved by the replicate's noise, each eligible weight kept or not by chance."""

    def __call__(self, module: nn.Module, replicate: int = 0, *, density: float = 1.0) -> Ticket: ...


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _agreed_break_even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured ones differ with the size of a stack, and so do last bits; here stacks are compared bit for bit."""
    monkeypatch.setattr(engine, "tuning", lambda shape: Tuning(shape, 0.4))


def _examples(count: int, *shape: int, seed: int) -> Examples:
    """Three classes told apart by a linear map of the example."""
    rule = torch.randn(shape, generator=torch.Generator().manual_seed(0)).unsqueeze(0)
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    value = (x * rule).flatten(1).sum(1) / rule.norm()
    return Examples(x, (value > -0.5).long() + (value > 0.5).long())


def _split(*shape: int) -> SmallData:
    return SmallData(
        _examples(45, *shape, seed=1), _examples(21, *shape, seed=2), _examples(23, *shape, seed=3)
    )


@pytest.fixture(scope="session")
def vectors() -> SmallData:
    return _split(6)


@pytest.fixture(scope="session")
def images() -> SmallData:
    return _split(3, 8, 8)


@pytest.fixture(scope="session")
def dense() -> Dense:
    def make(module: nn.Module, replicate: int = 0, *, density: float = 1.0) -> Ticket:
        noise = torch.Generator().manual_seed(50 + replicate)
        weights = {
            name: p.detach() + 0.1 * torch.randn(p.shape, generator=noise)
            for name, p in module.named_parameters()
        }
        buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
        keep = {n: torch.rand(weights[n].shape, generator=noise) < density for n in models.eligible(module)}
        return Ticket(Mask(keep), State(weights, buffers, {}, 0), "ticket", Seeds(1, replicate))

    return make
