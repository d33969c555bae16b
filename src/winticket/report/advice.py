"""What to try next: the literature's advice, chosen by what the numbers of this run show.

Every rule is one function from the document to a sentence or None. A sentence says what to do, the number
that calls for it, and who found it to help. The rules are tried in the order of `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

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
from winticket.results import CheckName, Document, Level

Rule = Callable[[Document], str | None]

# An early stop after 90 % of the steps means that the validation loss was still falling at the end.
STILL_LEARNING = 0.9
# So many points behind the dense network a ticket has collapsed, and more steps are no remedy.
FAR_BEHIND_PP = 10
# Where to rewind to first, as a share of the training: ResNet-20 is stable to noise from about step 2000 of 63 000 on
# (Frankle et al. 2020), its tickets sooner.
REWIND_AFTER = 0.03
# Beyond this many replicates the margin, not the count, is the thing to think about.
MANY_REPLICATES = 50
# What a mask passes that beats random ones and whose start does not matter, in this order: yes, yes, no.
BEATS_RANDOM_ALONE: tuple[CheckName, ...] = ("accuracy", "beats_random", "beats_reinit")


TITLE = "What to do next"


def introduction(document: Document) -> str:
    """What stands above the advice: after a win nothing has to be done."""
    options = "options to add to the same command, or to change in it"
    if has_won(document):
        return f"The ticket can be used now. The rest is optional: {options}."
    return f"{options[:1].upper()}{options[1:]}."


def advise(document: Document) -> list[str]:
    """Sentences on what to do next, most pressing first; empty if the numbers call for nothing.

    Too few replicates, or a network that did not learn, say nothing about tickets, so the rules that go by their
    accuracies are silent then.
    """
    count, dense = question_of(document).get("replicates"), dense_arm(document)
    few = count is not None and min(count, replicates(dense) if dense else count) < FEWEST_REPLICATES
    untold = few or learn_first(document) is not None
    rules = [rule for rule in RULES if not (untold and rule in BY_ACCURACY)]
    return [sentence for rule in rules if (sentence := rule(document)) is not None]


def failed_replicates(document: Document) -> str | None:
    """Replicates diverged: a lower rate or a warm-up before anything else. What raised an error has to be mended."""
    count = sum(arm.get("failed") or 0 for level in levels(document) for arm in level["arms"].values())
    if not count:
        return None
    training = "training" if count == 1 else "trainings"
    reasons = [str(item["reason"]) for item in document.get("failures") or ()]
    raised = [reason for reason in reasons if not _diverged(reason) and not reason.startswith("not run: ")]
    if raised:
        return (
            f"Mend what made {count} {training} fail ({raised[0]}) and run again with --retry-failed: failed "
            "replicates count against the verdict."
        )
    return (
        f"Lower the learning rate{_lower_rate(document)} or warm it up{_warm_up(document)}: "
        f"{count} {training} failed, and failed replicates count against the verdict "
        "(warm-up: Frankle & Carbin 2019, sec. 4)."
    )


def _diverged(reason: str) -> bool:
    return "loss" in reason and ("finite" in reason or "nan" in reason)


def learn_first(document: Document) -> str | None:
    """The dense network did not learn, so nothing about its tickets means anything yet."""
    if not unlearned(document):
        return None
    steps = question_of(document).get("steps")
    longer = _option("--steps", None if steps is None else 2 * steps)
    return (
        f"Lower the learning rate{_lower_rate(document)} or train longer{longer} until the "
        "dense network learns; tickets of one that does not prove nothing."
    )


def missing_controls(document: Document) -> str | None:
    """Without both controls nothing can be won."""
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
        f"Run the {which} too ({options}): without both controls a matching ticket may be trivial "
        "(Frankle & Carbin 2019 has both)."
    )


def too_few_replicates(document: Document) -> str | None:
    """Under five replicates the sign-flip test cannot reach 5 %."""
    count = question_of(document).get("replicates")
    if count is None or count >= FEWEST_REPLICATES:
        return None
    return (
        f"Use at least --replicates {FEWEST_REPLICATES}: with {count}, an exact sign-flip test cannot give a p-value "
        f"below 1/{2**count}, so no result could be significant. Five is the fewest that can win; ten or more decide "
        "more often."
    )


def check_the_budget(document: Document) -> str | None:
    """The gate was switched off, so nobody knows whether the dense network could do better."""
    if question_of(document).get("gate") is not False:
        return None
    return (
        "Run again without --no-gate: the dense network is then trained twice as long as well, which shows whether "
        "matching it is matching a finished network. Only that training is new."
    )


def more_replicates(document: Document) -> str | None:
    """Inconclusive, and the verdict knows how many replicates would decide."""
    count, needed = question_of(document).get("replicates"), _needed(document)
    if document["verdict"]["outcome"] != "inconclusive" or needed is None or needed > MANY_REPLICATES:
        return None
    if count is None or count < FEWEST_REPLICATES or needed <= count:
        return None
    fresh = document["verdict"].get("replicates_fresh")
    anew = (
        ""
        if fresh is None or fresh >= needed
        else f" In a new experiment ({_new_seed(document)}) {fresh} would do."
    )
    return (
        f"Use --replicates {needed} (in all; the {count} that are there are used again). That many would decide it "
        f"with 80 % power if the differences seen are the true ones.{anew}"
    )


def unrealistic_margin(document: Document) -> str | None:
    """Inconclusive, and deciding at this margin would take very many replicates."""
    needed, margin = _needed(document), question_of(document).get("margin_pp")
    if document["verdict"]["outcome"] != "inconclusive" or needed is None or needed <= MANY_REPLICATES:
        return None
    share = "" if margin is None else f" of {margin:g} pp"
    # The count falls with the square of the margin.
    wider = "" if margin is None else f" (--margin {margin * (needed / 10) ** 0.5:.1g})"
    return (
        f"Consider a wider margin{wider}, decided on before a run with a new seed ({_new_seed(document)}): at a "
        f"margin{share} this spread between replicates needs {needed} of them (the count falls with the "
        "square of the margin)."
    )


def train_dense_longer(document: Document) -> str | None:
    """The dense network gained from a doubled budget, or its validation loss was still falling at the end."""
    steps = question_of(document).get("steps")
    longer = _option("--steps", None if steps is None else 2 * steps)
    gate = document["verdict"].get("trained_enough")
    if gate is not None and gate["enough"] is False:
        gain = gate["gain"]
        what = "gained" if gain is None else f"gained {100 * gain:.2f} pp"
        return (
            f"Train longer{longer}: the dense network {what} when its training was doubled, so matching it "
            "here is matching an unfinished network (Ma et al. 2021)."
        )
    if gate is not None and gate["enough"] is True:
        return None
    if learn_first(document) is not None:
        return None
    dense = dense_arm(document)
    stop = None if dense is None else dense.get("early_stop_step")
    if steps is None or stop is None or stop < STILL_LEARNING * steps:
        return None
    return (
        f"Train longer{longer}: the dense network's validation loss was lowest at step {stop:.0f} of "
        f"{steps} on average, so it was still learning when training ended (early-stop criterion: Frankle "
        "& Carbin 2019)."
    )


def train_tickets_longer(document: Document) -> str | None:
    """The dense network is done, but losing tickets are still learning when the steps run out.

    A ticket far behind, or one that lost a layer or a class, lacks weights rather than steps.
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
                f"ticket's validation loss was still falling at the end (lowest at step {stop:.0f} of {steps} on "
                "average), and sparse networks learn more slowly (Frankle & Carbin 2019, fig. 3)."
            )
    return None


