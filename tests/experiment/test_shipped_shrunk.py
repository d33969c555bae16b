"""`--shrink`: trained networks without what their mask has cut off, in every format, and back in their old shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from compiled import needs_cc
from undrawn import undraw
from winticket.cli import app
from winticket.experiment import Result, TrainedNetwork
from winticket.ship import expand, expand_network, load, load_maps, run
from winticket.ship.choices import HOLDS, NEEDS

from .conftest import searched

UNITS: dict[str, Any] = {
    "allocate": "units", "criterion": "l1_units", "gate": False, "controls": (), "replicates": 1,
    "final_density": 0.4, "lr": 0.01, "optimizer": "adam",
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run whose tickets keep whole units."""
    folder = tmp_path_factory.mktemp("units")
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        return searched(folder, "digits", out=folder / "out", **UNITS)


@pytest.fixture
def network(found: Result) -> TrainedNetwork:
    return found.trained(level=2)


def left(network: TrainedNetwork) -> list[tuple[str, int, int]]:
    """(Layer, units with a weight, all units), counted here in the mask; fc3, the output, is not pruned."""
    rows = [
        (name.removesuffix(".weight"), int(keep.any(1).sum()), len(keep))
        for name, keep in network.ticket.mask.keep.items()
    ]
    return [*rows, ("fc3", 10, 10)]


@pytest.mark.parametrize("to", list(HOLDS))
def test_every_format_is_narrow_and_as_accurate(to: str, network: TrainedNetwork, tmp_path: Path) -> None:
    if to in NEEDS:
        pytest.importorskip(NEEDS[to][0])
    shipment = network.ship(tmp_path / "ship", to=to, name="net", shrink=True)
    whole = network.ship(tmp_path / "whole", to=to, name="net")
    shrunk = shipment["shrunk"]
    assert whole["shrunk"] is None
    assert shrunk is not None
    layers = [(one["name"], one["units"], one["units_before"]) for one in shrunk["layers"]]
    assert layers == left(network)
    assert shrunk["units"] == sum(row[1] for row in layers) < shrunk["units_before"]
    assert shrunk["largest_difference"] <= 1e-6
    assert Path(shrunk["maps"]).is_file()
    assert shrunk["maps"] in shipment["beside"]
    assert shipment["bytes"] < whole["bytes"] or to == "c"  # a text
    assert shipment["dense_bytes"] == whole["dense_bytes"]
    if shipment["read_back"] is not None:  # the package that computes it is here
        assert shipment["read_back"]["test_accuracy"] == network.origin["test_accuracy"]
        assert shipment["read_back"]["answers_changed"] == 0
    card = Path(shipment["card"]).read_text("utf-8")
    assert f"{shrunk['units']} of {shrunk['units_before']} units are left" in card
    assert f"| fc1 | {layers[0][1]} of 20 | " in card
    assert "after units and inputs that its mask cuts off were removed" in card


def test_memory_of_c_shrinks_with_the_units(network: TrainedNetwork, tmp_path: Path) -> None:
    memory = [network.ship(tmp_path, to="c", shrink=shrink)["memory"] for shrink in (False, True)]
    whole, small = memory
    assert whole is not None
    assert small is not None
    assert small["flash"] < whole["flash"]
    assert small["scratch"] < whole["scratch"]


def test_a_shrunk_state_dict_is_expanded_by_the_cards_lines(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipment = network.ship(tmp_path, to="torch", shrink=True)
    monkeypatch.chdir(tmp_path)
    model, x = network.model(), network.test_examples().x
    code = Path(shipment["card"]).read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"model": model, "ticket": network.ticket, "x": x[:1]}
    exec(compile(code, "card", "exec"), names)
    whole, small = names["whole"], names["small"]
    kept = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert {name: p.shape for name, p in whole.named_parameters()} == {n: p.shape for n, p in kept.items()}
    with torch.no_grad():
        right = model(x)
        assert (whole(x) - right).abs().max() <= 1e-6 * right.abs().max()
        assert (small(x) - right).abs().max() <= 1e-6 * right.abs().max()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    weight = whole.get_parameter("fc2.weight")
    assert torch.equal(weight[weight != 0], kept["fc2.weight"][weight != 0])


