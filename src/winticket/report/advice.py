"""What to try next: advice from the literature that fits the numbers of this run.

Each rule is a function that takes the document and returns a sentence or None. The sentence says what to do, which
number calls for it, and which paper supports it. `RULES` gives the order of the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from winticket.report.metric import margin_of, metric_of
from winticket.report.pruning_advice import (
    LIGHT_PRUNING,
    add_levels,
    iterate,
    look_sparser,
    prune_more_slowly,
    spare_emptied_layers,
)
from winticket.report.reading import (
    FEWEST_REPLICATES,
    dense_arm,
    density_percent,
    falls_behind,
    first_loss,
    gap_words,
    has_won,
    is_transfer,
    levels,
    paired_difference,
    passed,
    pruned_levels,
    question_of,
    replicates,
    unlearned,
)
from winticket.results import Arm, CheckName, Document, Level

Rule = Callable[[Document], str | None]

# If the validation loss is lowest after 90 % of the steps on average, it was probably still falling at the end.
STILL_LEARNING = 0.9
# A ticket this share of the metric's range behind the dense network has collapsed, and more steps do not help it.
FAR_BEHIND = 0.1
# The first rewind step to try, as a share of the training: ResNet-20 is stable to SGD noise from about step 2000 of
# 63 000 on, and its tickets are stable sooner (Frankle et al. 2020).
REWIND_AFTER = 0.03
# If a decision needs more replicates than this, the advice is a wider margin instead.
MANY_REPLICATES = 50
# A mask that beats random masks, but whose initial weights do not matter, passes the first two checks and not the last.
BEATS_RANDOM_ALONE: tuple[CheckName, ...] = ("accuracy", "beats_random", "beats_reinit")


TITLE = "What to do next"


def introduction(document: Document) -> str:
    """The sentence above the advice. It says that the advice is optional after a win."""
    command = f"winticket {'transfer' if is_transfer(document) else 'find'}"
    how = f"add the options of one or more of these suggestions to your {command} command, or change those it has"
    if has_won(document):
        return f"The ticket can be used now. To go further, {how}."
    return f"{how[:1].upper()}{how[1:]}."


def advise(document: Document) -> list[str]:
    """Sentences on what to do next, most urgent first. The list is empty if the numbers call for nothing.

    With too few replicates, or when the dense network did not learn, their values say nothing about tickets. Then
    the rules of `BY_VALUE` are skipped.
    """
    count, dense = question_of(document).get("replicates"), dense_arm(document)
    few = count is not None and min(count, replicates(dense) if dense else count) < FEWEST_REPLICATES
    uninformative = few or learn_first(document) is not None
    rules = [rule for rule in RULES if not (uninformative and rule in BY_VALUE)]
    return [sentence for rule in rules if (sentence := rule(document)) is not None]


def failed_replicates(document: Document) -> str | None:
    """Some trainings failed. If one raised an error, fix the error; if the loss diverged, lower the learning rate."""
    count = sum(arm.get("failed") or 0 for level in levels(document) for arm in level["arms"].values())
    if not count:
        return None
    training = "training" if count == 1 else "trainings"
    reasons = [str(item["reason"]) for item in document.get("failures") or ()]
    raised = [reason for reason in reasons if not _diverged(reason) and not reason.startswith("not run: ")]
    if raised:
        return (
            f"Fix the error that made {count} {training} fail ({raised[0]}) and run again with --retry-failed. Failed "
            "replicates count against the ticket."
        )
    return (
        f"Lower the learning rate{_lower_rate(document)} or warm it up{_warm_up(document)}: "
        f"{count} {training} failed, and failed replicates count against the ticket "
        f"(warm-up: Frankle & Carbin 2019, sec. 4).{_unscaled(document)}"
    )


def _unscaled(document: Document) -> str:
    """What else makes a loss of the user's diverge; empty for other losses."""
    if ":" not in str(question_of(document).get("loss") or ""):
        return ""
    return " A loss of yours sees targets in their own unit, so dividing them by their spread may help, too."


