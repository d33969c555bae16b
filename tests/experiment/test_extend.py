"""Asked for more, only what is new runs, and no earlier number moves; who computes changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from winticket.experiment import Execution, Experiment, Result, cost, plan

from .conftest import SMALL, Search, numbers


def arms(result: Result) -> dict[tuple[float, str], Any]:
    return {
        (level["density"], arm): entry
        for level in result.document["levels"]
        for arm, entry in level["arms"].items()
    }


def results(store: Path) -> dict[str, tuple[int, int]]:
    found = (store / "results").rglob("*.safetensors")
    return {p.stem: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def test_one_level_more(search: Search, tmp_path: Path) -> None:
    before = search()
    files = results(tmp_path / "runs")
    after = search(levels=3)
    assert (len(after.outcomes.reused), len(after.outcomes.computed)) == (8, 3)  # ticket, reinit, random
    assert set(after.outcomes.reused) == set(before.document["keys"]) == set(files)
    assert files.items() <= results(tmp_path / "runs").items()
    assert arms(before).items() <= arms(after).items()
    assert after.document["dense_doubled"] == before.document["dense_doubled"]
    assert [level["density"] for level in after.document["levels"]][:3] == [
        level["density"] for level in before.document["levels"]
    ]
    assert (after.document["computed"], after.document["reused"]) == (3, 8)


def test_one_stack_more(search: Search, tmp_path: Path) -> None:
    before = search(replicates=2)
    files = results(tmp_path / "runs")
    after = search(replicates=4)
    assert (len(after.outcomes.reused), len(after.outcomes.computed)) == (8, 8)
    assert files.items() <= results(tmp_path / "runs").items()
    many = ("accuracies", "early_stop_steps", "accuracies_at_early_stop")
    for place, entry in arms(before).items():
        longer = arms(after)[place]
        assert [longer[name][:2] for name in many] == [entry[name] for name in many]
        assert len(longer["accuracies"]) == 4
        assert len(set(map(str, longer["accuracies"]))) > 1  # the new replicates are no copies


def test_one_arm_more(search: Search, tmp_path: Path) -> None:
    before = search(controls=("reinit",))
    files = results(tmp_path / "runs")
    after = search(controls=("reinit", "random"))
    assert (len(after.outcomes.reused), len(after.outcomes.computed)) == (6, 2)
    assert files.items() <= results(tmp_path / "runs").items()
    assert arms(before).items() <= arms(after).items()
    assert {arm for _, arm in arms(after).keys() - arms(before).keys()} == {"random"}


def test_fewer_arms_are_judged_without_a_control(search: Search) -> None:
    result = search(controls=(), gate=False)
    assert {arm for _, arm in arms(result)} == {"dense", "ticket"}
    assert result.document["dense_doubled"] is None
    assert result.verdict["outcome"] == "inconclusive"


def test_one_shot_shares_the_dense_training_with_imp(search: Search) -> None:
    imp, one_shot = search(), search(method="one-shot")
    assert one_shot.document["reused"] >= 2  # dense and dense doubled
    assert arms(one_shot)[1.0, "dense"] == arms(imp)[1.0, "dense"]
    density = imp.document["levels"][2]["density"]
    # Level 1 is the same in both; at level 2 one-shot prunes the dense network's training once more.
    assert arms(one_shot)[density, "ticket"] != arms(imp)[density, "ticket"]
    first = imp.document["levels"][1]["density"]
    assert arms(one_shot)[first, "ticket"] == arms(imp)[first, "ticket"]


def test_two_runs_in_two_stores_and_any_crew_give_the_same_numbers(search: Search) -> None:
    whole = search(store="a")
    assert len(whole.outcomes.computed) == 8
    for store, workers in (("b", 0), ("c", 1), ("d", 2)):
        again = search(store=store, workers=workers)
        assert len(again.outcomes.computed) == 8
        assert numbers(again) == numbers(whole)
        assert again.curves == whole.curves


def test_another_seed_is_another_experiment(search: Search) -> None:
    one, two = search(seed=0), search(seed=1)
    assert not set(one.document["keys"]) & set(two.document["keys"])
    assert arms(one)[1.0, "dense"]["accuracies"] != arms(two)[1.0, "dense"]["accuracies"]


@pytest.mark.parametrize("choice", [{"margin_pp": 1.0}, {"alpha": 0.1}])
def test_what_only_the_judge_reads_trains_nothing(search: Search, choice: dict[str, float]) -> None:
    before = search()
    after = search(**choice)
    assert after.outcomes.computed == ()
    assert before.document["results"] != after.document["results"]  # neither report replaces the other


def test_a_plan_after_the_search_has_nothing_left(search: Search, tmp_path: Path) -> None:
    planned = plan(Experiment.of("digits", **SMALL))
    execution = Execution.local(tmp_path / "runs", workers=2)
    before = cost(planned, execution)
    assert (before.trainings, before.reused, before.failed) == (16, 0, 0)
    assert before.steps == 2 * (
        30 * 7 + 60
    )  # dense, 2 x (ticket, reinit, random), and dense at double length
    assert before.seconds is not None
    assert before.seconds > 0
    assert not (tmp_path / "runs").exists()
    search()
    after = cost(planned, execution)
    assert (after.trainings, after.reused, after.steps, after.seconds, after.bytes) == (0, 16, 0, None, 0)
    more = cost(plan(Experiment.of("digits", **{**SMALL, "levels": 3})), execution, measure=False)
    assert (more.trainings, more.reused, more.steps, more.seconds) == (6, 16, 180, None)


def test_the_estimate_of_disk_is_near(search: Search, tmp_path: Path) -> None:
    """Within half and double of what is written for a network whose weights dominate."""
    choices = {"model": "lenet-300-100", "levels": 4, "rate": 0.5, "steps": 4, "gate": False}
    planned = plan(Experiment.of("digits", **{**SMALL, **choices}))
    told = cost(planned, Execution.local(tmp_path / "runs", workers=1), measure=False).bytes
    search(**choices)
    written = sum(p.stat().st_size for p in (tmp_path / "runs" / "results").rglob("*.safetensors"))
    assert written / 2 < told < written * 2


def test_the_plan_is_not_changed_by_being_run(search: Search) -> None:
    experiment = Experiment.of("digits", **SMALL)
    kept = copy.deepcopy(experiment)
    keys = [t.key for t in plan(experiment).tasks.values()]
    search()
    assert experiment == kept
    assert [t.key for t in plan(experiment).tasks.values()] == keys
