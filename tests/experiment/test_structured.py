"""Searches for tickets of whole attention heads and hidden neurons, to the shrunk network in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import winticket
from winticket.experiment import Experiment, Result
from winticket.ship import expand
from winticket.ticket import kept_parts

Search = Callable[..., Result]


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "book.txt"
    file.write_text("the quick brown fox jumps over the lazy dog. " * 90)
    return str(file)


@pytest.mark.parametrize("include", [(), ("embed.weight",)])
def test_a_search_to_a_smaller_file(
    include: tuple[str, ...], text: str, search: Search, tmp_path: Path
) -> None:
    result = search(
        text, model="chargpt-1-32-16", criterion="head_importance", density=(0.5,), levels=None, rate=None, gate=False,
        controls=("reinit", "random"), replicates=2, include=include, validation=None, test=None, lr=0.003,
    )  # fmt: skip
    run = winticket.open(result.document["results"])
    for replicate in range(2):
        masks = {
            arm: run.training(arm, level=1, replicate=replicate).mask
            for arm in ("ticket", "reinit", "random")
        }
        kept = {
            arm: {name: int(of.sum()) for name, of in kept_parts(mask).items()} for arm, mask in masks.items()
        }
        assert kept["ticket"]["layers.0.attention.heads"] == 1  # of two
        assert kept["ticket"]["layers.0.neurons"] == 64
        assert ("embed.tokens" in kept["ticket"]) == bool(include)
        assert kept["ticket"] == kept["reinit"] == kept["random"]
        assert masks["random"].keep.keys() == masks["ticket"].keep.keys()
        assert any(not torch.equal(masks["random"].keep[n], keep) for n, keep in masks["ticket"].keep.items())

    network = result.trained()
    shipment = network.ship(tmp_path / "ship", to="torch", shrink=True)
    assert shipment["read_back"]["test_accuracy"] == network.origin["test_accuracy"]  # type: ignore[index]
    assert shipment["bytes"] < 0.75 * shipment["dense_bytes"]
    tensors, maps = (torch_file(file) for file in (shipment["file"], shipment["beside"][0]))
    assert tensors["layers.0.attention.query.weight"].shape == (16, 32)
    assert tensors["layers.0.down.weight"].shape == (32, 64)
    x = network.test_examples().x
    with torch.no_grad():
        whole, again = (one(x) for one in (network.model(), expand(tensors, maps, like=network.model())))
    assert torch.allclose(whole, again, atol=1e-6)


def torch_file(file: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_what_belongs_to_no_head_is_left_out_unless_it_is_said(text: str) -> None:
    usual = Experiment.of(text, model="chargpt-1-16", criterion="head_importance")
    assert (usual.allocate, usual.exclude) == ("structures", ("head.weight",))
    chosen = Experiment.of(
        text, model="chargpt-1-16", allocate="structures", exclude=("head.weight", "*.up.weight")
    )
    assert chosen.exclude == ("head.weight", "*.up.weight")
