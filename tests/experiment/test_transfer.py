"""Transferred tickets: what they bring, what is new, and what does not fit."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from winticket.experiment import Execution, Experiment, Result, conduct, cost, load_source, plan, transferred
from winticket.experiment.plan import SOURCE
from winticket.experiment.runs import trajectory
from winticket.report import page
from winticket.run import Store, stored_needs, walk, whole_of
from winticket.ticket import Failed, Seeds, State, Ticket, Trajectory, same_bits
from winticket.train import train

SMALL: dict[str, Any] = {
    "model": "lenet-20-10",
    "steps": 30,
    "evaluate_every": 10,
    "levels": 2,
    "replicates": 2,
    "stack": 2,
    "gate": False,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digits once more, in five classes: 0 or 1, 2 or 3, ..."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("data") / "pairs"
    rows = []
    for image in digits.images:
        file = io.BytesIO()
        Image.fromarray((15 * image).astype(np.uint8)).save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, type=struct), "label": pa.array((digits.target // 2).tolist())})
    folder.mkdir()
    pq.write_table(table, folder / "train.parquet")
    return str(folder)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def run(experiment: Experiment, store: str = "runs") -> Result:
        folder = tmp_path / f"out {len(list(tmp_path.glob('out *')))}"  # no report is written over another's
        return conduct(experiment, store=tmp_path / store, out=folder, workers=0)

    return run


Run = Callable[..., Result]


def found(run: Run, experiment: Experiment, tmp_path: Path, **place: Any) -> Ticket:
    path = trajectory(plan(experiment), Store(tmp_path / "runs"), **{"replicate": 0, **place})
    return path.ticket


def test_carried_over_to_where_they_were_found_they_give_the_same_numbers(run: Run) -> None:
    source = Experiment.of(
        "digits", **{**SMALL, "gate": True}, controls=("reinit", "random", "other-aligned")
    )
    there = run(source)
    again = run(transferred(source, controls=source.controls))
    for name in ("levels", "dense_doubled", "verdict", "failures"):
        assert again.document[name] == there.document[name]
    # Dense and its doubling, and both levels' trainings, are done once more: they are another experiment's.
    assert len(again.outcomes.reused) == 2  # what found the tickets: dense, and level 1's ticket


def test_mask_and_start_come_along_and_an_output_layer_for_other_classes_is_new(
    run: Run, pairs: str, tmp_path: Path
) -> None:
    source = Experiment.of("digits", **SMALL)
    there, here = run(source), transferred(source, pairs)
    result = run(here)
    # 64 · 20 + 20 · 10 weights without the output layer's; .8 and .64 of each, rounded.
    assert plan(here).counts == (1480, 1024 + 160, 819 + 128)
    for replicate in range(2):
        old = found(run, source, tmp_path, level=2, arm="ticket", replicate=replicate)
        dense, ticket, random = (
            found(run, here, tmp_path, level=level, arm=arm, replicate=replicate)
            for level, arm in ((0, "dense"), (2, "ticket"), (2, "random"))
        )
        hidden = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        assert list(ticket.mask.keep) == ["fc1.weight", "fc2.weight"]
        assert all(torch.equal(ticket.mask.keep[n], old.mask.keep[n]) for n in ticket.mask.keep)
        for new in (dense, ticket):
            assert all(torch.equal(new.start.weights[n], old.start.weights[n]) for n in hidden)
            assert new.start.weights["fc3.weight"].shape == (5, 10)
        # The new layer is one for all that begin at the ticket's start, and another for each replicate.
        assert torch.equal(dense.start.weights["fc3.weight"], ticket.start.weights["fc3.weight"])
        assert torch.equal(random.start.weights["fc3.weight"], ticket.start.weights["fc3.weight"])
        assert (dense.mask.density(), dense.seeds) == (1.0, old.seeds)
    heads = [
        found(run, here, tmp_path, level=0, arm="dense", replicate=r).start.weights["fc3.weight"]
        for r in (0, 1)
    ]
    assert not torch.equal(*heads)
    assert result.document["data"]["classes"] == 5
    assert result.document["experiment"]["source"] == there.document["experiment"]
    assert result.ticket is not None
    assert result.ticket.about["classes"] == 5


def test_only_what_is_new_runs_and_what_is_missing_of_the_source_runs_first(run: Run, pairs: str) -> None:
    source = Experiment.of("digits", **SMALL)
    run(source)
    planned = plan(transferred(source, pairs))
    # Dense and level 1's ticket find the tickets; dense, and three arms at two levels, are new.
    assert [cell for cell in planned.tasks if cell[1] == SOURCE] == [(0, SOURCE, 0), (1, SOURCE, 0)]
    result = run(transferred(source, pairs))
    assert (len(result.outcomes.reused), len(result.outcomes.computed)) == (2, 7)
    alone = run(transferred(source, pairs), store="fresh")
    assert (len(alone.outcomes.reused), len(alone.outcomes.computed)) == (0, 9)
    assert alone.document["levels"] == result.document["levels"]


def test_the_cost_counts_what_finds_the_tickets(tmp_path: Path, pairs: str) -> None:
    source = Experiment.of("digits", **{**SMALL, "rewind": "to_step", "rewind_step": 10})
    asked = transferred(source, pairs, steps=50)
    price = cost(plan(asked), Execution.local(tmp_path / "none", workers=1), measure=False)
    assert price.trainings == 2 * 9
    # Found: 30 dense, 20 from step 10. Here: dense and three arms at two levels, 50 each.
    assert price.steps == 2 * (30 + 20 + 7 * 50)


def on_the_way(experiment: Experiment, store: Path) -> dict[int, State]:
    """The states that the first stack's dense training handed over, of its first replicate."""
    (task,) = [t for t in walk(plan(experiment).tasks.values()) if whole_of(t) and t.label["first"] == 0]
    saved: dict[int, State] = Store(store).get(task.key)[0]
    return saved


