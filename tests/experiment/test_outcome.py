"""What becomes of a search: failures counted and told, the ticket that is saved, users' own parts, convolutions."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import winticket
from winticket import models, report
from winticket.data import find_dataset
from winticket.experiment import Execution, Experiment, Result, cost, plan, running
from winticket.experiment.outcome_measured import measured
from winticket.experiment.outcome_trainings import best
from winticket.experiment.runs import Runs, Trained, collect, trajectory
from winticket.experiment.scored_on import ScoredOn
from winticket.objective import ACCURACY
from winticket.procedures import Setup
from winticket.report import final_screen
from winticket.report.reading import computed
from winticket.run import Store
from winticket.sparse import Tuning, missing
from winticket.stages import train_stack
from winticket.ticket import Curve, Failed, Seeds, Ticket, Trajectory, output_units
from winticket.train import Recipe
from winticket.train import engine as engine_room

from .conftest import SMALL, Search

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs, classes, wide):
        super().__init__()
        self.first = nn.Linear(inputs, wide)
        self.last = nn.Linear(wide, classes)
    def forward(self, x):
        h = torch.relu(self.first(x.flatten(1)))
        if self.training and FRAGILE and (self.first.weight == 0).sum() > self.first.weight.numel() * 0.3:
            raise RuntimeError("[/too] thin to train")
        return self.last(h)

def build(*, input_shape, classes):
    return Net(64, classes, WIDE)

FRAGILE, WIDE = False, 12
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a user's module that can be imported here and by worker processes; gives its name."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def module(name: str, text: str = MODEL) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return module


def shown(result: Result) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=80)
    console.print(final_screen(result.document))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_replicates_that_diverge_are_failures_everywhere(search: Search) -> None:
    result = search(optimizer="sgd", lr=1e30, replicates=6, stack=3)
    document = result.document
    text = json.dumps(document, allow_nan=False)
    assert "NaN" not in text
    assert result.outcomes.failed == {}  # a training that diverges is a result, and not an error
    dense: Any = document["levels"][0]["arms"]["dense"]
    assert (dense["failed"], dense["accuracies"], dense["accuracy"]) == (6, [None] * 6, None)
    assert dense["accuracy_ci"] is dense["early_stop_step"] is dense["early_stop_ci"] is None
    for level in document["levels"][1:]:
        assert {arm: entry["failed"] for arm, entry in level["arms"].items()} == {
            "ticket": 6,
            "reinit": 6,
            "random": 6,
        }
    assert len(document["failures"]) == 6 * (1 + 1 + 2 * 3)
    assert {row["arm"] for row in document["failures"]} == {
        "dense",
        "dense doubled",
        "ticket",
        "reinit",
        "random",
    }
    assert all("stopped being finite at step" in row["reason"] for row in document["failures"])
    assert document["verdict"]["outcome"] != "won"
    assert document["ticket"] is None
    assert result.ticket is None
    assert result.curves == []
    assert "Failed: 48 trainings" in shown(result)
    page = report.page(document, result.curves)
    assert "6 failed" in page
    assert not re.search(r"\bnan\b|NaN|Infinity", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))


@pytest.mark.parametrize(
    ("recipe", "rewind"),
    [
        ({"optimizer": "sgd", "lr": 0.1}, "to_init"),
        ({"optimizer": "sgd", "lr": 0.05, "momentum": 0.9}, "to_step_with_optimizer"),
        ({"optimizer": "adam", "lr": 0.01}, "to_step_with_optimizer"),
        ({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1}, "to_init"),
        ({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1}, "to_step_with_optimizer"),
    ],
)
@pytest.mark.parametrize("engine", ["dense", "sparse"])
def test_pruned_weights_are_zero_in_every_file(
    engine: str, recipe: dict[str, Any], rewind: str, search: Search, tmp_path: Path
) -> None:
    """Optimisers with moments, also those that the dense network gathered before anything was pruned."""
    if engine == "sparse" and missing:
        pytest.skip(f"built without sparse kernels: {missing}")
    step = {"rewind_step": 10} if rewind == "to_step_with_optimizer" else {}
    result = search(engine=engine, rewind=rewind, gate=False, rate=0.5, **step, **recipe)
    store, pruned = Store(tmp_path / "runs"), 0
    for row in store.ls():
        for path in store.get(row.key):
            if isinstance(path, dict):  # states on the way of the dense network's training
                continue
            assert bool(path.ticket.start.optimizer) == (bool(step) and path.ticket.origin == "ticket")
            for name, keep in path.ticket.mask.keep.items():
                pruned += int((~keep).sum())
                assert all(bool((s.weights[name][~keep] == 0).all()) for s in path.saved.values())
    assert pruned > 0
    ticket = Ticket.load(str(result.document["ticket"]))
    torch.save(winticket.interop.to_state_dict(ticket), tmp_path / "ticket.pt")
    state = torch.load(tmp_path / "ticket.pt", weights_only=True)
    assert all(bool((state[name][~keep] == 0).all()) for name, keep in ticket.mask.keep.items())


def test_an_emptied_layer_is_named_wherever_the_result_is_read(search: Search, tmp_path: Path) -> None:
    choices: dict[str, Any] = {"model": "lenet-2-2", "allocate": "uniform", "levels": 1, "rate": 0.9}
    result = search(**choices)
    empty, emptied = (level["emptied"] for level in result.document["levels"])
    assert empty == {}
    assert [names[0] for names in emptied.values()] == ["fc2.weight"] * 3
    assert list(emptied) == ["ticket", "reinit", "random"]
    # Two weights are kept of the output layer's ten rows: classes that none goes into are named, of all replicates.
    lost: list[list[int]] = []
    planned = plan(Experiment.of("digits", **{**SMALL, **choices}))
    for replicate in range(planned.experiment.replicates):
        path = trajectory(planned, Store(tmp_path / "runs"), level=1, arm="ticket", replicate=replicate)
        lost.append(list(path.ticket.mask.empty_units("fc3.weight")))
    assert 8 <= len(set().union(*lost)) <= 10
    assert emptied["ticket"][1:] == [output_units("fc3.weight", sorted(set().union(*lost)))]
    dense, pruned = (level["emptied_outputs"] for level in result.document["levels"])
    assert dense == {}
    assert pruned["ticket"] == lost
    assert "fc2.weight" in report.page(result.document, result.curves)
    assert any("has no weights left in fc2.weight" in words for words in report.advise(result.document))
    assert "fc2.weight" in shown(result)


@pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
@pytest.mark.parametrize(
    ("break_even", "words"), [(0.0, "no layer"), (1.0, "fc1, fc2, fc3 at 51.6 % and below")]
)
def test_where_sparse_kernels_are_slower_layers_train_dense_and_the_result_says_so(
    break_even: float, words: str, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_room, "tuning", lambda shape: Tuning(shape, break_even))
    monkeypatch.setattr(running, "measure_engine", lambda *_: None)  # what it would measure is given
    result = search(engine="auto", gate=False, rate=0.5)
    for level in result.document["levels"][1:]:
        for arm in level["arms"].values():
            assert bool(arm["sparse"]) == (break_even == 1.0)
    found = computed(result.document)
    assert found is not None
    assert found.startswith(words)
    assert found in report.page(result.document, result.curves).replace("\xa0", " ")


def test_a_ticket_of_an_earlier_run_does_not_stay_beside_a_result_that_has_none(
    search: Search, tmp_path: Path
) -> None:
    diverges = {"optimizer": "sgd", "lr": 1e30}
    folder = tmp_path / "same"
    search(out=folder, **diverges)
    (folder / "ticket.safetensors").write_bytes(b"left by an earlier run whose trainings went better")
    search(out=folder, **diverges)
    assert not (tmp_path / "same" / "ticket.safetensors").exists()


def test_accuracies_that_agree_by_chance_have_an_interval(search: Search, tmp_path: Path) -> None:
    """Twice the same accuracy on 200 answers: the sd is taken for the step, and t(1) is 12.706."""
    search(levels=1, gate=False)
    planned = plan(Experiment.of("digits", **{**SMALL, "levels": 1, "gate": False}))
    one = collect(planned, Store(tmp_path / "runs")).by_cell[0, "dense"][0]
    found: Any = measured((one, one), ScoredOn(ACCURACY, 200, 0.1))
    half = 12.7062 * (1 / 200) / 2**0.5
    for name in ("accuracy", "accuracy_at_early_stop"):
        assert found[f"{name}_ci"] == pytest.approx([found[name] - half, found[name] + half], rel=1e-4)


def test_some_replicates_diverge(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """One replicate starts from infinite weights: it alone fails, in every arm that has its start."""
    own = Setup.initial
    bad = Seeds(0, 1).derive("init")

    def initial(setup: Setup, seed: int) -> Any:
        state = own(setup, seed)
        if seed == bad:
            state.weights["fc1.weight"].fill_(torch.inf)
        return state

    monkeypatch.setattr(Setup, "initial", initial)
    result = search(replicates=3, stack=3)
    levels: Any = result.document["levels"]
    for level in levels:
        for arm in level["arms"].values():
            assert arm["failed"] == 1
            assert [value is None for value in arm["accuracies"]] == [False, True, False]
            assert [value is None for value in arm["early_stop_steps"]] == [False, True, False]
            assert arm["accuracy"] == pytest.approx((arm["accuracies"][0] + arm["accuracies"][2]) / 2)
    assert {row["replicate"] for row in result.document["failures"]} == {1}
    monkeypatch.undo()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_that_raises_is_stored_counted_and_not_waited_for(
    search: Search, module: Callable[..., str], workers: int, tmp_path: Path
) -> None:
    name = module(f"fragile{workers}", MODEL.replace("FRAGILE, WIDE = False, 12", "FRAGILE, WIDE = True, 12"))
    # Dense, since the model counts the zeros in its weight, which sparse kernels do not keep.
    result = search(engine="dense", model=f"{name}:build", levels=3, workers=workers)
    document = result.document
    # Density 0.64 at level 2: its trainings raise, and level 3 needs the ticket's.
    assert len(result.outcomes.failed) == 3
    assert len(result.outcomes.skipped) == 3
    assert [level["arms"]["ticket"]["failed"] for level in document["levels"][1:]] == [0, 2, 2]
    reasons = {(row["density"], row["reason"]) for row in document["failures"]}
    thin = [level["density"] for level in document["levels"][2:]]
    assert reasons == {
        (thin[0], "RuntimeError: [/too] thin to train"),
        (thin[1], "not run: a training that it depends on failed"),
    }
    assert document["ticket"] is not None
    experiment = Experiment.of("digits", **{**SMALL, "model": f"{name}:build", "levels": 3})
    price = cost(plan(experiment), Execution.local(tmp_path / "runs", workers=1), measure=False)
    assert (price.trainings, price.reused, price.failed) == (0, 10, 12)
    again = cost(
        plan(experiment), Execution.local(tmp_path / "runs", workers=1, retry_failed=True), measure=False
    )
    assert (again.trainings, again.reused, again.failed) == (12, 10, 0)
    kinds = [event.kind for event in heard(search, engine="dense", model=f"{name}:build", levels=3)]
    assert (kinds.count("reused"), kinds.count("failed"), kinds.count("started")) == (5, 3, 0)
    kinds = [
        event.kind
        for event in heard(search, engine="dense", model=f"{name}:build", levels=3, retry_failed=True)
    ]
    assert kinds.count("started") == 3


def heard(search: Search, **choices: Any) -> list[Any]:
    events: list[Any] = []
    search(watch=events.append, **choices)
    return events


def test_a_users_model_and_what_editing_it_does(search: Search, module: Callable[..., str]) -> None:
    name = module("ownnet")
    first = search(model=f"{name}:build", workers=2)
    assert first.document["failures"] == []
    assert first.document["experiment"]["init"] is None  # it keeps its own
    assert first.document["levels"][1]["arms"]["ticket"]["stacked"] is True
    same = search(model=f"{name}:build", store="other")  # in this process
    assert same.document["levels"] == first.document["levels"]
    name = module("ownnet", MODEL + "\n# another remark\n")
    edited = search(model=f"{name}:build")
    assert not set(edited.document["keys"]) & set(first.document["keys"])
    assert edited.document["computed"] == 8


def test_a_model_edited_under_a_running_program_is_refused(
    module: Callable[..., str], tmp_path: Path
) -> None:
    name = module("movingnet")
    plan(Experiment.of("digits", **{**SMALL, "model": f"{name}:build"}))
    (tmp_path / f"{name}.py").write_text(MODEL.replace("WIDE = False, 12", "WIDE = False, 13"))
    with pytest.raises(ValueError, match="has changed since it was imported; start Python anew"):
        plan(Experiment.of("digits", **{**SMALL, "model": f"{name}:build"}))


def test_a_model_may_be_edited_while_a_search_is_under_way(
    search: Search, module: Callable[..., str], tmp_path: Path
) -> None:
    """What runs is what was planned; nothing of it fails, and nothing is kept under the new source's keys."""
    name = module("worknet")
    quiet = search(model=f"{name}:build", store="quiet")

    def edit(event: Any) -> None:
        if event.kind == "finished":
            (tmp_path / f"{name}.py").write_text(MODEL + f"\n# {event.task.key}\n")

    result = search(model=f"{name}:build", watch=edit)
    assert result.document["failures"] == []
    assert result.document["levels"] == quiet.document["levels"]
    assert result.document["keys"] == quiet.document["keys"]


