"""Tuning pruned language models: exact zeros by counting, merged updates, folders that load, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from typer.testing import CliRunner

from lm.models import write_model, write_text
from winticket.cli.language import app
from winticket.lm import Request, Tuning, prepare, prepare_tuning, prune, read_masks, tune
from winticket.lm.low_rank import LowRank, low_rank
from winticket.lm.precision import Precision
from winticket.ticket import Mask
from winticket.units import Layout

SMALL = {"steps": 12, "batch": 2, "length": 16, "windows": 6}


@pytest.fixture(params=["llama", "gpt2"])
def pruned(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of a pruned model, half of its weights gone."""
    folder = write_model(tmp_path / "model", request.param, dtype=torch.float32)
    text = write_text(tmp_path / "text.txt")
    asked = Request(method="magnitude", density=0.5, length=16, windows=2)
    prune(prepare(str(folder), asked, text, None), tmp_path / "pruned")
    return tmp_path / "pruned"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("lora", [None, 3])
def test_exactly_the_pruned_weights_are_zero_afterwards(
    pruned: Path, tmp_path: Path, lora: int | None
) -> None:
    asked = Tuning(**SMALL, lora=lora, lr=0.01)
    result = tune(prepare_tuning(str(pruned), asked, tmp_path / "text.txt", None), tmp_path / "tuned")
    before, after, mask = weights(pruned), weights(tmp_path / "tuned"), read_masks(pruned)
    for name, keep in mask.keep.items():
        assert torch.equal(after[name] != 0, keep), name
        assert not torch.equal(after[name], before[name]), name
    assert result["zeros"] == sum(int((~keep).sum()) for keep in mask.keep.values())
    assert result["kept"] + result["zeros"] == result["total"]
    others = [name for name in before if name not in mask.keep]
    assert all(torch.equal(after[n], before[n]) for n in others) == (lora is not None)
    both = result["perplexity"]
    assert both["after"]["perplexity"]["value"] < both["before"]["perplexity"]["value"]
    assert torch.equal(read_masks(tmp_path / "tuned").keep[name], keep)
    assert json.loads((tmp_path / "tuned" / "result.json").read_text()) == result
    modes = {file.stat().st_mode for file in (tmp_path / "tuned").iterdir()}
    assert len(modes) == 1, "whoever can read the configuration can read the weights"


def test_merged_updates_compute_what_they_computed_while_they_were_trained() -> None:
    layer = nn.Linear(5, 4)
    keep = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        layer.weight.mul_(keep)
    start, x = layer.weight.detach().clone(), torch.randn(3, 5)
    with low_rank(nn.Sequential(layer), Mask({"0.weight": keep}), rank=2) as (update,):
        torch.testing.assert_close(layer.weight, start)
        update.up.data.normal_()
        expected = start + keep * (update.up @ update.down)
        inside = layer(x)
    torch.testing.assert_close(layer.weight, expected)
    torch.testing.assert_close(layer(x), inside)
    assert int((layer.weight == 0).sum()) == int((~keep).sum())
    assert isinstance(layer.weight, nn.Parameter)


def test_an_update_trains_two_small_matrices() -> None:
    update = LowRank(torch.ones(6, 10, dtype=torch.bool), 2, dtype=torch.float32)
    assert sum(p.numel() for p in update.parameters()) == 2 * (6 + 10)