def test_a_shrunk_compact_file_is_expanded_by_its_maps(network: TrainedNetwork, tmp_path: Path) -> None:
    shipment = network.ship(tmp_path, shrink=True)
    assert Path(shipment["file"]).name.endswith("-shrunk-fp32.safetensors")
    assert shipment["shrunk"] is not None
    whole = expand_network(load(shipment["file"]), load_maps(shipment["shrunk"]["maps"]))
    original = network.network()
    assert whole.shapes == original.shapes
    x = network.test_examples().x.numpy()
    right = run(original, x)
    np.testing.assert_allclose(run(whole, x), right, rtol=1e-6, atol=1e-6 * np.abs(right).max())
    for name, keep in network.ticket.mask.keep.items():
        assert not (whole.weights()[name].keep() & ~keep.numpy()).any()


def test_batchnorm_stays_in_a_shrunk_state_dict_and_is_folded_elsewhere(
    search: Callable[..., Result], tmp_path: Path
) -> None:
    network = search(model="networks:convolutional", **UNITS).trained(level=2)
    shipments = {to: network.ship(tmp_path, to=to, shrink=True) for to in ("torch", "safetensors")}
    for shipment in shipments.values():
        assert shipment["read_back"] is not None
        assert shipment["read_back"]["test_accuracy"] == network.origin["test_accuracy"]
        assert shipment["shrunk"] is not None
        assert shipment["shrunk"]["units"] < shipment["shrunk"]["units_before"]
    load_file = pytest.importorskip("safetensors.torch").load_file
    tensors = load_file(shipments["torch"]["file"])
    maps = load_file(shipments["torch"]["shrunk"]["maps"])  # type: ignore[index]
    assert any("running_mean" in name for name in tensors)
    model, x = network.model(), network.test_examples().x
    with torch.no_grad():
        right = model(x)
        assert (expand(tensors, maps, like=model)(x) - right).abs().max() <= 1e-5 * right.abs().max()
    norms = {n for n, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)}
    folded = load_maps(shipments["safetensors"]["shrunk"]["maps"])  # type: ignore[index]
    assert not norms & {name.rpartition(".")[0] for name in folded.sizes}
    assert norms <= {name.rpartition(".")[0] for name in maps}


def test_a_dense_network_loses_nothing(found: Result, tmp_path: Path) -> None:
    shipment = found.trained(arm="dense").ship(tmp_path, shrink=True)
    assert shipment["shrunk"] is not None
    assert shipment["shrunk"]["units"] == shipment["shrunk"]["units_before"] == 20 + 10 + 10


def test_what_cannot_be_shrunk_is_refused_before_anything_is_written(
    network: TrainedNetwork, tmp_path: Path
) -> None:
    empty = {name: torch.zeros_like(keep) for name, keep in network.ticket.mask.keep.items()}
    cut = replace(network, ticket=replace(network.ticket, mask=replace(network.ticket.mask, keep=empty)))
    for to in ("onnx", "torch"):
        with pytest.raises(ValueError, match="leaves no path from the inputs to the outputs"):
            cut.ship(tmp_path / "ship", to=to, shrink=True)
    assert not (tmp_path / "ship").exists()


@needs_cc
def test_the_command_says_what_was_removed(found: Result, tmp_path: Path) -> None:
    folder = str(Path(found.document["results"]).parent)
    words = ["ship", folder, "--level", "2", "--shrink", "--to", "c", "--name", "net", "--out", str(tmp_path)]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    flat = " ".join(answer.stdout.split())
    units = sum(row[1] for row in left(found.trained(level=2)))
    assert f"{units} of 40 units are left, and fc1 reads " in flat
    assert "Outputs on noise differ from the whole network's by" in flat
    answer = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(answer.stdout)["shrunk"]["units"] == units
    maps = str(tmp_path / "net.c.maps.safetensors")
    code = f"import sys, winticket.ship; winticket.ship.load_maps({maps!r}); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == "False"
