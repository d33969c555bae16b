"""How much memory a training takes at most, estimated before it begins; compared with measurements in the tests.

The estimate is an upper bound for a process on the CPU: what a process with PyTorch takes by itself, the data, the
stack's weights with everything that is kept of them, and the values within the network for one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from winticket.sparse import missing
from winticket.train.curves import EVALUATION_ROWS, LEAST_ROWS
from winticket.train.recipe import Recipe
from winticket.train.stacked import may_stack
from winticket.trouble import of_the_machine

PROCESS = 400 << 20
"""Bytes of a process that has imported PyTorch and winticket and traced a step (350 MiB measured, torch 2.13, CPU)."""
KEPT = 10
"""Copies of the weights beside what the optimiser adds: the tickets' start, as stored and stacked; weights, gradients
and masks; the least validation loss's; and start and end, once more as a file, when the result is written."""
SLOTS = 5
"""Copies of each of an optimiser's slots: itself, its update, a checkpoint of it and that one's file, twice while it is
assembled."""
BACKWARD = 3
"""The values of a forward pass are kept for the backward pass, whose gradients and workspaces come beside them."""
SPARE = 1.25
"""For what an allocator holds back, and for traces of earlier trainings in the same process."""
REMEMBERED = 256 << 20
"""Bytes of results that a worker process keeps at most, for the tasks that need them next."""


@dataclass(frozen=True)
class Flow:
    """Bytes within a network for one example: of all operators' results together, and of the largest operator.

    The largest counts operands and result, which exist at the same time.
    """

    together: int
    largest: int


_flows: WeakKeyDictionary[nn.Module, Flow | None] = WeakKeyDictionary()


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of new results; views of what exists already cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.together = self.largest = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be hidden from torch.compile: that imports all of it, which takes a second in each plan."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        before = {_place(t): _bytes(t) for t in tree_leaves(args) if isinstance(t, Tensor)}
        fresh = {_place(t): _bytes(t) for t in tree_leaves(results) if isinstance(t, Tensor)}
        new = sum(size for place, size in fresh.items() if place not in before)
        self.together += new
        if new:
            self.largest = max(self.largest, new + sum(before.values()))
        return results


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def flow(module: nn.Module, example: Tensor) -> Flow | None:
    """The flow of `module` on `example` [B, ...], per example; None if it cannot run there. Its mode stays as it was.

    >>> flow(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 4)).together  # twice 3 numbers of 4 bytes
    24
    """
    if module not in _flows:
        _flows[module] = _counted(module, example)
    return _flows[module]


def _counted(module: nn.Module, example: Tensor) -> Flow | None:
    modes = {part: part.training for part in module.modules()}
    counting, copy = _Counting(), example.clone()  # a module may write to its input
    try:
        with torch.no_grad(), counting:
            module.eval()(copy)
    except Exception as error:  # a user's module may raise anything; training it will report the error
        if of_the_machine(error):
            raise
        return None
    finally:
        for part, training in modes.items():
            part.training = training
    rows, weights = len(example), sum(p.numel() * p.element_size() for p in module.parameters())
    return Flow(-(-counting.together // rows), max(counting.largest - weights, 0) // rows + 1)


def peak_bytes(
    module: nn.Module,
    recipe: Recipe,
    example: Tensor,
    *,
    stack: int,
    answers: int = 1,
    data: int,
    pruned: bool = True,
) -> int:
    """Bytes that a CPU process needs at most to train a stack of so many replicates; 0 if it cannot be estimated.

    example  inputs [B, ...], run once to see the values within the network
    answers  of one example: 1, or the characters of a window of text
    data     bytes of the examples, with every copy that the process has of them
    pruned   whether layers may train on sparse kernels, which stack convolutions as well

    PROCESS + SPARE * (data + weights and buffers of the stack * (KEPT + SLOTS * the optimiser's slots)
    + replicates at once * (a batch, or an evaluation)), and room for the results of earlier tasks. Measured peaks
    (see `tests/train/test_memory.py`) were 0.4 to 0.9 of it.

    >>> module = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
    >>> stack = peak_bytes(module, Recipe(steps=10), torch.zeros(2, 784), stack=5, data=0) - PROCESS
    >>> round(stack / 2**20)  # five times 238 510 weights of 4 bytes, 20 copies, and room for results
    153
    """
    values = flow(module, example)
    if values is None:
        return 0
    slots = 2 if recipe.optimizer != "sgd" else int(recipe.momentum > 0)
    parameters = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    stacked = may_stack(module, torch.device("cpu"), recipe.stacking)
    stacked = stacked or (pruned and not missing and recipe.stacking == "auto")
    at_once = stack if stacked else 1
    training = BACKWARD * recipe.batch * values.together
    evaluation = 2 * max(LEAST_ROWS, EVALUATION_ROWS // answers) * values.largest
    result = 2 * stack * parameters
    grows = data + stack * parameters * (KEPT + SLOTS * slots) + at_once * max(training, evaluation)
    return PROCESS + round(SPARE * grows) + min(REMEMBERED, 4 * result)
