"""The final screen fits the terminal, and says everything without colour and without Unicode."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from winticket.report import final_screen
from winticket.report.question import asked
from winticket.report.reading import mark
from winticket.report.titles import accuracy_title

Document = Any  # a test may take away what every run writes


def shown(document: Document, *, width: int = 80, encoding: str = "utf-8") -> str:
    """The screen as plain text."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=stream, width=width, color_system=None).print(final_screen(document))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(("width", "used"), [(80, 80), (100, 100), (120, 120), (200, 120)])
def test_fits_the_terminal_and_cuts_no_number(build: Callable[..., Document], width: int, used: int) -> None:
    document = build(failed=tuple((3, arm, 2) for arm in ("ticket", "reinit", "random")))
    for level in document["levels"]:
        for arm in level["arms"].values():
            arm["early_stop_step"] *= 50
    text = shown(document, width=width)
    longest = max(len(line.rstrip()) for line in text.splitlines())
    assert used - 12 < longest <= used, "the width is used, up to 120 columns"
    assert "…" not in text


def test_a_row_has_the_documents_numbers(digits: Document) -> None:
    level = digits["levels"][11]
    (row,) = (line.split() for line in shown(digits).splitlines() if line.split()[:2] == ["9.0", "*"])
    ticket = level["arms"]["ticket"]
    half = 50 * (ticket["accuracy_ci"][1] - ticket["accuracy_ci"][0])
    assert row[2:4] == [f"{100 * ticket['accuracy']:.2f}", f"±{half:.2f}"]
    assert row[8:] == ["yes", "yes", "yes", f"{ticket['early_stop_step']:.0f}", "slower"]


def test_says_verdict_places_and_next_steps(digits: Document) -> None:
    text = shown(digits)
    assert text.startswith("Won: a ticket with 9.0 % of the weights.\n")
    assert (
        "No win at 80.2 to 51.6 %: the ticket matches the dense network, but it is not shown to beat both "
        "controls." in " ".join(text.split())
    )
    for name in ("ticket", "report", "results", "store"):
        assert digits[name] in text
    # First what was shown, then what to do, then the numbers.
    order = [
        text.index(words) for words in ("beats both controls", "What to do next", "Dense network: ", "early")
    ]
    assert order == sorted(order)


def test_a_check_is_yes_no_or_open(digits: Document) -> None:
    """Not passed is not failed: `no` is for what the data refute."""
    for level, (shown_, refuted) in zip(
        digits["levels"][1:4], ((True, False), (False, True), (False, False)), strict=True
    ):
        for check in ("accuracy", "beats_reinit", "beats_random"):
            level["checks"][check] |= {"passed": shown_, "refuted": refuted}
    rows = {
        line.split()[0]: line.split()
        for line in shown(digits).splitlines()
        if " ±" in line and line[0] == " "
    }
    assert [rows[density][7:10] for density in ("80.2", "64.3", "51.6")] == [
        ["yes"] * 3,
        ["no"] * 3,
        ["open"] * 3,
    ]
    key = "yes a test paired by replicate shows it; no: it shows the opposite; open: it shows neither."
    assert key in " ".join(shown(digits).split())


def test_one_unit_for_densities(digits: Document) -> None:
    """Percent of the weights kept: nowhere on the screen a fraction, but for options that are to be typed."""
    text = shown(digits, width=120)
    for level in digits["levels"][1:]:
        assert f"{level['density']:.3g}" not in text


def test_the_saved_ticket_is_named_with_its_own_accuracy(digits: Document) -> None:
    digits["saved_ticket"] = {
        "density": digits["verdict"]["density"],
        "replicate": 3,
        "replicates": 10,
        "test_accuracy": 0.9733,
        "mean_test_accuracy": 0.9849,
    }
    text = " ".join(shown(digits).split())
    assert (
        "The saved ticket has density 9.0 % and comes from replicate 4 (number 3 in result.json and in "
        "Python, which count from 0), chosen for the best validation accuracy of the 10." in text
    )
    assert "After training, its test accuracy is 97.33 % (98.49 % on average over the 10)." in text
    # And how to use it, with the model that it belongs to.
    assert f'ticket = winticket.Ticket.load("{digits["ticket"]}")' in text
    assert 'model = winticket.models.build(**ticket.about["build"])' in text


def test_two_replicates_extrapolate_nothing(build: Callable[..., Document]) -> None:
    document = build(levels=4, replicates=2)
    document["verdict"] |= {
        "outcome": "inconclusive",
        "claimed": [],
        "density": None,
        "replicates_needed": 873,
    }
    text = " ".join(shown(document).split())
    assert text.startswith("Inconclusive: 2 replicates are too few for any verdict.")
    assert "873" not in text
    assert "--margin" not in text
    assert "Use at least --replicates 5" in text


