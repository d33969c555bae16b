"""Layers of a trained network as representations of examples, and estimates of their information by all estimators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from winticket import models
from winticket.analyse.information import (
    Codes,
    Values,
    discrete_information,
    entropy,
    fixed_bins,
    numbered,
    pairwise_bounds,
    quantile_bins,
    rounded,
    squared_distances,
)
from winticket.analyse.networks import activations, outputs
from winticket.stages import Setup
from winticket.ticket import State, Trajectory

REVISION = 1
BINS = (2, 8, 32)
"""Each divides the next, so the edges of few bins are among those of many."""
NOISE = (0.01, 0.05, 0.25)
"""Variance of the noise that the pairwise bounds add to a unit, as a share of the layer's total variance."""
SCALED = 0.05
"""The same where the noise follows the layer's variance from step to step."""
LEVELS = 16
"""Values of a unit in the network that is rounded."""
UNITS = 1000
"""Of a wider layer, that many units, evenly spread, are looked at."""
OUTPUT = "class probabilities"

AS_COMPUTED, ROUNDED = "as computed", f"rounded to {LEVELS} levels"


@dataclass(frozen=True)
class Estimate:
    """One estimator's answer for a representation: bits, and for pairwise bounds the noise and bounds of I(T;Y)."""

    x: float
    y: float
    shuffled: float
    noise: float | None = None
    bounds: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Scale:
    """What fixed bins and fixed noise go by: ends and total variance of a layer's values after training."""

    ends: tuple[float, float]
    variance: float

    @classmethod
    def of(cls, layer: str, values: Values) -> Scale:
        """The scale of values [N, F]; probabilities go from 0 to 1."""
        ends = (0.0, 1.0) if layer == OUTPUT else (float(values.min()), float(values.max()))
        return cls(ends, float(values.var(0).sum()))


