"""Pretrained weights as files: found, read, digested, and fitted into networks by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from winticket import models
from winticket.models import pretrained
from winticket.ticket import Mask, Seeds, State, Ticket

NET = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))


def state(**others: torch.Tensor) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in NET.state_dict().items()} | others


def test_a_file_and_a_folder_of_the_hub_hold_the_same(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "net.safetensors")
    hub = tmp_path / "hub"
    hub.mkdir()
    save_file(state(), hub / "model.safetensors")
    assert pretrained.digest(pretrained.read(tmp_path / "net.safetensors")) == pretrained.digest(
        pretrained.read(hub)
    )


def test_shards_are_put_together(tmp_path: Path) -> None:
    names = list(state())
    for number, part in enumerate((names[:3], names[3:])):
        save_file({n: state()[n] for n in part}, tmp_path / f"part{number}.safetensors")
    index = {"weight_map": {n: f"part{int(n not in names[:3])}.safetensors" for n in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert pretrained.digest(pretrained.read(tmp_path)) == pretrained.digest(state())


def test_an_index_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "../other.safetensors"}})
    )
    with pytest.raises(ValueError, match="lists no files of this folder"):
        pretrained.read(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    save_file({prefix + n: t for n, t in state().items()}, tmp_path / "net.safetensors")
    assert pretrained.read(tmp_path / "net.safetensors").keys() == state().keys()


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save_file(state(), file)
    before = pretrained.digest(pretrained.read(file))
    save_file(state(**{"0.weight": torch.full((3, 4), 7.0)}), file)
    os.utime(file, (1, 1))  # files written within the clock's step have the same time
    assert pretrained.digest(pretrained.read(file)) != before


def test_everything_is_taken_but_a_head_of_another_size() -> None:
    head = {"3.weight": torch.zeros(9, 3), "3.bias": torch.zeros(9), "old": torch.zeros(1)}
    fit = pretrained.fit(NET, state(**head))
    assert fit.drawn == ("3.weight", "3.bias")
    assert set(fit.taken) == set(state()) - {"3.weight", "3.bias"}
    assert set(fit.unused) == set(head)
    assert pretrained.fit(NET, state()).drawn == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.weight": torch.zeros(5, 4)}, r"0\.weight \[3, 4\] has \[5, 4\] there"),
        ({"0.weight": None}, r"0\.weight \[3, 4\] is not there"),
        ({"1.running_mean": None}, r"1\.running_mean \[3\] is not there"),
    ],
)
def test_other_differences_are_refused_by_name(change: dict[str, torch.Tensor | None], words: str) -> None:
    tensors = {n: t for n, t in (state() | change).items() if t is not None}
    with pytest.raises(ValueError, match=words):
        pretrained.fit(NET, tensors)


def test_a_file_of_something_else_fits_nothing() -> None:
    with pytest.raises(ValueError, match=r"Not used: x \[2\]"):
        pretrained.fit(NET, {"x": torch.zeros(2)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 and the rest of it", "a zip archive, as torch.save writes"),
        (b"\x80\x04rest of it", "a pickle"),
        (b"", "cut off"),
    ],
)
def test_no_pickle_is_opened(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        pretrained.read(tmp_path / "net.safetensors")


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"it has pytorch_model\.bin.*save_file"):
        pretrained.read(tmp_path)
    with pytest.raises(ValueError, match="no such file or folder"):
        pretrained.read(tmp_path / "other")


def test_shuffled_weights_keep_every_layers_values() -> None:
    values = {"w": torch.arange(12.0).view(3, 4), "b": torch.arange(3.0)}
    found = pretrained.shuffled(values, ["w", "b"], torch.Generator().manual_seed(0))
    assert found["w"].flatten().sort().values.tolist() == list(range(12))
    assert not torch.equal(found["w"], values["w"])
    assert torch.equal(found["b"], values["b"])


def test_a_tickets_file_is_a_start_too(tmp_path: Path) -> None:
    weights = dict(NET.named_parameters())
    ticket = Ticket(
        Mask({"0.weight": torch.ones(3, 4, dtype=torch.bool)}),
        State({n: w.detach() for n, w in weights.items()}, dict(NET.named_buffers()), {}, 0),
        "ticket",
        Seeds(0, 0),
    )
    ticket.save(tmp_path / "ticket.safetensors")
    assert pretrained.fit(NET, pretrained.read(tmp_path / "ticket.safetensors")).drawn == ()


def test_a_runs_folder_holds_no_trained_weights(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ValueError, match=r"trained\('dense'\)\.ticket\.save"):
        pretrained.read(tmp_path)


LIKE_TORCHVISION = """
from torch import nn

def resnet(*, weights=None, progress=True, **options):
    return nn.Sequential(nn.Flatten(), nn.Linear(48, options["num_classes"]))

def vit(pretrained=False, **options):
    net = nn.Sequential(nn.Conv2d(options.get("in_chans", 3), 2, 3), nn.Flatten(), nn.Linear(8, options["num_classes"]))
    return net
"""


@pytest.mark.parametrize(("name", "shape"), [("resnet", (3, 4, 4)), ("vit", (3, 4, 4)), ("vit", (1, 4, 4))])
def test_builders_of_torchvision_and_timm_are_called_as_they_expect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, ...]
) -> None:
    (tmp_path / "like_torchvision.py").write_text(LIKE_TORCHVISION)
    monkeypatch.syspath_prepend(tmp_path)
    named = f"like_torchvision:{name}"
    net = models.build(named, input_shape=shape, classes=7, generator_seed=0, trust=True)
    assert net(torch.zeros(2, *shape)).shape == (2, 7)