def test_only_warnings_that_bear_on_the_claim(digits: Document) -> None:
    digits["verdict"] |= {
        "reason": "It is so. Doubling the budget gains +3 pp.",
        "warnings": ["The whole experiment was odd.", "Doubling the budget gains +3 pp."],
        "notes": ["At 4.77 % a second test disagrees.", "At 3.9 % one does, too."],
    }
    assert "chosen by hand on the results of this seed, 0" in " ".join(shown(digits).split())
    digits["experiment"]["seed"] = 1
    text = " ".join(shown(digits).split())
    assert "Note: The whole experiment was odd." in text
    assert text.count("Note: ") == 1, "what the reason says is not said again"
    assert "a second test disagrees" not in text
    assert "(2 further notes in the report, under “Cautions”.)" in text


def test_intervals_end_at_100_percent(digits: Document) -> None:
    """An interval that is not symmetric is shown by its ends; in a narrow terminal by the end that is not cut."""
    digits["levels"][1]["arms"]["ticket"] |= {"accuracy": 0.999, "accuracy_ci": [0.996, 1.0]}
    digits["levels"][2]["arms"]["ticket"] |= {"accuracy": 0.002, "accuracy_ci": [0.0, 0.007]}
    wide, narrow = shown(digits, width=110), shown(digits)
    assert "99.90 (99.6–100)" in wide
    assert "0.20 (0–0.7)" in wide
    assert "95 % interval of the mean; (low–high) if it is not symmetric." in " ".join(wide.split())
    assert "99.90 >99.6" in narrow
    assert "0.20 <0.7" in narrow
    assert "95 % interval of the mean; >96.0 means from 96.0 to 100 %, <4.0 from 0 to 4.0 %." in " ".join(
        narrow.split()
    )
    whole = digits | {"levels": digits["levels"][3:]}
    assert "95 % interval of the mean. Accuracies" in " ".join(shown(whole).split())


def test_a_failed_replicate_is_marked(build: Callable[..., Document]) -> None:
    text = shown(build(failed=((3, "random", 2),)))
    assert "! a replicate failed" in " ".join(text.split())
    assert sum("! " in line for line in text.splitlines() if line.startswith("   51.6")) == 1
    assert "Failed: 1 training, counted against the ticket." in text
    assert "  random mask at 51.6 %, replicate 3: the training loss became nan at step 120" in text


def test_failed_trainings_are_named_causes_first(build: Callable[..., Document]) -> None:
    document = build(failed=tuple((3, "random", r) for r in range(7)))
    for item in document["failures"][1:]:
        item["reason"] = "not run: a training that it depends on failed"
    text = " ".join(shown(document).split())
    assert "Failed: 7 trainings, counted against the ticket." in text
    assert "replicate 1: the training loss became nan at step 120" in text
    assert "and 6 skipped because they need one that failed" in text
    document = build(failed=tuple((3, "random", r) for r in range(7)))
    assert "and 2 more, listed in the report" in shown(document)


def test_odd_numbers_keep_the_width(build: Callable[..., Document]) -> None:
    document = build(levels=3)
    for level in document["levels"][1:]:
        level["arms"]["ticket"] |= {"accuracy": 1.0, "accuracy_ci": [1.0, 1.0]}
        level["arms"]["reinit"] |= {"accuracy": 0.45, "accuracy_ci": [0.325, 0.575]}
        level["arms"]["random"] |= {"accuracy": None, "accuracy_ci": None, "failed": 10}
    row = next(line for line in shown(document).splitlines() if line.startswith("   80.2"))
    assert row.split()[1:6] == ["100.0", "±0.00", "45.00", "±12.5", "–!"]


@pytest.mark.parametrize("arms", [("ticket",), ("ticket", "random"), ()])
def test_missing_arms_and_one_replicate(build: Callable[..., Document], arms: tuple[str, ...]) -> None:
    document = build(levels=1, replicates=1, arms=arms)
    document["verdict"] |= {"outcome": "inconclusive", "claimed": [], "density": None, "replicates_needed": 8}
    document["ticket"] = None
    text = shown(document)
    assert "Inconclusive: 1 replicate is too few for any verdict." in text
    assert "±0" not in text
    assert not any("reinit" in line for line in text.splitlines() if line.startswith("weights"))


