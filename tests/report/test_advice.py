"""Every rule of the advice: the numbers that call for it, what it says, and that it is silent otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from winticket.experiment import Experiment
from winticket.report import advise
from winticket.report.advice import (
    RULES,
    check_the_budget,
    failed_replicates,
    falls_at_once,
    learn_first,
    missing_controls,
    more_replicates,
    reinit_as_good,
    too_few_replicates,
    train_dense_longer,
    train_tickets_longer,
    unrealistic_margin,
)
from winticket.report.pruning_advice import (
    add_levels,
    iterate,
    look_sparser,
    prune_more_slowly,
    spare_emptied_layers,
)

Document = Any  # a test may take away what every run writes


@pytest.fixture
def quiet(digits: Document) -> Document:
    """A document that calls for nothing: won above its sparsest level, which neither fell nor was won."""
    digits["levels"] = digits["levels"][:12]
    digits["experiment"]["levels"] = 11
    digits["verdict"]["claimed"] = [level["density"] for level in digits["levels"][4:11]]
    digits["verdict"]["density"] = digits["levels"][10]["density"]
    return digits


def undecided(document: Document, **verdict: object) -> Document:
    """The same numbers, not (yet) won."""
    document["verdict"] |= {"outcome": "inconclusive", "density": None, "claimed": [], **verdict}
    return document


def lose(level: Document, dense: Document, *, by: float) -> None:
    """Make the ticket of a level lose against dense by `by` percentage points in every replicate."""
    ticket = level["arms"]["ticket"]
    ticket["accuracies"] = [value - by / 100 for value in dense["accuracies"]]
    level["checks"]["accuracy"] |= {"passed": False, "refuted": True}


def test_nothing_to_say(quiet: Document) -> None:
    assert advise(quiet) == []


def test_failed_replicates(build: Callable[..., Document], quiet: Document) -> None:
    document = build(failed=((3, "random", 2), (4, "ticket", 1)))
    found = failed_replicates(document)
    assert found is not None
    assert "(--lr 0.00012)" in found
    assert "2 trainings failed" in found
    assert "their own unit" not in found
    document["experiment"]["loss"] = "mine:huber"
    assert (failed_replicates(document) or "").endswith("dividing them by their spread may help, too.")
    assert failed_replicates(quiet) is None


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (("ticket", "random"), "re-initialised control "),
        (("ticket", "reinit"), "random-mask control "),
        (("ticket",), "re-initialised and random-mask controls "),
    ],
)
def test_missing_controls(build: Callable[..., Document], arms: tuple[str, ...], words: str) -> None:
    assert words in (missing_controls(build(levels=2, arms=arms)) or "")
    assert missing_controls(build(levels=2)) is None


def test_replicates(build: Callable[..., Document], digits: Document) -> None:
    few = undecided(build(levels=2, replicates=3), replicates_needed=9)
    assert "--replicates 5: with 3" in (too_few_replicates(few) or "")
    assert "1/8" in (too_few_replicates(few) or "")
    assert more_replicates(few) is None, "said once"
    assert "--replicates 5" in (too_few_replicates(build(levels=2, replicates=1)) or "")
    assert too_few_replicates(digits) is None
    assert more_replicates(digits) is None
    open_ = undecided(digits, replicates_needed=13)
    assert "--replicates 13 (the total; the run reuses the 10 that it has)" in (more_replicates(open_) or "")
    assert unrealistic_margin(open_) is None


def test_unrealistic_margin(digits: Document) -> None:
    # 250 replicates at .1 pp; ten need .1 * sqrt(250 / 10) = .5 pp.
    digits["experiment"]["margin_pp"] = 0.1
    document = undecided(digits, replicates_needed=250)
    found = unrealistic_margin(document)
    assert found is not None
    assert "--margin 0.5" in found
    assert "a decision needs 250 replicates" in found
    assert more_replicates(document) is None


def test_train_longer_when_dense_gains_from_doubling(quiet: Document) -> None:
    assert train_dense_longer(quiet) is None
    quiet["verdict"]["trained_enough"] = {"enough": False, "gain": 0.0083}
    found = train_dense_longer(quiet)
    assert found is not None
    assert "(--steps 1600)" in found
    assert "gained 0.83 pp" in found


def test_train_longer_when_dense_was_still_learning(quiet: Document) -> None:
    quiet["levels"][0]["arms"]["dense"]["early_stop_step"] = 719.0
    assert train_dense_longer(quiet) is None
    quiet["levels"][0]["arms"]["dense"]["early_stop_step"] = 720.0
    assert train_dense_longer(quiet) is None, "a doubled budget was shown to gain nothing"
    quiet["verdict"]["trained_enough"] = None
    assert "lowest near the end (at step 720 of 800 on average), so the network was probably still" in (
        train_dense_longer(quiet) or ""
    )
    quiet["levels"][0]["arms"]["dense"]["early_stop_steps"] = [800] * 6 + [600] * 4
    assert "lowest at the last step in 6 of 10 replicates, so" in (train_dense_longer(quiet) or "")


def test_train_longer_when_losing_tickets_were_still_learning(quiet: Document) -> None:
    assert train_tickets_longer(quiet) is None
    level = quiet["levels"][-1]
    lose(level, quiet["levels"][0]["arms"]["dense"], by=0.9)
    level["arms"]["ticket"]["early_stop_step"] = 700.0
    assert train_tickets_longer(quiet) is None, "it had stopped learning"
    level["arms"]["ticket"]["early_stop_step"] = 760.0
    found = train_tickets_longer(quiet)
    assert found is not None
    assert found.startswith("For a smaller ticket, train longer (--steps 1600): at 9.0 % of the weights")
    assert "lowest near the end (at step 760 of 800 on average), so more steps may lower it further" in found
    level["arms"]["ticket"]["early_stop_steps"] = [800] * 5 + [720] * 5
    assert "near the end" in (train_tickets_longer(quiet) or ""), "half of the replicates are not most"
    level["arms"]["ticket"]["early_stop_steps"] = [800] * 6 + [700] * 4
    assert "lowest at the last step in 6 of 10 replicates, so" in (train_tickets_longer(quiet) or "")
    assert (train_tickets_longer(undecided(quiet)) or "").startswith("Train longer (--steps 1600)")


@pytest.mark.parametrize("lacks", ["a class", "ten points"])
def test_more_steps_are_no_remedy_for_a_ticket_that_lacks_weights(quiet: Document, lacks: str) -> None:
    level = quiet["levels"][-1]
    level["arms"]["ticket"]["early_stop_step"] = 790.0
    lose(level, quiet["levels"][0]["arms"]["dense"], by=10.1 if lacks == "ten points" else 0.9)
    if lacks == "a class":
        assert train_tickets_longer(quiet) is not None
        level["emptied"] = {"ticket": ["fc3.weight (output units 0, 2)"]}
    assert train_tickets_longer(quiet) is None


def test_a_ticket_that_falls_at_once_needs_another_start(digits: Document) -> None:
    assert falls_at_once(digits) is None
    document = undecided(digits, outcome="not won")
    dense = document["levels"][0]["arms"]["dense"]
    for level in document["levels"][1:]:
        lose(level, dense, by=2.5)
    found = falls_at_once(document)
    assert found is not None
    assert "(--lr 0.00012)" in found
    assert "(--warmup 533)" in found
    assert found.startswith(
        "Rewind to a later step (--rewind to_step --rewind-step 24); or lower the learning rate"
    )
    assert "Frankle et al. 2020" in found
    assert "falls 2.50 pp behind the dense network at 80.2 % of the weights" in found
    assert prune_more_slowly(document) is None, "slower pruning would not help here"
    document["experiment"]["warmup"] = 400
    assert "--warmup" not in (falls_at_once(document) or "")


@pytest.mark.parametrize(
    ("rewind", "step", "words"),
    [
        ("to_init", 0, "Rewind to a later step (--rewind to_step --rewind-step 24)"),
        ("to_step", 10, "Rewind to a later step (--rewind to_step --rewind-step 24)"),
        ("to_step_with_optimizer", 100, "(--rewind to_step_with_optimizer --rewind-step 200)"),
        ("to_step", 300, None),  # 600 of 800 steps would leave little to train
        ("learning_rate", 100, None),
        (None, 0, None),  # the method takes none
    ],
)
def test_a_later_step_is_advised_where_there_is_one(
    rewind: str | None, step: int, words: str | None, digits: Document
) -> None:
    document = undecided(digits, outcome="not won")
    for level in document["levels"][1:]:
        lose(level, document["levels"][0]["arms"]["dense"], by=2.5)
    document["experiment"] |= {"rewind": rewind, "rewind_step": step}
    found = falls_at_once(document)
    assert found is not None
    if words is None:
        assert found.startswith(
            "Lower the learning rate (--lr 0.00012), or warm the rate up (--warmup 533). "
        )
        assert "ewind" not in found
        return
    assert words in found
    options = re.findall(r"--(rewind|rewind-step) (\w+)", found)
    choices: dict[str, Any] = {name.replace("-", "_"): value for name, value in options}
    Experiment.of("digits", **{**choices, "rewind_step": int(choices["rewind_step"])})  # it can be asked for


def test_a_check_that_only_did_not_pass_is_not_a_fall(digits: Document) -> None:
    document = undecided(digits)
    for level in document["levels"][1:]:
        level["checks"]["accuracy"] |= {"passed": False, "refuted": False}
        level["arms"]["ticket"]["accuracies"] = list(document["levels"][0]["arms"]["dense"]["accuracies"])
    assert falls_at_once(document) is None
    assert prune_more_slowly(document) is None


def test_one_shot_should_iterate(digits: Document) -> None:
    assert iterate(digits) is None
    digits["experiment"]["method"] = "one-shot"
    assert "(--method imp in place of --method one-shot)" in (iterate(digits) or "")
    assert prune_more_slowly(digits) is None
    # One level at the density asked for would be one-shot pruning again; .8^16 = .028.
    digits["experiment"]["density"] = [0.031]
    digits["levels"][-1]["density"] = 0.031
    options = "(--method imp --final-density 0.031 --levels 16 in place of --method one-shot and --density)"
    assert options in (iterate(digits) or "")
    Experiment.of("digits", method="imp", final_density=0.031, levels=16)  # it can be asked for


@pytest.mark.parametrize("method", ["one-shot", "at-init", "force", "iter-snip", "rigl"])
def test_a_method_without_levels_cannot_prune_more_slowly(method: str, digits: Document) -> None:
    assert prune_more_slowly(digits) is not None
    digits["experiment"]["method"] = method
    assert prune_more_slowly(digits) is None


def test_prune_more_slowly_reaches_the_same_density(digits: Document) -> None:
    # .8^16 = .9^33.9: 34 levels of 10 % end where 16 levels of 20 % do.
    found = prune_more_slowly(digits)
    assert found is not None
    assert "(--rate 0.1 --output-rate 0.05 --levels 34: 34 rounds, again down to about 3.1 %)" in found
    assert found.startswith("For a smaller ticket, prune more slowly")


def test_prune_more_slowly_in_every_layer_that_has_a_rate(digits: Document) -> None:
    """conv-2 prunes its convolutions by 0.1 per level, whatever --rate is; twice the levels need half of that, too."""
    digits["experiment"] |= {"conv_rate": 0.1, "output_rate": None}
    assert "(--rate 0.1 --conv-rate 0.05 --levels 34: " in (prune_more_slowly(digits) or "")


def test_down_to_where_a_ticket_matches_and_where_its_mean_does(digits: Document) -> None:
    """The mean keeps up beyond the last level that is shown to match, and is not called a match."""
    dense = digits["levels"][0]["arms"]["dense"]
    for level in digits["levels"][12:]:
        level["checks"]["accuracy"] |= {"passed": False, "refuted": False}
        level["arms"]["ticket"]["accuracies"] = [value - 0.002 for value in dense["accuracies"]]
    lose(digits["levels"][16], dense, by=0.56)
    words = "mean stays within 0.5 pp of dense down to 3.9 %, but a match is shown only down to 9.0 %."
    assert words in (prune_more_slowly(digits) or "")
    for level in digits["levels"][1:]:
        level["checks"]["accuracy"]["passed"] = False
        level["arms"]["ticket"]["accuracies"] = level["arms"]["ticket"]["accuracies"][:]
    lose(digits["levels"][16], dense, by=0.56)
    assert "down to 3.9 %, but the ticket falls 0.56 pp behind at 3.1 %." in (prune_more_slowly(digits) or "")


def test_emptied_layers(quiet: Document) -> None:
    assert spare_emptied_layers(quiet) is None
    quiet["levels"][9]["emptied"] = {"random": ["fc1"]}
    assert spare_emptied_layers(quiet) is None, "a control's business"
    quiet["levels"][9]["emptied"] = {"ticket": ["output"]}
    found = spare_emptied_layers(quiet)
    assert found is not None
    assert "no weights left in output, and a network with an emptied layer cannot learn" in found
    assert found.startswith(
        "Stop at fewer levels (--levels 8), or prune the output layer more slowly (--output-rate 0.05)"
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"density": [0.139]}, "Keep more weights (--density 0.28 or more)"),
        ({"final_density": 0.031}, "Keep more weights (--final-density 0.17)"),
        ({}, "Stop at fewer levels (--levels 8)"),
    ],
)
def test_densities_above_an_emptied_layer_as_they_are_asked_for(
    quiet: Document, asked: Document, words: str
) -> None:
    quiet["experiment"] |= asked
    quiet["levels"][9]["emptied"] = {"ticket": ["output"]}
    assert (spare_emptied_layers(quiet) or "").startswith(words)


def test_classes_without_weights_are_counted(quiet: Document) -> None:
    quiet["levels"][9]["emptied"] = {"ticket": ["fc3.weight (output units 0, 2, 7)"]}
    assert "no weights left in fc3.weight (output units 0, 2, 7), so" in (spare_emptied_layers(quiet) or "")
    quiet["data"] = {"classes": 10}
    quiet["levels"][9]["emptied_outputs"] = {"ticket": [[0, 2], [], [7], None]}
    words = "1 to 2 of the 10 output units have no weights left (in 2 of 4 replicates), so those classes get the same"
    assert words in (spare_emptied_layers(quiet) or "")


def test_look_at_sparser_levels_when_controls_do_as_well(build: Callable[..., Document]) -> None:
    document = undecided(build(levels=3))
    assert document["levels"][-1]["checks"]["beats_reinit"]["passed"] is False
    found = look_sparser(document)
    assert found is not None
    assert (
        "(--levels 5): taken by itself, the test at 51.6 % of the weights shows that the ticket matches"
        in found
    )
    document["levels"][-1]["checks"]["accuracy"]["passed"] = False
    assert look_sparser(document) is None


def test_reinit_as_good_points_at_the_learning_rate(digits: Document) -> None:
    document = undecided(digits)
    assert reinit_as_good(document) is None
    level = document["levels"][8]
    level["checks"]["beats_reinit"]["passed"] = False
    level["arms"]["reinit"]["accuracies"] = [v - 0.0002 for v in level["arms"]["ticket"]["accuracies"]]
    found = reinit_as_good(document)
    assert found is not None
    assert "at 17.3 % of the weights, the ticket beats the random mask" in found
    assert "(ticket minus re-initialised: +0.02 pp)" in found
    # A lead of more than the margin was merely not shown: nothing says that the start does not matter.
    level["arms"]["reinit"]["accuracies"] = [v - 0.007 for v in level["arms"]["ticket"]["accuracies"]]
    assert reinit_as_good(document) is None


def test_won_at_the_sparsest_level_goes_on(quiet: Document) -> None:
    assert add_levels(quiet) is None
    quiet["verdict"]["density"] = quiet["levels"][-1]["density"]
    found = add_levels(quiet)
    assert found is not None
    assert "--levels 14" in found
    assert "9.0 % of the weights" in found


def test_advice_needs_only_levels_and_verdict(digits: Document) -> None:
    bare: Any = {"levels": digits["levels"], "verdict": {"outcome": "not won", "density": None}}
    assert all("None" not in sentence for sentence in advise(bare))


def options_in(sentences: list[str]) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]*", " ".join(sentences)))


def options_of(command: str) -> set[str]:
    """Every option that a command of ours takes."""
    import typer.main

    from winticket.cli import app

    group: Any = typer.main.get_command(app)
    return {
        name for option in group.commands[command].params for name in (*option.opts, *option.secondary_opts)
    }


def every_way_it_can_end(build: Callable[..., Document]) -> list[Document]:
    """Documents that, together, call for every rule."""
    found = [
        build(),
        build(replicates=3),
        undecided(build(levels=3)),
        undecided(build(), replicates_needed=13),
    ]
    found += [
        build(arms=("ticket",)),
        build(failed=((3, "ticket", 2),)),
        undecided(build(), replicates_needed=250),
    ]
    early = undecided(build(levels=6))
    early["verdict"]["outcome"] = "not won"
    lose(early["levels"][1], early["levels"][0]["arms"]["dense"], by=3)
    early["levels"][3]["emptied"] = {"ticket": ["fc1"]}
    one_shot = build()
    one_shot["experiment"]["method"] = "one-shot"
    won = build(levels=8)
    won["verdict"]["density"] = won["levels"][-1]["density"]
    short = build()
    short["verdict"]["trained_enough"] = {"enough": False, "gain": 0.02}
    twin = undecided(build())
    twin["levels"][8]["checks"]["beats_reinit"] |= {"passed": False}
    twin["levels"][8]["arms"]["reinit"] = twin["levels"][8]["arms"]["ticket"]
    ungated = build()
    ungated["experiment"]["gate"] = False
    stuck = undecided(build())
    stuck["verdict"]["learned"] = {"learned": False}
    return [*found, stuck, early, one_shot, won, short, twin, ungated]


def test_every_rule_is_called_for_somewhere(build: Callable[..., Document]) -> None:
    documents = every_way_it_can_end(build)
    silent = [rule.__name__ for rule in RULES if not any(rule(document) for document in documents)]
    assert silent == []


@pytest.mark.parametrize("command", ["find", "transfer"])
def test_only_options_that_the_command_has(build: Callable[..., Document], command: str) -> None:
    documents = every_way_it_can_end(build)
    for document in documents if command == "transfer" else []:
        count = document["experiment"]["levels"]
        document["experiment"] |= {
            "carried": list(range(1, count + 1)),
            "source": {"levels": count + 2, "model": "lenet-300-100"},
        }
    for document in documents:
        assert options_in(advise(document)) <= options_of(command)
    assert len({option for document in documents for option in options_in(advise(document))}) > 4


def test_a_transfer_can_carry_what_was_found_and_no_more(build: Callable[..., Document]) -> None:
    document = undecided(build(levels=3))
    document["experiment"] |= {"carried": [1, 2, 3], "source": {"levels": 5}}
    assert "(--density 0.26 in addition to the others): taken by itself, the test at 51.6 %" in (
        look_sparser(document) or ""
    )
    document["experiment"]["source"]["levels"] = 3
    assert look_sparser(document) is None
    document["levels"][3]["emptied"] = {"ticket": ["fc1"]}
    assert "Transfer only denser tickets (--density 0.64)" in (spare_emptied_layers(document) or "")


def test_few_replicates_say_nothing_about_accuracies(build: Callable[..., Document]) -> None:
    """Two replicates call for more of them, not for a margin or a schedule by what they happened to reach."""
    document = undecided(build(levels=6, replicates=2), replicates_needed=900)
    lose(document["levels"][1], document["levels"][0]["arms"]["dense"], by=3)
    document["verdict"]["trained_enough"] = None
    assert [sentence.split(":")[0] for sentence in advise(document)] == ["Use at least --replicates 5"]


def test_a_network_that_did_not_learn_comes_first(digits: Document) -> None:
    assert learn_first(digits) is None
    document = undecided(digits, replicates_needed=13, learned={"learned": True})
    assert learn_first(document) is None
    document["verdict"]["learned"] = {"learned": False}
    document["verdict"]["trained_enough"] = None
    assert [sentence.split(" until")[0] for sentence in advise(document)] == [
        "Lower the learning rate (--lr 0.00012) or train longer (--steps 1600)"
    ]


def test_fewer_replicates_of_a_new_experiment(digits: Document) -> None:
    document = undecided(digits, replicates_needed=25, replicates_fresh=18)
    assert "In a new experiment (--seed 1), 18 replicates would be enough." in (
        more_replicates(document) or ""
    )
    document["verdict"]["replicates_fresh"] = 25
    assert "new experiment" not in (more_replicates(document) or "")


def test_an_unchecked_budget_is_told_how_to_check_it(digits: Document) -> None:
    assert check_the_budget(digits) is None
    digits["experiment"]["gate"] = True
    assert check_the_budget(digits) is None
    digits["experiment"]["gate"] = False
    assert "Run again without --no-gate" in (check_the_budget(digits) or "")


def test_a_training_that_raised_an_error_needs_a_fix(build: Callable[..., Document]) -> None:
    """A lower rate helps a training that diverged, and none whose model raises."""
    document = build(failed=((3, "random", 2), (4, "ticket", 1)))
    document["failures"][0]["reason"] = "not run: a training that it depends on failed"
    document["failures"][1]["reason"] = "KeyError: 'no such thing'"
    found = failed_replicates(document)
    assert found is not None
    assert found.startswith("Fix the error that made 2 trainings fail (KeyError: 'no such thing')")
    assert "--lr" not in found
