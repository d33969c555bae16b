"""Reading a result document: what a level, an arm or the verdict says, with absence kept as absence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from winticket import controls
from winticket.results import (
    INTERVALS,
    Arm,
    Check,
    CheckName,
    Document,
    Level,
    MeanName,
    Measured,
    Question,
)

ARM_NAMES = {
    "dense": "dense network",
    "ticket": "ticket",
    "search": "as its search left it",
    **{name: controls.arm_of(control).label for name, control in controls.arms().items()},
}
FEWEST_REPLICATES = 5
"""Under five replicates no sign-flip test can reach 5 %, and the verdict is inconclusive whatever the numbers."""
CHECK_NAMES: dict[CheckName, str] = {
    "accuracy": "matches dense",
    "beats_reinit": "beats re-init",
    "beats_random": "beats random mask",
    "accuracy_at_early_stop": "matches dense at early stop",
}


def arm_name(arm: str) -> str:
    """The arm in words; an arm this room does not know is named as the document names it."""
    return ARM_NAMES.get(arm, arm)


def levels(document: Document) -> list[Level]:
    """The levels, densest first."""
    return sorted(document["levels"], key=lambda level: -float(level["density"]))


def pruned_levels(document: Document) -> list[Level]:
    """The levels with density below 1 that have a ticket arm, densest first."""
    return [level for level in levels(document) if level["density"] < 1 and "ticket" in level["arms"]]


def arms(document: Document) -> list[str]:
    """Every arm in the document: dense, ticket and the paper's controls first, then others as they appear."""
    seen = dict.fromkeys(arm for level in document["levels"] for arm in level["arms"])
    known = [arm for arm in ARM_NAMES if arm in seen]
    return known + [arm for arm in seen if arm not in ARM_NAMES]


def dense_arm(document: Document) -> Arm | None:
    """The dense arm of the densest level that has one, or None."""
    dense = (level["arms"]["dense"] for level in levels(document) if "dense" in level["arms"])
    return next(dense, None)


def computed(document: Document) -> str | None:
    """Which layers trained on the sparse kernels, and from which density down; None where no arm says."""
    sparse = [
        (level["density"], name)
        for level in pruned_levels(document)
        for arm in level["arms"].values()
        for name in arm.get("sparse") or ()
    ]
    if not any("sparse" in arm for level in pruned_levels(document) for arm in level["arms"].values()):
        return None
    since: dict[str, float] = {}
    for density, name in sparse:
        since[name] = max(density, since.get(name, 0.0))
    if not since:
        return "dense"
    parts = []
    for density in sorted(set(since.values()), reverse=True):
        layers = ", ".join(n.removesuffix(".weight") for n, d in since.items() if d == density)
        parts.append(f"{layers} from {100 * density:.3g} %")
    return f"on sparse kernels: {'; '.join(parts)} down; else dense"


def replicates(arm: Measured) -> int:
    """How many replicates of this arm did not fail."""
    return sum(value is not None for value in arm.get("accuracies", ()))


def interval(arm: Measured, mean: MeanName) -> tuple[float, float] | None:
    """The interval of a mean as (low, high), or None if there is none (a single replicate)."""
    return ends(arm.get(INTERVALS[mean]))


def ends(pair: Sequence[float | None] | None) -> tuple[float, float] | None:
    """An interval of the document as (low, high); None if it has an open end or is none."""
    low, high = pair or (None, None)
    return None if low is None or high is None else (float(low), float(high))


def claimed(document: Document) -> tuple[float, ...]:
    """The densities at which the verdict claims a winning ticket, densest first."""
    return tuple(sorted((float(d) for d in document["verdict"].get("claimed") or ()), reverse=True))


def is_in(density: float, densities: Iterable[float]) -> bool:
    """Whether `density` is one of `densities`, up to the rounding of a JSON number."""
    return any(abs(density - other) <= 1e-9 for other in densities)


def check_of(level: Level, name: CheckName) -> Check | None:
    """A check of this level; None if it was not made."""
    return level.get("checks", {}).get(name)


def passed(level: Level, name: CheckName) -> bool | None:
    """Whether a check of this level passed; None if it was not made."""
    check = check_of(level, name)
    return None if check is None else check["passed"]