def test_an_update_has_the_same_two_matrices_however_a_weight_is_stored() -> None:
    """Conv1D stores [inputs, outputs]; its A reads the inputs too, and its B begins at 0."""
    weight, keep = torch.randn(6, 10), torch.rand(6, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    made = []
    for first in (False, True):
        torch.manual_seed(3)
        made.append(
            LowRank(keep.t() if first else keep, 2, dtype=torch.float32, inputs_first=first),
        )
    plain, turned = made
    assert plain.down.shape == turned.down.shape == (2, 10)
    torch.testing.assert_close(turned.down, plain.down, rtol=0, atol=0)
    for one in made:
        one.up.data = torch.arange(12.0).view(6, 2)
    torch.testing.assert_close(turned(weight.t()).t(), plain(weight), rtol=0, atol=0)


def test_updates_of_conv1d_read_its_inputs() -> None:
    layer = Conv1D(4, 6)
    mask = Mask({"weight": torch.ones(6, 4, dtype=torch.bool)}, {"weight": Layout(inputs_first=True)})
    with low_rank(layer, mask, rank=2) as (update,):
        assert update.down.shape == (2, 6)
        assert update.up.shape == (4, 2)


def test_the_same_seed_gives_the_same_bits(pruned: Path, tmp_path: Path) -> None:
    asked = Tuning(**SMALL, lora=2)
    for name in ("one", "two"):
        tune(prepare_tuning(str(pruned), asked, tmp_path / "text.txt", None), tmp_path / name)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def _command(pruned: Path, text: Path, *more: str) -> Any:
    words = [
        "tune",
        str(pruned),
        "--data",
        str(text),
        "--steps",
        "2",
        "--batch",
        "1",
        "--length",
        "16",
        *more,
    ]
    return CliRunner().invoke(app, words)


def test_the_command_says_what_it_did(pruned: Path, tmp_path: Path) -> None:
    answer = _command(pruned, tmp_path / "text.txt", "--lora", "1", "--out", str(tmp_path / "new"), "--quiet")
    assert answer.exit_code == 0, answer.output
    said = " ".join(answer.output.split())
    assert "updates of rank 1" in said
    assert "weights of the pruned layers are 0" in said
    again = _command(pruned, tmp_path / "text.txt", "--out", str(tmp_path / "new"))
    assert again.exit_code == 2
    assert "exists already and is no unfinished tuning" in " ".join(again.output.split())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--lora", "0"), "rank of the updates"),
        (("--steps", "0"), "give 1 or more"),
        (("--lr", "-1"), "learning rate above 0"),
        (("--length", "5000"), "more than the 64 tokens"),
        (("--mask", "nowhere"), "nowhere"),
    ],
)
def test_bad_requests_are_refused(pruned: Path, tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    answer = _command(pruned, tmp_path / "text.txt", *more)
    assert answer.exit_code == 2, answer.output
    assert words in " ".join(answer.output.split())


def test_a_model_without_masks_or_with_those_of_another_is_refused(pruned: Path, tmp_path: Path) -> None:
    dense = tmp_path / "model"
    answer = _command(dense, tmp_path / "text.txt")
    assert answer.exit_code == 2
    assert "prune it with winticket lm prune" in " ".join(answer.output.split())
    other = write_model(tmp_path / "other", "qwen2", dtype=torch.float32)
    answer = _command(other, tmp_path / "text.txt", "--mask", str(pruned))
    assert answer.exit_code == 2
    assert "does not fit the model" in " ".join(answer.output.split())


@pytest.mark.parametrize("how", [{"lora": 1}, {"lota_rank": 1, "calibration_steps": 1}])
def test_perplexity_after_is_that_of_the_file(tmp_path: Path, how: dict[str, int]) -> None:
    """In bfloat16 a tiny rate changes no weight, so perplexity is the same to the bit: rotary frequencies, too."""
    folder = write_model(tmp_path / "model", "llama", dtype=torch.bfloat16)
    text = write_text(tmp_path / "text.txt")
    prune(prepare(str(folder), Request(method="magnitude", windows=0), text, None), tmp_path / "pruned")
    asked = Tuning(steps=1, batch=1, length=64, windows=4, lr=1e-30, **how)
    result = tune(prepare_tuning(str(tmp_path / "pruned"), asked, text, None), tmp_path / "tuned")
    assert all(
        torch.equal(one, weights(tmp_path / "pruned")[n]) for n, one in weights(tmp_path / "tuned").items()
    )
    assert result["perplexity"]["after"] == result["perplexity"]["before"]


def test_each_tensor_is_stored_in_its_own_dtype() -> None:
    """A model may have norms in float32 and matrices in float16, and frequencies that no file has."""
    model = nn.Sequential(nn.Linear(3, 3, dtype=torch.float16), nn.LayerNorm(3))
    model.register_buffer("frequencies", torch.tensor([1 / 3]), persistent=False)
    before = {name: one.detach().clone() for name, one in [*model.named_parameters(), *model.named_buffers()]}
    precision = Precision(model)
    precision.widen()
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    precision.store()
    for name, one in [*model.named_parameters(), *model.named_buffers()]:
        torch.testing.assert_close(one, before[name], rtol=0, atol=0)