def test_a_dense_network_that_did_not_learn_is_in_every_heading(digits: Document) -> None:
    sentence = "The dense network did not learn: it ends at 12.5 %."
    digits["verdict"] |= {"outcome": "inconclusive", "density": None, "claimed": []}
    digits["verdict"] |= {
        "learned": {"learned": False, "sentence": sentence},
        "reason": f"Inconclusive: {sentence}",
    }
    assert "Inconclusive: the dense network did not learn." in shown(digits)
    assert (
        accuracy_title(digits, width=200)
        == "The dense network did not learn, so comparisons with it show nothing"
    )


def test_a_dense_network_behind_its_tickets_is_not_said_to_have_learned_nothing(digits: Document) -> None:
    sentence = "The dense network did not learn as much as its own tickets: it ends 3 pp below the tickets."
    digits["verdict"] |= {"outcome": "inconclusive", "density": None, "claimed": []}
    learned: dict[str, Any] = {"learned": False, "sentence": sentence, "unlearned": [], "behind": 0.03}
    digits["verdict"] |= {"learned": learned, "reason": f"Inconclusive: {sentence}"}
    assert "Inconclusive: the dense network learned less than its own tickets." in shown(digits)
    title = accuracy_title(digits, width=200)
    assert title == "The dense network learned less than its own tickets, so comparisons with it show nothing"
    learned["unlearned"] = [0]
    assert "Inconclusive: the dense network did not learn." in shown(digits)


def test_ascii_terminals(digits: Document) -> None:
    text = shown(digits, encoding="ascii")
    assert "~ 95 % interval of the mean" in " ".join(text.split())
    assert "?" not in text


def test_the_last_column_stands_apart_from_the_early_stop(digits: Document) -> None:
    """With one space between them, "541 sooner" would read as 541 steps sooner."""
    (row,) = (line for line in shown(digits).splitlines() if line.split()[:2] == ["9.0", "*"])
    assert row.rstrip().endswith("   slower")
    heads = [line for line in shown(digits).splitlines() if line.startswith(("weights", " kept"))]
    assert [head.split()[-2:] for head in heads] == [["early", "against"], ["stop", "dense"]]


def test_the_method_in_words_and_where_replicates_come_from(digits: Document) -> None:
    digits["experiment"]["criterion"] = "magnitude"
    by = "10 replicates (random initialisations) from seed 0"
    words = f"digits, lenet-300-100, iterative pruning by magnitude (imp), {by}"
    assert words in " ".join(shown(digits).split())
    digits["experiment"] |= {"method": "rigl", "criterion": None}
    assert f"digits, lenet-300-100, method rigl, {by}" in shown(digits, width=120)


def test_replicates_of_a_pretrained_start_and_windows_of_tokens(digits: Document) -> None:
    digits["experiment"] |= {"start": "smol", "redraw": "shuffled", "reading": {"tokenizer": "smol"}}
    sizes = {"train": 40, "validation": 5, "test": 5}
    digits["data"] = {"input_shape": [128], "tokens": True, "classes": 1024, "split": "shared", **sizes}
    words = " ".join(shown(digits).split())
    assert "10 replicates (orders of examples) from seed 0" in words
    assert "windows of 128 tokens in 1024 classes" in words
    question = " ".join(asked(digits))
    assert "the same mask with the pretrained weights of each layer shuffled (re-initialised)" in question
    assert "each with its own order of examples and its own mask search" in question
    digits["experiment"]["redraw"] = "fresh"
    assert "new initial weights in place of the pretrained ones" in " ".join(asked(digits))


def test_figures_are_counted_and_not_their_files(digits: Document) -> None:
    assert "1 figure (png) in runs/reports/3f9a17c2" in shown(digits)
    digits["figures"] = [f"runs/figures/{name}.{kind}" for name in "ab" for kind in ("png", "svg", "csv")]
    assert "2 figures (png, svg, csv) in runs/figures" in shown(digits)


def test_the_legend_says_of_which_weights_densities_are(digits: Document) -> None:
    text = " ".join(shown(digits).split())
    assert "kept of the weights that may be pruned (not biases)." in text
    assert "(chance of any false win: at most 5 %)" in text


def test_sparse_documents(digits: Document) -> None:
    minimal = {
        "levels": digits["levels"],
        "verdict": {"outcome": "not won", "density": None, "reason": "Not won: because."},
    }
    text = shown(minimal)
    assert "Not won: no winning ticket at any of the 16 densities tried." in text
    assert "\n- Because." in text


def test_nothing_is_marked_as_shown_beside_a_network_that_did_not_learn(digits: Document) -> None:
    level = digits["levels"][1]
    assert mark(digits, level, "accuracy") == "yes"
    digits["verdict"]["learned"] = {"learned": False, "sentence": "The dense network did not learn."}
    assert mark(digits, level, "accuracy") == "–"
