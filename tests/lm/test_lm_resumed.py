"""Interrupted tunings: the same command goes on from its last state, and writes the bits of an uninterrupted one."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from lm.models import write_model, write_text
from winticket.cli.language import app
from winticket.lm import Request, Tuning, checkpoints, prepare, prepare_tuning, prune, tune
from winticket.lm.tuning_request import PreparedTuning

SMALL: dict[str, Any] = {"steps": 6, "batch": 2, "length": 16, "windows": 4, "lr": 0.01}
WAYS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "low rank": {"lora": 2},
    "LoTA": {"lota": 0.2, "calibration_steps": 5},
}
KEPT = {"tuning.json", "checkpoint.safetensors", "chosen.safetensors", ".new"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pruned GPT-2, whose dropout draws random numbers in every step."""
    model = write_model(tmp_path / "model", "gpt2", dtype=torch.float32)
    text = write_text(tmp_path / "text.txt")
    prune(
        prepare(str(model), Request(method="magnitude", length=16, windows=0), text, None),
        tmp_path / "pruned",
    )
    return tmp_path


def prepared(folder: Path, **options: Any) -> PreparedTuning:
    return prepare_tuning(str(folder / "pruned"), Tuning(**SMALL, **options), folder / "text.txt", None)


def content(out: Path) -> dict[str, bytes]:
    """All files but the two that tell durations."""
    return {
        one.name: one.read_bytes() for one in out.iterdir() if one.name not in ("result.json", "README.md")
    }


def at(what: str, do: Callable[[], None]) -> Callable[[str, float | None], None]:
    """What does something at a report that begins like this, once."""
    done: list[str] = []

    def say(line: str, _: float | None) -> None:
        if line.startswith(what) and not done:
            done.append(line)
            do()

    return say


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_keeps_every_finished_step(folder: Path, way: str) -> None:
    asked = prepared(folder, **WAYS[way])
    whole = tune(asked, folder / "whole")
    assert whole["resumed"] == 0
    moments = ["Step 3 "] if way != "LoTA" else ["Calibration step 2 ", "Step 3 "]
    taken = 0
    for moment in [*moments, "Perplexity after"]:
        with pytest.raises(KeyboardInterrupt):
            tune(asked, folder / "parts", say=at(moment, press))
        assert (folder / "parts" / "tuning.json").is_file()
        assert not (folder / "parts" / "config.json").exists()
        taken += 1
    last = tune(asked, folder / "parts")
    assert taken == len(moments) + 1
    assert last["resumed"] == 6 + (5 if way == "LoTA" else 0)  # the last one only had perplexity left
    assert content(folder / "parts") == content(folder / "whole")
    assert last["perplexity"] == whole["perplexity"]
    assert not KEPT & {one.name for one in (folder / "parts").iterdir()}


def killed() -> None:
    raise SystemExit("as by a signal that leaves no time")


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_tuning_goes_on_from_its_last_checkpoint(
    folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prepared(folder, **WAYS[way])
    tune(asked, folder / "whole")
    steps = itertools.count(1)
    monkeypatch.setattr(checkpoints.Checkpoints, "due", lambda _: next(steps) % 2 == 0)
    with pytest.raises(SystemExit):
        tune(asked, folder / "parts", say=at("Step 5 ", killed))
    last = tune(asked, folder / "parts")
    assert last["resumed"] == (4 if way != "LoTA" else 5 + 5)
    assert content(folder / "parts") == content(folder / "whole")


def test_an_unfinished_tuning_belongs_to_its_request(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(prepared(folder), folder / "new", say=at("Step 2 ", press))
    words = ["tune", str(folder / "pruned"), "--data", str(folder / "text.txt"), "--out", str(folder / "new")]
    more = ["--batch", "2", "--length", "16", "--windows", "4", "--lr", "0.01", "--json"]
    other = CliRunner().invoke(app, [*words, "--steps", "7", *more])
    assert other.exit_code == 2
    assert "holds an unfinished tuning with another steps, text" in " ".join(other.output.split())
    done = CliRunner().invoke(app, [*words, "--steps", "6", *more])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, [*words, "--steps", "6", *more])
    assert again.exit_code == 2
    assert "exists already and is no unfinished tuning" in " ".join(again.output.split())


@pytest.mark.parametrize("damage", [b"", b"\x00" * 400, None])
def test_a_damaged_checkpoint_counts_as_none(folder: Path, damage: bytes | None) -> None:
    asked = prepared(folder)
    tune(asked, folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        tune(asked, folder / "parts", say=at("Step 3 ", press))
    file = folder / "parts" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    with pytest.warns(UserWarning, match="is damaged .*, so this phase begins again"):
        last = tune(asked, folder / "parts")
    assert last["resumed"] == 0
    assert content(folder / "parts") == content(folder / "whole")


@pytest.mark.parametrize("name", ["random", "99.state.exp_avg", "x.state.exp_avg"])
def test_a_checkpoint_that_does_not_fit_changes_nothing(folder: Path, name: str) -> None:
    """Its header is sound, but an entry is not of this tuning; found late, it would leave weights half restored."""
    asked = prepared(folder)
    tune(asked, folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        tune(asked, folder / "parts", say=at("Step 3 ", press))
    file = folder / "parts" / "checkpoint.safetensors"
    with safe_open(file, framework="pt") as stored:
        about, tensors = stored.metadata(), {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    save_file({**tensors, name: torch.zeros(3)}, file, metadata=about)
    with pytest.warns(UserWarning, match="is damaged .*, so this phase begins again"):
        last = tune(asked, folder / "parts")
    assert last["resumed"] == 0
    assert content(folder / "parts") == content(folder / "whole")


@pytest.mark.parametrize("damage", [b"", b"\x00" * 400, None])
def test_a_damaged_choice_of_weights_is_made_again(folder: Path, damage: bytes | None) -> None:
    asked = prepared(folder, **WAYS["LoTA"])
    tune(asked, folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        tune(asked, folder / "parts", say=at("Step 3 ", press))
    file = folder / "parts" / "chosen.safetensors"
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    with pytest.warns(UserWarning, match="chosen.safetensors is damaged .*, so calibration begins again"):
        tune(asked, folder / "parts")
    assert content(folder / "parts") == content(folder / "whole")


def test_a_disk_that_is_full_stops_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_tensors", full)
    with pytest.warns(UserWarning, match="the state after step 6 could not be kept"):
        assert tune(prepared(folder), folder / "new")["resumed"] == 0


def test_a_rate_that_is_too_large_ends_with_a_message(folder: Path) -> None:
    asked = replace(prepared(folder).asked, lr=1e30)
    with pytest.raises(
        FloatingPointError, match=r"the loss is nan at step \d; give a smaller --lr than 1e\+30"
    ):
        tune(prepare_tuning(str(folder / "pruned"), asked, folder / "text.txt", None), folder / "new")
    words = ["tune", str(folder / "pruned"), "--data", str(folder / "text.txt"), "--length", "16"]
    done = CliRunner().invoke(app, [*words, "--lr", "1e30", "--steps", "6", "--out", str(folder / "other")])
    assert done.exit_code == 1
    assert "give a smaller --lr" in " ".join(done.output.split())
