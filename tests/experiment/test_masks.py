"""What masks keep, of every layer and of every input: counted in another way, and only where a layer reads images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from winticket.experiment import Experiment, Result, plan
from winticket.experiment.masks import Kept, _readers, network_of, plane
from winticket.experiment.runs import collect
from winticket.results import InputPlane, Network
from winticket.ticket import Mask


def test_counts_are_means_over_masks() -> None:
    """Two masks of a layer with 2 units and 3 inputs, counted by eye."""
    one = Mask({"fc.weight": torch.tensor([[True, False, False], [True, True, False]])})
    other = Mask({"fc.weight": torch.tensor([[True, False, True], [False, False, False]])})
    found: InputPlane = {"layer": "fc.weight", "shape": [1, 1, 3], "units": 2}
    kept = Kept(found)
    for mask in (one, other):
        kept.add(1, mask)
    layer = {"name": "fc.weight", "shape": [2, 3], "size": 6}
    network: Network = {"parameters": 8, "eligible": 6, "layers": [layer], "kept": [6, 3]}  # type: ignore[list-item]
    masks = kept.means([1.0, 0.5], network)
    assert masks["levels"] == [
        {"density": 0.5, "replicates": 2, "layers": {"fc.weight": 2.5}, "inputs": [1.5, 0.5, 0.5]}
    ]
    assert masks["plane"] is found


def test_a_run_counts_what_its_tickets_keep(shared: Result) -> None:
    finished = shared.finished
    masks = collect(finished.plan, finished.store).masks
    assert masks is not None
    assert [level["replicates"] for level in masks["levels"]] == [2, 2]
    for number, level in enumerate(masks["levels"], 1):
        (task,) = (t for cell, t in finished.plan.tasks.items() if cell[:2] == (number, "ticket"))
        keep = [path.ticket.mask.keep["fc1.weight"].numpy() for path in finished.store.get(task.key)]
        by_input = [sum(float(k[:, i].sum()) for k in keep) / len(keep) for i in range(64)]
        assert level["inputs"] == by_input
        assert level["layers"]["fc1.weight"] == sum(by_input)
        assert sum(level["layers"].values()) == finished.plan.counts[number]
    assert masks["network"] == shared.document["network"]


def test_the_size_of_a_network_is_its_parameters() -> None:
    planned = plan(Experiment.of("digits", model="lenet-20-10", steps=20, levels=2))
    network = network_of(planned)
    assert network["parameters"] == 64 * 20 + 20 + 20 * 10 + 10 + 10 * 10 + 10
    assert network["eligible"] == 64 * 20 + 20 * 10 + 10 * 10
    assert [layer["shape"] for layer in network["layers"]] == [[20, 64], [10, 20], [10, 10]]
    assert network["kept"] == list(planned.counts)


@pytest.mark.parametrize(
    ("data", "model", "found"),
    [
        ("digits", "lenet-20-10", {"layer": "fc1.weight", "shape": [1, 8, 8], "units": 20}),
        ("mnist1d", "mlp1d", {"layer": "fc1.weight", "shape": [1, 40], "units": 500}),
        ("digits", "conv-2", None),
    ],
)
def test_only_a_layer_that_reads_examples_is_an_input_plane(
    data: str, model: str, found: InputPlane | None
) -> None:
    planned = plan(Experiment.of(data, model=model, steps=20, levels=1))
    assert plane(planned.setup, planned.question.eligible) == found


def test_a_layer_that_is_not_pruned_is_none() -> None:
    planned = plan(Experiment.of("digits", model="lenet-20-10", steps=20, levels=1, exclude=("fc1.*",)))
    assert plane(planned.setup, planned.question.eligible) is None


def test_asking_a_network_leaves_the_global_generator_alone() -> None:
    planned = plan(Experiment.of("digits", model="lenet-20-10", steps=20, levels=1))
    before = torch.random.get_rng_state()
    plane(planned.setup, planned.question.eligible)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_layer_that_reads_rows_one_by_one_is_no_reader_of_the_whole_example() -> None:
    values = torch.arange(64, dtype=torch.float32)
    rows = nn.Sequential(nn.Linear(8, 16), nn.Flatten(), nn.Linear(128, 2))
    assert _readers(rows, values, values.reshape(1, 1, 8, 8)) == {}
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    assert list(_readers(whole, values, values.reshape(1, 1, 8, 8))) == ["1"]
