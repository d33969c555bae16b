"""The store remembers the verdicts reached on its results: each look spends a part of the error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from winticket.experiment import Experiment, plan, transferred
from winticket.experiment.judging import look_at, paths_of, question_of
from winticket.run import Store, StoreError
from winticket.run.keys import Json

from .conftest import SMALL, Search, numbers

METRICS: tuple[dict[str, str], ...] = ({}, {"metric": "balanced-accuracy"})
FIVE = {"replicates": 5, "stack": 5, "levels": 1, "gate": False}


def looks(store: Path, **choices: object) -> list[tuple[int, int]]:
    question = question_of(plan(Experiment.of("digits", **{**SMALL, **choices})))
    return [(look["look"], look["replicates"]) for look in Store(store).looks(question)]


def test_every_new_look_is_counted_and_the_same_one_is_not(search: Search, tmp_path: Path) -> None:
    first = search(**FIVE)
    assert first.verdict["looks"] == {
        "look": 1,
        "alpha": pytest.approx(0.045),
        "spent": pytest.approx(0.045),
        "earlier": [],
    }
    again = search(**FIVE)
    assert numbers(again) == numbers(first)
    second = search(**{**FIVE, "levels": 2})
    assert second.verdict["looks"]["look"] == 2
    assert second.verdict["looks"]["alpha"] == pytest.approx(0.0025)
    assert [one["replicates"] for one in second.verdict["looks"]["earlier"]] == [5]
    wider = search(**FIVE, margin_pp=2.0)
    assert wider.verdict["looks"]["look"] == 3
    # Judged again, an earlier look is what it was: what came later had not been seen then.
    assert numbers(search(**FIVE)) == numbers(first)
    assert looks(tmp_path / "runs", **FIVE) == [(1, 5), (2, 5), (3, 5)]
    # Other seeds are another experiment.
    assert search(**FIVE, seed=1).verdict["looks"]["look"] == 1


def test_another_metric_is_another_look_whose_claims_are_its_own(search: Search, tmp_path: Path) -> None:
    search(**FIVE)
    second = search(**FIVE, metric="balanced-accuracy")
    assert second.verdict["looks"]["look"] == 2
    paths = [paths_of(plan(Experiment.of("digits", **{**SMALL, **FIVE, **choices}))) for choices in METRICS]
    assert paths[0].keys() == paths[1].keys()
    assert not set(paths[0].values()) & set(paths[1].values())


def test_too_few_replicates_look_at_nothing(search: Search, tmp_path: Path) -> None:
    search(levels=1, gate=False)
    assert looks(tmp_path / "runs", levels=1) == []


def test_without_both_controls_nothing_could_be_claimed(search: Search, tmp_path: Path) -> None:
    """So whoever adds the control that was missing, as the advice says, has the first look's share yet."""
    search(**FIVE, controls=("reinit",))
    assert looks(tmp_path / "runs", **FIVE) == []
    assert search(**FIVE).verdict["looks"]["look"] == 1


def test_a_claim_stands_for_the_same_tickets_alone(tmp_path: Path) -> None:
    """Tickets pruned to one density by other steps are others; a level more below leaves those above as they are."""
    store = Store(tmp_path)

    def claims(*densities: float, **choices: object) -> tuple[float, ...]:
        planned = plan(Experiment.of("digits", **{**SMALL, "levels": None, "density": densities, **choices}))
        (look,) = store.looks(question_of(planned))
        return look_at(look, paths_of(planned)).claimed

    first = plan(Experiment.of("digits", **{**SMALL, "levels": None, "density": (0.5, 0.2)}))
    paths = paths_of(first)
    claimed = first.densities()[1:]
    about: dict[str, Json] = {"name": "a", "look": 1, "replicates": 5, "margin_pp": 0.5, "alpha": 0.05}
    about |= {"when": 1, "claimed": [*claimed], "paths": [paths[density] for density in claimed]}
    store.put_look(question_of(first), about)
    assert claims(0.5, 0.2, 0.1, replicates=6, margin_pp=1.0) == tuple(claimed)
    assert claims(0.5, 0.1) == (claimed[0],)
    assert claims(0.2) == ()


def test_levels_that_are_carried_elsewhere_make_no_other_question() -> None:
    """Whoever carries the tickets of one more level looks again."""
    source = Experiment.of("digits", **{**SMALL, "levels": 3})
    carried = [transferred(source, steps=40, density=densities) for densities in ((), (0.64,), (0.8, 0.5))]
    assert len({question_of(plan(one)) for one in carried}) == 1
    ways = [paths_of(plan(one)) for one in carried]
    assert all(path == ways[0][density] for way in ways for density, path in way.items())


def test_a_damaged_look_is_refused_by_name(search: Search, tmp_path: Path) -> None:
    search(**FIVE)
    (file,) = (tmp_path / "runs" / "looks").rglob("*.json")
    file.write_text('{"look": "first"}')
    store = Store(tmp_path / "runs")
    assert [problem.name for problem in store.verify()] == [file.relative_to(tmp_path / "runs").as_posix()]
    with pytest.raises(StoreError, match="recorded a look at these results"):
        store.looks(file.parent.name)


def test_two_processes_that_look_at_once_share_no_number(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second had read the store before the first had written, and registers the same number."""
    read, first_time = Store.looks, [True]

    def late(store: Store, question: str) -> list[dict[str, Any]]:
        looks = read(store, question)
        if first_time and not looks:
            first_time.clear()
            other: dict[str, Json] = {
                "name": "other",
                "look": 1,
                "when": 1,
                "replicates": 10,
                "margin_pp": 0.5,
                "alpha": 0.05,
            }
            store.put_look(question, {**other, "claimed": [], "paths": []})
        return looks

    monkeypatch.setattr(Store, "looks", late)
    result = search(**FIVE)
    assert result.verdict["looks"]["look"] == 2
    assert result.verdict["looks"]["alpha"] == pytest.approx(0.0025)
    assert looks(tmp_path / "runs", **FIVE) == [(1, 10), (2, 5)]