def mark(document: Document, level: Level, name: CheckName) -> str:
    """`yes`: shown. `no`: the opposite is shown. `open`: neither is.

    A dash: the check was not made, or it is with a dense network that did not learn, of which nothing is claimed.
    """
    check = check_of(level, name)
    if check is None or unlearned(document):
        return "–"
    return "yes" if check["passed"] else "no" if check.get("refuted") else "open"


def unlearned(document: Document) -> bool:
    """Whether the verdict says that the dense network did not learn, so that nothing beside it means anything."""
    return document["verdict"].get("learned", {}).get("learned") is False


def too_few(document: Document) -> bool:
    """Whether fewer replicates were asked for than can decide anything."""
    count = question_of(document).get("replicates")
    return count is not None and count < FEWEST_REPLICATES


def time_outcome(level: Level) -> str | None:
    """`faster`, `as fast` or `slower` than the dense network at this level; None where it was not judged."""
    return level.get("checks", {}).get("time")


def pace(level: Level) -> str | None:
    """`sooner`, `alike` or `later` than dense at an accuracy near its final one; None where it was not judged."""
    check = level.get("checks", {}).get("pace")
    return None if check is None else check["outcome"]


def speed(level: Level) -> str | None:
    """Pace where it is known, else the early stop's outcome."""
    return pace(level) or time_outcome(level)


def reason(document: Document) -> str:
    """The verdict's reason without the outcome's own word in front, which every heading says already."""
    return " ".join(sentences(document))


def sentences(document: Document) -> list[str]:
    """The same, a thought in each element; without that of too few replicates, which is the heading."""
    verdict = document["verdict"]
    listed = verdict.get("sentences") or []
    if listed and too_few(document) and not unlearned(document):
        return list(listed[1:])
    text, *others = listed or [verdict["reason"]]
    rest = (
        text[len(verdict["outcome"]) + 1 :].lstrip()
        if text.lower().startswith(f"{verdict['outcome']}:")
        else text
    )
    return [line for line in (rest[:1].upper() + rest[1:], *others) if line]


def warnings_by_bearing(document: Document) -> tuple[list[str], list[str]]:
    """What bears on the verdict's claim, and what is merely worth knowing.

    What the reason says already is not said again.
    """
    verdict = document["verdict"]
    bearing, others = (
        [text for text in listed or () if text not in verdict["reason"]]
        for listed in (verdict.get("warnings"), verdict.get("notes"))
    )
    return bearing, others


def failed_trainings(document: Document) -> tuple[list[str], int]:
    """A line for each training that failed by itself, and how many were not run because they need one of those.

    A line has arm, density, replicate (counted from 1) and reason.
    """
    failures = document.get("failures") or ()
    causes = [item for item in failures if not item["reason"].startswith("not run: ")]
    lines = [
        f"{arm_name(item['arm'])} at {density_percent(item['density'])}, replicate {item['replicate'] + 1}: "
        f"{item['reason']}"
        for item in causes
    ]
    return lines, len(failures) - len(causes)


def saved_ticket(document: Document) -> str | None:
    """Whose the saved ticket is, how it was chosen, and its own accuracy beside the mean; None where none is saved."""
    saved = document.get("saved_ticket")
    if document.get("ticket") is None or not saved:
        return None
    of = saved["replicates"]
    chosen = f", chosen among {of} by validation accuracy" if of > 1 else ""
    mean = f"; the mean of the {of} is {100 * saved['mean_test_accuracy']:.2f} %" if of > 1 else ""
    what, why = "The saved ticket is", ""
    if not has_won(document):
        what, why = "The saved ticket is not a winning ticket: it is", f" ({_why_saved(document)})"
    return (
        f"{what} replicate {saved['replicate'] + 1}'s at {density_percent(saved['density'])}{why}{chosen}. Its own "
        f"test accuracy is {100 * saved['test_accuracy']:.2f} %{mean}."
    )


def won_at(document: Document) -> float | None:
    """The smallest density won; None if none is."""
    return document["verdict"]["density"] if has_won(document) else None


def has_won(document: Document) -> bool:
    return document["verdict"]["outcome"] == "won"


def _why_saved(document: Document) -> str:
    """What singles out the density of the saved ticket where none is won; `winticket.experiment.outcome.best`."""
    tried = pruned_levels(document)
    if len(tried) == 1:
        return "the only density tried"
    if any(level.get("checks", {}).get("matched") for level in tried):
        return "the smallest density shown to match the dense network"
    return "the density with the highest mean validation accuracy"


