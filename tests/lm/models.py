"""Tiny language models of several families, in folders as Transformers writes them, with a tokenizer of letters."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

LETTERS = "abcdefghijklmnop .\n"
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    ),
    "gpt2": GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=64),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    ),
    "qwen2": Qwen2Config(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    ),
}


def write_model(folder: Path, family: str = "llama", *, dtype: torch.dtype = torch.float64) -> Path:
    """A folder with a randomly initialised model and its tokenizer."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).to(dtype)
    for (
        parameter
    ) in model.parameters():  # larger than usual, so that blocks do more than pass on what they read
        if parameter.ndim > 1:
            parameter.data *= 10
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    words = Tokenizer(WordLevel({letter: at for at, letter in enumerate(LETTERS + "?")}, unk_token="?"))
    words.pre_tokenizer = Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(folder)


def write_text(path: Path, letters: int = 2000, *, seed: int = 0) -> Path:
    """Letters that follow each other by rule most of the time, so that there is something to predict."""
    generator = torch.Generator().manual_seed(seed)
    at, text = 0, []
    for jump in torch.rand(letters, generator=generator).tolist():
        at = int(jump * 1e6) % len(LETTERS) if jump < 0.2 else (at * 5 + 3) % 18
        text.append(LETTERS[at])
    path.write_text("".join(text))
    return path
