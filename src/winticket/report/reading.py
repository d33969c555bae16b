"""Reading a result document: what it says of a level, an arm or the verdict. A missing value stays missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from winticket import controls
from winticket.report.metric import margin_of, metric_of
from winticket.report.numbers import plus_minus as plus_minus  # noqa: PLC0414 - others read it here
from winticket.results import (
    INTERVALS,
    Arm,
    Check,
    CheckName,
    Data,
    Document,
    Level,
    MeanName,
    Measured,
    Question,
    SavedTicket,
)

ARM_NAMES = {
    "dense": "dense network",
    "ticket": "ticket",
    "search": "as its search left it",
    **{name: controls.arm_of(control).label for name, control in controls.arms().items()},
}
FEWEST_REPLICATES = 5
"""With fewer replicates no sign-flip test can reach 5 %, so the verdict is always inconclusive."""
CHECK_NAMES: dict[CheckName, str] = {
    "accuracy": "matches dense",
    "beats_reinit": "beats re-init",
    "beats_random": "beats random mask",
    "accuracy_at_early_stop": "matches dense at early stop",
}


def arm_name(arm: str) -> str:
    """Return the arm's name in words. An arm that is not in ARM_NAMES keeps its name in the document."""
    return ARM_NAMES.get(arm, arm)


def levels(document: Document) -> list[Level]:
    """Return the levels, densest first."""
    return sorted(document["levels"], key=lambda level: -float(level["density"]))


def pruned_levels(document: Document) -> list[Level]:
    """Return the levels that have a density below 1 and a ticket arm, densest first."""
    return [level for level in levels(document) if level["density"] < 1 and "ticket" in level["arms"]]


def arms(document: Document) -> list[str]:
    """Return every arm of the document: first those in ARM_NAMES, in that order, then others as they appear."""
    seen = dict.fromkeys(arm for level in document["levels"] for arm in level["arms"])
    known = [arm for arm in ARM_NAMES if arm in seen]
    return known + [arm for arm in seen if arm not in ARM_NAMES]


def dense_arm(document: Document) -> Arm | None:
    """Return the dense arm of the densest level that has one, or None."""
    dense = (level["arms"]["dense"] for level in levels(document) if "dense" in level["arms"])
    return next(dense, None)


def computed(document: Document) -> str | None:
    """Say which layers trained on the sparse kernels, and from which density on. None if no arm records it."""
    sparse = [
        (level["density"], name)
        for level in pruned_levels(document)
        for arm in level["arms"].values()
        for name in arm.get("sparse") or ()
    ]
    if not any("sparse" in arm for level in pruned_levels(document) for arm in level["arms"].values()):
        return None
    highest: dict[str, float] = {}
    for density, name in sparse:
        highest[name] = max(density, highest.get(name, 0.0))
    if not highest:
        return "no layer"
    parts = []
    for density in sorted(set(highest.values()), reverse=True):
        layers = ", ".join(n.removesuffix(".weight") for n, d in highest.items() if d == density)
        parts.append(f"{layers} at {100 * density:.3g} % and below")
    return f"{'; '.join(parts)}; otherwise dense"


def replicates(arm: Measured) -> int:
    """Return how many replicates of this arm did not fail."""
    return sum(value is not None for value in arm.get("accuracies", ()))


def interval(arm: Measured, mean: MeanName) -> tuple[float, float] | None:
    """Return the interval of a mean as (low, high), or None if it has none, as with a single replicate."""
    return ends(arm.get(INTERVALS[mean]))


def ends(pair: Sequence[float | None] | None) -> tuple[float, float] | None:
    """Return an interval of the document as (low, high). None if there is no interval or one of its ends is open."""
    low, high = pair or (None, None)
    return None if low is None or high is None else (float(low), float(high))


def claimed(document: Document) -> tuple[float, ...]:
    """Return the densities at which the verdict claims a winning ticket, densest first."""
    return tuple(sorted((float(d) for d in document["verdict"].get("claimed") or ()), reverse=True))


def is_in(density: float, densities: Iterable[float]) -> bool:
    """True if `density` is one of `densities`, up to the rounding of a JSON number."""
    return any(abs(density - other) <= 1e-9 for other in densities)


