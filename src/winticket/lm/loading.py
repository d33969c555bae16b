"""Language models as folders in the layout of the Hugging Face Hub: reading them, and writing them as they are read."""

from __future__ import annotations

from winticket.causal import (
    INSTALL,
    Source,
    configuration,
    encoder,
    load,
    longest,
    saved,
    saved_beside,
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
