"""Folders in the Hub's layout: loaded without the network, uploaded and downloaded by what stands in for the Hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from winticket.ship import CompactFileError, Network, Operation, Weight, load, push, save

EYE = Network(
    (4,),
    (Operation("linear", ("input",), "1", tensors={"weight": Weight.of("w", np.eye(4), np.eye(4) > 0)}),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `winticket ship --to hub` writes, and a file that is none of it."""
    made = tmp_path / "net"
    made.mkdir()
    save(EYE, made / "model.safetensors")
    (made / "config.json").write_text(json.dumps({"library_name": "winticket"}))
    (made / "README.md").write_text("a card")
    (made / "secret.txt").write_text("mine")
    return made


class StandIn:
    """What is called of huggingface_hub, on a folder in place of the Hub."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, []  # type: ignore[var-annotated]

    def HfApi(self, *, token: str | None) -> StandIn:  # noqa: N802 - the package's name
        self.calls.append(("token", token))
        return self

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", name, private, exist_ok))

    def upload_folder(self, **named: Any) -> Any:
        self.calls.append(
            ("upload", named["repo_id"], sorted(named["allow_patterns"]), named["commit_message"])
        )
        target = self.root / named["repo_id"]
        target.mkdir(parents=True)
        for name in named["allow_patterns"]:
            (target / name).write_bytes((named["folder_path"] / name).read_bytes())
        return SimpleNamespace(commit_url=f"https://hub/{named['repo_id']}/commit/1")

    def hf_hub_download(self, repository: str, name: str, *, revision: str | None) -> str:
        self.calls.append(("download", repository, name, revision))
        path = self.root / repository / name
        if not path.is_file():
            raise FileNotFoundError(f"404: no {repository}\nand more")
        return str(path)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "the hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    monkeypatch.chdir(tmp_path)
    return made


def same(network: Network) -> bool:
    return bool((network.weights()["w"].dense() == np.eye(4)).all())


def test_a_folder_is_loaded_without_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert same(load(folder))
    assert same(load(str(folder / "model.safetensors")))
    monkeypatch.chdir(folder.parent.parent)
    assert same(load(f"{folder.parent.name}/net"))  # what is here is not looked for on the Hub
    (folder / "config.json").unlink()
    assert same(load(folder))
    with pytest.raises(ModuleNotFoundError, match="pip install huggingface_hub"):
        load("me/net")
    with pytest.raises(CompactFileError, match=r"there is no file at me/net\.safetensors"):
        load("me/net.safetensors")


def test_what_is_pushed_is_loaded_by_its_name(folder: Path, stand_in: StandIn) -> None:
    address = push(folder, "me/net", private=True, token="t", message="First")
    assert address == "https://hub/me/net/commit/1"
    files = ["README.md", "config.json", "model.safetensors"]
    assert stand_in.calls == [
        ("token", "t"),
        ("create", "me/net", True, True),
        ("upload", "me/net", files, "First"),
    ]
    assert same(load("me/net", revision="main"))
    assert stand_in.calls[-2:] == [
        ("download", "me/net", name, "main") for name in ("config.json", "model.safetensors")
    ]
    with pytest.raises(
        CompactFileError, match=r"me/other is neither here nor a repository .* \(404: no me/other\)$"
    ):
        load("me/other")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"library_name": "transformers"}', "names the library 'transformers'"),
        ('{"model_type": "bert"}', "names the library ''"),
        ('{"library_name": 3}', "config.json is no good: Expected `str`, got `int`"),
        ("[" * 5000, "config.json is no good"),
    ],
)
def test_what_is_no_network_of_ours_is_refused(
    config: str, message: str, folder: Path, stand_in: StandIn
) -> None:
    (folder / "config.json").write_text(config)
    for refused in (load, lambda path: push(path, "me/net")):
        with pytest.raises(CompactFileError, match=message):
            refused(folder)
    (stand_in.root / "me").mkdir(parents=True)
    folder.rename(stand_in.root / "me" / "net")
    with pytest.raises(CompactFileError, match=message):
        load("me/net")
    assert not any(call[0] in ("create", "upload") for call in stand_in.calls)


def test_nothing_is_uploaded_that_cannot_be_loaded_or_has_no_card(folder: Path, stand_in: StandIn) -> None:
    with pytest.raises(ValueError, match="is called user/name, not 'net'"):
        push(folder, "net")
    with pytest.raises(CompactFileError, match="is not a folder"):
        push(folder / "model.safetensors", "me/net")
    with pytest.raises(CompactFileError, match="revision 'v1' is of repositories"):
        load(folder, revision="v1")
    (folder / "README.md").unlink()
    with pytest.raises(CompactFileError, match=r"has no README\.md"):
        push(folder, "me/net")
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95 pickle")
    with pytest.raises(CompactFileError, match="pickle"):
        push(folder, "me/net")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CompactFileError, match=r"a folder without model\.safetensors"):
        push(folder, "me/net")
    assert stand_in.calls == []