def check_of(level: Level, name: CheckName) -> Check | None:
    """Return a check of this level, or None if the level lacks it."""
    return level.get("checks", {}).get(name)


def passed(level: Level, name: CheckName) -> bool | None:
    """True if this check of the level passed. None if the level lacks the check."""
    check = check_of(level, name)
    return None if check is None else check["passed"]


def mark(document: Document, level: Level, name: CheckName) -> str:
    """Return `yes` if the check is shown, `no` if the opposite is shown, and `open` if neither is.

    A dash means that the level lacks the check, or that the dense network did not learn, so that nothing is claimed.
    """
    check = check_of(level, name)
    if check is None or unlearned(document):
        return "–"
    return "yes" if check["passed"] else "no" if check.get("refuted") else "open"


def unlearned(document: Document) -> bool:
    """True if the verdict says that the dense network did not learn. Comparisons with it then mean nothing."""
    return document["verdict"].get("learned", {}).get("learned") is False


def unlearned_in_words(document: Document) -> str:
    """How the dense network failed as a reference: it did not learn, or less than its own tickets did."""
    learned = document["verdict"].get("learned", {})
    less = learned.get("behind") is not None and not learned.get("unlearned")
    return "learned less than its own tickets" if less else "did not learn"


def too_few(document: Document) -> bool:
    """True if the experiment has fewer replicates than any verdict needs."""
    count = question_of(document).get("replicates")
    return count is not None and count < FEWEST_REPLICATES


def time_outcome(level: Level) -> str | None:
    """Return whether the ticket's early stop is `faster`, `as fast` or `slower` than dense. None if not judged."""
    return level.get("checks", {}).get("time")


def pace(level: Level) -> str | None:
    """Return whether the ticket gets near the dense network's final accuracy `sooner`, `alike` or `later` than it.

    None if this was not judged.
    """
    check = level.get("checks", {}).get("pace")
    return None if check is None else check["outcome"]


def speed(level: Level) -> str | None:
    """Return the outcome for pace, or the one for the early stop if pace was not judged."""
    return pace(level) or time_outcome(level)


def reason(document: Document) -> str:
    """Return the verdict's reason without the outcome in front, since every heading already states the outcome."""
    return " ".join(sentences(document))


def sentences(document: Document) -> list[str]:
    """Return the sentences of `reason`.

    If there are too few replicates, the heading says so, and the sentence that repeats it is skipped.
    """
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
    """Return the warnings that affect the verdict's claim, and the notes that do not.

    A sentence that the verdict's reason already contains is skipped.
    """
    verdict = document["verdict"]
    bearing, others = (
        [text for text in listed or () if text not in verdict["reason"]]
        for listed in (verdict.get("warnings"), verdict.get("notes"))
    )
    return bearing, others


def failed_trainings(document: Document) -> tuple[list[str], int]:
    """Return a line for each training that failed, and how many trainings did not run because they depend on those.

    A line gives the arm, the density, the replicate (counted from 1) and the reason.
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
    """Describe the saved ticket: its replicate, how it was chosen, and its accuracy. None if none is saved."""
    saved = document.get("saved_ticket")
    if document.get("ticket") is None or not saved:
        return None
    count, density = saved["replicates"], density_percent(saved["density"])
    metric = metric_of(document)
    chosen = f", chosen for the best validation {metric.name} of the {count}" if count > 1 else ""
    number = saved["replicate"]
    number_there = f" (number {number} in result.json and in Python, which count from 0)"
    mean = f" ({metric.value(saved['mean_test_accuracy'])} on average over the {count})" if count > 1 else ""
    no_win = "" if has_won(document) else f"It is not a winning ticket; {density} is {_why_saved(document)}. "
    return (
        f"The saved ticket has density {density} and comes from replicate {number + 1}{number_there}{chosen}. {no_win}"
        f"After training, its test {metric.name} is {metric.value(saved['test_accuracy'])}{mean}."
    )


def won_at(document: Document) -> float | None:
    """Return the smallest density at which a ticket wins, or None."""
    return document["verdict"]["density"] if has_won(document) else None


def has_won(document: Document) -> bool:
    """True if the verdict is `won`."""
    return document["verdict"]["outcome"] == "won"


def _why_saved(document: Document) -> str:
    """Say why this density was saved although no ticket wins.

    `winticket.experiment.outcome_trainings.best` chooses it.
    """
    tried = pruned_levels(document)
    if len(tried) == 1:
        return "the only density tried"
    if any(level.get("checks", {}).get("matched") for level in tried):
        return "the smallest density shown to match the dense network"
    metric = metric_of(document)
    return f"the density with the {'highest' if metric.higher else 'lowest'} mean validation {metric.name}"


def lines_to_use(document: Document) -> list[str]:
    """Return the lines of Python that train the saved ticket in the user's own loop. Empty if none is saved."""
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
        "with winticket.masked(model, ticket):  # loads the weights it starts from, holds pruned ones at 0",
        "    my_training_loop(model)  # your own loop, your own optimiser",
    ]


