"""SparseModel: a network computed by compiled kernels, each step by the one that was fastest on the first inputs."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.ship.compact import load
from winticket.ship.native import instruction_sets, require
from winticket.ship.network import Floats, Network
from winticket.ship.program import Program
from winticket.ship.stages import raw_network
from winticket.ship.steps import plan
from winticket.table import Table
from winticket.text import nearest

WIDTHS = (1, 16, 64)
"""Examples that are computed at once: the widths of tiles that are tried."""
MOST_MEMORY = 2 << 20
"""Most elements of a tile of several examples; one that needs more is not tried."""
EXAMPLES = 8
"""Most examples on which the kernels for single ones are measured."""
MICROSECONDS = 1000.0
"""About how long a candidate is measured; the least of at least two rounds counts."""
BRIEF = 200.0
"""Microseconds: a single example that takes less is computed without letting other Python threads run meanwhile,
because to get Python's lock back may take five milliseconds."""
_DONE, _NOT_FINITE, _NOT_READY = 0, 2, 3
_ALL = 1 << 62
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class _Tile:
    """A plan with its kernels chosen: (operation, kernel, instructions, microseconds) of each step."""

    width: int
    plan: Any
    steps: tuple[tuple[str, str, str, float], ...]

    @property
    def microseconds(self) -> float:
        return sum(step[3] for step in self.steps)