def test_a_worker_that_starts_after_an_edit_refuses(module: Callable[..., str]) -> None:
    name = module("latenet")
    setup = Experiment.of("digits", **{**SMALL, "model": f"{name}:build"}).setup()
    assert setup.module() is setup.module()
    module("latenet", MODEL + "\n# edited\n")  # imported again, as a new process would
    for build in (setup.module, lambda: setup.initial(0)):
        with pytest.raises(ValueError, match="is not the one that the plan was made with"):
            build()


def test_users_own_criterion_and_allocation(search: Search, module: Callable[..., str]) -> None:
    name = module(
        "ownscores",
        "import torch\n"
        "from winticket.ticket import Mask\n"
        "def smallest(e):\n    return {n: -e.now.weights[n].abs() for n in e.mask.keep}\n"
        "def first_layer(scores, mask, *, density):\n"
        "    keep = dict(mask.keep)\n    name = next(iter(keep))\n"
        "    alive = keep[name].flatten().nonzero().flatten()\n"
        "    order = scores[name].flatten()[alive].argsort(descending=True, stable=True)\n"
        "    new = torch.zeros(keep[name].numel(), dtype=torch.bool)\n"
        "    new[alive[order[: int(density * keep[name].numel())]]] = True\n"
        "    keep[name] = new.view(keep[name].shape)\n    return Mask(keep)\n"
        "def fickle(scores, mask, *, density):\n"
        "    return Mask({n: k & (scores[n] > scores[n][k].mean()) for n, k in mask.keep.items()})\n",
    )
    result = search(criterion=f"{name}:smallest", allocate=f"{name}:first_layer", workers=2)
    kept = [1280, 1024, 819]  # of the first layer's 1280, at densities .8 and .64
    densities = [(k + 300) / 1580 for k in kept]
    assert [level["density"] for level in result.document["levels"]] == densities
    assert result.document["failures"] == []
    usual = search(allocate=f"{name}:first_layer")
    assert usual.document["levels"][1]["arms"]["ticket"] != result.document["levels"][1]["arms"]["ticket"]
    # One that keeps as many as the scores please: what it keeps is not what was planned, and is not passed off as it.
    result = search(allocate=f"{name}:fickle")
    ticket = result.document["levels"][1]["arms"]["ticket"]
    assert ticket["failed"] == 2
    assert "were planned" in result.document["failures"][0]["reason"]