def _diverged(reason: str) -> bool:
    return "loss" in reason and ("finite" in reason or "nan" in reason)


def learn_first(document: Document) -> str | None:
    """The dense network did not learn, so a comparison with it shows nothing about its tickets."""
    if not unlearned(document):
        return None
    steps = question_of(document).get("steps")
    longer = _option("--steps", None if steps is None else 2 * steps)
    return (
        f"Lower the learning rate{_lower_rate(document)} or train longer{longer} until the dense network learns. "
        "A ticket that matches a network that did not learn proves nothing."
    )


def missing_controls(document: Document) -> str | None:
    """A control is missing, and a ticket wins only if it beats both controls."""
    present = {arm for level in pruned_levels(document) for arm in level["arms"]}
    missing = [
        words
        for arm, words in (("reinit", "re-initialised"), ("random", "random-mask"))
        if arm not in present
    ]
    if not present or not missing:
        return None
    which = f"{missing[0]} control" if len(missing) == 1 else f"{' and '.join(missing)} controls"
    options = " ".join(f"--control {arm}" for arm in ("reinit", "random") if arm not in present)
    return (
        f"Run the {which} too ({options}): without both controls, nobody can tell whether a ticket that matches the "
        "dense network is better than any other sparse network (Frankle & Carbin 2019 compare with both)."
    )


def too_few_replicates(document: Document) -> str | None:
    """With fewer than five replicates, the sign-flip test cannot give a p-value below 5 %."""
    count = question_of(document).get("replicates")
    if count is None or count >= FEWEST_REPLICATES:
        return None
    return (
        f"Use at least --replicates {FEWEST_REPLICATES}: with {count}, an exact sign-flip test cannot give a p-value "
        f"below 1/{2**count}, so no result could be significant. A ticket can win with {FEWEST_REPLICATES} replicates; "
        "with ten or more, the verdict is less often inconclusive."
    )


def check_the_budget(document: Document) -> str | None:
    """--no-gate was set, so nobody knows whether the dense network was trained long enough."""
    if question_of(document).get("gate") is not False:
        return None
    return (
        "Run again without --no-gate. The run then also trains the dense network for twice as many steps, which shows "
        "whether the dense network was trained long enough for a fair comparison. All other trainings are reused."
    )


def more_replicates(document: Document) -> str | None:
    """The verdict is inconclusive and estimates how many replicates would decide it."""
    count, needed = question_of(document).get("replicates"), _needed(document)
    if document["verdict"]["outcome"] != "inconclusive" or needed is None or needed > MANY_REPLICATES:
        return None
    if count is None or count < FEWEST_REPLICATES or needed <= count:
        return None
    fresh = document["verdict"].get("replicates_fresh")
    fewer = (
        ""
        if fresh is None or fresh >= needed
        else f" In a new experiment ({_new_seed(document)}), {fresh} replicates would be enough."
    )
    return (
        f"Use --replicates {needed} (the total; the run reuses the {count} that it has). If the true differences equal "
        f"the measured ones, {needed} replicates decide the verdict with 80 % power.{fewer}"
    )


def unrealistic_margin(document: Document) -> str | None:
    """The verdict is inconclusive, and a decision at this margin needs too many replicates."""
    needed, margin = _needed(document), question_of(document).get("margin_pp")
    if document["verdict"]["outcome"] != "inconclusive" or needed is None or needed <= MANY_REPLICATES:
        return None
    metric = metric_of(document)
    share = "" if margin is None else f" of {metric.margin(margin)}"
    # The number of replicates is inversely proportional to the square of the margin; ten should be enough.
    wider = "" if margin is None else f" (--margin {margin * (needed / 10) ** 0.5:.1g})"
    return (
        f"Consider a wider margin{wider}, and fix it before you run with a new seed ({_new_seed(document)}). At the "
        f"margin{share}, a decision needs {needed} replicates, because {metric.plural} vary this much between "
        "replicates. "
        "Twice the margin needs a quarter as many."
    )


