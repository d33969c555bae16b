"""Pruning a language model block by block, with what is finished kept on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from winticket.lm import loading
from winticket.lm.blocks import (
    Blocks,
    Call,
    as_stored,
    calls,
    entering,
    find_blocks,
    linear_layers,
    matrix,
    set_matrix,
    through,
    watched,
)
from winticket.lm.files import Shards, dtype_of, map_block, write_block
from winticket.lm.finishing import finish
from winticket.lm.matrices import Target, magnitude, sparsegpt, wanda
from winticket.lm.owl import densities, outlier_share
from winticket.lm.perplexity import losses
from winticket.lm.progress import Say, silent
from winticket.lm.record import BlockRecord, Pruned
from winticket.lm.request import Prepared
from winticket.lm.state import PruningState, load_state, save_state
from winticket.lm.statistics import Inputs, products, squares, working_dtype
from winticket.lm.text import Windows


@dataclass
class _Flow:
    """The hidden states of all windows at the next block, and how the model calls its blocks."""

    hidden: list[Tensor]
    calls: list[Call]

    def through(self, block: nn.Module, number: int, *, advance: bool) -> None:
        """Run a block on all windows; with `advance`, its outputs take the place of its inputs."""
        for at, output in enumerate(through(block, self.hidden, self.calls[number])):
            if advance:
                self.hidden[at] = output


@dataclass
class _Clock:
    """Estimates from the blocks done so far how long the others take."""

    blocks: int
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def left(self, number: int) -> float | None:
        if not self.done:
            return None
        return (time.monotonic() - self.began) / self.done * (self.blocks - number)


@dataclass(frozen=True)
class _Run:
    """A pruning at work. dtype: in which blocks are run and pruned."""

    prepared: Prepared
    model: nn.Module
    blocks: Blocks
    shards: Shards
    state: PruningState
    say: Say
    dtype: torch.dtype

    def flow(self) -> _Flow:
        """The calibration text at the first block."""
        windows = self.prepared.calibration
        assert windows is not None, "a method that calibrates has windows"
        hidden = entering(self.model, self.blocks, windows, self.dtype)
        return _Flow(hidden, calls(self.model, self.blocks, windows))

    def save(self) -> None:
        save_state(self.shards.folder, self.state)


def prune(prepared: Prepared, out: Path, *, say: Say = silent) -> Pruned:
    """Prune a language model block by block into the folder `out`, which Transformers' `from_pretrained` reads.

    Each block is pruned by the inputs that it gets through the pruned blocks before it, as the authors of SparseGPT and
    Wanda do; all linear layers of a block are pruned by the same pass of the calibration text. Pruned weights are 0.
    Blocks are computed in float32 (float64 if the model is) and stored in the model's dtype. A finished block is
    written at once; if `out` holds an unfinished run of the same request, its blocks are not pruned again.

    Memory: the model's weights, which are mapped from their files; the hidden states of the calibration text, in
    float32; and, for one block, a copy in float32, what is known of its inputs (for SparseGPT the Hessian of every
    layer), and its new weights. Raises ValueError if `out` holds anything else.
    """
    began = time.monotonic()
    state = load_state(out, prepared.identity, PruningState)
    say("Loading the model", None)
    model = loading.load(prepared.source)
    blocks = find_blocks(model)
    shards = Shards(out, len(blocks.modules))
    finished = min(shards.done(), len(state.blocks))
    state.blocks = state.blocks[:finished]
    run = _Run(prepared, model, blocks, shards, state, say, working_dtype(dtype_of(model)))
    if prepared.held_out is not None and state.before is None:
        state.before = evaluated(model, prepared.held_out, "Perplexity before pruning", say)
        run.save()
    _prune_blocks(run, finished)
    after = None
    if prepared.held_out is not None:
        after = evaluated(model, prepared.held_out, "Perplexity after pruning", say)
    return finish(prepared, model, blocks, shards, state, after=after, resumed=finished, began=began)


def evaluated(model: nn.Module, windows: Windows, what: str, say: Say) -> list[float]:
    """The losses of a model on windows of text, with progress: one mean for each window."""
    began = time.monotonic()

    def tell(done: int) -> None:
        passed = time.monotonic() - began
        say(f"{what}: window {done} of {len(windows.ids)}", passed / done * (len(windows.ids) - done))

    return losses(model, windows.ids, progress=tell)


@torch.no_grad()
def _prune_blocks(run: _Run, finished: int) -> None:
    """Prune all blocks but the first `finished`, which are read from their files."""
    state, blocks, request = run.state, run.blocks, run.prepared.request
    total = len(blocks.modules)
    if finished == total:
        for number in range(total):
            map_block(run.shards, blocks, number)
        return
    if state.densities is None:
        state.densities = _densities(run)
        run.save()
    flow = None if request.method == "magnitude" else run.flow()
    clock = _Clock(total)
    for number, block in enumerate(blocks.modules):
        if number < finished:
            run.say(f"Block {number + 1} of {total} is finished already", None)
        else:
            run.say(f"Pruning block {number + 1} of {total}", clock.left(number))
            start, density = time.monotonic(), state.densities[number]
            keep = _prune_block(run, number, flow, request.target(density))
            write_block(run.shards, blocks, number, keep)
            state.blocks.append(_record(blocks, number, density, keep, time.monotonic() - start))
            run.save()
            clock.done += 1
        map_block(run.shards, blocks, number)
        if flow is not None and number + 1 < total:
            with _working(block, run.dtype):
                flow.through(block, number, advance=True)


def _densities(run: _Run) -> list[float]:
    """The density of every block: OWL's from one pass through the dense model, or the same for all."""
    request, modules = run.prepared.request, run.blocks.modules
    density = request.target().density
    if request.allocation == "uniform":
        return [density] * len(modules)
    flow, found, clock = run.flow(), [], _Clock(len(modules))
    for number, block in enumerate(modules):
        run.say(f"Outliers of block {number + 1} of {len(modules)}", clock.left(number))
        inputs = Inputs(squares)
        with _working(block, run.dtype):
            with watched(block, inputs):
                flow.through(block, number, advance=True)
            scores = [matrix(x).abs() * inputs.total(n).sqrt() for n, x in linear_layers(block).items()]
        found.append(outlier_share(scores, request.owl_threshold))
        clock.done += 1
    return densities(found, density, request.owl_range)


