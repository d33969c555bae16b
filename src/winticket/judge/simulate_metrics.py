"""Simulated experiments that are judged by another metric than accuracy: unbounded and skewed, or near a bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from winticket.judge.checks import CONTROLS
from winticket.judge.looks import share
from winticket.judge.sequences import Decision, Differences, Flags, decide
from winticket.judge.simulate import Rates
from winticket.judge.statistics import Array
from winticket.objective import Scale

RMSE = Scale("RMSE", "lower", "mm", 0.0)
AVERAGE_PRECISION = Scale("average precision", "higher", "", 0.0, 1.0)
Truths = dict[str, dict[str, tuple[float, ...]]]


@dataclass(frozen=True)
class MetricScenario:
    """A truth in a metric: an RMSE, whose values are lognormal, or an average precision, whose values are beta.

    mean: arm -> true mean at each level, of "dense", "ticket", "reinit" and "random". spread: sd of a value of the
    dense network, as a share of its mean for an RMSE and of its distance from 1 for an average precision.
    ticket_spread: the same of the other arms, in the same place. The arms of a replicate have the `shared` part of
    their variance in common (of log values). margin: in the metric's unit; if `relative`, a share of the dense
    network's mean.
    """

    metric: Literal["RMSE", "average precision"]
    mean: Mapping[str, tuple[float, ...]]
    margin: float
    relative: bool = False
    spread: float = 0.1
    ticket_spread: float = 0.1
    shared: float = 0.5

    @property
    def scale(self) -> Scale:
        return RMSE if self.metric == "RMSE" else AVERAGE_PRECISION

    def winners(self) -> Flags:
        """The levels [L] that truly hold a winning ticket: within the margin, and better than both controls."""
        gain = {arm: self.scale.sign * np.array(values) for arm, values in self.mean.items()}
        margin = self.margin * (np.array(self.mean["dense"]) if self.relative else 1.0)
        true: Flags = gain["ticket"] - gain["dense"] > -margin + 1e-9
        for arm in CONTROLS:
            true = true & (gain["ticket"] - gain[arm] > 1e-9)
        return true


def metric_truths(metric: Literal["RMSE", "average precision"], levels: int, *, margin: float) -> Truths:
    """Truths on the boundary of the null hypothesis, as in `winticket.judge.simulate.boundary_truths`; and winners.

    The dense network's mean is 2 mm, or .95. margin: in the metric's unit. Controls that are clearly worse are so by
    20 mm, or by .6. With "winning tickets", every level holds one that equals the dense network.
    """
    dense, lead = (2.0, 20.0) if metric == "RMSE" else (0.95, 0.6)
    sign = -1.0 if metric == "RMSE" else 1.0
    half = levels // 2

    def truth(
        behind: list[float], over_reinit: list[float], over_random: list[float]
    ) -> dict[str, tuple[float, ...]]:
        ticket = [dense - sign * b for b in behind]
        arms = {"reinit": over_reinit, "random": over_random}
        return {
            "dense": (dense,) * levels,
            "ticket": tuple(ticket),
            **{
                arm: tuple(t - sign * o for t, o in zip(ticket, over, strict=True))
                for arm, over in arms.items()
            },
        }

    none, safe = [0.0] * levels, [lead] * levels
    return {
        "ticket at the margin": truth([margin] * levels, safe, safe),
        "ticket equal to re-init": truth(none, none, safe),
        "trivial above, inferior below": truth(
            none[:half] + [margin] * (levels - half), none[:half] + safe[half:], safe
        ),
        "winning tickets": truth(none, safe, safe),
    }


def draw_metric(
    scenario: MetricScenario, *, replicates: int, experiments: int, seed: int
) -> dict[str, Array]:
    """Values arm -> [experiments, levels, replicates], as they are measured."""
    generator = np.random.default_rng(seed)
    drawer = _lognormal if scenario.metric == "RMSE" else _beta
    levels = len(scenario.mean["ticket"])
    drawn = drawer(generator, scenario, (experiments, 1, replicates))
    return {arm: np.broadcast_to(v, (experiments, levels, replicates)) for arm, v in drawn.items()}


def _spread(scenario: MetricScenario, arm: str) -> float:
    return scenario.spread if arm == "dense" else scenario.ticket_spread


def _means(scenario: MetricScenario, arm: str) -> Array:
    """The means [levels, 1]; one level for the dense network, which is trained once per replicate."""
    return np.array(scenario.mean[arm][: 1 if arm == "dense" else None])[:, None]


def _lognormal(
    generator: np.random.Generator, scenario: MetricScenario, size: tuple[int, int, int]
) -> dict[str, Array]:
    common = generator.standard_normal(size)
    drawn = {}
    for arm in scenario.mean:
        mean = _means(scenario, arm)
        own = generator.standard_normal((size[0], len(mean), size[2]))
        # sd of log values, so that sd / mean is the spread; the mean of exp(s z) is exp(s² / 2).
        s = math.sqrt(math.log1p(_spread(scenario, arm) ** 2))
        z = math.sqrt(scenario.shared) * common + math.sqrt(1 - scenario.shared) * own
        drawn[arm] = mean * np.exp(s * z - s * s / 2)
    return drawn


def _beta(
    generator: np.random.Generator, scenario: MetricScenario, size: tuple[int, int, int]
) -> dict[str, Array]:
    """Beta values as shares of two gamma values, of which the arms have a part in common."""
    shapes = {arm: _shapes(scenario, arm) for arm in scenario.mean}
    both = [scenario.shared * min(float(shape[i].min()) for shape in shapes.values()) for i in (0, 1)]
    common = [generator.standard_gamma(shape, size) for shape in both]
    drawn = {}
    for arm, parts in shapes.items():
        up, down = (
            shared + generator.standard_gamma(part - least, (size[0], len(part), size[2]))
            for shared, part, least in zip(common, parts, both, strict=True)
        )
        drawn[arm] = up / (up + down)
    return drawn


def _shapes(scenario: MetricScenario, arm: str) -> tuple[Array, Array]:
    """Both shapes [levels, 1] of the arm's beta distribution; their sum is the one that gives dense its spread."""
    mean, dense = _means(scenario, arm), scenario.mean["dense"][0]
    size = dense / ((1 - dense) * _spread(scenario, arm) ** 2) - 1
    return mean * size, (1 - mean) * size


