"""Where the t test, which decides, and the two tests that cross-check it do not agree."""

from __future__ import annotations

from collections.abc import Callable

from winticket.judge.checks import Check
from winticket.judge.record import LevelChecks, Verdict

NAMES = {
    "dense": "the dense network",
    "reinit": "the same mask with new initial weights",
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


def disagreements(verdict: Verdict, *, bearing: bool) -> list[str]:
    """A sentence for each check in which the three tests do not agree: those that the wins rest on, or all others.

    A win rests on the checks at its density and, since densities are tested in a fixed sequence, on the match with the
    dense network at every higher one.
    """
    sparsest = min(verdict.claimed, default=1.0)
    found = []
    for level in verdict.levels:
        for name, claim in _CLAIMS.items():
            check: Check | None = getattr(level, name)
            if level.density == 1 or check is None or not check.disagreement():
                continue
            later = name == "accuracy" and not level.claimed and level.density > sparsest
            if (level.claimed or later) == bearing:
                end = _LATER if later else _HERE if bearing else _NOT_CLAIMED
                found.append(f"At {percent(level.density)} {_tests(check, claim, end)}")
    return found


_HERE = "The verdict stands, but it is less certain at this density."
_LATER = "The wins at lower densities rest on this match, too, so they are less certain."
_NOT_CLAIMED = "No win is claimed at this density, so the verdict does not rest on it."


def _tests(check: Check, claim: str, end: str) -> str:
    """What each of the three tests says about a claim, and the level that their p-values are compared with.

    end: what follows for the verdict if the t test shows the claim.
    """
    others = " and ".join(
        f"the {name} test {'shows' if p <= check.test_level else 'does not show'} it ({_p(p)})"
        for name, p in (("trimmed-mean", check.p_trimmed), ("sign-flip", check.p_sign_flip))
    )
    verb = "shows" if check.passed else "does not show"
    holm = " (by Holm's procedure)" if check.reference in CONTROL_CHECKS else ""
    end = end if check.passed else "The verdict follows the t test."
    return (
        f"the t test, which decides, {verb} that {claim} ({_p(check.p)}). Two other tests cross-check this: {others}. "
        f"To show it, p must be at most {check.test_level:.3g}{holm}. {end}"
    )


def _p(value: float) -> str:
    return f"p = {value:.3g}" if value >= 0.0001 else "p < 0.0001"