def test_conv_2_goes_one_by_one_and_says_why(search: Search, tmp_path: Path) -> None:
    images = tmp_path / "blobs"
    chance = np.random.default_rng(0)
    for label in range(2):
        folder = images / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(30):
            pixels = chance.integers(0, 100, (8, 8, 3), dtype=np.uint8)
            pixels[:, 4 * label : 4 * label + 4, label] += 120
            Image.fromarray(pixels).save(folder / f"{number}.png")
    choices = {"steps": 4, "evaluate_every": 2, "batch": 8, "levels": 1, "validation": 6, "test": 12}
    result = search(str(images), model="conv-2", conv_rate=0.1, flip=True, crop=1, **choices)
    assert result.document["failures"] == []
    for arm in result.document["levels"][1]["arms"].values():
        assert arm["stacked"] is False
        assert "stacked convolutions become grouped ones" in (arm["stacking_reason"] or "")
    # 64·3·9 and 64·64·9 in the convolutions, 64·16·256 + 256² in the linear layers, 256·2 at the end.
    kept = (
        round(1728 * 0.9) + round(36864 * 0.9) + round(262144 * 0.8) + round(65536 * 0.8) + round(512 * 0.9)
    )
    assert result.document["levels"][1]["density"] == kept / (1728 + 36864 + 262144 + 65536 + 512)
    assert result.document["data"]["input_shape"] == [3, 8, 8]
    assert result.document["data"]["train"] == 60 - 12 - 6