class SparseModel:
    """Computes a network's outputs from its kept weights alone, with numpy and compiled kernels.

    raw           take raw data: the network's preprocessing becomes part of its first layer; float32 or uint8
    threads       among which the examples of a batch are shared out; a single example is computed by one
    example       inputs like those to come, on which kernels are measured; default: the first that are computed
    kernel        use this kernel for every operation that has it (`plan()` names them)
    instructions  use this instruction set, as "avx2", instead of measuring which is fastest

    Kernels, instruction sets and the number of examples that are computed at once are measured, once for single
    examples and once for batches, when the first of them come; this takes some milliseconds. Since the choice decides
    in which order sums are taken, last bits may differ from one process to the next. `kernel` and `instructions` narrow
    it, but how many examples are computed at once is always measured.

    Threads may share a model: up to four calls are computed at once, and others wait. Python's other threads run
    meanwhile, unless a single example takes less than 200 microseconds.

    `load` makes one of a compact file. `print(model)` shows what was chosen; `plan` has the same as a table.

    Raises RuntimeError if the kernels were not compiled, and ValueError for a choice that does not exist.

    >>> import numpy as np
    >>> from winticket.ship import Network, Operation, SparseModel, Weight
    >>> weight = Weight.of("fc.weight", [[1.0, 2.0], [3.0, 4.0]])
    >>> model = SparseModel(Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)))
    >>> model(np.ones((1, 2), np.float32)).tolist()
    [[3.0, 7.0]]
    """

    def __init__(
        self,
        network: Network,
        *,
        raw: bool = False,
        threads: int = 1,
        example: npt.NDArray[Any] | None = None,
        kernel: str | None = None,
        instructions: str | None = None,
    ) -> None:
        compiled = require()
        if threads < 1:
            raise ValueError(f"threads is 1 or more, not {threads}")
        sets = instruction_sets()
        if instructions is not None and instructions not in sets:
            raise ValueError(
                f"this processor has the instruction sets {', '.join(sets)}, not {instructions!r}"
            )
        self.network, self.raw = network, raw
        self._kernel = kernel
        # The plain kernels are only for processors that have no better ones.
        self._sets = [instructions] if instructions else [s for s in sets if s != "plain"] or sets
        self._program = Program(raw_network(network) if raw else network)
        self._outputs = network.shapes[network.output]
        self._engine = compiled.Engine(list(network.input_shape), list(self._outputs), threads)
        self._tiles: dict[int, _Tile] = {}
        self._first: list[int] = []
        self._measuring = threading.Lock()
        if kernel is not None:
            self._check_kernel(kernel)
        if example is not None:
            self(example)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        raw: bool = False,
        threads: int = 1,
        example: npt.NDArray[Any] | None = None,
        kernel: str | None = None,
        instructions: str | None = None,
    ) -> SparseModel:
        """The model of what `winticket.ship.load` reads at a path, with the same choices.

        It imports no torch, and `model.network` has the rest.

        Raises CompactFileError, with the reason, for a file that cannot be read; else as SparseModel does.

        >>> import tempfile
        >>> import numpy as np
        >>> from winticket.ship import Network, Operation, SparseModel, Weight, save
        >>> weight = Weight.of("fc.weight", np.eye(4, dtype=np.float32), np.eye(4, dtype=bool))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fc = Operation("linear", ("input",), "1", tensors={"weight": weight})
        ...     sizes = save(Network((4,), (fc,)), f"{folder}/eye.safetensors")
        ...     model = SparseModel.load(f"{folder}/eye.safetensors", example=np.ones((1, 4), np.float32))
        >>> model(np.array([[1, 2, 3, 4]], np.float32)).tolist()
        [[1.0, 2.0, 3.0, 4.0]]
        >>> print(model)  # doctest: +ELLIPSIS
        SparseModel(Network(1 operations, 4 of 16 weights kept, inputs [4], outputs [4]))
        examples  operation           kernel ...
               1  linear 1            ...
        """
        return cls(
            load(path), raw=raw, threads=threads, example=example, kernel=kernel, instructions=instructions
        )

    def __call__(self, x: npt.NDArray[Any], out: Floats | None = None) -> Floats:
        """The logits float32 [N, *outputs] of inputs float32 [N, *input_shape]; of raw data also uint8.

        out: where to write them; default: a new array. Raises TypeError for inputs of another type, and ValueError for
        another shape or a number that is not finite.
        """
        if out is None:
            count = len(x) if isinstance(x, np.ndarray) and x.ndim else 0
            out = np.empty((count, *self._outputs), _FLOAT32)
        answer = self._engine.run(x, out, self.raw)
        if answer == _DONE:
            return out
        return self._again(x, out, answer)

    def _again(self, x: npt.NDArray[Any], out: Floats, answer: int) -> Floats:
        """What is left to do, or to be said, if inputs were not computed at once."""
        if answer == _NOT_FINITE:
            bad = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))[0])
            raise ValueError(f"example {bad} of the inputs has a number that is not finite (NaN or infinity)")
        if answer == _NOT_READY:
            self._measure(x)
            return self(x, out)
        ready = self._checked(x)
        if not (isinstance(out, np.ndarray) and out.dtype == np.float32 and out.flags.c_contiguous):
            raise TypeError("out must be a float32 array without gaps")
        if out.shape != (len(x), *self._outputs) or not out.flags.writeable:
            raise ValueError(
                f"out must be writable, of shape {[len(x), *self._outputs]}, not {list(out.shape)}"
            )
        return self(ready, out) if len(x) else out

    def _checked(self, x: object) -> npt.NDArray[Any]:
        """The inputs without gaps in memory. TypeError or ValueError if they are no inputs of the network."""
        types = "float32 or uint8" if self.raw else "float32"
        if not isinstance(x, np.ndarray):
            raise TypeError(f"inputs must be a numpy array of {types}, not {type(x).__name__}")
        if x.dtype != np.float32 and not (self.raw and x.dtype == np.uint8):
            raise TypeError(f"inputs must be {types}, not {x.dtype}; convert them with x.astype(np.float32)")
        shape = self.network.input_shape
        if x.shape[1:] != shape or not x.ndim:
            raise ValueError(
                f"the network takes inputs [N{''.join(f', {size}' for size in shape)}], not {list(x.shape)}"
            )
        return np.ascontiguousarray(x)

    def plan(self, batch: int = 1) -> Table:
        """What computes a batch of so many examples, as measured: a row for each step.

        examples: how many are computed at once; microseconds: for so many. Raises ValueError if no such batch has been
        computed yet, nor given as an example.
        """
        if batch < 1:
            raise ValueError(f"a batch has 1 example or more, not {batch}")
        if batch > self._ready():
            raise ValueError(
                f"batches of {batch} are not measured yet: compute one, or give SparseModel an example"
            )
        widths, left = [], batch
        while left > 0:
            widths.append(self._first[min(left, len(self._first) - 1)])
            left -= widths[-1]
        return self._table(dict.fromkeys(widths))

    def _table(self, widths: Iterable[int]) -> Table:
        rows = [(width, *step) for width in widths for step in self._tiles[width].steps]
        return Table(("examples", "operation", "kernel", "instructions", "microseconds"), tuple(rows))

    def _widths(self) -> list[int]:
        size = self._program.memory.size
        return [width for width in WIDTHS if width == 1 or width * size <= MOST_MEMORY]

    def _ready(self) -> int:
        """The largest batch whose tiles are measured; a tile is worth measuring if a batch fills a quarter of it."""
        missing = [width for width in self._widths() if width not in self._tiles]
        return -(-missing[0] // 4) - 1 if missing else _ALL

    def _measure(self, x: npt.NDArray[Any]) -> None:
        """Make the plans for tiles that such a batch can use, and choose their kernels."""
        values = np.ascontiguousarray(x[: max(WIDTHS)], np.float32)
        with self._measuring:
            for width in self._widths():
                if width not in self._tiles and (width == 1 or 4 * len(x) >= width):
                    self._tiles[width] = self._tile(width, values)
            tiles = [self._tiles[width] for width in sorted(self._tiles)]
            order = _split(tiles)
            self._first = [tiles[at].width for at in order]
            brief = tiles[0].microseconds < BRIEF
            self._engine.arrange([tile.plan for tile in tiles], order, self._ready(), brief)

    def _tile(self, width: int, x: Floats) -> _Tile:
        made = plan(self._program, width, self._sets)
        candidates = [self._allowed(step) for step in made.candidates()]
        x = x[: max(width, EXAMPLES)] if width > 1 else x[:EXAMPLES]
        once = sum(self._engine.profile(made, x[:1].reshape(-1), 2))
        if width == 1:
            x = x[: max(1, int(MICROSECONDS / 4 / max(once, 1e-3)))]
        rounds = int(min(20, max(2, MICROSECONDS / (once * len(x)))))
        best = [(math.inf, 0) for _ in candidates]
        for turn in range(max(map(len, candidates))):
            tried = [step[turn % len(step)][0] for step in candidates]
            for at, candidate in enumerate(tried):
                made.choose(at, candidate)
            times = self._engine.profile(made, x.reshape(-1), rounds)
            best = [min(old, (t, c)) for old, t, c in zip(best, times[:-1], tried, strict=True)]
        for at, (_, candidate) in enumerate(best):
            made.choose(at, candidate)
        *times, rest = (t / -(-len(x) // width) for t in self._engine.profile(made, x.reshape(-1), rounds))
        labels = [step[candidate] for step, (_, candidate) in zip(made.candidates(), best, strict=True)]
        rows = [(name, *label, t) for name, label, t in zip(made.operations(), labels, times, strict=True)]
        return _Tile(width, made, (*rows, ("inputs and outputs", "copy", self._sets[0], rest)))

    def _allowed(self, step: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
        """The candidates of a step, by their number: the demanded kernel if it is among them, else all."""
        every = [(at, kernel) for at, (kernel, _) in enumerate(step)]
        return [one for one in every if one[1] == self._kernel] or every

    def _check_kernel(self, kernel: str) -> None:
        plans = [plan(self._program, width, self._sets) for width in self._widths()]
        names = {name for made in plans for step in made.candidates() for name, _ in step}
        if kernel not in names:
            raise ValueError(
                f"no operation of this network has the kernel {kernel!r}{nearest(kernel, names)}; there are "
                f"{'; '.join(sorted(names))}"
            )

    def __repr__(self) -> str:
        return f"SparseModel({self.network!r})"

    def __str__(self) -> str:
        """The model, and what was chosen so far: a line for each step of every number of examples computed at once."""
        if not self._tiles:
            return f"{self!r}\nkernels are chosen when the first inputs are computed"
        table = self._table(sorted(self._tiles))
        cells = [table.columns, *((*map(str, row[:-1]), f"{row[-1]:.2f}") for row in table.values)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for first, *middle, last in cells:
            parts = [first.rjust(widths[0]), *(c.ljust(w) for c, w in zip(middle, widths[1:-1], strict=True))]
            lines.append("  ".join([*parts, last.rjust(widths[-1])]))
        return "\n".join([repr(self), *lines])


def _split(tiles: Sequence[_Tile]) -> list[int]:
    """Which tile to compute first when n examples are left, for n up to the widest tile: the cheapest sequence.

    The first entry, for none left, means nothing.
    """
    cost, first = [0.0], [0]
    for left in range(1, tiles[-1].width + 1):
        ways = [(tile.microseconds + cost[max(0, left - tile.width)], at) for at, tile in enumerate(tiles)]
        least, at = min(ways)
        cost.append(least)
        first.append(at)
    return first