def test_a_ticket_from_step_k_starts_where_the_dense_network_does(
    run: Run, pairs: str, tmp_path: Path
) -> None:
    source = Experiment.of("digits", **{**SMALL, "rewind": "to_step_with_optimizer", "rewind_step": 10})
    here = transferred(source, pairs)
    run(here)
    dense, ticket = (found(run, here, tmp_path, level=le, arm=a) for le, a in ((0, "dense"), (2, "ticket")))
    path = Store(tmp_path / "runs").get(plan(here).tasks[0, SOURCE, 0].key)[0]
    then = on_the_way(here, tmp_path / "runs")[10]
    for new in (dense, ticket):
        assert (new.start.step, dict(new.start.optimizer)) == (0, {})
        assert torch.equal(new.start.weights["fc1.weight"], then.weights["fc1.weight"])
    assert not torch.equal(then.weights["fc1.weight"], path.ticket.start.weights["fc1.weight"])


def test_another_optimiser_on_the_same_data(run: Run, tmp_path: Path) -> None:
    source = Experiment.of("digits", **SMALL)
    here = transferred(source, optimizer="sgd", lr=0.1, momentum=0.9, density=(0.6,), replicates=4)
    result = run(here)
    assert here.carried == (2,)  # 64 % of most layers
    assert [len(level["arms"]["dense" if n == 0 else "ticket"]["accuracies"]) for n, level in
            enumerate(result.document["levels"])] == [4, 4]  # fmt: skip
    (level,) = result.document["levels"][1:]
    assert level["density"] == pytest.approx(plan(source).densities()[2])
    old = trajectory(
        plan(source.but(replicates=4)), Store(tmp_path / "runs"), level=1, arm="ticket", replicate=3
    )
    new = found(run, here, tmp_path, level=1, arm="ticket", replicate=3)
    assert new.mask.within(old.ticket.mask)
    assert new.seeds == Seeds(0, 3)
    # Back to Adam, without sgd's momentum.
    swapped = transferred(source.but(optimizer="sgd", lr=0.1, momentum=0.9), optimizer="adam", lr=1e-3).recipe
    assert (swapped.optimizer, swapped.momentum) == ("adam", 0.0)


