"""What a plan is said to cost: seconds by training, and laid out over workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from winticket.experiment import Execution, Experiment, cost, plan, price
from winticket.experiment.plan import Plan
from winticket.run import stored_needs
from winticket.run.cluster import Work

SMALL = {"model": "lenet-20-10", "steps": 40, "evaluate_every": 20, "levels": 8, "replicates": 2, "stack": 2}


def test_steps_between_two_densities_take_in_proportion_by_hand() -> None:
    # Measured: 10 ms dense, 2 ms at .055. Half-way between .055 and .455, where sparse kernels begin, is .255: 6 ms.
    speed = price._Speed(dense=0.010, sparse=0.002, sparsest=0.055, measuring=0.001, start=0.0, exact=0.011)
    assert [speed.step_seconds(d) for d in (1.0, 0.5, 0.255, 0.055, 0.01)] == pytest.approx(
        [0.011, 0.011, 0.007, 0.003, 0.003]
    )
    dense = price._Speed(dense=0.010, sparse=0.010, sparsest=0.5, measuring=0.001, start=0.0, exact=0.011)
    assert dense.step_seconds(0.5) == pytest.approx(0.011)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan on a machine that was measured already."""
    speed = price._Speed(dense=0.010, sparse=0.002, sparsest=0.055, measuring=0.0, start=0.3, exact=0.02)
    monkeypatch.setattr(price, "_speed", lambda *_: speed)
    return plan(Experiment.of("digits", **SMALL))


def test_every_training_has_its_seconds(planned: Plan, tmp_path: Path) -> None:
    told = cost(planned, Execution.local(tmp_path / "none", workers=2))
    assert set(told.work) == {task.key for task in planned.tasks.values()}
    densities = planned.densities()
    for (level, arm, _), task in planned.tasks.items():
        steps = (80 if arm == "dense doubled" else 40) * 2
        each = 0.010 if densities[level] >= 0.455 else 0.002 + 0.008 * (densities[level] - 0.055) / 0.4
        assert told.work[task.key] == pytest.approx(steps * each + 0.3 + price.TASK_SECONDS)
    needs = {task.key: [need.key for need in stored_needs(task)] for task in planned.tasks.values()}
    assert told.seconds == price.START_SECONDS + Work(told.work, needs).makespan(2)
    assert cost(planned, Execution.local(tmp_path / "none", workers=2), measure=False).work == {}


def test_the_dense_network_in_float32_is_priced_as_such(planned: Plan, tmp_path: Path) -> None:
    rounded = plan(planned.experiment.but(precision="bf16"))
    told = cost(rounded, Execution.local(tmp_path / "none", workers=2))
    exact, usual = (rounded.tasks[0, arm, 0] for arm in ("dense in float32", "dense"))
    assert told.work[exact.key] == pytest.approx(80 * 0.02 + 0.3 + price.TASK_SECONDS)
    assert told.work[usual.key] == pytest.approx(80 * 0.01 + 0.3 + price.TASK_SECONDS)
    without = cost(plan(rounded.experiment.but(precision_check=False)), Execution.local(tmp_path / "none"))
    assert told.steps - without.steps == 80
    assert told.trainings - without.trainings == 2


def test_a_model_that_noise_does_not_suit_has_no_seconds(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(price, "_speed", raises)
    told = cost(planned, Execution.local(tmp_path / "none", workers=2))
    assert (told.seconds, told.work) == (None, {})


def test_the_measured_speed_is_of_the_dense_and_the_sparsest_network() -> None:
    speed = price._speed(plan(Experiment.of("digits", **SMALL)), "dense")
    assert speed.dense == speed.sparse > 0  # masked steps are the dense network's
    assert speed.measuring > 0
    assert speed.start >= 0


def test_nothing_is_measured_if_there_is_nothing_to_train(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "missing", lambda *_: [])
    measured: list[object] = []
    monkeypatch.setattr(price, "_speed", lambda *given: measured.append(given))
    told = cost(planned, Execution.local(tmp_path / "none", workers=2))
    assert (told.trainings, told.seconds, told.work, measured) == (0, None, {}, [])