def _lacks_weights(document: Document, level: Level) -> bool:
    gap = paired_difference(level, "ticket", dense_arm(document))
    return bool((level.get("emptied") or {}).get("ticket")) or (gap is not None and gap <= -FAR_BEHIND_PP)


def falls_at_once(document: Document) -> str | None:
    """Not won, and the ticket falls behind dense under light pruning: the start is the suspect."""
    first = first_loss(document)
    if document["verdict"]["outcome"] == "won" or first is None or first["density"] < LIGHT_PRUNING:
        return None
    gap = gap_words(document, first)
    steps = question_of(document).get("steps")
    warm = (
        ""
        if question_of(document).get("warmup") or steps is None
        else f", or warm the rate up{_warm_up(document)}"
    )
    lower = f"ower the learning rate{_lower_rate(document)}{warm}"
    later = None if is_transfer(document) else _rewind_later(document, steps)
    return (
        f"{f'{later}; or l' if later else 'L'}{lower}: the ticket already falls {gap}behind the dense network at "
        f"{density_percent(first['density'])} of the weights, the sign of a start that training noise still overturns "
        f"({'Frankle et al. 2020; ' if later else ''}Frankle & Carbin 2019, sec. 4)."
    )


def _rewind_later(document: Document, steps: int | None) -> str | None:
    """Words for going back to a later step than this run did; None where that cannot help."""
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
    """The ticket matches and beats the random mask, but not re-initialisation: structure without luck."""
    if document["verdict"]["outcome"] == "won":
        return None
    for level in reversed(pruned_levels(document)):
        beaten = [passed(level, name) for name in BEATS_RANDOM_ALONE]
        if beaten == [True, True, False]:
            gap, margin = (
                paired_difference(level, "ticket", level["arms"].get("reinit")),
                question_of(document).get("margin_pp"),
            )
            if gap is not None and margin is not None and gap > margin:
                continue  # a lead that was merely not shown
            ahead = "" if gap is None else f" (ticket {gap:+.2f} pp)"
            return (
                f"Try a lower learning rate{_lower_rate(document)}: at "
                f"{density_percent(level['density'])} of the weights the mask beats a random one, but "
                f"re-initialised it does as well{ahead}, so the mask and not the start carries the gain; "
                "large rates are known to erase the start's advantage (Liu et al. 2019)."
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
BY_ACCURACY = frozenset(
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
"""Rules that take what the replicates' accuracies show for the truth."""


def _needed(document: Document) -> int | None:
    needed: int | None = document["verdict"].get("replicates_needed")
    return needed


def _option(name: str, value: object) -> str:
    return (
        "" if value is None else f" ({name} {value:g})" if isinstance(value, float) else f" ({name} {value})"
    )


def _warm_up(document: Document) -> str:
    """ResNet-18 in the 2019 paper: warm-up over 20 000 of 30 000 steps."""
    steps = question_of(document).get("steps")
    return " (--warmup)" if steps is None else f" (--warmup {round(2 * steps / 3)})"


def _new_seed(document: Document) -> str:
    if is_transfer(document):
        return "a source with another seed"
    seed = question_of(document).get("seed")
    return "another --seed" if seed is None else f"--seed {seed + 1}"


def _lower_rate(document: Document) -> str:
    """The option for a tenth of the learning rate: the step from .1 to .01 of the 2019 paper's deeper networks."""
    rate = question_of(document).get("lr")
    return _option("--lr", None if rate is None else float(f"{rate / 10:.3g}"))