def test_the_keys_depend_on_how_the_tickets_were_found(pairs: str) -> None:
    def keys(**change: Any) -> dict[Any, str]:
        made = plan(transferred(Experiment.of("digits", **SMALL).but(**change), pairs, steps=30, lr=1.2e-3))
        return {place: t.key for place, t in made.tasks.items()}

    plain = keys()
    assert keys() == plain
    for change in ({"lr": 2e-3}, {"seed": 1}, {"rate": 0.3}):
        other = keys(**change)
        assert other.keys() == plain.keys()
        assert other[2, "ticket", 0] not in plain.values()


def test_tickets_wait_for_the_source_alone(pairs: str) -> None:
    planned = plan(transferred(Experiment.of("digits", **SMALL), pairs))
    needed = {t.key for t in stored_needs(planned.tasks[2, "ticket", 0])}
    assert needed == {planned.tasks[1, SOURCE, 0].key}
    assert stored_needs(planned.tasks[0, "dense", 0]) == ()


def test_a_replicate_that_the_source_lost_is_lost_here_too(
    run: Run, pairs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(*args: Any, **kwargs: Any) -> Any:
        return tuple(
            Failed("diverged", 2, r.ticket.seeds)
            if isinstance(r, Trajectory) and r.ticket.seeds.replicate == 1 and args[0].fc3.out_features == 10
            else r
            for r in train(*args, **kwargs)
        )

    monkeypatch.setattr("winticket.stages.training.train", losing)
    result = run(transferred(Experiment.of("digits", **SMALL), pairs))
    assert [a is None for a in result.document["levels"][1]["arms"]["ticket"]["accuracies"]] == [False, True]
    assert {f["arm"] for f in result.document["failures"]} == {SOURCE, "ticket", "reinit", "random"}
    assert not any(a is None for a in result.document["levels"][0]["arms"]["dense"]["accuracies"])
    assert "tickets from" in page(result.document, [])


@pytest.mark.parametrize(
    ("source", "choices", "error", "told"),
    [
        ({}, {"data": "mnist1d"}, ValueError,
         r"found on digits, whose examples have shape \(1, 8, 8\), but examples of mnist1d have shape \(1, 40\)"),
        ({"rewind": "learning_rate"}, {}, ValueError, "rewind learning_rate starts tickets from weights"),
        ({}, {"criterion": "random"}, TypeError,
         "a transfer has no choice 'criterion', since the tickets determine it"),
        ({}, {"model": "lenet-20-10-5"}, ValueError,
         r"cannot be transferred to lenet-20-10-5, .* do not correspond: one has fc1 \(20\), fc2 \(10\), the"),
        ({}, {"model": "conv-2"}, ValueError, "cannot be transferred to conv-2, .* do not correspond"),
        ({}, {"model": "networks:attention"}, ValueError, "the hidden units of Attention cannot be matched"),
        ({}, {"model": "lenet-40-20", "controls": ("other-aligned",)}, ValueError,
         r"found in another network \(lenet-20-10\); leave other-aligned out"),
        ({"allocate": "global_top"}, {"model": "lenet-40-20"}, ValueError,
         "lets layers compete, so tickets would keep different counts in a network of another width"),
        ({}, {"optimizer": "sgd"}, ValueError, r"optimizer sgd needs its own learning rate: 0\.0012 is meant"),
        ({}, {"gamma": 0.1}, ValueError, "gamma belongs to the step schedule"),
        ({}, {"density": (1.5,)}, ValueError, r"density is 1\.5; the density of a ticket must lie in"),
        ({}, {"steps": 30, "batch": 2000}, ValueError, "batch 2000 is larger than"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    source: dict[str, Any], choices: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        plan(transferred(Experiment.of("digits", **{**SMALL, **source}), **choices))


def test_layers_that_compete_with_an_output_layer_that_is_left_behind_are_told(pairs: str) -> None:
    source = Experiment.of("digits", **SMALL, allocate="global_top")
    with pytest.raises(ValueError, match=r"compete with the others, .* \(exclude fc3\.weight\)"):
        plan(transferred(source, pairs))
    plan(transferred(source))
    planned = plan(transferred(source.but(exclude=("fc3.*",)), pairs))
    assert planned.counts == (1480, 1184, 947)


def test_carried_tickets_are_not_carried_again() -> None:
    once = transferred(Experiment.of("digits", **SMALL))
    with pytest.raises(TypeError, match="the source is a transfer itself"):
        transferred(once)


def test_one_late_level_is_carried_with_its_own_costs(run: Run, pairs: str) -> None:
    source = Experiment.of("digits", **{**SMALL, "levels": 3})
    result = run(transferred(source, pairs, density=(0.5,)))
    told = {(row["arm"], round(row["density"], 1)) for row in result.document["costs"]}
    assert told == {("dense", 1.0), ("ticket", 0.5), ("reinit", 0.5), ("random", 0.5)}


def test_tickets_of_early_birds_have_no_dense_network_that_starts_where_they_do() -> None:
    with pytest.raises(
        ValueError,
        match=r"early-bird starts tickets from weights that were trained .*; transfer the tickets of another method",
    ):
        transferred(Experiment.of("digits", **{**SMALL, "method": "early-bird"}))


def test_a_result_names_its_experiment_and_its_store(run: Run, tmp_path: Path) -> None:
    for choices in (
        {},
        {"method": "set"},
        {"method": "edge-popup", "density": (0.5,), "levels": None},
        {"density": (0.5, 0.1), "levels": None, "method": "one-shot", "exclude": ("fc3.*",)},
        {
            "schedule": "step",
            "milestones": (0.25, 0.5),
            "split": "shared",
            "rewind": "to_step",
            "rewind_step": 5,
        },
    ):
        asked = Experiment.of("digits", **{k: v for k, v in {**SMALL, **choices}.items() if v is not None})
        result = run(asked)
        read, store = load_source(result.document["results"])
        assert store == str(tmp_path / "runs")
        assert set(plan(read).keys()) == set(result.document["keys"])
        assert read == replace(asked, init="glorot-normal")
        assert load_source(Path(result.document["results"]).parent) == (read, store)


def test_a_result_that_cannot_be_gone_on_from_is_told(run: Run, tmp_path: Path) -> None:
    document = run(Experiment.of("digits", **SMALL)).document
    file = tmp_path / "other.json"
    for text in ("{}", "[]", "nonsense", json.dumps({**document, "experiment": {}})):
        file.write_text(text)
        with pytest.raises(ValueError, match="is not a result document of this version"):
            load_source(file)
    with pytest.raises(
        FileNotFoundError, match=r"there is no .*none\.json; give the result\.json of a finished run"
    ):
        load_source(tmp_path / "none.json")
    file.write_text(json.dumps({**document, "keys": ["0" * 64]}))
    with pytest.warns(RuntimeWarning, match="its tickets will be searched for again"):
        load_source(file)
    carried = run(transferred(Experiment.of("digits", **SMALL))).document
    with pytest.raises(ValueError, match="is the result of a transfer"):
        load_source(carried["results"])


def test_alignment_goes_with_a_transfer(run: Run, pairs: str) -> None:
    asked = transferred(Experiment.of("digits", **SMALL), pairs, controls=("other", "other-aligned"))
    assert asked.source is not None
    result = run(asked)
    arms = result.document["levels"][2]["arms"]
    assert set(arms) == {"ticket", "other", "other-aligned"}
    assert all(arm["failed"] == 0 for arm in arms.values())


def test_every_level_of_a_search_with_batchnorm_carries_its_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    (tmp_path / "normed.py").write_text(
        "from torch import nn\n\n\n"
        "def build(*, input_shape, classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), "
        "nn.Linear(144, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    choices = {**SMALL, "model": "normed:build", "rewind": "to_step", "rewind_step": 10, "lr": 1e-3}
    here = transferred(Experiment.of("digits", **choices), controls=("random",))
    run(here)
    old = on_the_way(here, tmp_path / "runs")[10]
    for level, arm in ((0, "dense"), (2, "ticket"), (2, "random")):
        new = found(run, here, tmp_path, level=level, arm=arm)
        assert same_bits(new.start.buffers, old.buffers)


@pytest.mark.parametrize(("model", "hidden"), [("lenet-40-20", (40, 20)), ("lenet-10-5", (10, 5))])
def test_into_another_width_go_the_connections_of_each_unit(
    run: Run, tmp_path: Path, model: str, hidden: tuple[int, int]
) -> None:
    source = Experiment.of("digits", **SMALL)
    run(source)
    here = transferred(source, model=model)
    result = run(here)
    first, second = hidden
    total = 64 * first + first * second + second * 10
    assert plan(here).counts[0] == total
    for replicate in range(2):
        old = found(run, source, tmp_path, level=2, arm="ticket", replicate=replicate).mask.keep
        dense, ticket, random = (
            found(run, here, tmp_path, level=level, arm=arm, replicate=replicate)
            for level, arm in ((0, "dense"), (2, "ticket"), (2, "random"))
        )
        new = ticket.mask.keep
        one, two = torch.arange(first) % 20, torch.arange(second) % 10
        wanted = {
            "fc1.weight": old["fc1.weight"][one],
            "fc2.weight": old["fc2.weight"][two][:, one],
            "fc3.weight": old["fc3.weight"][:, two],
        }
        for name, keep in wanted.items():
            share = int(old[name].sum()) / old[name].numel()
            count = int(share * keep.numel() + 0.5)
            assert int(new[name].sum()) == count
            # Twice as many units: exactly the mask, four or two times. Half of them: but for the count.
            assert int((new[name] ^ keep).sum()) == abs(count - int(keep.sum()))
            if first == 40:
                assert torch.equal(new[name], keep)
        assert ticket.mask.count() == plan(here).counts[2] == random.mask.count()
        assert (ticket.start.step, dict(ticket.start.optimizer)) == (0, {})
        assert same_bits(dense.start.weights, ticket.start.weights)
        # Nothing of the search's own start comes along, and units that are copies have weights of their own.
        theirs = found(run, source, tmp_path, level=2, arm="ticket", replicate=replicate).start.weights
        alike = torch.stack([w["fc1.weight"][:10].flatten() for w in (theirs, ticket.start.weights)])
        assert torch.corrcoef(alike)[0, 1].abs() < 0.2
        if first == 40:
            assert not torch.equal(*ticket.start.weights["fc1.weight"].chunk(2))
    assert result.document["experiment"]["model"] == model
    assert result.document["experiment"]["source"]["model"] == "lenet-20-10"
    assert "tickets from</a></dt><dd>lenet-20-10 on digits" in page(result.document, [])
    told = result.document["verdict"]["warnings"]
    assert any("only the masks were transferred from lenet-20-10" in warning for warning in told)


def test_another_name_of_the_same_network_takes_the_start_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "twin.py").write_text(
        "import torch\n\nfrom winticket import models\n\n\n"
        "def build(*, input_shape, classes):\n"
        "    seed = int(torch.randint(1 << 30, ()))\n"
        "    return models.build('lenet-20-10', input_shape=input_shape, classes=classes, generator_seed=seed)\n"
    )
    source = Experiment.of("digits", **SMALL)
    run(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        here = transferred(source, model="twin:build")
        run(here)
    old = found(run, source, tmp_path, level=1, arm="ticket", replicate=0)
    new = found(run, here, tmp_path, level=1, arm="ticket", replicate=0)
    assert same_bits(new.start.weights, old.start.weights)
    assert same_bits(new.mask.keep, old.mask.keep)
