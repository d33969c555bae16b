"""Methods side by side: what is trained, what is counted, what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from winticket.experiment import compare
from winticket.experiment.compare import _against_dense, _unlearned
from winticket.experiment.entries import at_budget, lay_out
from winticket.experiment.scored_on import ScoredOn
from winticket.objective import ACCURACY
from winticket.report import comparison_screen
from winticket.results import Comparison

SMALL: dict[str, Any] = {
    "model": "lenet-20-10",
    "steps": 40,
    "evaluate_every": 20,
    "replicates": 2,
    "stack": 2,
    "validation": 150,
    "test": 200,
    "workers": 0,
}
METHODS = ("imp", "imp@10", "one-shot", "at-init:random", "rigl", "edge-popup")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    place = tmp_path_factory.mktemp("compare")
    found = compare("digits", METHODS, density=0.4, store=place / "store", out=place / "out", **SMALL)
    assert json.loads((place / "out" / "compare.json").read_text()) == json.loads(json.dumps(found))
    assert {Path(f).name for f in found["files"]} == {
        f"compare.{kind}" for kind in ("html", "csv", "png", "svg", "pdf")
    }
    assert all(Path(f).stat().st_size for f in found["files"])
    return found


def rows(document: Comparison, equal: str) -> dict[tuple[str, str], Any]:
    return {(r["method"], r["arm"]): r for r in document["rows"] if r["equal"] == equal}


def test_every_method_is_at_the_density_with_the_same_steps_per_training(document: Comparison) -> None:
    found = rows(document, "density")
    tickets = [(method, "ticket") for method in ("imp", "imp@10", "one-shot", "at-init:random")]
    searches = [("rigl", "search"), ("edge-popup", "search"), ("edge-popup", "ticket")]
    assert list(found) == [("dense", "dense"), *tickets, *searches]
    assert {r["steps_each"] for r in found.values()} == {40}
    assert all(r["density"] == pytest.approx(0.4, abs=0.01) for key, r in found.items() if key[0] != "dense")
    # .4 is five rounds of .2: the dense training, four more, and the ticket's own.
    costs = {key: r["steps"] for key, r in found.items()}
    assert costs["imp", "ticket"] == 6 * 40
    assert costs["imp@10", "ticket"] == 40 + 5 * 30
    assert costs["one-shot", "ticket"] == 2 * 40
    assert costs["at-init:random", "ticket"] == costs["rigl", "search"] == costs["dense", "dense"] == 40
    assert costs["edge-popup", "ticket"] == 2 * 40


def test_at_equal_cost_all_take_what_the_dearest_does(document: Comparison) -> None:
    assert document["budget_steps"] == 240
    found = rows(document, "cost")
    # 48 steps of the dense training and 38 of five tickets from step 10 on are 238, the nearest that whole steps give.
    assert found["imp@10", "ticket"]["steps_each"] == 48
    assert found.pop(("imp@10", "ticket"))["steps"] == 48 + 5 * 38
    assert {r["steps"] for r in found.values()} == {240}
    assert found["dense", "dense"]["steps_each"] == 240
    assert found["one-shot", "ticket"]["steps_each"] == 120
    assert found["imp", "ticket"]["accuracies"] == rows(document, "density")["imp", "ticket"]["accuracies"]


@pytest.mark.parametrize(
    ("method", "arm", "costs", "longer"),
    [
        # .1 is eleven rounds of .2, so imp takes twelve trainings; 120 steps each are the budget of 1440.
        ("imp", "ticket", 1440, None),
        ("imp@60", "ticket", 120 + 11 * 60, 175),  # 175 + 11 (175 - 60) = 1440
        ("imp@30", "ticket", 120 + 11 * 90, 120 + 28),  # 148 + 11 (148 - 30) = 1446; 147 would be 1434
        ("one-shot", "ticket", 2 * 120, 720),
        ("one-shot@60", "ticket", 120 + 60, 750),  # 750 + (750 - 60) = 1440
        ("at-init", "ticket", 120, 1440),
        ("at-init:random", "ticket", 120, 1440),
        ("gradual", "search", 120, 1440),
        ("set", "search", 120, 1440),
        ("rigl", "search", 120, 1440),
        ("edge-popup", "search", 120, 1440),
        ("edge-popup", "ticket", 2 * 120, 720),
        ("supermask", "ticket", 2 * 120, 720),
        (
            "early-bird",
            "ticket",
            120 + 45,
            1440 - 45,
        ),  # 45 steps until its mask settled, whatever comes after
    ],
)
def test_lengths_at_which_all_cost_the_same(method: str, arm: str, costs: int, longer: int | None) -> None:
    small = {**SMALL, "steps": 120, "evaluate_every": 60}
    del small["workers"]
    entries = lay_out("digits", (method,), density=0.1, **small)
    entry = next(e for e in entries if (e.method, e.arm) == (method, arm))
    needed = [entry.cells()[0], *entry.plan.behind(entry.cells()[0])]
    if method != "early-bird":  # whose search is as long as it takes
        assert entry.plan.steps(needed) == 2 * costs  # two replicates
    again = at_budget(entry, costs, 1440)
    assert (again and again.steps) == longer
    if again:
        assert again.plan.setup.recipe.evaluate_every == round(60 * again.steps / 120)


def test_at_init_by_snip_is_snip_and_a_variant_of_it_is_named(tmp_path: Path) -> None:
    asked, small = (
        ("at-init:snip", "rigl"),
        {name: value for name, value in SMALL.items() if name != "workers"},
    )
    usual = {e.method: e.plan.experiment.allocate for e in lay_out("digits", asked, density=0.3, **small)[1:]}
    assert usual == {"at-init:snip": "global_top", "rigl": "erk"}
    found = compare("digits", asked, density=0.3, store=tmp_path / "s", out=tmp_path / "o", **SMALL)
    assert not any("snip" in warning for warning in found["warnings"])
    by_layer = {**SMALL, "allocate": "layerwise"}
    found = compare("digits", asked, density=0.3, store=tmp_path / "s", out=tmp_path / "o", **by_layer)
    told, *_ = found["warnings"]  # short trainings may add that dense did not learn
    assert told.startswith(
        "at-init:snip: criterion snip ranks all weights of the network together in its paper"
    )
    screen = Console(width=400, record=True, file=io.StringIO())
    screen.print(comparison_screen(found))
    assert told in screen.export_text()


def test_early_bird_is_corrected_until_its_search_fits_the_budget(tmp_path: Path) -> None:
    asked = ("imp", "early-bird")
    found = compare("digits", asked, density=0.4, store=tmp_path / "s", out=tmp_path / "o", **SMALL)
    row = rows(found, "cost")["early-bird", "ticket"]
    # It looks at its mask once in an epoch of 10 steps, so no length may give the budget itself.
    assert row["steps"] == pytest.approx(found["budget_steps"], abs=10)
    assert row["steps_each"] < found["budget_steps"]


def test_differences_are_paired_with_the_dense_network_of_the_same_table(document: Comparison) -> None:
    for equal in ("density", "cost"):
        found = rows(document, equal)
        dense = found["dense", "dense"]["accuracies"]
        assert found["dense", "dense"]["to_dense"] == 0
        for key, row in found.items():
            apart = [a - b for a, b in zip(row["accuracies"], dense, strict=True)]
            assert row["to_dense"] == pytest.approx(sum(apart) / 2)
            if key[0] != "dense":
                low, high = row["to_dense_ci"]
                assert low <= row["to_dense"] <= high


def test_differences_that_agree_by_chance_have_an_interval() -> None:
    """Twice one answer of 200 less than dense says nothing of the spread: t(1) = 12.7 times the step over √2."""
    networks: list[Any] = [
        {"equal": "density", "method": m, "accuracies": [a, a]} for m, a in (("dense", 1), ("imp", 0.995))
    ]
    _, row = _against_dense(networks, ScoredOn(ACCURACY, 200, 0.1))
    assert row["to_dense_ci"] == pytest.approx(
        [-0.005 - 12.7062 * 0.005 / 2**0.5, -0.005 + 12.7062 * 0.005 / 2**0.5], rel=1e-4
    )


def test_a_dense_network_that_did_not_learn_is_named() -> None:
    def of(equal: str, method: str, accuracy: float, density: float = 0.1) -> Any:
        return {"equal": equal, "method": method, "density": density, "accuracies": [accuracy] * 5}

    rows = [
        *(of("density", "dense", 0.125, 1.0), of("density", "imp", 0.96), of("density", "rigl", 0.97)),
        *(of("cost", "dense", 0.98, 1.0), of("cost", "imp", 0.96)),
    ]
    (warning,) = _unlearned(rows, ScoredOn(ACCURACY, 450, 0.102))
    assert warning == (
        "at equal steps per training, differences to the dense network show nothing. The dense network did not learn: "
        "its accuracy is 12.5 %, and always predicting the commonest class gives 10.2 %."
    )
    # Far behind one of the methods, by what only a failed training explains.
    behind = [of("density", "dense", 0.8, 1.0), *rows[1:]]
    (warning,) = _unlearned(behind, ScoredOn(ACCURACY, 450, 0.102))
    assert "17.00 pp below" in warning


def test_an_unlearned_dense_network_reaches_the_document(tmp_path: Path) -> None:
    found = compare(
        "digits",
        ["at-init:random"],
        density=0.4,
        store=tmp_path / "s",
        out=tmp_path / "o",
        **{**SMALL, "lr": 1e-6},
    )
    assert any("The dense network did not learn" in warning for warning in found["warnings"])


def test_steps_to_rewind_to_are_swept(tmp_path: Path) -> None:
    asked = ("one-shot", "one-shot@0", "one-shot@10", "one-shot@30")
    found = rows(
        compare("digits", asked, density=0.4, store=tmp_path / "s", out=tmp_path / "o", **SMALL), "density"
    )
    costs = {method: row["steps"] for (method, _), row in found.items()}
    assert costs == {
        "dense": 40,
        "one-shot": 80,
        "one-shot@0": 80,
        "one-shot@10": 70,
        "one-shot@30": 50,
    }
    assert found["one-shot", "ticket"]["accuracies"] == found["one-shot@0", "ticket"]["accuracies"]


def test_a_choice_goes_to_the_methods_that_take_it_and_all_count_the_same_weights() -> None:
    small = {name: value for name, value in SMALL.items() if name != "workers"}
    entries = lay_out("digits", ("imp", "rigl", "early-bird"), density=0.4, every=7, **small)
    asked = {entry.method: entry.plan.experiment for entry in entries[1:]}
    assert {method: e.every for method, e in asked.items()} == {"imp": None, "rigl": 7, "early-bird": None}
    assert {e.exclude for e in asked.values()} == {("fc3.weight",)}
    assert len({entry.plan.counts[0] for entry in entries}) == 1
    with pytest.raises(ValueError, match="takes no every"):
        lay_out("digits", ("imp",), density=0.4, every=7, **small)


@pytest.mark.parametrize(
    ("methods", "choices", "told"),
    [
        (("imp", "imp"), {}, "given twice"),
        (("impp",), {}, "unknown method 'impp' \\(did you mean 'imp'"),
        (("at-init:snop",), {}, "unknown criterion 'snop' \\(did you mean 'snip'"),
        (("rigl",), {"density": 1.2}, "density is 1.2; it must lie in"),
        (("edge-popup:snip",), {}, "takes no criterion"),
        ((), {}, "no method is given"),
        (("at-init:",), {}, "'at-init:' should read METHOD:CRITERION"),
        (("imp@early",), {}, "'imp@early' should read METHOD@STEP"),
        (("imp@40",), {}, "rewind_step is 40, but training has 40 steps"),
        (("rigl@10",), {}, "method rigl takes no rewind"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_runs(
    tmp_path: Path, methods: tuple[str, ...], choices: dict[str, Any], told: str
) -> None:
    given: dict[str, Any] = {"density": 0.4, **SMALL, **choices}
    with pytest.raises(ValueError, match=told):
        compare("digits", methods, store=tmp_path / "store", out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "store").exists()
