"""What to try next: the literature's advice, chosen by what the numbers of this run show.

Every rule is one function from the document to a sentence or None. A sentence says what to do, the number
that calls for it, and who found it to help. The rules are tried in the order of `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, log
from typing import Any

from winticket.report.reading import (
    Document,
    dense_arm,
    density_percent,
    falls_behind,
    levels,
    paired_difference,
    passed,
    pruned_levels,
    said,
)

Rule = Callable[[Document], str | None]

# A level that keeps at least half of the weights is light pruning: nearly any mask survives it.
LIGHT_PRUNING = 0.5
# An early stop after 90 % of the steps means that the validation loss was still falling at the end.
STILL_LEARNING = 0.9
# Where to rewind to first, as a share of the training: ResNet-20 is stable to noise from about step 2000 of 63 000 on
# (Frankle et al. 2020), its tickets sooner.
REWIND_AFTER = 0.03
# Beyond this many replicates the margin, not the count, is the thing to think about.
MANY_REPLICATES = 50
FEWEST_REPLICATES = 5


def advise(document: Document) -> list[str]:
    """Sentences on what to try next, most pressing first; empty where the numbers call for nothing."""
    return [sentence for rule in RULES if (sentence := rule(document)) is not None]


def failed_replicates(document: Document) -> str | None:
    """Replicates diverged: a lower rate or a warm-up before anything else."""
    count = sum(arm.get("failed") or 0 for level in levels(document) for arm in level["arms"].values())
    if not count:
        return None
    training = "training" if count == 1 else "trainings"
    return (
        f"Lower the learning rate{_option('--lr', _lower(said(document, 'lr')))} or warm it up (--warmup): "
        f"{count} {training} failed, and failed replicates count against the verdict "
        "(warm-up: Frankle & Carbin 2019, sec. 4)."
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
    return (
        f"Run the {which} too: without both controls a matching ticket may be trivial "
        "(Frankle & Carbin 2019 has both)."
    )


def too_few_replicates(document: Document) -> str | None:
    """Under five replicates the sign-flip test cannot reach 5 %."""
    count = said(document, "replicates")
    if count is None or count >= FEWEST_REPLICATES:
        return None
    return (
        f"Use at least --replicates {FEWEST_REPLICATES}: with {count}, an exact sign-flip test cannot give a p-value "
        f"under 1/{2**count}, so no result could be significant."
    )


def more_replicates(document: Document) -> str | None:
    """Inconclusive, and the verdict knows how many replicates would decide."""
    count, needed = said(document, "replicates"), _needed(document)
    if document["verdict"]["outcome"] != "inconclusive" or needed is None or needed > MANY_REPLICATES:
        return None
    if count is None or count < FEWEST_REPLICATES or needed <= count:
        return None
    return (
        f"Use --replicates {needed}: {count} leave the verdict open, and {needed} would decide it with 80 % "
        "power, were the differences seen the true ones. Full stacks that are there already are used again."
    )


def unrealistic_margin(document: Document) -> str | None:
    """Inconclusive, and deciding at this margin would take very many replicates."""
    needed, margin = _needed(document), said(document, "margin_pp")
    if document["verdict"]["outcome"] != "inconclusive" or needed is None or needed <= MANY_REPLICATES:
        return None
    share = "" if margin is None else f" of {margin:g} pp"
    # The count falls with the square of the margin.
    wider = "" if margin is None else f" (--margin {margin * (needed / 10) ** 0.5:.1g})"
    return (
        f"Consider a wider margin{wider}, decided on before a run with a new seed: at a "
        f"margin{share} this spread between replicates needs {needed} of them (the count falls with the "
        "square of the margin)."
    )


def train_dense_longer(document: Document) -> str | None:
    """The dense network gained from a doubled budget, or its validation loss was still falling at the end."""
    steps = said(document, "steps")
    longer = _option("--steps", None if steps is None else 2 * steps)
    found = document["verdict"].get("trained_enough")
    if isinstance(found, Mapping) and found.get("enough") is False:
        gain = found.get("gain")
        what = "gained" if gain is None else f"gained {100 * gain:.2f} pp"
        return (
            f"Train longer{longer}: the dense network {what} when its training was doubled, so matching it "
            "here is matching an unfinished network (Ma et al. 2021)."
        )
    if isinstance(found, Mapping) and found.get("enough") is True:
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
    """The dense network is done, but losing tickets are still learning when the steps run out."""
    steps = said(document, "steps")
    if steps is None or train_dense_longer(document) is not None:
        return None
    for level in pruned_levels(document):
        stop = level["arms"]["ticket"].get("early_stop_step")
        if falls_behind(document, level) and stop is not None and stop >= STILL_LEARNING * steps:
            return (
                f"Train longer (--steps {2 * steps}): at {density_percent(level['density'])} density the "
                f"ticket's validation loss was lowest only at step {stop:.0f} of {steps}; sparse networks "
                "learn more slowly (Frankle & Carbin 2019, fig. 3)."
            )
    return None


def falls_at_once(document: Document) -> str | None:
    """Not won, and the ticket falls behind dense under light pruning: the start is the suspect."""
    first = _first_loss(document)
    if document["verdict"]["outcome"] == "won" or first is None or first["density"] < LIGHT_PRUNING:
        return None
    gap = _gap(document, first)
    warmup, steps = said(document, "warmup"), said(document, "steps")
    # ResNet-18 in the 2019 paper: warm-up over 20 000 of 30 000 steps.
    warm = "" if warmup or steps is None else f", or warm the rate up (--warmup {round(2 * steps / 3)})"
    lower = f"ower the learning rate{_option('--lr', _lower(said(document, 'lr')))}{warm}"
    later = _rewind_later(document, steps)
    return (
        f"{f'{later}; or l' if later else 'L'}{lower}: the ticket already falls {gap}behind the dense network at "
        f"{density_percent(first['density'])} density, the sign of a start that training noise still overturns "
        f"({'Frankle et al. 2020; ' if later else ''}Frankle & Carbin 2019, sec. 4)."
    )


def _rewind_later(document: Document, steps: int | None) -> str | None:
    """Words for going back to a later step than this run did; None where that cannot help."""
    if said(document, "rewind") not in ("to_init", "to_step", "to_step_with_optimizer") or steps is None:
        return None
    last = said(document, "rewind_step") or 0
    step = max(2 * last, ceil(REWIND_AFTER * steps))
    if step > steps / 2:
        return None
    name = "to_step" if said(document, "rewind") == "to_init" else said(document, "rewind")
    return f"Rewind to a later step (--rewind {name} --rewind-step {step})"


def iterate(document: Document) -> str | None:
    """One-shot pruning lost at some level: prune iteratively."""
    first = _first_loss(document)
    if first is None or said(document, "method") != "one-shot":
        return None
    return (
        f"Prune iteratively, --method imp: one-shot masks fall {_gap(document, first)}behind the dense "
        f"network at {density_percent(first['density'])} density, and iterative ones reach smaller "
        "densities (Frankle & Carbin 2019, sec. 2 and fig. 4)."
    )


def prune_more_slowly(document: Document) -> str | None:
    """Iterative, and the ticket falls only at the sparse end: smaller bites go further."""
    first, rate, count = _first_loss(document), said(document, "rate"), said(document, "levels")
    if first is None or first["density"] >= LIGHT_PRUNING or said(document, "method") == "one-shot":
        return None
    if rate is None or count is None:
        return None
    slower = rate / 2
    output = said(document, "output_rate")
    options = f"--rate {slower:g}" + ("" if output is None else f" --output-rate {output / 2:g}")
    again = ceil(count * log(1 - rate) / log(1 - slower) - 1e-9)
    match = _last_match(document)
    aim = "Prune" if match is None else f"To go below {density_percent(match)} density, prune"
    return (
        f"{aim} more slowly ({options} --levels {again} end as sparse): the ticket holds until it falls "
        f"{_gap(document, first)}behind at {density_percent(first['density'])}, and small steps keep the "
        "accuracy down to smaller densities than large ones (Frankle & Carbin 2019, fig. 4)."
    )


def spare_emptied_layers(document: Document) -> str | None:
    """A ticket lost a whole layer: prune that layer more slowly, or stop earlier."""
    for level in pruned_levels(document):
        names = (level.get("emptied") or {}).get("ticket")
        if names:
            rate = said(document, "output_rate")
            slower = "" if rate is None else f"; if it is the output layer, --output-rate {rate / 2:g}"
            end = "a network with an emptied layer cannot learn (layer collapse: Tanaka et al. 2020)"
            if all("(output unit" in name for name in names):
                end = "a class whose unit has no weight has the same score for every example"
            return (
                f"Prune more slowly or stop at fewer --levels{slower}: at "
                f"{density_percent(level['density'])} density the ticket lost every weight of "
                f"{', '.join(names)}, and {end}."
            )
    return None


def look_sparser(document: Document) -> str | None:
    """The ticket matches and is not yet separable from its controls, down to the sparsest level run."""
    found, count = pruned_levels(document), said(document, "levels")
    if document["verdict"]["outcome"] == "won" or not found or count is None:
        return None
    beaten = [passed(found[-1], f"beats_{control}") for control in ("reinit", "random")]
    if passed(found[-1], "accuracy") is not True or False not in beaten:
        return None
    control = "re-initialisation" if beaten[0] is False else "the random mask"
    return (
        f"Look at sparser levels, {_further(document, count)}: down to "
        f"{density_percent(found[-1]['density'])} the ticket matches the dense network, but {control} does "
        "too well to tell them apart; in the 2019 paper they part at 21 % density (LeNet) and below "
        "(Frankle & Carbin 2019, sec. 2)."
    )


def reinit_as_good(document: Document) -> str | None:
    """The random mask is beaten where the ticket matches and re-initialisation is not: structure without "
    "luck."""
    if document["verdict"]["outcome"] == "won":
        return None
    for level in reversed(pruned_levels(document)):
        beaten = [passed(level, name) for name in ("accuracy", "beats_random", "beats_reinit")]
        if beaten == [True, True, False]:
            gap = paired_difference(level, "ticket", level["arms"].get("reinit"))
            ahead = "" if gap is None else f" (ticket {gap:+.2f} pp)"
            return (
                f"Try a lower learning rate{_option('--lr', _lower(said(document, 'lr')))}: at "
                f"{density_percent(level['density'])} density the mask beats a random one, but "
                f"re-initialised it does as well{ahead}, so the mask and not the start carries the gain; "
                "large rates are known to erase the start's advantage (Liu et al. 2019)."
            )
    return None


