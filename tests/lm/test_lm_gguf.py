"""A GGUF file is read, pruned and written as a folder that Transformers loads without GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from winticket.cli.language import app
from winticket.lm import Request, Tuning, loading, prepare, prepare_tuning, prune, read_masks, tune

gguf: Any = pytest.importorskip("gguf")
WIDTH, LETTERS = 32, "abcdefghijklmnop."
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def write_gguf(path: Path) -> None:
    """A Llama with two blocks and a byte-pair tokenizer of letters, tied as small models are."""
    file, draw = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    tokens = [*LETTERS, "Ġ", "ab", "cd", "<s>", "</s>"]
    for add, value in (
        ("context_length", 64),
        ("embedding_length", WIDTH),
        ("block_count", 2),
        ("feed_forward_length", WIDTH),
        ("head_count", 2),
        ("head_count_kv", 2),
        ("layer_norm_rms_eps", 1e-5),
        ("rope_dimension_count", WIDTH // 2),
        ("vocab_size", len(tokens)),
        ("tokenizer_model", "gpt2"),
        ("token_list", tokens),
        ("token_merges", ["a b", "c d"]),
        ("token_types", [1] * (len(tokens) - 2) + [3, 3]),
        ("bos_token_id", len(tokens) - 2),
        ("eos_token_id", len(tokens) - 1),
    ):
        getattr(file, f"add_{add}")(value)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for block in range(2):
        shapes |= {f"blk.{block}.{name}": (WIDTH, WIDTH) for name in MATRICES}
        shapes |= {f"blk.{block}.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        file.add_tensor(f"{name}.weight", draw.normal(size=shape).astype(np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_gguf_becomes_a_folder_of_safetensors(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    text = tmp_path / "text.txt"
    text.write_text("ab cd. deaf hopi. " * 40)
    asked = Request(method="wanda", samples=3, length=16, windows=3)
    prepared = prepare(str(tmp_path / "small.gguf"), asked, text, None)
    dense = loading.load(prepared.source).state_dict()
    result = prune(prepared, tmp_path / "out")
    assert (result["model"], result["kept"], result["total"]) == ("small.gguf", 7168, 14336)
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not hasattr(made.config, "quantization_config")
    masks, weights = read_masks(tmp_path / "out").keep, made.state_dict()
    assert weights.keys() == dense.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, dense[name] * masks[name] if name in masks else dense[name]), name
    words = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert words("ab cd.", add_special_tokens=False)["input_ids"] == [18, 17, 19, 16]
    assert words.decode([18, 17, 19, 16]) == "ab cd."


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_few_weights_of_gguf_are_tuned(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    text = tmp_path / "text.txt"
    text.write_text("ab cd. deaf hopi. " * 40)
    asked = Tuning(steps=2, batch=1, length=16, windows=2, lota=0.1, lr=0.01)
    prepared = prepare_tuning(str(tmp_path / "small.gguf"), asked, text, None)
    before = dict(loading.load(prepared.source).named_parameters())
    result = tune(prepared, tmp_path / "out")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not hasattr(made.config, "quantization_config")
    changed = sum(int((one != before[name]).sum()) for name, one in made.named_parameters())
    assert 0.9 * result["trained"] < changed <= result["trained"] == 1434
    answer = CliRunner().invoke(
        app,
        [
            "adapter",
            str(tmp_path / "out"),
            "--base",
            str(tmp_path / "small.gguf"),
            "--out",
            str(tmp_path / "adapter"),
        ],
    )
    assert answer.exit_code == 0, answer.output