def decide_metric(scenario: MetricScenario, drawn: Mapping[str, Array], *, alpha: float) -> Decision:
    """What is decided at levels [experiments, levels], by the code of `judge`. alpha: what this look may spend."""
    sign = scenario.scale.sign
    gains = {arm: sign * (drawn["ticket"] - drawn[arm]) for arm in ("dense", *CONTROLS)}
    dense = drawn["dense"] if scenario.relative else None
    return decide(Differences(gains, gains, 0.0, dense, dense), margin=scenario.margin, alpha=alpha)


def metric_rates(
    scenario: MetricScenario, *, replicates: int, experiments: int, seed: int, alpha: float = 0.05
) -> Rates:
    """How often the first look is a win, a false win, or a false "not won" if `scenario` is the truth."""
    drawn = draw_metric(scenario, replicates=replicates, experiments=experiments, seed=seed)
    decided = decide_metric(scenario, drawn, alpha=alpha * share(1))
    winners = scenario.winners()
    denied = decided.refuted.all(axis=-1) & ~decided.claimed.any(axis=-1)
    return Rates(
        experiments=experiments,
        win=float(decided.claimed.any(axis=-1).mean()),
        false_win=float((decided.claimed & ~winners).any(axis=-1).mean()),
        false_not_won=float(denied.mean()) if winners.any() else 0.0,
        claimed=tuple(decided.claimed.mean(axis=0).tolist()),
    )