def _prune_block(run: _Run, number: int, flow: _Flow | None, target: Target) -> dict[str, Tensor]:
    """Prune a block's linear layers; their masks by name, each of its weight's shape."""
    block, method = run.blocks.modules[number], run.prepared.request.method
    new: dict[str, tuple[Tensor, Tensor]] = {}
    with _working(block, run.dtype):
        inputs = Inputs(products if method == "sparsegpt" else squares)
        if flow is not None:
            with watched(block, inputs):
                flow.through(block, number, advance=False)
        for name, layer in linear_layers(block).items():
            weight = matrix(layer)
            if not bool(weight.isfinite().all()):
                raise FloatingPointError(f"weights of {run.blocks.name(number)}.{name} are not finite")
            if method == "sparsegpt":
                samples = len(flow.hidden) if flow else 1
                new[name] = sparsegpt(weight, inputs.total(name) * (2 / samples), target)
            else:
                norms = None if flow is None else inputs.total(name).sqrt()
                keep = magnitude(weight, target) if norms is None else wanda(weight, norms, target)
                new[name] = weight.masked_fill(~keep, 0), keep
    for name, layer in linear_layers(block).items():
        set_matrix(layer, new[name][0])
    return {name: as_stored(layer, new[name][1]) for name, layer in linear_layers(block).items()}


@contextmanager
def _working(block: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within, a block's tensors are in `dtype`; afterwards they are the former ones again."""
    tensors = [*block.parameters(), *block.buffers()]
    former = [tensor.data for tensor in tensors]
    block.to(dtype)
    try:
        yield
    finally:
        for tensor, data in zip(tensors, former, strict=True):
            tensor.data = data


def _record(
    blocks: Blocks, number: int, density: float, keep: dict[str, Tensor], seconds: float
) -> BlockRecord:
    name = blocks.name(number)
    return {
        "name": name,
        "density": density,
        "seconds": round(seconds, 3),
        "layers": [
            {"name": f"{name}.{layer}.weight", "kept": int(flags.sum()), "total": flags.numel()}
            for layer, flags in keep.items()
        ],
    }


def block_densities(records: Sequence[BlockRecord]) -> list[float]:
    """The share of weights that each block kept.

    >>> layer = {"name": "0.fc.weight", "kept": 1, "total": 4}
    >>> block_densities([{"name": "0", "density": 0.25, "seconds": 0.0, "layers": [layer]}])
    [0.25]
    """
    return [
        sum(layer["kept"] for layer in one["layers"]) / sum(layer["total"] for layer in one["layers"])
        for one in records
    ]