def lines_to_use(document: Document) -> list[str]:
    """Python that trains the saved ticket in a loop of one's own, as README has it; empty where none is saved."""
    ticket = document.get("ticket")
    if ticket is None:
        return []
    trust = ", trust=True" if ":" in str(question_of(document).get("model")) else ""
    build = f'winticket.models.build(**ticket.about["build"]{trust})'
    return [
        "import winticket",
        "",
        f"ticket = winticket.Ticket.load({json.dumps(str(ticket), ensure_ascii=False)})",
        f"model = {build}  # or your own: same parameter names and shapes",
        "with winticket.masked(model, ticket):  # its weights and its mask",
        "    my_training_loop(model)  # your own loop, your own optimiser",
    ]


def falls_behind(document: Document, level: Level) -> bool:
    """Whether the ticket is seen to lose by more than the margin: shown by the test, or by the mean alone.

    A check that merely did not pass (too few replicates, a wide interval) is not a fall.
    """
    check = check_of(level, "accuracy")
    if check is None or check["passed"]:
        return False
    gap, margin = (
        paired_difference(level, "ticket", dense_arm(document)),
        question_of(document).get("margin_pp"),
    )
    return check.get("refuted", False) or (gap is not None and margin is not None and gap < -margin)


def question_of(document: Document) -> Question:
    """The experiment as it was asked for; empty if the document does not say."""
    return document.get("experiment", {})


def tickets_from(source: Question) -> str:
    """The experiment that found tickets which were carried over, in a few words."""
    start = f", rewound to step {source['rewind_step']}" if source["rewind_step"] else ""
    where = f"{source['model']} on {source['data']}"
    return f"{where}, {source['method']} with {source['optimizer']} {source['lr']:g}{start}"


def paired_difference(level: Level, arm: str, other: Measured | None) -> float | None:
    """Mean over replicates of accuracy(arm) - accuracy(other), in percentage points.

    Pairs with a failed replicate are left out; None where no pair is left.
    """
    mine, others = (
        () if network is None else network.get("accuracies", ())
        for network in (level["arms"].get(arm), other)
    )
    pairs = [(a, b) for a, b in zip(mine, others, strict=False) if a is not None and b is not None]
    return 100 * sum(a - b for a, b in pairs) / len(pairs) if pairs else None


def is_transfer(document: Document) -> bool:
    """Whether the tickets were carried over, so that how they are found can no longer be chosen."""
    return bool(question_of(document).get("source"))


def first_loss(document: Document) -> Level | None:
    """The densest level whose ticket falls behind the dense network, or None."""
    return next((level for level in pruned_levels(document) if falls_behind(document, level)), None)


def gap_words(document: Document, level: Level) -> str:
    gap = paired_difference(level, "ticket", dense_arm(document))
    return "" if gap is None or gap >= 0 else f"{-gap:.2f} pp "


def density_percent(density: float) -> str:
    """A density as a share of the weights: 10.7 %, 100 %."""
    share = 100 * density
    return f"{share:.0f} %" if share >= 99.95 else f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"


def plus_minus(mean: float | None, ends: tuple[float, float] | None, *, scale: float, digits: int) -> str:
    """mean ± half the interval's width, both multiplied by `scale`; the mean alone without an interval.

    An interval that ends at 0 or 100 % is not symmetrical, and is given by its ends: 99.90 (99.60–100).
    """
    if mean is None:
        return "–"
    text = f"{scale * mean:.{digits}f}"
    if ends is None:
        return text
    if is_cut(mean, ends):
        return f"{text} ({bare(scale * ends[0], digits)}–{bare(scale * ends[1], digits)})"
    return f"{text} ± {scale * (ends[1] - ends[0]) / 2:.{digits}f}"


def bare(value: float, digits: int) -> str:
    """So many digits, but 0 and 100 without any."""
    text = f"{value:.{digits}f}"
    return text if float(text) not in (0.0, 100.0) else f"{float(text):.0f}"


def is_cut(mean: float, ends: tuple[float, float]) -> bool:
    """Whether an interval was cut at an end that no value can pass, so that it is not symmetrical."""
    above, below = ends[1] - mean, mean - ends[0]
    return abs(above - below) > 1e-9 * max(1.0, abs(mean))


def duration(seconds: float) -> str:
    """Seconds in words: 64 s, 2 min 9 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plain(value: object) -> str:
    """Any JSON value on one line: lists joined by commas, mappings as key: value pairs, null as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')}: {plain(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(item) for item in value)
    return str(value)