def test_the_ticket_that_is_saved_can_be_trained_again(search: Search) -> None:
    result = search(replicates=3, stack=3)
    ticket = Ticket.load(str(result.document["ticket"]))
    about: Any = ticket.about
    assert result.ticket is not None
    assert ticket.about == result.ticket.about
    source = find_dataset(about["data"]["name"])
    assert source.fingerprint == about["data"]["fingerprint"]
    recipe = Recipe(**{**about["recipe"], "milestones": tuple(about["recipe"]["milestones"])})
    setup = Setup(
        data=about["data"]["name"],
        fingerprint=source.fingerprint,
        input_shape=tuple(about["input_shape"]),
        classes=about["classes"],
        model=about["model"],
        init=about["init"],
        recipe=recipe,
        seed=ticket.seeds.root,
        validation=about["data"]["validation"],
        test=about["data"]["test"],
        own_split=about["data"]["own_split"],
    )
    assert setup.split_seed(ticket.seeds.replicate) == about["data"]["split_seed"]
    (path,) = train_stack(setup, [ticket])
    assert isinstance(path, Trajectory)
    rows = [
        row for row in result.curves if row["arm"] == "ticket" and row["replicate"] == ticket.seeds.replicate
    ]
    (row,) = [row for row in rows if row["density"] == pytest.approx(ticket.mask.density())]
    assert path.curve.step.tolist() == row["step"]
    # A stack of one adds up in another order than a stack of three.
    assert path.curve.validation_loss.tolist() == pytest.approx(row["validation_loss"], abs=1e-4)
    assert path.curve.last()["test_accuracy"] == pytest.approx(about["test_accuracy"], abs=0.006)
    assert about["experiment"] == result.document["experiment"]


