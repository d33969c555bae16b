"""The verdict in sentences: what was found, why it is not more, what would decide, what to beware of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from winticket.judge.checks import MIN_REPLICATES, Check
from winticket.judge.gate import interval, points
from winticket.judge.record import LevelChecks, Verdict

NAMES = {
    "dense": "the dense network",
    "reinit": "its re-initialised twin",
    "random": "the layer-matched random mask",
}


def explain(verdict: Verdict) -> str:
    """The reason as it is printed: the finding first, the gate's caution after it."""
    sentences = {"won": _won, "not won": _not_won, "inconclusive": _inconclusive}[verdict.outcome](verdict)
    gate = verdict.trained_enough
    if gate is not None and gate.enough is not True:
        sentences.append(gate.sentence)
    return " ".join(sentences)


def warn(verdict: Verdict) -> tuple[str, ...]:
    """What a reader should know before relying on the verdict; empty if nothing."""
    warnings = []
    if verdict.trained_enough is None:
        warnings.append(
            "Whether the dense network was trained enough was not checked (double its budget to see)."
        )
    elif verdict.trained_enough.enough is not True:
        warnings.append(verdict.trained_enough.sentence)
    pruned = _pruned(verdict)
    for name in ("accuracy", "beats_reinit", "beats_random"):
        checks = [(level.density, getattr(level, name)) for level in pruned]
        ran = [(density, check) for density, check in checks if check is not None]
        warnings += _failures(name, ran)
        if verdict.replicates >= MIN_REPLICATES:
            warnings += _disagreements(name, ran)
    if verdict.replicates >= MIN_REPLICATES and 0.5**verdict.replicates > verdict.alpha / 2:
        floor = 0.5**verdict.replicates
        warnings.append(
            f"The sign-flip test cannot reach the level {verdict.alpha / 2:g} with {verdict.replicates} "
            f"replicates (its smallest p is {floor:.3f}), so it is no check on the t tests."
        )
    return tuple(warnings)


def _failures(name: str, checks: Sequence[tuple[float, Check]]) -> list[str]:
    lost = [
        f"{density:.3g} ({', '.join(f'{k} {arm}' for arm, k in check.failed.items() if k)})"
        for density, check in checks
        if any(check.failed.values())
    ]
    if not lost:
        return []
    return [
        f"Failed runs count against the ticket in {name} at density {', '.join(lost)}; "
        "estimates and intervals there describe the pairs that finished."
    ]


def _disagreements(name: str, checks: Sequence[tuple[float, Check]]) -> list[str]:
    return [
        f"{name} at density {density:.3g} {'passes' if check.passed else 'does not pass'} by the t test "
        f"(p = {check.p:.3g}) but {'not ' if check.passed else ''}by {' or '.join(check.disagreement())} "
        f"(sign-flip p = {check.p_sign_flip:.3g}, trimmed mean p = {check.p_trimmed:.3g})."
        for density, check in checks
        if check.disagreement()
    ]


CONTROL_CHECKS: dict[str, Callable[[LevelChecks], Check | None]] = {
    "reinit": lambda level: level.beats_reinit,
    "random": lambda level: level.beats_random,
}


def _won(verdict: Verdict) -> list[str]:
    best = next(level for level in verdict.levels if level.density == verdict.density)
    sentences = [
        f"Won: at density {best.density:.3g} the ticket is less than {verdict.margin_pp:g} pp below "
        f"{NAMES['dense']} ({_found(best.accuracy)}) and beats both {NAMES['reinit']} "
        f"({_found(best.beats_reinit)}) and {NAMES['random']} ({_found(best.beats_random)}); "
        f"{_intervals(verdict)}."
    ]
    others = [density for density in verdict.claimed if density != best.density]
    if others:
        sentences.append(f"Also won at density {_list(others)}.")
    if best.time is not None and best.time.outcome is not None:
        sentences.append(
            {
                "faster": "It reaches its early stop sooner than the dense network.",
                "slower": "It reaches its early stop later than the dense network.",
                "as fast": "No difference was shown in when it reaches its early stop.",
            }[best.time.outcome]
        )
    return sentences


def _not_won(verdict: Verdict) -> list[str]:
    """Every pruned level with what refutes it."""
    margin = f"{verdict.margin_pp:g} pp"
    parts = []
    grounds: tuple[tuple[str, Callable[[LevelChecks], Check | None]], ...] = (
        (f"the ticket is more than {margin} below the dense network", lambda level: level.accuracy),
        (f"it is below {NAMES['reinit']}", lambda level: level.beats_reinit),
        (f"it is below {NAMES['random']}", lambda level: level.beats_random),
    )
    for text, pick in grounds:
        where = [level.density for level in _pruned(verdict) if (check := pick(level)) and check.refuted]
        if where:
            parts.append(f"at density {_list(where)} {text}")
    sentences = [f"Not won: {'; '.join(parts)} ({_intervals(verdict)})."]
    return sentences + _structure(verdict)


