"""Which layers train sparse: a small layer must not break a chain, nor pay for calls that it does not earn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from winticket.sparse import Shape, Times, Tuning, fastest_layers, missing
from winticket.sparse.mixture import CALLS
from winticket.train import Recipe, engine

SHAPE = Shape(rows=10, columns=100, stack=5, batch=60, threads=1)
DENSITY = {"large": 0.1, "small": 0.1}


def layer(dense: float, sparse: float) -> Tuning:
    """A layer whose dense step takes so many calls, and whose sparse one takes so many at every density."""
    times = Times(dense * CALLS, ((0.05, sparse * CALLS), (1.0, sparse * CALLS)))
    return Tuning(SHAPE, times.crossing(), times=times)


@pytest.mark.parametrize(
    ("large", "small", "chain", "chosen"),
    [
        (layer(100, 20), layer(4, 1), True, "large small"),
        (layer(100, 20), layer(1, 1.5), True, "large small"),  # 21.5 as a chain, 21 + 1 mixed
        (layer(100, 20), layer(1, 1.5), False, "large"),
        (layer(100, 20), layer(1.5, 1), False, "large"),  # gains .5, and calls cost 1
        (layer(100, 20), layer(1, 9), True, "large"),  # 29 as a chain, 22 mixed
        (layer(100, 200), layer(4, 1), True, "small"),
        (layer(100, 200), layer(1.5, 1), True, ""),
        (layer(100, 99.5), layer(1, 1), True, "large small"),  # 100.5 as a chain, 101 dense
        (layer(100, 99.5), layer(1, 1), False, ""),
    ],
)
def test_the_fastest_mixture_is_chosen(large: Tuning, small: Tuning, chain: bool, chosen: str) -> None:
    assert fastest_layers({"large": large, "small": small}, DENSITY, chain=chain) == chosen.split()


@pytest.mark.parametrize(("chain", "chosen"), [(True, "large small"), (False, "large")])
def test_a_layer_with_all_its_weights_is_sparse_in_a_chain_alone(chain: bool, chosen: str) -> None:
    tunings = {"large": layer(100, 20), "small": layer(4, 1)}
    assert fastest_layers(tunings, {"large": 0.1, "small": 1.0}, chain=chain) == chosen.split()
    assert fastest_layers(tunings, {"large": 1.0, "small": 1.0}, chain=chain) == []


def test_without_times_the_break_even_decides() -> None:
    tunings = {"large": Tuning(SHAPE, 0.5), "small": Tuning(SHAPE, 0.05)}
    assert fastest_layers(tunings, DENSITY, chain=True) == ["large"]
    assert fastest_layers(tunings, {"large": 0.5, "small": 0.05}, chain=True) == ["large", "small"]
    whole = {"large": Tuning(SHAPE, 0.5), "small": Tuning(SHAPE, 1.0)}
    assert fastest_layers(whole, {"large": 0.5, "small": 1.0}, chain=True) == ["large", "small"]
    assert fastest_layers(whole, {"large": 0.6, "small": 1.0}, chain=True) == []


@pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
@pytest.mark.parametrize(
    ("module", "recipe", "stacked", "chosen"),
    [
        (nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)), {}, True, ["0.weight", "2.weight"]),
        (nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)), {"clip_norm": 1.0}, True, ["0.weight"]),
        (nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 3)), {}, True, ["0.weight"]),
    ],
    ids=["chain", "clipped", "norm"],
)
def test_a_small_layer_is_sparse_if_the_network_may_be_a_chain(
    module: nn.Module,
    recipe: dict[str, float],
    stacked: bool,
    chosen: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    def tuning(shape: Shape) -> Tuning:
        times = layer(100, 20).times if shape.rows == 9 else layer(1, 1.5).times
        return Tuning(shape, 0.0, times=times)

    monkeypatch.setattr(engine, "tuning", tuning)
    keep = {n: torch.rand(2, *p.shape) < 0.5 for n, p in module.named_parameters() if p.ndim > 1}
    converted = engine.convert(
        module,
        keep,
        Recipe(steps=1, **recipe),  # type: ignore[arg-type]
        engine="auto",
        stacked=stacked,
        example=torch.zeros(2, 6),
    )
    assert sorted(converted.structures) == chosen
