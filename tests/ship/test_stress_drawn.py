"""Networks drawn from seeds, by every kernel: the compiled engine gives what PyTorch gives.

`WINTICKET_DRAWS=20000 pytest tests/ship/test_stress_drawn.py` draws more of them, WINTICKET_FIRST_DRAW others.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest

from drawn import Seeded, drawn
from in_torch import values
from winticket.ship import Network, SparseModel, engine
from winticket.ship.native import instruction_sets, missing
from winticket.ship.steps import plan

pytestmark = pytest.mark.skipif(bool(missing), reason=f"no compiled inference: {missing}")
DRAWS = int(os.environ.get("WINTICKET_DRAWS", "400"))
FIRST = int(os.environ.get("WINTICKET_FIRST_DRAW", "0"))
PARTS = 8
BATCHES = (0, 1, 2, 3, 5, 15, 16, 17, 33, 64, 65, 83)
SETS = instruction_sets()


class Chosen(SparseModel):
    """Kernels, instruction sets and tiles by chance instead of by measurement, so that none is left out."""

    rng: np.random.Generator

    def _tile(self, width: int, x: object) -> engine._Tile:
        made, steps = plan(self._program, width, SETS), []
        for at, (name, candidates) in enumerate(zip(made.operations(), made.candidates(), strict=True)):
            number = int(self.rng.integers(len(candidates)))
            made.choose(at, number)
            steps.append((name, *candidates[number], float(self.rng.random())))
        return engine._Tile(width, made, tuple(steps))


def differing(seed: int) -> str | None:
    """What is wrong with the network of this seed; None if nothing is."""
    rng = np.random.default_rng([1, seed])
    network = drawn(Seeded(seed))
    Chosen.rng = rng
    model = Chosen(network, raw=network.preprocessing is not None, threads=int(rng.choice([1, 1, 2])))
    for count in rng.choice(BATCHES, 3, replace=False).tolist():
        x = rng.standard_normal((count, *network.input_shape)).astype(np.float32)
        x *= rng.random(x.shape) < rng.choice([1.0, 0.3, 0.0])
        usual = np.ones(count, np.bool_)
        if (
            count > 1
        ):  # one whose values overflow, which is nothing to its neighbours, nor to those that follow
            huge = int(rng.integers(count))
            x[huge] = 3e38 * rng.choice([-1, 0, 1], network.input_shape)
            usual[huge] = False
        wrong = _wrong(network, x[usual], model(x)[usual])
        if wrong:
            return f"seed {seed}, batch {count}: {wrong}"
    return None


def _wrong(network: Network, x: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> str | None:
    if got.shape != (len(x), *network.shapes[network.output]):
        return f"shape {got.shape}"
    if not len(x):
        return None
    ready = network.preprocessing.apply(x) if network.preprocessing else x
    made = values(network, ready)
    exact = made[network.output]
    # Rounding is relative to what is summed, which may be larger than the outputs if sums cancel.
    limit = 1e-5 * np.abs(exact).max() + 3e-6 * max(np.abs(value).max() for value in made.values())
    difference = np.abs(got - exact).max()
    return None if difference <= limit else f"off by {difference:.3g}, allowed {limit:.3g}"


@pytest.mark.parametrize("part", range(PARTS))
def test_networks_drawn_from_seeds(part: int) -> None:
    wrong = [differing(seed) for seed in range(FIRST + part, FIRST + DRAWS, PARTS)]
    assert "\n".join(one for one in wrong if one) == ""


def test_the_same_seed_draws_the_same_network() -> None:
    one, two = (drawn(Seeded(5)) for _ in range(2))
    assert repr(one) == repr(two)
    assert [w.values.tolist() for w in one.weights().values()] == [
        w.values.tolist() for w in two.weights().values()
    ]