def falls_behind(document: Document, level: Level) -> bool:
    """True if the ticket is worse than the dense network by more than the margin, by the test or by the mean alone.

    A check that did not pass for another reason, such as too few replicates or a wide interval, does not count.
    """
    check = check_of(level, "accuracy")
    if check is None or check["passed"]:
        return False
    gap, margin = paired_difference(document, level, "ticket", dense_arm(document)), margin_of(document)
    return check.get("refuted", False) or (gap is not None and margin is not None and gap < -margin)


def question_of(document: Document) -> Question:
    """Return the experiment's options, or an empty mapping if the document lacks them."""
    return document.get("experiment", {})


def data_of(document: Document) -> Data | None:
    """Return what the document says of the data, or None if it says nothing."""
    return document.get("data")


def about_classes(document: Document) -> bool:
    """Whether the answers are classes: if they are judged by accuracy, or the data have classes."""
    data = data_of(document)
    if data is not None and "target" in data:
        return False
    return metric_of(document).is_accuracy or bool(data is not None and data.get("classes"))


def saved_of(document: Document) -> SavedTicket | None:
    """Return the entry of the saved ticket, or None if there is none."""
    return document.get("saved_ticket")


def tickets_from(source: Question) -> str:
    """Describe the experiment from which tickets were transferred, in a few words."""
    start = f", rewound to step {source['rewind_step']}" if source["rewind_step"] else ""
    task = f"{source['model']} on {source['data']}"
    return f"{task}, {source['method']} with {source['optimizer']} {source['lr']:g}{start}"


def paired_difference(document: Document, level: Level, arm: str, other: Measured | None) -> float | None:
    """Return the mean over replicates of how much better the arm is than the other, in the metric's points.

    Points are percentage points if values are percentages. Pairs with a failed replicate are skipped. None if no pair
    remains.
    """
    scale = metric_of(document).scale
    accuracies, others = (
        () if network is None else network.get("accuracies", ())
        for network in (level["arms"].get(arm), other)
    )
    pairs = [(a, b) for a, b in zip(accuracies, others, strict=False) if a is not None and b is not None]
    return scale.factor * sum(scale.gain(b, a) for a, b in pairs) / len(pairs) if pairs else None


def is_transfer(document: Document) -> bool:
    """True if the tickets were transferred from another experiment, so the search for them cannot be changed."""
    return bool(question_of(document).get("source"))


def first_loss(document: Document) -> Level | None:
    """Return the densest level whose ticket falls behind the dense network, or None."""
    return next((level for level in pruned_levels(document) if falls_behind(document, level)), None)


def gap_words(document: Document, level: Level) -> str:
    """Return how much worse the ticket's mean is than the dense network's, as `0.52 pp `. Empty if it is not worse."""
    gap = paired_difference(document, level, "ticket", dense_arm(document))
    return "" if gap is None or gap >= 0 else f"{metric_of(document).amount(gap)} "


def density_percent(density: float) -> str:
    """Write a density as a percentage of the weights.

    >>> [density_percent(density) for density in (1.0, 0.107, 0.0019)]
    ['100 %', '10.7 %', '0.19 %']
    """
    share = 100 * density
    return f"{share:.0f} %" if share >= 99.95 else f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"


def plain(value: object) -> str:
    """Write any JSON value on one line: lists joined by commas, mappings as key: value pairs, null as a dash."""
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
