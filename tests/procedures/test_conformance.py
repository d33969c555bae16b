"""Every allocation, rewind and schedule in a search of its own, on every kind of network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from winticket import rewind, schedules
from winticket.experiment import Experiment, offered, plan
from winticket.experiment.runs import trajectory
from winticket.run import Store, run, walk, whole_of
from winticket.stages import with_states
from winticket.ticket import Trajectory, same_bits

from .test_searches import NETWORKS

MLP, CONVOLUTIONAL, ATTENTION = NETWORKS
STEPS, K = 6, 2
SMALL: dict[str, Any] = {
    "steps": STEPS,
    "early_points": False,
    "evaluate_every": 3,
    "batch": 20,
    "density": (0.5, 0.25),
    "replicates": 1,
    "controls": (),
    "validation": 150,
    "test": 200,
    "gate": False,
    "init": None,
}


def searched(tmp_path: Path, model: str, **choices: Any) -> list[Trajectory]:
    """The dense network's training with its states on the way, and one of the ticket for each level, as stored."""
    asked = Experiment.of("digits", model=model, **{**SMALL, **choices})
    planned, store = plan(asked), Store(tmp_path / "store")
    assert not run(list(planned.tasks.values()), store).failed
    paths = [
        trajectory(planned, store, level=level, arm="ticket" if level else "dense", replicate=0)
        for level in range(len(planned.counts))
    ]
    assert [path.ticket.mask.count() for path in paths] == list(planned.counts)
    for before, after in pairwise(paths):
        assert after.ticket.mask.within(before.ticket.mask)
        assert after.ticket.mask.count() < before.ticket.mask.count()
    for path in paths:
        for name, keep in path.ticket.mask.keep.items():
            assert not bool(path.saved[STEPS].weights[name][~keep].any())
    for kept in walk(planned.tasks.values()):  # what the dense training handed over on its way
        if whole_of(kept):
            paths[0] = with_states(paths[0], store.get(kept.key)[0])
    return paths


# What a pattern cannot prune: its layers, and what is said of the first of them.
UNFIT: Mapping[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("units", MLP): (("fc3.weight",), "the output layer are the classes; exclude fc3.weight"),
    ("units", CONVOLUTIONAL): (("7.weight",), "the output layer are the classes; exclude 7.weight"),
    ("units", ATTENTION): (("head.weight",), "the output layer are the classes; exclude head.weight"),
    ("n_of_m", MLP): (
        ("fc3.weight",),
        "the units of fc3.weight read 10 inputs each, which is not a multiple of 4",
    ),
    ("n_of_m", CONVOLUTIONAL): (
        ("0.weight",),
        "the units of 0.weight read 1 inputs each, which is not a multiple",
    ),
    ("blocks", MLP): (
        ("fc2.weight", "fc3.weight"),
        "fc2.weight has 10 units x 20 inputs, which do not divide into blocks of 4",
    ),
    ("blocks", CONVOLUTIONAL): (
        ("0.weight", "7.weight"),
        "0.weight has 8 units x 1 inputs, which do not divide into blocks of 4",
    ),
    ("blocks", ATTENTION): (
        ("head.weight",),
        "head.weight has 10 units x 12 inputs, which do not divide into blocks of 4",
    ),
}


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("name", [name for name in offered()["allocate"] if name != "structures"])
def test_every_allocation_on_every_kind_of_network(tmp_path: Path, name: str, model: str) -> None:
    """A pattern that does not fit a layer names it before anything runs, and runs without it."""
    spared, told = UNFIT.get((name, model), ((), ""))
    if spared:
        with pytest.raises(ValueError, match=told):
            plan(Experiment.of("digits", model=model, allocate=name, exclude=(), **SMALL))
    paths = searched(tmp_path, model, allocate=name, exclude=spared)
    assert not set(spared) & set(paths[0].ticket.mask.keep)
    for path, density in zip(paths[1:], SMALL["density"], strict=True):
        assert path.ticket.mask.density() == pytest.approx(density, rel=0.1)  # whole blocks, whole units


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("name", offered()["rewind"])
def test_every_rewind_on_every_kind_of_network(tmp_path: Path, name: str, model: str) -> None:
    """Each level starts with the very weights, statistics and optimiser state that its rewind promises."""
    back = offered()["rewind"][name]
    step = {} if back is rewind.to_init else {"rewind_step": K}
    paths = searched(tmp_path, model, rewind=name, schedule="step", **step)
    dense = paths[0]
    for before, path in pairwise(paths):
        start, kept = path.ticket.start, path.ticket.mask
        wanted = {
            rewind.to_init: dense.ticket.start,
            rewind.to_step: dense.saved.get(K),
            rewind.to_step_with_optimizer: dense.saved.get(K),
        }.get(back, before.saved[STEPS])
        assert wanted is not None
        assert start.step == (0 if back is rewind.to_init else K)
        assert same_bits(kept.apply(start.weights), kept.apply(wanted.weights))
        assert same_bits(start.buffers, wanted.buffers)
        if back is rewind.to_step_with_optimizer:
            assert start.optimizer
            assert same_bits(start.optimizer, wanted.optimizer)
        else:
            assert start.optimizer == {}
        assert path.about["optimizer_state"] == ("restored" if start.optimizer else "fresh")


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("name", offered()["pruning"])
def test_every_schedule_on_every_kind_of_network(tmp_path: Path, name: str, model: str) -> None:
    asked = {"density": (), "pruning": name, "final_density": 0.2, "levels": 2, "allocate": "global_top"}
    paths = searched(tmp_path, model, **asked)
    total = paths[0].ticket.mask.total()
    wanted = [int(d * total + 0.5) for d in getattr(schedules, name)(0.2, 2)]
    assert [path.ticket.mask.count() for path in paths[1:]] == wanted