def add_levels(document: Document) -> str | None:
    """Won at the sparsest level: the smallest ticket was not reached."""
    found, verdict, count = pruned_levels(document), document["verdict"], said(document, "levels")
    if verdict["outcome"] != "won" or not found or count is None:
        return None
    if verdict["density"] > found[-1]["density"] + 1e-9:
        return None
    return (
        f"Go on pruning, {_further(document, count)}: the ticket still wins at the sparsest level, "
        f"{density_percent(verdict['density'])} density, so a smaller one may exist. {_anew(document)} "
        "(LeNet tickets held to 3.6 %: Frankle & Carbin 2019, sec. 2)."
    )


def _further(document: Document, count: int) -> str:
    """The words that ask for sparser levels, in the way that the levels were asked for."""
    if said(document, "final_density") is None and not said(document, "density"):
        return f"--levels {count + _more(count)}"
    half = f"{float(pruned_levels(document)[-1]['density']) / 2:.2g}"
    return f"--density {half} beside the others" if said(document, "density") else f"--final-density {half}"


def _anew(document: Document) -> str:
    if said(document, "final_density") is not None:
        return "All levels will run anew"
    return "Only the new levels will run"


RULES: tuple[Rule, ...] = (
    failed_replicates,
    missing_controls,
    too_few_replicates,
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


def _needed(document: Document) -> int | None:
    needed: int | None = document["verdict"].get("replicates_needed")
    return needed


def _first_loss(document: Document) -> Mapping[str, Any] | None:
    """The densest level whose ticket falls behind the dense network, or None."""
    return next((level for level in pruned_levels(document) if falls_behind(document, level)), None)


def _last_match(document: Document) -> float | None:
    matching: list[float] = []
    for level in pruned_levels(document):
        if passed(level, "accuracy") is not True:
            break
        matching.append(level["density"])
    return matching[-1] if matching else None


def _gap(document: Document, level: Mapping[str, Any]) -> str:
    gap = paired_difference(level, "ticket", dense_arm(document))
    return "" if gap is None or gap >= 0 else f"{-gap:.2f} pp "


def _option(name: str, value: object) -> str:
    return (
        "" if value is None else f" ({name} {value:g})" if isinstance(value, float) else f" ({name} {value})"
    )


def _lower(rate: float | None) -> float | None:
    """A tenth of the learning rate: the step from .1 to .01 of the 2019 paper's deeper networks."""
    return None if rate is None else float(f"{rate / 10:.3g}")


def _more(levels_run: int) -> int:
    return max(2, ceil(levels_run / 4))
