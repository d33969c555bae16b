"""The density below which a layer is faster sparse: measured on this machine, once per shape, and remembered.

A measurement takes well under a second. It is kept in the user's cache folder, so that all processes of a run, and a
resumed run, make the same choice. A different choice would change numbers in the last bits.
"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from winticket.atomic import create_file, replace_file
from winticket.outside import Unreadable, read_file, read_json
from winticket.places import cache_folder
from winticket.sparse import products, windows
from winticket.sparse.native import kernels
from winticket.sparse.structure import structure
from winticket.sparse.windows import Window

REVISION = 3
"""Raised when measurements of earlier kernels no longer hold."""
STEP = 0.05  # break-even densities are rounded down to multiples of this, so that noise rarely changes them
PROBES = (0.05, 0.4)
ROUNDS = 5
SLOW = 0.05  # seconds; a call that takes longer is timed once, since noise matters little then


@dataclass(frozen=True)
class Shape:
    """A layer in training: `stack` networks, batches of `batch` examples, `threads` threads.

    Its weight has `rows` and `columns`. A Conv2d also has a `window` and images of `size` (height, width).

    >>> Shape(rows=300, columns=784, stack=5, batch=60, threads=1).size
    (1, 1)
    """

    rows: int
    columns: int
    stack: int
    batch: int
    threads: int
    window: Window | None = None
    size: tuple[int, int] = (1, 1)


class _Measured(msgspec.Struct):
    break_even: float


@lru_cache(maxsize=1024)
def break_even(shape: Shape) -> float:
    """The density up to which the sparse kernels train this layer faster than the dense ones; 0 without kernels.

    The first call for a shape measures it, unless the cache folder has the result.

    >>> 0 <= break_even(Shape(rows=8, columns=8, stack=1, batch=4, threads=1)) <= 1
    True
    """
    if kernels is None:
        return 0.0
    digest = sha256(json.dumps(_conditions(shape), sort_keys=True).encode()).hexdigest()[:24]
    file = cache_folder() / "break-even" / f"{digest}.json"
    if (known := _read(file)) is not None:
        return known
    return _remember(file, {**_conditions(shape), "break_even": measure(shape)})


def _read(file: Path) -> float | None:
    try:
        density = read_json(read_file(file, limit=1 << 16), _Measured).break_even
    except (OSError, Unreadable):
        return None
    return density if 0 <= density <= 1 else None


def _conditions(shape: Shape) -> dict[str, object]:
    """All that a measurement depends on."""
    machine = {"processor": _processor(), "torch": torch.__version__, "kernels": kernels.chosen()}
    return {**asdict(shape), **machine, "revision": REVISION}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _remember(file: Path, measurement: dict[str, object]) -> float:
    """Write a measurement unless another process has written one, and return the one in the file."""
    mine = float(str(measurement["break_even"]))
    # If the cache cannot be written, each process measures for itself.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(measurement).encode()
        if not create_file(file, content):
            if (theirs := _read(file)) is not None:
                return theirs
            replace_file(file, content)  # the file was damaged
    return mine


def measure(shape: Shape) -> float:
    """The density at which sparse and dense take equally long, from times of a whole step, dense and at two densities.

    A step is the forward pass, both gradients and the optimiser's update.
    """
    dense = min(_time(work) for work in _dense(shape))
    low, high = (_time(_sparse(shape, density)) for density in PROBES)
    slope = max((high - low) / (PROBES[1] - PROBES[0]), 1e-12)
    crossing = PROBES[0] + (dense - low) / slope
    return min(1.0, max(0.0, int(crossing / STEP) * STEP))


def _time(work: Callable[[], None]) -> float:
    """The median seconds of a call over a few rounds, after a warm-up; a slow call is timed once."""
    work()
    begun = time.perf_counter()
    work()
    first = time.perf_counter() - begun
    if first > SLOW:
        return first
    calls = max(1, round(0.004 / max(first, 1e-6)))
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(calls):
            work()
        rounds.append((time.perf_counter() - begun) / calls)
    return statistics.median(rounds)


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _keep(shape: Shape, density: float) -> Tensor:
    chance = torch.rand(shape.stack, shape.rows, shape.columns, generator=torch.Generator().manual_seed(1))
    return chance < density


def _with_adam(weight: Tensor, gradient: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam([weight], lr=1e-9, fused=True)

    def work() -> None:
        weight.grad = gradient()
        optimizer.step()

    return work


def _dense(shape: Shape) -> list[Callable[[], None]]:
    """The dense ways to compute the layer, of which training uses the fastest."""
    if shape.window:
        formats = (torch.contiguous_format, torch.channels_last)
        return [_dense_window(shape, shape.window, memory=memory) for memory in formats]
    x = _draw(shape.stack, shape.batch, shape.columns, seed=0)
    grad = _draw(shape.stack, shape.batch, shape.rows, seed=1)
    weight = _draw(shape.stack, shape.rows, shape.columns, seed=2)
    mask = torch.ones_like(weight)

    def gradient() -> Tensor:
        weight.mul_(mask)
        torch.bmm(x, weight.mT)
        torch.bmm(grad, weight)
        return torch.bmm(grad.mT, x)

    return [_with_adam(weight, gradient)]


def _sparse(shape: Shape, density: float) -> Callable[[], None]:
    if shape.window:
        return _sparse_window(shape, shape.window, density)
    x = products.batch_last(_draw(shape.stack, shape.batch, shape.columns, seed=0))
    grad = products.batch_last(_draw(shape.stack, shape.batch, shape.rows, seed=1))
    kept = structure(_keep(shape, density), batch=shape.batch)
    values = kept.pack(_draw(shape.stack, shape.rows, shape.columns, seed=2))

    def gradient() -> Tensor:
        products.linear(x, values, None, kept.start, kept.place)
        products.linear_grad_input(grad, values, kept.by_column, kept.row_of, kept.order)
        return products.linear_grad_weight(grad, x, kept.start, kept.place)

    return _with_adam(values, gradient)


def _dense_window(shape: Shape, window: Window, *, memory: torch.memory_format) -> Callable[[], None]:
    """One network's convolution: dense convolutions of a stack run one after another, so one is enough to time."""
    x = _draw(shape.batch, window.channels, *shape.size, seed=0).contiguous(memory_format=memory)
    grad = _draw(shape.batch, shape.rows, *window.result(*shape.size), seed=1).contiguous(
        memory_format=memory
    )
    weight = _draw(shape.rows, window.channels, *window.kernel, seed=2)
    mask = torch.ones_like(weight)
    pairs = (list(window.stride), list(window.padding), [1, 1])

    def gradient() -> Tensor:
        weight.mul_(mask)
        torch.conv2d(x, weight, None, window.stride, window.padding)
        backward = torch.ops.aten.convolution_backward
        _, by_weight, _ = backward(grad, x, weight, None, *pairs, False, [0, 0], 1, [True, True, False])
        contiguous: Tensor = by_weight.contiguous()
        return contiguous

    return _with_adam(weight, gradient)


def _sparse_window(shape: Shape, window: Window, density: float) -> Callable[[], None]:
    x = _draw(shape.batch, window.channels, *shape.size, seed=0)
    grad = _draw(shape.batch, shape.rows, *window.result(*shape.size), seed=1)
    keep = _keep(shape, density)[:1].view(1, shape.rows, window.channels, *window.kernel)
    kept = structure(keep, columns_in=window.numbered())
    values = kept.pack(_draw(*keep.shape, seed=2))[0]
    start, place = kept.start[0], kept.place[0]
    columns = [t[0] for t in (kept.by_column, kept.row_of, kept.order, kept.column_of)]

    def gradient() -> Tensor:
        windows.conv2d(x, values, None, start, place, window=window)
        return windows.conv2d_backward(grad, x, values, (start, place), columns, window=window)[1]

    return _with_adam(values, gradient)
