"""Language models as folders in the layout of the Hugging Face Hub: reading them, and writing them as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from winticket.causal import (
    INSTALL,
    Source,
    configuration,
    encoder,
    load,
    longest,
    quiet,
    skeleton,
    source,
    tokenizer,
    transformers,
)

__all__ = [
    "INSTALL",
    "Source",
    "configuration",
    "encoder",
    "load",
    "longest",
    "saved",
    "saved_beside",
    "skeleton",
    "source",
    "tokenizer",
    "transformers",
]


def saved(folder: Path, model: nn.Module) -> None:
    """Write a model's weights into a folder, as `from_pretrained` reads them."""
    whole: Any = model
    with quiet(transformers()):
        whole.save_pretrained(folder)
    mode = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)  # safetensors makes files that only their owner can read


def saved_beside(folder: Path, model: nn.Module, words: Any) -> None:
    """Write configuration, generation settings and tokenizer into the folder of a model's weights."""
    config: Any = model.config
    if getattr(config, "quantization_config", None) is not None:  # weights from GGUF are no longer quantized
        del config.quantization_config
    with quiet(transformers()):
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        words.save_pretrained(folder)
        generation: Any = getattr(model, "generation_config", None)
        if generation is not None:
            generation.save_pretrained(folder)
