"""Simulated experiments whose truth is known: how often the verdict is wrong, and how often it finds the ticket."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from winticket.judge.checks import CONTROLS, Level
from winticket.judge.looks import share
from winticket.judge.sequences import Decision, Differences, Flags, decide
from winticket.judge.statistics import ROUNDING, Array

Noise = Literal["normal", "t3", "skewed", "sampled"]


@dataclass(frozen=True)
class Scenario:
    """A truth to draw experiments from.

    densities: from the densest pruned level to the sparsest. accuracy: arm -> true mean at each density (fractions),
    for "dense", "ticket", "reinit" and "random". sd_pp: sd of a paired difference at one level, in percentage points.
    correlation: of one arm's noise between two levels. The dense network is trained once per replicate, so its noise
    is the same at every level. collapse: the chance that a replicate's tickets fall by ten points at every level.

    noise: "t3" has the heavy tails of Student's t with 3 degrees of freedom; "skewed" gives only the ticket a long
    lower tail (exponential). With "sampled", networks differ only in the test examples that they happen to get wrong.
    Some of these errors are common to all arms: the `shared` part of the best arm's errors. The others are drawn for
    each arm (binomial), so that differences are few, coarse and skewed.
    """

    densities: tuple[float, ...]
    accuracy: Mapping[str, tuple[float, ...]]
    sd_pp: float = 0.3
    correlation: float = 0.5
    noise: Noise = "normal"
    shared: float = 0.9
    collapse: float = 0.0

    def winners(self, *, margin: float) -> Flags:
        """The levels [L] that truly hold a winning ticket: within the margin, and above both controls."""
        mean = {arm: np.array(values) for arm, values in self.accuracy.items()}
        mean["ticket"] = mean["ticket"] - COLLAPSE * self.collapse
        true: Flags = mean["ticket"] - mean["dense"] > -margin + ROUNDING
        for arm in CONTROLS:
            true = true & (mean["ticket"] - mean[arm] > ROUNDING)
        return true


@dataclass(frozen=True)
class Rates:
    """Shares of the simulated experiments. claimed: with a claim at each level [L].

    win: with any claim. false_win: with a claim at a level that holds no winning ticket. false_not_won: with the
    verdict "not won" although some level truly holds a winning ticket.
    """

    experiments: int
    win: float
    false_win: float
    false_not_won: float
    claimed: tuple[float, ...]

    def error(self, share: float) -> float:
        """Monte-Carlo standard error of a share."""
        return math.sqrt(share * (1 - share) / self.experiments)


COLLAPSE = 0.1


def draw(
    scenario: Scenario, *, replicates: int, experiments: int, seed: int, test_examples: int | None = None
) -> dict[str, Array]:
    """Accuracies arm -> [experiments, levels, replicates], not clipped to [0, 1].

    With `test_examples` they are multiples of 1 / test_examples with the same mean: each falls at random on the step
    below or above. Noise "sampled" needs `test_examples`; without it, ValueError.
    """
    generator = np.random.default_rng(seed)
    if scenario.noise == "sampled":
        if test_examples is None:
            raise ValueError(
                "noise 'sampled' is the noise of a test set; give its number of examples as test_examples"
            )
        drawn = _sampled(generator, scenario, (experiments, replicates), test_examples)
    else:
        drawn = _spread(generator, scenario, (experiments, replicates))
        if test_examples is not None:
            drawn = {arm: _stepped(generator, values, test_examples) for arm, values in drawn.items()}
    if scenario.collapse:
        fallen = generator.random((experiments, 1, replicates)) < scenario.collapse
        drawn["ticket"] = drawn["ticket"] - COLLAPSE * fallen
    levels = len(scenario.densities)
    return {arm: np.broadcast_to(v, (experiments, levels, replicates)) for arm, v in drawn.items()}


def _spread(generator: np.random.Generator, scenario: Scenario, size: tuple[int, int]) -> dict[str, Array]:
    experiments, replicates = size
    levels = len(scenario.densities)
    # What a replicate has in common for all its arms (order, test set) cancels in the pairs; drawing it proves that.
    shared = 2 * generator.standard_normal((experiments, 1, replicates))
    drawn = {}
    for arm, mean in scenario.accuracy.items():
        noise: Noise = "normal" if scenario.noise == "skewed" and arm != "ticket" else scenario.noise
        common = _noise(generator, (experiments, 1, replicates), noise)
        if arm == "dense":
            unit, means = shared + common, np.array(mean[:1])
        else:
            level_noise = _noise(generator, (experiments, levels, replicates), noise)
            rho = scenario.correlation
            unit, means = shared + math.sqrt(rho) * common + math.sqrt(1 - rho) * level_noise, np.array(mean)
        drawn[arm] = means[:, None] + scenario.sd_pp / 100 / math.sqrt(2) * unit
    return drawn


def _sampled(
    generator: np.random.Generator, scenario: Scenario, size: tuple[int, int], test_examples: int
) -> dict[str, Array]:
    experiments, replicates = size
    errors = {arm: 1 - np.array(mean) for arm, mean in scenario.accuracy.items()}
    common = scenario.shared * min(float(error.min()) for error in errors.values())
    drawn = {}
    for arm, error in errors.items():
        rate = (error - common)[: 1 if arm == "dense" else None, None]
        wrong = generator.binomial(test_examples, rate, (experiments, rate.shape[0], replicates))
        drawn[arm] = 1 - common - wrong / test_examples
    return drawn


def _stepped(generator: np.random.Generator, values: Array, test_examples: int) -> Array:
    right: Array = np.floor(values * test_examples + generator.random(values.shape))
    return right / test_examples


def _noise(generator: np.random.Generator, shape: tuple[int, ...], noise: Noise) -> Array:
    """Mean 0, variance 1."""
    if noise == "t3":
        return generator.standard_t(3, shape) / math.sqrt(3)
    if noise == "skewed":
        return 1 - generator.standard_exponential(shape)
    return generator.standard_normal(shape)


def decisions(
    drawn: Mapping[str, Array], *, margin_pp: float, alpha: float, test_examples: int | None = None
) -> Decision:
    """What is decided at levels [experiments, levels], by the code of `judge`. alpha: what this look may spend."""
    differences = {arm: drawn["ticket"] - drawn[arm] for arm in ("dense", *CONTROLS)}
    step = 1 / test_examples if test_examples else 0.0
    return decide(Differences(differences, differences, step), margin=margin_pp / 100, alpha=alpha)


def rates(
    scenario: Scenario,
    *,
    replicates: int | Sequence[int],
    experiments: int,
    seed: int,
    margin_pp: float = 0.5,
    alpha: float = 0.05,
    test_examples: int | None = None,
) -> Rates:
    """How often the verdict is a win, a false win, or a false "not won" if `scenario` is the truth.

    replicates: their number; or rising numbers, with a look at each of them, and a claim at any look counts.
    docs/verdict.md shows the results.
    """
    looks = (replicates,) if isinstance(replicates, int) else tuple(replicates)
    drawn = draw(
        scenario, replicates=max(looks), experiments=experiments, seed=seed, test_examples=test_examples
    )
    claimed = np.zeros((experiments, len(scenario.densities)), dtype=bool)
    denied = np.zeros(experiments, dtype=bool)
    for number, n in enumerate(looks, start=1):
        decided = decisions(
            {arm: values[..., :n] for arm, values in drawn.items()},
            margin_pp=margin_pp,
            alpha=alpha * share(number),
            test_examples=test_examples,
        )
        denied |= decided.refuted.all(axis=-1) & ~claimed.any(axis=-1) & ~decided.claimed.any(axis=-1)
        claimed |= decided.claimed
    winners = scenario.winners(margin=margin_pp / 100)
    false = claimed & ~winners
    return Rates(
        experiments=experiments,
        win=float(claimed.any(axis=-1).mean()),
        false_win=float(false.any(axis=-1).mean()),
        false_not_won=float(denied.mean()) if winners.any() else 0.0,
        claimed=tuple(claimed.mean(axis=0).tolist()),
    )


def as_levels(scenario: Scenario, drawn: Mapping[str, Array], experiment: int) -> list[Level]:
    """One drawn experiment as `judge` takes it; `judge` raises ValueError if a draw lies outside [0, 1]."""
    return [
        Level(density, {arm: tuple(values[experiment, at].tolist()) for arm, values in drawn.items()})
        for at, density in enumerate(scenario.densities)
    ]


def truth(
    *, ticket: Sequence[float], over_reinit: Sequence[float], over_random: Sequence[float]
) -> dict[str, tuple[float, ...]]:
    """Mean accuracies of all arms by level, from differences in pp; the dense network's mean is .9.

    ticket: ticket − dense; over_reinit, over_random: the ticket's lead over each control.

    >>> {arm: round(mean[0], 3) for arm, mean in truth(ticket=[-0.5], over_reinit=[2], over_random=[0]).items()}
    {'dense': 0.9, 'ticket': 0.895, 'reinit': 0.875, 'random': 0.895}
    """
    ours = [0.9 + x / 100 for x in ticket]
    return {
        "dense": (0.9,) * len(ours),
        "ticket": tuple(ours),
        "reinit": tuple(a - x / 100 for a, x in zip(ours, over_reinit, strict=True)),
        "random": tuple(a - x / 100 for a, x in zip(ours, over_random, strict=True)),
    }


def boundary_truths(levels: int) -> dict[str, dict[str, tuple[float, ...]]]:
    """Truths on the boundary of the null hypothesis, at which tests are most often wrong; the margin is .5 pp."""
    none, safe = (0.0,) * levels, (2.0,) * levels
    half, third = levels // 2, levels // 3
    return {
        "ticket at minus the margin": truth(ticket=(-0.5,) * levels, over_reinit=safe, over_random=safe),
        "ticket equal to re-init": truth(ticket=none, over_reinit=none, over_random=safe),
        "ticket equal to the random mask": truth(ticket=none, over_reinit=safe, over_random=none),
        "everything equal": truth(ticket=none, over_reinit=none, over_random=none),
        # Both families are on their boundary at once, the case for which each gets only alpha/2.
        "trivial above, inferior below": truth(
            ticket=none[:half] + (-0.5,) * (levels - half),
            over_reinit=none[:half] + safe[half:],
            over_random=safe,
        ),
        "winners in the middle": truth(
            ticket=none[: levels - third] + (-0.5,) * third,
            over_reinit=none[:third] + safe[third:],
            over_random=safe,
        ),
    }


def _percent(*values: float) -> tuple[float, ...]:
    return tuple(value / 100 for value in values)


DIGITS = Scenario(
    (0.52, 0.42, 0.22, 0.11, 0.09, 0.059, 0.031),
    {
        "dense": _percent(*[98.42] * 7),
        "ticket": _percent(98.69, 98.76, 98.64, 98.51, 98.49, 98.11, 97.40),
        "reinit": _percent(98.49, 98.42, 97.98, 97.84, 97.71, 96.76, 96.13),
        "random": _percent(98.40, 98.36, 97.98, 97.22, 97.18, 96.22, 92.98),
    },
)
"""Means measured on scikit-learn's digits (450 test images, 10 replicates); sd of the differences about .3 pp."""