def train_dense_longer(document: Document) -> str | None:
    """The dense network was still improving: twice the steps helped, or its validation loss was falling at the end."""
    steps = question_of(document).get("steps")
    longer = _option("--steps", None if steps is None else 2 * steps)
    gate = document["verdict"].get("trained_enough")
    if gate is not None and gate["enough"] is False:
        gain = gate["gain"]
        gained = metric_of(document).gained(gain)
        return (
            f"Train longer{longer}: the dense network {gained} from twice as many steps, so the "
            "ticket was compared with a network that had not finished training (Ma et al. 2021)."
        )
    if gate is not None and gate["enough"] is True:
        return None
    if learn_first(document) is not None:
        return None
    dense = dense_arm(document)
    stop = None if dense is None else dense.get("early_stop_step")
    if dense is None or steps is None or stop is None or stop < STILL_LEARNING * steps:
        return None
    return (
        f"Train longer{longer}: the dense network's validation loss was lowest {_near_the_end(dense, steps)}, so the "
        "network was probably still learning when training ended (early-stop criterion: Frankle & Carbin 2019)."
    )


def _near_the_end(arm: Arm, steps: int) -> str:
    """When the loss of an arm was lowest: in most replicates at the last step, else near the end on average."""
    stops = [stop for stop in arm.get("early_stop_steps") or () if stop is not None]
    last = stops.count(steps)
    if 2 * last > len(stops):
        return f"at the last step in {last} of {len(stops)} replicates"
    return f"near the end (at step {arm['early_stop_step']:.0f} of {steps} on average)"


def train_tickets_longer(document: Document) -> str | None:
    """The dense network had finished learning, but tickets that fall behind had their lowest loss near the last step.

    More steps do not help a ticket that is far behind, or that lost all weights of a layer or a class.
    """
    steps = question_of(document).get("steps")
    if steps is None or train_dense_longer(document) is not None:
        return None
    for level in pruned_levels(document):
        stop = level["arms"]["ticket"].get("early_stop_step")
        if not falls_behind(document, level) or _lacks_weights(document, level):
            continue
        if stop is not None and stop >= STILL_LEARNING * steps:
            aim = "For a smaller ticket, train" if has_won(document) else "Train"
            return (
                f"{aim} longer (--steps {2 * steps}): at {density_percent(level['density'])} of the weights the "
                f"ticket's validation loss was lowest {_near_the_end(level['arms']['ticket'], steps)}, so more steps "
                "may lower it further. Below about a fifth of the weights, the fewer a ticket keeps, the later its "
                "loss is lowest (Frankle & Carbin 2019, fig. 4a)."
            )
    return None


def _lacks_weights(document: Document, level: Level) -> bool:
    gap, span = paired_difference(document, level, "ticket", dense_arm(document)), _span(document)
    emptied = bool((level.get("emptied") or {}).get("ticket"))
    return emptied or (gap is not None and span is not None and gap <= -FAR_BEHIND * span)


def _span(document: Document) -> float | None:
    """The metric's range in points; without one, from the best constant answer to the dense network, if known."""
    metric, dense = metric_of(document), dense_arm(document)
    if metric.scale.bounded:
        return float(metric.shown(metric.scale.high - metric.scale.low))
    best = None if dense is None else dense.get("accuracy")
    if metric.constant is None or best is None:
        return None
    return float(metric.shown(max(metric.scale.gain(metric.constant, best), 0.0)))


def falls_at_once(document: Document) -> str | None:
    """No ticket won, and tickets fall behind at high densities: rewind to a later step, or lower the learning rate."""
    first = first_loss(document)
    if document["verdict"]["outcome"] == "won" or first is None or first["density"] < LIGHT_PRUNING:
        return None
    gap = gap_words(document, first)
    steps = question_of(document).get("steps")
    later = None if is_transfer(document) else _rewind_later(document, steps)
    warm = (
        ""
        if question_of(document).get("warmup") or steps is None
        else f", or warm the rate up{_warm_up(document)}"
    )
    lower = f"lower the learning rate{_lower_rate(document)}{warm}"
    remedy = f"{later}; or {lower}" if later else f"{lower[:1].upper()}{lower[1:]}"
    return (
        f"{remedy}. The ticket already falls {gap}behind the dense network at {density_percent(first['density'])} of "
        "the weights. Tickets fall behind this early when the weights that training restarts from are not yet stable "
        f"to SGD noise ({'Frankle et al. 2020; ' if later else ''}Frankle & Carbin 2019, sec. 4)."
    )


