"""What `winticket plan --machines` forecasts, on a machine that was measured already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from winticket.experiment import Execution, Experiment, cost, plan, price
from winticket.experiment.cluster import REQUEST_SECONDS, in_words, on_cluster
from winticket.experiment.plan import Plan
from winticket.run.requests import in_sequence, listings

SPEED = price._Speed(dense=0.010, sparse=0.010, sparsest=0.5, measuring=0.0, start=0.0, exact=0.02)
EACH = 0.4 + price.TASK_SECONDS
"""Seconds of a training of 40 steps, one replicate."""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Four stacks of one replicate: dense, dense doubled, and at three levels a ticket and two controls."""
    monkeypatch.setattr(price, "_speed", lambda *_: SPEED)
    small = {"model": "lenet-20-10", "steps": 40, "levels": 3, "replicates": 4, "stack": 1}
    return plan(Experiment.of("digits", **small))


def test_the_longest_chain_is_a_stacks_search(planned: Plan, tmp_path: Path) -> None:
    told = cost(planned, Execution.local(tmp_path / "none", workers=1))
    forecast = on_cluster(planned, told, machines=4, cores=1)
    assert forecast is not None
    assert forecast.work.total == pytest.approx(4 * (10 * EACH + 0.8 + price.TASK_SECONDS))
    assert forecast.work.critical_seconds == pytest.approx(4 * EACH)
    assert forecast.words == "dense, ticket at levels 1 to 3"
    document = forecast.as_json()
    assert [row["machines"] for row in document["table"]] == [1, 2, 4]
    for row in document["table"]:
        work = forecast.work.total
        assert row["seconds"] == price.START_SECONDS + forecast.work.makespan(row["machines"])
        assert row["efficiency"] == pytest.approx(work / row["seconds"] / row["machines"])
    assert document["table"][0]["seconds"] == pytest.approx(price.START_SECONDS + forecast.work.total)
    assert document["seconds"] == document["table"][-1]["seconds"]
    assert (document["bytes"], document["machines"], document["cores_per_machine"]) == (told.bytes, 4, 1)
    assert document["requests"]["total"] == sum(document["requests"].values()) / 2
    assert json.loads(json.dumps(document)) == document
    # A stack cannot go faster than its chain, so 4 EACH + 3 s of start; one machine fewer takes 5 % more.
    enough, least = document["enough_machines"], 1.05 * (price.START_SECONDS + 4 * EACH)
    assert forecast.row(enough)["seconds"] <= least < forecast.row(enough - 1)["seconds"]


def test_a_store_elsewhere_takes_its_time(planned: Plan, tmp_path: Path) -> None:
    told = cost(planned, Execution.local(tmp_path / "none", workers=1))
    here = on_cluster(planned, told, machines=4, cores=2)
    far = on_cluster(planned, told, machines=4, cores=2, elsewhere=True)
    assert here is not None
    assert far is not None
    dense = planned.tasks[0, "dense", 0].key
    waits = REQUEST_SECONDS * (in_sequence(0) + listings(len(planned.tasks), 4))
    assert far.work.seconds[dense] == pytest.approx(here.work.seconds[dense] + waits)


def test_there_is_no_forecast_without_times(planned: Plan, tmp_path: Path) -> None:
    untimed = cost(planned, Execution.local(tmp_path / "none"), measure=False)
    assert on_cluster(planned, untimed, machines=2, cores=2) is None
    for machines, cores, words in (
        (0, 1, "machines is 0; it is a whole number of at least 1"),
        (-1, 1, "machines is -1; it is a whole number of at least 1"),
        (10**9, 1, "machines is 1000000000; at most 10,000 are forecast"),
        (1, 0, "cores_per_machine is 0; it is a whole number of at least 1"),
        (1, 10**6, "cores_per_machine is 1000000; a machine has at most 1,024"),
    ):
        with pytest.raises(ValueError, match=words):
            on_cluster(planned, untimed, machines=machines, cores=cores)


def test_a_chain_in_words(planned: Plan) -> None:
    at = [planned.tasks[cell] for cell in ((0, "dense", 0), (1, "ticket", 0), (1, "random", 0))]
    assert in_words(at) == "dense, ticket at level 1, random at level 1"
    assert in_words([]) == ""
