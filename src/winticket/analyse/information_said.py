"""What tables of the information plane say: how far estimators disagree, and what can and cannot be concluded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.analyse.information_layers import AS_COMPUTED, NOISE, OUTPUT
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.judge import mean_interval
from winticket.table import Table, Value

REVISION = 1
LEAST = 0.05
"""Bits. A smaller difference is called none, however narrow its interval is."""
PINNED = 0.99
"""An estimate of at least this share of its ceiling says only that nearly every example has a code of its own."""


def plane_says(table: Table) -> list[str]:
    """The networks' own information, how far estimators disagree, and what they say of compression and class."""
    if not table.values:
        return ["No training has finished."]
    hidden = table.where(last_hidden=True)
    rows, where = (hidden, "last hidden layer") if hidden.values else (table.where(layer=OUTPUT), "output")
    return [
        *_itself(rows, where),
        *_spread(rows, where),
        *_compression(rows.where(followed=True), where),
        *_output(table.where(followed=True, layer=OUTPUT, arm="dense")),
        *_classes(rows.where(followed=True, at_end=True), where),
    ]


def _itself(rows: Table, where: str) -> Iterator[str]:
    """The information of the networks themselves, without any estimator."""
    exact, most = rows.where(estimator=AS_COMPUTED).numbers("i_x"), float(rows.numbers("most_x").max())
    if exact.min() > most - 1e-9:
        yield (
            f"In every network looked at, each of the examples has values of its own in the {where}. So the networks "
            f"themselves have I(X;T) = H(X) = {most:.3g} bits at every step and density, and cannot show "
            "compression; all else here is about estimators."
        )
    else:
        yield (
            f"Without any estimator, I(X;T) of the {where} lies between {exact.min():.3g} and {exact.max():.3g} bits "
            f"(H(X) = {most:.3g}): it falls below H(X) only where examples share all their values."
        )


def _spread(rows: Table, where: str) -> Iterator[str]:
    """How far the estimators are apart for one and the same networks."""
    ends, arm = rows.where(arm="dense", at_end=True), "dense network"
    if not ends.values:
        ends, arm = rows.where(at_end=True), "networks"
    means = summarised(ends, "i_x", ["estimator"]).sort("i_x").rows()
    values, most = [float(row["i_x"] or 0) for row in means], float(ends.numbers("most_x").max())
    pinned = sum(value >= PINNED * most for value in values)
    yield (
        f"For the {where} of the trained {arm}, {len(means)} estimators give I(X;T) from {said(means[0], 'i_x')} bits "
        f"({means[0]['estimator']}) to {said(means[-1], 'i_x')} bits ({means[-1]['estimator']}). {pinned} of them give "
        f"{100 * PINNED:g} % of H(X) or more, which says only that nearly every example has a code of its own."
    )


def _compression(rows: Table, where: str) -> Iterator[str]:
    """By which estimators I(X;T) falls over training and by which it rises, and whether more than in random masks."""
    arms = {"dense": "the dense network", "ticket": "tickets"}
    looked = [arm for arm in arms if len(set(rows.where(arm=arm).column("share"))) > 1]
    if not looked:
        return
    if max(int(str(n)) for n in rows.column("replicate")) < 2:
        yield "One replicate gives no interval, so nothing is said about compression over training."
        return
    by_name = {str(name): rows.where(estimator=name) for name in dict.fromkeys(rows.column("estimator"))}
    falls = {arm: [name for name, its in by_name.items() if _falls(its, arm)] for arm in looked}
    rises = {arm: [name for name, its in by_name.items() if _rises(its, arm)] for arm in looked}
    fell = [f"{len(falls[arm])} of {len(by_name)} for {arms[arm]}{_listed(falls[arm])}" for arm in looked]
    rose = [f"{len(rises[arm])} for {arms[arm]}" for arm in looked]
    yield (
        f"Over training, I(X;T) of the {where} ends at least {LEAST:g} bits below an earlier step, beyond the 95 % "
        f"interval of the difference, by some estimators: {' and '.join(fell)}. It ends above its start by others: "
        f"{' and '.join(rose)}."
    )
    if "ticket" in looked and rows.where(arm="random").values:
        beyond = [name for name, its in by_name.items() if _falls(its, "ticket", baseline="random")]
        yield (
            f"Tickets compress more than random masks of the same layer densities by {len(beyond)} of "
            f"{len(by_name)}{_listed(beyond)}."
        )
    if any(falls[arm] and rises[arm] for arm in looked):
        yield "Estimators contradict each other about the same values, so this shows no compression by the networks."
    elif not any(falls.values()):
        yield "So no estimator shows compression."
    elif any(len(falls[arm]) < len(by_name) for arm in looked):
        yield "So whether the networks compress depends on the estimator."


def _output(rows: Table) -> Iterator[str]:
    """By which estimators I(X;T) of the class probabilities falls over training."""
    names = [str(name) for name in dict.fromkeys(rows.column("estimator"))]
    if len(set(rows.column("replicate"))) < 2 or len(set(rows.column("share"))) < 2:
        return
    falls = [name for name in names if _falls(rows.where(estimator=name), "dense")]
    yield (
        f"For the dense network's class probabilities, it falls by {len(falls)} of {len(names)}{_listed(falls)}. What "
        "such estimates measure is how the values of examples cluster (Goldfeld et al. 2019)."
    )


