"""How an experiment is computed is one value apart from the question, and reaches every training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from winticket.experiment import (
    Execution,
    Experiment,
    conduct,
    cost,
    find,
    load_spec,
    plan,
    prepare,
    running,
    transferred,
)
from winticket.experiment.compare import compare
from winticket.experiment.execution import OPTIONS
from winticket.run import Conditions, Inline, Pool, Store, StoreError, Workers
from winticket.sparse import missing
from winticket.train import Engine

from .conftest import SMALL, Search, numbers

ONE = {**SMALL, "levels": 1, "gate": False, "rate": 0.9}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Experiment.of("digits", engine="dense"),
        lambda: Experiment.of("digits").but(engine="dense"),
        lambda: Experiment("digits", "lenet-20-10", Experiment.of("digits").recipe, engine="dense"),  # type: ignore[call-arg]
    ],
    ids=["of", "but", "Experiment"],
)
def test_an_experiment_has_no_engine_and_says_who_has(make: Callable[[], Experiment]) -> None:
    with pytest.raises(
        TypeError, match=r"pass engine='dense' to winticket.find .* or --engine dense to the command"
    ):
        make()


def test_an_engine_in_a_file_of_experiments_is_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "spec.py"
    file.write_text(
        "from winticket import Experiment\nexperiment = Experiment.of('digits', engine='dense')\n"
    )
    with pytest.raises(
        ValueError, match=r"spec.py does not run: TypeError: engine is 'dense', but an experiment has"
    ):
        load_spec(file)


def test_a_transfer_has_no_engine() -> None:
    with pytest.raises(TypeError, match="a transfer has no choice 'engine'"):
        transferred(Experiment.of("digits"), "mnist1d", engine="dense")


@pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
@pytest.mark.parametrize("workers", [0, 1])
def test_the_engine_reaches_every_training_and_no_key(search: Search, workers: int) -> None:
    results = {
        engine: search(store=engine, engine=engine, workers=workers, **ONE) for engine in ("sparse", "dense")
    }
    for engine, result in results.items():
        assert result.document["engine"] == engine
        assert "engine" not in result.document["experiment"]
        for arm in result.document["levels"][1]["arms"].values():
            assert bool(arm["sparse"]) == (engine == "sparse")
    assert results["sparse"].document["keys"] == results["dense"].document["keys"]


@pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
@pytest.mark.parametrize(("engine", "stacks"), [("auto", {2}), ("sparse", {2}), ("dense", None)])
def test_shapes_are_measured_before_the_workers_start(
    engine: Engine, stacks: set[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[set[int]] = []
    monkeypatch.setattr(running, "measure", lambda *_, stacks, example: measured.append(stacks))
    planned = plan(Experiment.of("digits", **{**ONE, "replicates": 2}))
    execution = Execution.local(tmp_path / "runs", engine=engine)
    prepare(planned, execution)
    running.measure_engine(planned, execution)
    assert measured == ([] if stacks is None else [stacks])


class Mine(Inline):
    """A crew that the package does not know."""

    opened: ClassVar[list[Conditions]] = []

    def open(self, conditions: Conditions, *, tasks: int, stopping: Callable[[], bool]) -> Workers:
        self.opened.append(conditions)
        return super().open(conditions, tasks=tasks, stopping=stopping)


def test_a_crew_of_ones_own_comes_in_by_the_execution(search: Search, tmp_path: Path) -> None:
    usual = search(**ONE, engine="dense")
    store = Store(tmp_path / "mine")
    execution = Execution(store=store, crew=Mine(), engine="dense", checkpoint_seconds=7.0)
    result = conduct(Experiment.of("digits", **ONE), execution, out=tmp_path / "out")
    assert numbers(result) == numbers(usual)
    assert Mine.opened == [Conditions(store, 7.0, {"engine": "dense"})]


def test_defaults_and_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from winticket.experiment import execution as room

    monkeypatch.setattr(room, "processes", lambda: 3)
    usual = Execution.local(tmp_path / "runs")
    assert (usual.crew, usual.engine, usual.retry_failed) == (Pool(3, room.PRELOAD), "auto", False)
    assert Execution.local(tmp_path / "runs", workers=0).crew == Inline()
    assert Execution.local("memory://executions").workers == 0
    assert not (tmp_path / "runs").exists()
    for wrong, reason in (
        ({"engine": "fast"}, "engine is 'fast'; possible: auto, dense, sparse"),
        ({"workers": -1}, "workers is -1; pass the number of worker processes"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds is -1.0"),
        ({"store": "memory://executions", "workers": 2}, "use workers=0"),
    ):
        options: dict[str, Any] = {"store": tmp_path / "runs", **wrong}
        with pytest.raises(ValueError, match=reason):
            Execution.local(**options)
    with pytest.raises(TypeError, match="wrkers"):
        Execution.local(tmp_path / "runs", wrkers=2)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        Execution.local(tmp_path / "file")


def test_options_beside_an_execution_are_refused(tmp_path: Path) -> None:
    execution, experiment = Execution.local(tmp_path / "runs"), Experiment.of("digits", **ONE)
    with pytest.raises(
        TypeError, match=r"an execution is passed, so pass workers to Execution\.local instead"
    ):
        conduct(experiment, execution, workers=2)
    with pytest.raises(TypeError, match=r"pass engine and retry_failed to Execution\.local"):
        compare("digits", density=0.5, out=tmp_path, execution=execution, engine="dense", retry_failed=True)
    assert set(OPTIONS) == {
        *("store", "workers", "ray", "dask", "engine", "retry_failed", "checkpoint_seconds", "needs")
    }


def test_a_recipe_that_does_not_suit_the_engine_is_refused_before_any_training(tmp_path: Path) -> None:
    if missing:
        pytest.skip(f"built without sparse kernels: {missing}")
    planned = plan(Experiment.of("digits", **ONE, precision="bf16"))
    execution = Execution.local(tmp_path / "runs", engine="sparse")
    for refused in (lambda: prepare(planned, execution), lambda: cost(planned, execution, measure=False)):
        with pytest.raises(ValueError, match="with precision bf16, use engine auto or dense"):
            refused()
    with pytest.raises(ValueError, match="with precision bf16, use engine auto or dense"):
        find("digits", **ONE, precision="bf16", engine="sparse", store=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