def _inconclusive(verdict: Verdict) -> list[str]:
    n = verdict.replicates
    if n < MIN_REPLICATES:
        return [
            f"Inconclusive: {n} {'replicate' if n == 1 else 'replicates'}; under {MIN_REPLICATES} "
            "nothing is decided, whatever the numbers.",
            *_needed(verdict),
        ]
    pruned = _pruned(verdict)
    controls = {"reinit": [x.beats_reinit for x in pruned], "random": [x.beats_random for x in pruned]}
    missing = [arm for arm, checks in controls.items() if None in checks]
    if missing:
        return [
            f"Inconclusive: the control {' and '.join(missing)} was not run at every density, so the ticket "
            "cannot be told from any sparse network of that shape; run it.",
            *_structure(verdict),
            *(_needed(verdict) if verdict.replicates_needed is not None else []),
        ]
    return [
        f"Inconclusive: {_stop_of_matching(verdict, pruned)}, and {_stop_of_nontrivial(pruned)}.",
        *_structure(verdict),
        *_small(verdict),
        *_needed(verdict),
    ]


def _stop_of_matching(verdict: Verdict, pruned: Sequence[LevelChecks]) -> str:
    claim = f"less than {verdict.margin_pp:g} pp below dense"
    stop = next((level for level in pruned if not level.matched), None)
    if stop is None:
        return f"the ticket is {claim} at every density"
    return (
        f"from the densest level down, {claim} stops being shown at density {stop.density:.3g} "
        f"({_found(stop.accuracy)})"
    )


def _stop_of_nontrivial(pruned: Sequence[LevelChecks]) -> str:
    stop = next((level for level in reversed(pruned) if not level.nontrivial), None)
    if stop is None:
        return "it beats both controls at every density"
    return (
        f"from the sparsest level up, beating both controls stops being shown at density {stop.density:.3g} "
        f"(re-init: {_found(stop.beats_reinit)}; random mask: {_found(stop.beats_random)})"
    )


def _structure(verdict: Verdict) -> list[str]:
    if verdict.kind != "winning structure":
        return []
    return [
        "A winning structure: it matches and beats the random mask; beating re-initialisation was not shown."
    ]


def _small(verdict: Verdict) -> list[str]:
    """Advantages that are shown to be under the margin: no refutation, but worth knowing before one runs more."""
    sentences = []
    for arm, pick in CONTROL_CHECKS.items():
        where = [
            level.density
            for level in _pruned(verdict)
            if (check := pick(level))
            and not check.passed
            and check.ci
            and check.ci[1] < verdict.margin_pp / 100
        ]
        if where:
            sentences.append(
                f"At density {_list(where)} its advantage over {NAMES[arm]}, if any, is under {verdict.margin_pp:g} pp."
            )
    return sentences


def _needed(verdict: Verdict) -> list[str]:
    """How many replicates would decide; or, where none would, what to run instead."""
    if verdict.replicates < MIN_REPLICATES:
        return [f"Run at least {verdict.replicates_needed} replicates."]
    if verdict.replicates_needed is not None:
        return [
            f"About {verdict.replicates_needed} replicates would decide, if the differences seen are the "
            f"true ones (80 % power for all checks together, each one-sided at {verdict.alpha / 2:g})."
        ]
    alone = [level.density for level in _pruned(verdict) if level.kind == "winning ticket"]
    if not alone:
        return ["If the differences seen are the true ones, no practical number of replicates decides this."]
    return [
        f"At density {_list(alone)} every check passes taken alone, but a sequence of tests stops before "
        "it: confirm it in a new experiment with new seeds whose densities end there."
    ]


def _found(check: Check | None) -> str:
    if check is None:
        return "not run"
    if check.estimate is None:
        return "no pair finished"
    failed = sum(check.failed.values())
    return (
        points(check.estimate)
        + (f", {interval(check.ci)}" if check.ci is not None else "")
        + (f", {failed} failed" if failed else "")
    )


def _intervals(verdict: Verdict) -> str:
    return f"{100 * (1 - verdict.alpha):g} % intervals, n = {verdict.replicates}"


def _list(densities: Sequence[float]) -> str:
    return ", ".join(f"{density:.3g}" for density in densities)


def _pruned(verdict: Verdict) -> list[LevelChecks]:
    return [level for level in verdict.levels if level.density < 1]
