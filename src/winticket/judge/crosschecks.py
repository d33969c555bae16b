"""Where the t test, which decides, and the two tests that cross-check it do not agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from winticket.judge.checks import Check
from winticket.judge.record import LevelChecks

NAMES = {
    "dense": "the dense network",
    "reinit": "the same mask with new start weights",
    "random": "a random mask with the same number of weights per layer",
}
CONTROL_CHECKS: dict[str, Callable[[LevelChecks], Check | None]] = {
    "reinit": lambda level: level.beats_reinit,
    "random": lambda level: level.beats_random,
}
_CLAIMS = {
    "accuracy": "the ticket matches the dense network",
    "beats_reinit": f"the ticket beats {NAMES['reinit']}",
    "beats_random": f"the ticket beats {NAMES['random']}",
}


def percent(density: float) -> str:
    """A density as the share of weights kept: 10.7 %, 9.0 %, 0.45 %."""
    share = 100 * density
    return f"{share:.0f} %" if share >= 99.95 else f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"


def disagreements(levels: Sequence[LevelChecks], *, bearing: bool) -> list[str]:
    """A sentence for each check in which the three tests do not agree.

    bearing: whether a win is claimed at these densities, so that the verdict rests on the checks.
    """
    return [
        f"At {percent(level.density)} {_tests(check, claim, bearing=bearing)}"
        for level in levels
        for name, claim in _CLAIMS.items()
        if (check := getattr(level, name)) and check.disagreement()
    ]


def _tests(check: Check, claim: str, *, bearing: bool) -> str:
    """What each of the three tests says about a claim, and the level that their p-values are compared with.

    bearing: whether a win is claimed at this density, so that the verdict rests on the claim.
    """
    others = " and ".join(
        f"the {name} test {'shows' if p <= check.test_level else 'does not show'} it ({_p(p)})"
        for name, p in (("trimmed-mean", check.p_trimmed), ("sign-flip", check.p_sign_flip))
    )
    verb = "shows" if check.passed else "does not show"
    holm = " (by Holm's procedure)" if check.reference in CONTROL_CHECKS else ""
    if not check.passed:
        end = "The verdict follows the t test."
    elif bearing:
        end = "The verdict stands, but less firmly here."
    else:
        end = "No win is claimed at this density, so the verdict does not rest on it."
    return (
        f"the t test, which decides, {verb} that {claim} ({_p(check.p)}). Two other tests cross-check this: {others}. "
        f"To show it, p must be at most {check.test_level:.3g}{holm}. {end}"
    )


def _p(value: float) -> str:
    return f"p = {value:.3g}" if value >= 0.0001 else "p < 0.0001"
