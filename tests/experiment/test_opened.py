"""A run that is read again: what a user asks of it, finished or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import winticket
from winticket.experiment import Execution, Experiment, conduct, plan, prepare, transferred
from winticket.experiment.writing import write_started
from winticket.results import SCHEMA
from winticket.run import Interrupted, Store, StoreError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opened")
    options: dict[str, Any] = {
        "model": "lenet-20-10",
        "steps": 40,
        "levels": 2,
        "replicates": 2,
        "workers": 0,
    }
    winticket.find("digits", store=folder / "store", out=folder / "out", **options)
    return folder / "out"


def test_a_run_says_what_it_is_in_one_line(folder: Path) -> None:
    text = repr(winticket.open(folder))
    assert text.startswith(
        "Run(lenet-20-10 on digits: inconclusive; arms dense, ticket, reinit, random; 2 levels; 2"
    )


def test_the_table_has_a_row_for_every_replicate_level_and_arm(folder: Path) -> None:
    run = winticket.open(folder)
    document = json.loads((folder / "result.json").read_text())
    table = run.table()
    assert len(table) == 2 * (1 + 2 * 3)
    for number, level in enumerate(document["levels"]):
        for arm, entry in level["arms"].items():
            assert table.where(level=number, arm=arm).column("test_accuracy") == entry["accuracies"]
    assert table.column("failed") == [None] * len(table)


def test_masks_starts_weights_and_curves_are_plain_objects(folder: Path) -> None:
    run = winticket.open(folder)
    one = run.training("ticket", level=2, replicate=1)
    assert one.mask.density("fc1.weight") == pytest.approx(0.64, abs=0.01)
    assert one.mask.density() == pytest.approx(run.densities[2])
    pruned = ~one.mask.keep["fc1.weight"]
    assert not one.weights["fc1.weight"][pruned].any()
    assert one.start.step == 0
    assert (
        one.curve.last()["test_accuracy"]
        == run.table().where(level=2, arm="ticket", replicate=2).rows()[0]["test_accuracy"]
    )
    dense = run.training("dense", level=0, replicate=1)
    assert torch.equal(
        dense.start.weights["fc1.weight"][one.mask.keep["fc1.weight"]],
        one.start.weights["fc1.weight"][one.mask.keep["fc1.weight"]],
    )
    with pytest.raises(KeyError, match="fc1"):
        one.mask.density("fc9.weight")


def test_layers_and_curves_are_tidy_tables(folder: Path) -> None:
    run = winticket.open(folder)
    layers = run.layers()
    assert set(layers.column("layer")) == {"fc1.weight", "fc2.weight", "fc3.weight"}
    assert len(layers) == 2 * 2 * 3
    curves = run.curves().where(arm="dense", replicate=1)
    assert curves.column("step")[-1] == 40


def test_wrong_places_name_the_right_ones(folder: Path) -> None:
    run = winticket.open(folder)
    with pytest.raises(ValueError, match="it has dense, ticket, reinit, random"):
        run.training("tickets")
    with pytest.raises(ValueError, match=r"its levels, with the weights kept, are 1 \(80"):
        run.training(level=7)
    with pytest.raises(ValueError, match="0 to 1"):
        run.training(level=1, replicate=2)


def test_a_stopped_run_is_opened_as_far_as_it_went(tmp_path: Path) -> None:
    experiment = Experiment.of("digits", model="lenet-20-10", steps=40, levels=2, replicates=2)
    execution = Execution.local(tmp_path / "store", workers=0)
    events = []

    def stop_after_three(event: object) -> None:
        events.append(event)
        if sum(getattr(e, "kind", "") == "finished" for e in events) == 3:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        conduct(experiment, execution, out=tmp_path / "out", watch=stop_after_three)
    run = winticket.open(tmp_path / "out")
    assert run.document is None
    assert "unfinished, 3 of " in repr(run)
    assert run.missing()
    assert run.training("dense", level=0).curve.last()["test_accuracy"] > 0
    assert any(reason for reason in run.table().column("failed"))
    with pytest.raises(ValueError, match="unfinished"):
        run.trained("dense")
    conduct(experiment, execution, out=tmp_path / "out")
    finished = winticket.open(tmp_path / "out")
    assert finished.document is not None
    assert not finished.missing()


def test_a_finished_run_that_was_started_again_is_finished_unless_it_asks_for_more(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    begun = {name: document[name] for name in ("winticket", "schema", "experiment", "store")}
    (tmp_path / "out" / "run.json").write_text(json.dumps(begun))
    assert winticket.open(tmp_path / "out").document is not None
    begun["experiment"] = begun["experiment"] | {"levels": 3}
    (tmp_path / "out" / "run.json").write_text(json.dumps(begun))
    more = winticket.open(tmp_path / "out")
    assert more.document is None
    assert [what.partition(" at ")[0] for what in more.missing()] == ["ticket", "reinit", "random"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no result"):
        winticket.open(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="does not say"):
        winticket.open(tmp_path)


def test_what_a_started_run_writes_names_its_store(tmp_path: Path) -> None:
    planned = plan(Experiment.of("digits", model="lenet-20-10", steps=20))
    execution = Execution.local(tmp_path / "store", workers=0)
    ready = prepare(planned, execution, out=tmp_path / "out")
    write_started(planned, execution, ready.folder)
    assert winticket.open(ready.folder).store.path == str(tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": "n" * 5000}, "which is not on this machine"),
        ({"data": "~nobody-here/x"}, "there is nothing at that path from"),
        ({"source": "x"}, "Expected `object`, got `str`"),
        ({"carried": None}, "Expected `array`, got `null`"),
        ({"carried": [2, 1]}, r"its tickets are of the levels \[2, 1\], of 2 of its source"),
        ({"carried": [1, 3]}, r"of the levels \[1, 3\], of 2 of its source"),
        ({"carried": [0, 1]}, r"of the levels \[0, 1\]"),
        ({"carried": []}, r"of the levels \[\]"),
    ],
)
def test_a_transfer_that_makes_no_sense_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    source = Experiment.of("digits", model="lenet-20-10", steps=20, levels=2, replicates=2)
    question = plan(transferred(source, lr=0.01)).experiment.describe()
    begun = {"schema": SCHEMA, "experiment": question, "store": str(tmp_path / "store")}
    Store(tmp_path / "store").put("ab" + "0" * 62, 1, {})
    file = tmp_path / "run.json"
    file.write_text(json.dumps(begun))
    assert winticket.open(tmp_path).plan.experiment.carried == (1, 2)
    file.write_text(json.dumps({**begun, "experiment": {**question, **change}}))
    with pytest.raises(ValueError, match=reason):
        winticket.open(tmp_path)


def test_a_store_in_the_home_folder_of_nobody_is_refused(tmp_path: Path) -> None:
    question = plan(Experiment.of("digits", model="lenet-20-10", steps=20)).experiment.describe()
    begun = {"schema": SCHEMA, "experiment": question, "store": "~nobody-here/store"}
    (tmp_path / "run.json").write_text(json.dumps(begun))
    with pytest.raises(StoreError, match="cannot be opened"):
        winticket.open(tmp_path)