def _falls(rows: Table, arm: str, *, baseline: str | None = None) -> bool:
    """Whether I(X;T) of an arm falls from an earlier step to the end, or falls more than the baseline's.

    Differences are paired by replicate; their intervals are corrected for the number of steps (Bonferroni).
    """
    path, other = _by_share(rows, arm), _by_share(rows, baseline or arm)
    if len(path) < 2:
        return False
    *earlier, end = sorted(path)
    for share in earlier:
        both = path[share].keys() & path[end].keys()
        if baseline is None:
            found = [path[share][n] - path[end][n] for n in both]
        elif share in other and end in other:
            both &= other[share].keys() & other[end].keys()
            found = [path[share][n] - path[end][n] - (other[share][n] - other[end][n]) for n in both]
            if not both or sum(path[share][n] - path[end][n] for n in both) < LEAST * len(both):
                continue  # a baseline that rises is no compression of the arm
        else:
            continue
        if _positive(found, looks=len(earlier)):
            return True
    return False


def _rises(rows: Table, arm: str) -> bool:
    """Whether I(X;T) of an arm is higher at the end than at the start, by replicate."""
    path = _by_share(rows, arm)
    start, end = path[min(path)], path[max(path)]
    return len(path) > 1 and _positive([end[n] - start[n] for n in start.keys() & end.keys()])


def _positive(differences: Sequence[float], *, looks: int = 1) -> bool:
    """Whether the mean difference is at least LEAST, with an interval above 0, corrected for the number of looks."""
    interval = mean_interval(differences, level=1 - 0.05 / looks)
    return interval is not None and interval[0] > 0 and sum(differences) >= LEAST * len(differences)


def _by_share(rows: Table, arm: str) -> dict[float, dict[int, float]]:
    """I(X;T) by share of the training and replicate."""
    made: dict[float, dict[int, float]] = {}
    for row in rows.where(arm=arm).rows():
        made.setdefault(float(str(row["share"])), {})[int(str(row["replicate"]))] = float(str(row["i_x"]))
    return made


def _classes(ends: Table, where: str) -> Iterator[str]:
    """What estimates of I(T;Y) are worth, against shuffled classes, and whether tickets differ from random masks."""
    tickets = ends.where(arm="ticket")
    if not tickets.values:
        return
    density, most = float(str(tickets.column("density")[0])), float(tickets.numbers("most_y").max())
    means = summarised(tickets, "i_y", ["estimator"]).rows()
    shuffled = {
        row["estimator"]: row["i_y_shuffled"]
        for row in summarised(tickets, "i_y_shuffled", ["estimator"]).rows()
    }
    blind = [
        str(row["estimator"])
        for row in means
        if float(shuffled[row["estimator"]] or 0) >= PINNED * float(row["i_y"] or 0)
    ]
    yield (
        f"I(T;Y) of the {where} of tickets at a density of {kept_percent(density)}: with shuffled classes, "
        f"{len(blind)} of {len(means)} estimators give {100 * PINNED:g} % or more of what they give with the true "
        f"ones (H(Y) = "
        f"{most:.3g} bits), so these say nothing about classes."
    )
    seeing = [row for row in means if str(row["estimator"]) not in blind]
    if seeing and ends.where(arm="random").values:
        more = [str(row["estimator"]) for row in seeing if _excess(ends, row["estimator"]) > 0]
        less = [str(row["estimator"]) for row in seeing if _excess(ends, row["estimator"]) < 0]
        yield (
            f"Of the others, above what they give with shuffled classes, {len(more)} find more in tickets than in "
            f"random masks{_listed(more)} and {len(less)} find less{_listed(less)}."
        )
    bounds = tickets.where(estimator=f"lower bound at {100 * NOISE[1]:g} % noise")
    if bounds.values:
        low, high = (float(bounds.numbers(name).mean()) for name in ("low_y", "high_y"))
        yield (
            f"With noise of {100 * NOISE[1]:g} % of the variance, what is proven of I(T;Y) is that it lies between "
            f"{low:.2g} and {high:.3g} bits."
        )


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _excess(ends: Table, estimator: Value) -> int:
    """1 if I(T;Y) above shuffled classes is larger in tickets than in random masks, -1 if smaller, 0 if neither."""
    found: dict[str, dict[int, float]] = {"ticket": {}, "random": {}}
    for row in ends.where(estimator=estimator).rows():
        if row["arm"] in found:
            excess = float(str(row["i_y"])) - float(str(row["i_y_shuffled"]))
            found[str(row["arm"])][int(str(row["replicate"]))] = excess
    both = found["ticket"].keys() & found["random"].keys()
    differences = [found["ticket"][n] - found["random"][n] for n in both]
    if _positive(differences):
        return 1
    return -1 if _positive([-d for d in differences]) else 0