def test_the_saved_ticket_goes_into_a_loop_of_ones_own(search: Search) -> None:
    result = search()
    ticket = winticket.Ticket.load(str(result.document["ticket"]))
    model = models.build(str(ticket.about["model"]), input_shape=(1, 8, 8), classes=10, generator_seed=1)
    model.load_state_dict({**ticket.start.weights, **ticket.start.buffers})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    x, y = torch.randn(20, 1, 8, 8), torch.arange(20) % 10
    with winticket.masked(model, ticket):
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for name, keep in ticket.mask.keep.items():
        assert model.get_parameter(name)[~keep].eq(0).all()
        assert model.get_parameter(name)[keep].ne(0).all()


def curve(validation: float, test: float) -> Curve:
    def row(value: float) -> torch.Tensor:
        return torch.tensor([value], dtype=torch.float64)

    return Curve(
        torch.tensor([10]),
        row(math.nan),
        row(1.0),
        row(validation),
        row(validation),
        row(1.0),
        row(test),
    )


@pytest.fixture(scope="module")
def runs() -> Callable[[dict[int, list[tuple[float, float] | None]]], Runs]:
    planned = plan(Experiment.of("digits", **{**SMALL, "levels": 3}))

    def runs(scores: dict[int, list[tuple[float, float] | None]]) -> Runs:
        """Tickets by level with (validation, test) accuracies; None is a failed one."""
        failed = Failed("lost", None, Seeds(0, 0))
        places = {
            (level, "ticket"): tuple(failed if s is None else Trained(curve(*s), {}, ()) for s in row)
            for level, row in scores.items()
        }
        return Runs(planned, places)

    return runs