def estimates(
    values: Values, codes: Codes, classes: tuple[Codes, Codes], scale: Scale
) -> dict[str, Estimate]:
    """All estimates for values [N, F], by the estimator's name.

    codes: the same representation [N, F] in the rounded network; classes: true and shuffled ones [N], numbered.

    >>> values, y = np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
    >>> made = estimates(values, numbered(values), (y, y), Scale((0.0, 1.1), 0.25))
    >>> len(made), made["2 bins"].x, made["as computed"].x
    (16, 1.0, 2.0)
    """
    rows: dict[str, NDArray[Any]] = {AS_COMPUTED: values}
    for words, most in (
        ("bins", fixed_bins(values, BINS[-1], ends=scale.ends)),
        ("quantiles", quantile_bins(values, BINS[-1])),
    ):
        rows |= {f"{n} {words}": most // (BINS[-1] // n) for n in BINS}
    made = {name: _discrete(row, classes) for name, row in (rows | {ROUNDED: codes}).items()}
    distances = squared_distances(values)
    for share in NOISE:
        made |= _pairwise(f"{100 * share:g} % noise", distances, classes, share * scale.variance)
    own = SCALED * float(values.var(0).sum())
    return made | _pairwise(f"{100 * SCALED:g} % scaled noise", distances, classes, own)


def _discrete(rows: NDArray[Any], classes: tuple[Codes, Codes]) -> Estimate:
    codes = numbered(rows)
    true, shuffled = (discrete_information(codes, y) for y in classes)
    return Estimate(entropy(codes), true, shuffled)


def _pairwise(
    words: str, distances: Values, classes: tuple[Codes, Codes], noise: float
) -> dict[str, Estimate]:
    names = (f"lower bound at {words}", f"upper bound at {words}")
    if not noise > 0:  # all examples have the same values, of which noise leaves nothing to know
        return {name: Estimate(0.0, 0.0, 0.0, noise, (0.0, 0.0)) for name in names}
    true, shuffled = pairwise_bounds(distances, classes, noise=noise)
    return {
        name: Estimate(true.x[end], true.plotted_y[end], shuffled.plotted_y[end], noise, true.y)
        for end, name in enumerate(names)
    }


def chosen_layers(module: nn.Module, most: int) -> list[str]:
    """At most `most` layers that read a hidden representation, evenly spread, the last one among them.

    They are the modules with eligible weights, in their order, without the first, which reads the input.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> chosen_layers(net, 4), chosen_layers(net, 1)
    (['2', '4'], ['4'])
    """
    owners = dict.fromkeys(name.rpartition(".")[0] for name in models.eligible(module))
    names = [name for name in owners if name][1:]
    if len(names) <= most:
        return names
    at = [round(n * (len(names) - 1) / max(most - 1, 1)) for n in range(most)]
    return [names[n] for n in at] if most > 1 else names[-1:]


@dataclass(frozen=True)
class Network:
    """What a network computes on examples: values [N, F] by layer, and codes [N, F] of them if rounded."""

    values: Mapping[str, Values]
    codes: Mapping[str, Codes]

    @classmethod
    def of(cls, setup: Setup, path: Trajectory, state: State, x: Tensor, names: Sequence[str]) -> Network:
        """The ticket's network at a state of its training, on examples x, in evaluation mode."""
        module, known = setup.module(), replace(state, weights=path.ticket.mask.apply(state.weights))
        seen = activations(
            module, known.weights, known.buffers, x, names,
            of=lambda inputs, _: flat(inputs[0], tokens=setup.tokens),
        )  # fmt: skip
        values = {name: found.double().numpy() for name, found in seen.items()}
        logits = outputs(module, known.weights, known.buffers, x)
        ends = {name: (float(found.min()), float(found.max())) for name, found in values.items()}
        codes, rough = _rounded(module, known, x, ends, tokens=setup.tokens)
        values[OUTPUT], codes[OUTPUT] = (
            _probabilities(logits, setup),
            _coded(_probabilities(rough, setup), (0, 1)),
        )
        return cls(values, codes)


def flat(values: Tensor, *, tokens: bool) -> Tensor:
    """Values [N, ...] as [N, F]: of a text, those of its last position; of a wide layer, units evenly spread."""
    rows = values[:, -1] if tokens else values
    rows = rows.flatten(1)
    return rows[:, _spread(rows.shape[1])]


def _spread(units: int) -> Tensor:
    return torch.arange(units) if units <= UNITS else torch.arange(UNITS) * units // UNITS


def _probabilities(logits: Tensor, setup: Setup) -> Values:
    made: Values = flat(logits.double().softmax(-1), tokens=setup.tokens).numpy()
    return made


def _coded(values: Values, ends: tuple[float, float]) -> Codes:
    return fixed_bins(values, LEVELS, ends=ends)


def _rounded(
    module: nn.Module, state: State, x: Tensor, ends: Mapping[str, tuple[float, float]], *, tokens: bool
) -> tuple[dict[str, Codes], Tensor]:
    """Codes of the layers, and outputs, if each layer's values are rounded before it reads them.

    Lorenzen, Igel & Nielsen 2022 (Information Bottleneck: Exact Analysis of (Quantized) Neural Networks): the values of
    such a network are discrete, so their information is exact and no estimate. They train it rounded, to 8 bits or
    fewer; here a trained network is rounded.
    """
    kept: dict[str, list[Codes]] = {name: [] for name in ends}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            exact = rounded(inputs[0].double().numpy(), ends[name], LEVELS)
            values = torch.from_numpy(exact).to(inputs[0].dtype)
            kept[name].append(_coded(flat(torch.from_numpy(exact), tokens=tokens).numpy(), ends[name]))
            return (values, *inputs[1:])

        return before

    handles = [module.get_submodule(name).register_forward_pre_hook(hook(name)) for name in ends]
    try:
        logits = outputs(module, state.weights, state.buffers, x)
    finally:
        for handle in handles:
            handle.remove()
    return {name: np.concatenate(rows) for name, rows in kept.items()}, logits
