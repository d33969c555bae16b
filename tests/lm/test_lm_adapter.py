"""Adapters for PEFT: what it loads computes what the tuned model computes, and what it cannot express is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from lm.models import write_model, write_text
from winticket.cli.language import app
from winticket.lm import Request, Tuning, prepare, prepare_tuning, prune, tune
from winticket.lm.adapter import difference, rank_of

pytestmark = [  # of PEFT's own calls
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
]
SMALL: dict[str, Any] = {"steps": 6, "batch": 2, "length": 16, "windows": 2, "lr": 0.03}


def tuned(folder: Path, name: str, *, base: str = "model", **options: Any) -> Path:
    """A tuned model beside its base."""
    text = write_text(folder / "text.txt")
    if not (folder / "model").is_dir():
        write_model(folder / "model", dtype=options.pop("dtype", torch.float32))
    prepared = prepare_tuning(str(folder / base), Tuning(**SMALL, **options), text, None)
    tune(prepared, folder / name)
    return folder / name


def answer(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["adapter", *map(str, words)])
    assert done.exit_code == status, done.output
    return " ".join((done.stderr if status else done.stdout).split())


def logits(folder: Path, adapter: Path | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The outputs of a model, with an adapter by PEFT if there is one."""
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, str(adapter))
    with torch.no_grad():
        got: torch.Tensor = model.eval()(input_ids=torch.arange(16)[None]).logits
    return got


@pytest.mark.parametrize("options", [{"lota_rank": 2}, {"lota": 0.1}], ids=["rank", "density"])
def test_peft_computes_what_the_tuned_model_computes(options: dict[str, Any], tmp_path: Path) -> None:
    folder = tuned(tmp_path, "tuned", **options)
    said = answer(folder, "--base", tmp_path / "model", "--out", tmp_path / "adapter")
    assert "Wrote" in said
    assert ("of them are 0" in said) == ("lota" in options)
    one, two = logits(folder), logits(tmp_path / "model", tmp_path / "adapter")
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
    assert float((one - logits(tmp_path / "model")).abs().max()) > 0.01


def test_the_files_are_those_that_peft_writes(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    folder = tuned(tmp_path, "tuned", lota_rank=2)
    answer(folder, "--base", tmp_path / "model", "--out", tmp_path / "adapter")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.ShiraConfig(r=2, target_modules=layers, task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / one / "adapter_model.safetensors") for one in ("adapter", "theirs"))
    described = [{name: (t.dtype, tuple(t.shape)) for name, t in one.items()} for one in (ours, theirs)]
    assert described[0] == described[1]
    a, b = (json.loads((tmp_path / one / "adapter_config.json").read_text()) for one in ("adapter", "theirs"))
    assert a.keys() <= b.keys()
    differing = {name for name in a if a[name] != b[name]}
    assert differing <= {"target_modules", "base_model_name_or_path"}


def test_an_adapter_of_a_pruned_model_leaves_its_zeros(tmp_path: Path) -> None:
    write_model(tmp_path / "model", dtype=torch.float32)
    asked = Request(method="magnitude", density=0.5, length=16, windows=0)
    prune(
        prepare(str(tmp_path / "model"), asked, write_text(tmp_path / "text.txt"), None), tmp_path / "pruned"
    )
    folder = tuned(tmp_path, "tuned", base="pruned", lota=0.2)
    answer(folder, "--base", tmp_path / "pruned", "--out", tmp_path / "adapter")
    one, two = logits(folder), logits(tmp_path / "pruned", tmp_path / "adapter")
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_bfloat16_is_exact_to_its_rounding(tmp_path: Path) -> None:
    folder = tuned(tmp_path, "tuned", lota_rank=1, dtype=torch.bfloat16)
    answer(folder, "--base", tmp_path / "model", "--out", tmp_path / "adapter")
    one, two = logits(folder), logits(tmp_path / "model", tmp_path / "adapter")
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)  # computed in float32


def test_what_shira_cannot_express_is_refused(tmp_path: Path) -> None:
    folder = tuned(tmp_path, "tuned", lota=1.0)
    said = answer(folder, "--base", tmp_path / "model", "--out", tmp_path / "adapter", status=2)
    assert "PEFT's SHiRA then has" in said
    assert "values for model.layers.0.self_attn.q_proj.weight, of 256" in said
    write_text(tmp_path / "text.txt")
    asked = Request(method="magnitude", density=0.9, length=16, windows=0)
    prune(prepare(str(tmp_path / "model"), asked, tmp_path / "text.txt", None), tmp_path / "pruned")
    all_weights = tuned(tmp_path, "all", base="pruned")
    said = answer(all_weights, "--base", tmp_path / "pruned", "--out", tmp_path / "adapter", status=2)
    assert "PEFT's SHiRA adapts the weights of torch.nn.Linear alone" in said
    assert "model.embed_tokens.weight, which is of a Embedding" in said
    said = answer(tmp_path / "model", "--base", tmp_path / "model", "--out", tmp_path / "adapter", status=2)
    assert "there is nothing to adapt" in said
    assert not (tmp_path / "adapter").exists()


def test_layers_of_gpt2_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "gpt2", dtype=torch.float32)
    folder = tuned(tmp_path, "tuned", lota=0.1)
    said = answer(folder, "--base", tmp_path / "model", "--out", tmp_path / "adapter", status=2)
    assert "which is of a Conv1D" in said


def test_other_models_and_folders_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_model(tmp_path / "other", "qwen2")
    assert "is no tuned" in answer(tmp_path / "other", "--base", tmp_path / "model", status=2)
    assert "there is no model at" in answer(tmp_path / "none", "--base", tmp_path / "model", status=2)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes").write_text("mine")
    words = [tmp_path / "model", "--base", tmp_path / "model", "--out", tmp_path / "taken"]
    assert "is there already" in answer(*words, status=2)


def test_positions_are_filled_up_with_zeros() -> None:
    start = torch.arange(12.0).view(3, 4)
    end = start.clone()
    end[1, 2] += 0.5
    at, values = difference(start, end, count=7)
    assert at.dtype == torch.int32
    assert at.shape == (2, 7)
    assert len({tuple(one) for one in at.t().tolist()}) == 7
    assert torch.equal(torch.sparse_coo_tensor(at, values, (3, 4)).to_dense(), end - start)
    assert rank_of({"a": 1}, {"a": (3, 4)}) == 1
    with pytest.raises(ValueError, match="takes r = 2; PEFT's SHiRA then has 14 values for a, of 12"):
        rank_of({"a": 8}, {"a": (3, 4)})