def _rewind_later(document: Document, steps: int | None) -> str | None:
    """Advice to rewind to a later step than this run did; None if the method has no such step or it comes too late."""
    if (
        question_of(document).get("rewind") not in ("to_init", "to_step", "to_step_with_optimizer")
        or steps is None
    ):
        return None
    last = question_of(document).get("rewind_step") or 0
    step = max(2 * last, ceil(REWIND_AFTER * steps))
    if step > steps / 2:
        return None
    name = (
        "to_step" if question_of(document).get("rewind") == "to_init" else question_of(document).get("rewind")
    )
    return f"Rewind to a later step (--rewind {name} --rewind-step {step})"


def reinit_as_good(document: Document) -> str | None:
    """The ticket matches dense and beats the random mask, but not the re-initialised control."""
    if document["verdict"]["outcome"] == "won":
        return None
    for level in reversed(pruned_levels(document)):
        beaten = [passed(level, name) for name in BEATS_RANDOM_ALONE]
        if beaten == [True, True, False]:
            gap = paired_difference(document, level, "ticket", level["arms"].get("reinit"))
            margin, metric = margin_of(document), metric_of(document)
            if gap is not None and margin is not None and gap > margin:
                continue  # the ticket leads by more than the margin, so its initial weights may matter
            difference = (
                ""
                if gap is None
                else (
                    f" ({metric.minus('ticket', 're-initialised')}: {metric.with_points(metric.signed(gap))})"
                )
            )
            return (
                f"Try a lower learning rate{_lower_rate(document)}: at {density_percent(level['density'])} of the "
                "weights, the ticket beats the random mask, but its mask does as well with re-initialised weights"
                f"{difference}. So the gain comes from the mask and not from the initial weights. At high learning "
                "rates, the initial weights are known to lose their advantage (Liu et al. 2019)."
            )
    return None


RULES: tuple[Rule, ...] = (
    failed_replicates,
    learn_first,
    missing_controls,
    too_few_replicates,
    check_the_budget,
    more_replicates,
    unrealistic_margin,
    train_dense_longer,
    falls_at_once,
    iterate,
    spare_emptied_layers,
    look_sparser,
    reinit_as_good,
    train_tickets_longer,
    prune_more_slowly,
    add_levels,
)
BY_VALUE = frozenset(
    {
        more_replicates,
        unrealistic_margin,
        falls_at_once,
        iterate,
        look_sparser,
        reinit_as_good,
        train_tickets_longer,
        prune_more_slowly,
        add_levels,
    }
)
"""Rules that rely on the values that tickets reach."""


def _needed(document: Document) -> int | None:
    needed: int | None = document["verdict"].get("replicates_needed")
    return needed


def _option(name: str, value: object) -> str:
    return (
        "" if value is None else f" ({name} {value:g})" if isinstance(value, float) else f" ({name} {value})"
    )


def _warm_up(document: Document) -> str:
    """The warm-up option for two thirds of the steps, as for ResNet-18 in the 2019 paper (20 000 of 30 000)."""
    steps = question_of(document).get("steps")
    return " (--warmup)" if steps is None else f" (--warmup {round(2 * steps / 3)})"


def _new_seed(document: Document) -> str:
    if is_transfer(document):
        return "a source with another seed"
    seed = question_of(document).get("seed")
    return "another --seed" if seed is None else f"--seed {seed + 1}"


def _lower_rate(document: Document) -> str:
    """The option for a tenth of the learning rate: the 2019 paper lowers it from 0.1 to 0.01 for deep networks."""
    rate = question_of(document).get("lr")
    return _option("--lr", None if rate is None else float(f"{rate / 10:.3g}"))
