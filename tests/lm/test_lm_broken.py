"""Models whose weights cannot be read or compute nothing finite end a command with a message, without a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lm.models import write_model, write_text
from winticket.cli import app
from winticket.lm import estimate
from winticket.lm.blocks import set_matrix
from winticket.lm.perplexity import losses

USUAL = ["--data", "text.txt", "--length", "8"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a text, in which the command is typed."""
    write_model(tmp_path / "model", dtype=torch.float32)
    write_text(tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*words: str, status: int = 1) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == status, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return " ".join(done.output.split())


def scaled(folder: Path, layer: str, factor: float, dtype: torch.dtype = torch.float32) -> None:
    """Multiply the weights whose names have `layer` in them, and store all in a dtype."""
    file = folder / "model.safetensors"
    tensors = {n: (t * factor if layer in n else t).to(dtype) for n, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    config = folder / "config.json"
    config.write_text(config.read_text().replace("float32", str(dtype).removeprefix("torch.")))


def test_a_file_of_weights_that_is_cut_off(root: Path) -> None:
    file = root / "model" / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    assert "Error: the weights of model cannot be read" in said("lm", "perplexity", "model", *USUAL)
    assert "Error: the weights of model cannot be read" in said(
        "lm", "prune", "model", *USUAL, "--out", "new"
    )


def test_numbers_that_are_too_large_for_float16(root: Path) -> None:
    scaled(root / "model", "layers.1.mlp", 300.0, torch.float16)
    for words in (("perplexity", "model"), ("prune", "model", "--out", "new")):
        message = said("lm", words[0], *words[1:], *USUAL)
        assert "what it computes is too large for float16" in message
    # Blocks are pruned in float32, where they are finite.
    more = ("--windows", "0", "--samples", "2", "--out", "other")
    assert "weights in the linear layers" in said("lm", "prune", "model", *USUAL, *more, status=0)


def test_weights_that_are_not_numbers_are_not_scored(root: Path) -> None:
    scaled(root / "model", "layers.1.mlp.down_proj", float("nan"))
    message = said("lm", "prune", "model", *USUAL, "--windows", "0", "--samples", "2", "--out", "new")
    assert "Error: weights of model.layers.1.mlp.down_proj are not finite" in message


def test_a_hessian_without_an_inverse_is_a_message(root: Path) -> None:
    more = (
        "--method",
        "sparsegpt",
        "--samples",
        "1",
        "--percdamp",
        "1e-30",
        "--windows",
        "0",
        "--out",
        "new",
    )
    assert "Error: the Hessian of a layer's inputs cannot be inverted" in said(
        "lm", "prune", "model", *USUAL, *more
    )


def test_a_perplexity_beyond_all_numbers() -> None:
    with pytest.raises(FloatingPointError, match=r"exp\(800\)"):
        estimate([800.0])
    with pytest.raises(FloatingPointError, match="larger than numbers are"):
        estimate([1.0, 700.0])


def test_a_loss_that_is_no_number() -> None:
    class Nothing(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            return type("Output", (), {"logits": torch.full((*input_ids.shape, 3), torch.nan)})

    with pytest.raises(FloatingPointError, match="loss of window 1 is nan"):
        losses(Nothing(), torch.zeros(2, 4, dtype=torch.long))


def test_weights_do_not_become_infinite() -> None:
    layer = torch.nn.Linear(2, 1, dtype=torch.float16)
    before = layer.weight.detach().clone()
    with pytest.raises(FloatingPointError, match="not be finite in float16"):
        set_matrix(layer, torch.tensor([[7e4, 1.0]]))
    torch.testing.assert_close(layer.weight.detach(), before, rtol=0, atol=0)


def test_ctrl_c_promises_nothing_where_nothing_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("winticket.causal.load", pressed)
    monkeypatch.setattr("winticket.lm.loading.load", pressed)
    assert said("lm", "perplexity", "model", *USUAL, status=130).endswith("Stopped; nothing was written")
    words = ("lm", "adapter", "model", "--base", "model", "--out", "new")
    assert said(*words, status=130).endswith("Stopped; nothing was written")