Tickets = Callable[[dict[int, list[tuple[float, float] | None]]], Runs]


def found(runs: Runs, *, density: float | None, passed: tuple[bool, ...]) -> Any:
    checks: list[dict[str, Any]] = [{}, *({"accuracy": {"passed": True}, "matched": p} for p in passed)]
    return {"verdict": {"density": density}, "levels": [{"checks": c} for c in checks]}


def test_the_best_is_chosen_on_validation_data_at_the_smallest_claimed_density(runs: Tickets) -> None:
    told = runs({1: [(0.9, 0.9), (0.8, 0.8)], 2: [(0.7, 0.99), (0.8, 0.1)], 3: [(0.6, 0.6), (0.5, 0.5)]})
    density = told.plan.densities()[2]
    assert best(told, found(told, density=density, passed=(True, True, False))) == (2, 1)
    assert best(told, found(told, density=None, passed=(True, True, False))) == (2, 1)
    assert best(told, found(told, density=None, passed=(True, False, False))) == (1, 0)


def test_with_nothing_matched_validation_data_choose_the_level_too(runs: Tickets) -> None:
    told = runs({1: [(0.5, 0.9), None], 2: [(0.7, 0.1), (0.6, 0.2)], 3: [None, None]})
    assert best(told, found(told, density=None, passed=(False, False, False))) == (2, 0)
    assert (
        best(runs({n: [None, None] for n in (1, 2, 3)}), found(told, density=None, passed=(False,) * 3))
        is None
    )


def test_stored_trainings_come_back_in_the_order_of_replicates(search: Search, tmp_path: Path) -> None:
    result = search(replicates=5, stack=2)
    planned = plan(Experiment.of("digits", **{**SMALL, "replicates": 5, "stack": 2}))
    runs = collect(planned, Store(tmp_path / "runs"))
    trained = [r.curve.last()["test_accuracy"] for r in runs.by_cell[1, "ticket"] if isinstance(r, Trained)]
    assert trained == result.document["levels"][1]["arms"]["ticket"]["accuracies"]
    assert len(trained) == 5
    assert result.ticket is not None
    row = result.ticket.seeds.replicate
    level = int(str(result.ticket.about["level"]))
    assert (
        result.document["levels"][level]["arms"]["ticket"]["accuracies"][row]
        == result.ticket.about["test_accuracy"]
    )


def test_an_allocation_that_is_not_the_criterions_is_among_the_warnings(search: Search) -> None:
    options: dict[str, Any] = {
        "method": "at-init",
        "final_density": 0.3,
        "levels": 1,
        "controls": (),
        "gate": False,
    }
    for allocation, named in (("global_top", False), ("layerwise", True)):
        document = search(**options, allocate=allocation).document
        told = [w for w in document["verdict"]["warnings"] if "a variant, not of snip as published" in w]
        assert len(told) == named
        assert (document["experiment"]["criterion"], document["experiment"]["allocate"]) == (
            "snip",
            allocation,
        )
