"""Plain text as a language model reads it: windows of its tokenizer's tokens; each token's class is the next token."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from winticket import causal
from winticket.data.content import Decoded
from winticket.data.text import SHARES, decoded_text, parted, read

LENGTH = 128
"""The default number of tokens in a window, if the model reads as many."""


def usual_length(folder: str) -> int:
    """The default number of tokens in a window for the model in a folder. Raises ValueError if there is none."""
    return min(LENGTH, causal.longest(causal.configuration(causal.local(folder))) or LENGTH)


def digest(file: Path, *, folder: str, length: int) -> str:
    """SHA-256 (hexadecimal) of a text's bytes, of the way it is cut, and of the files of the tokenizer in `folder`.

    Raises ValueError if there is no language model in the folder.
    """
    tokenizer = causal.tokenizer_digest(causal.local(folder))
    return hashlib.sha256(f"tokens {length} {SHARES} {tokenizer};".encode() + read(file)).hexdigest()


def decode(file: Path, *, folder: str, length: int) -> Decoded:
    """A text as three consecutive parts (training, validation, test), each cut into windows that do not overlap.

    x [N, length] are int64 tokens of the tokenizer in `folder`, without special ones, and y [N, length] those that
    follow them; parts are cut as those of characters (`winticket.data.text`). The vocabulary is that of the model in
    the folder. Raises ValueError if there is no language model, if the text is not UTF-8 or too short, or if the
    tokenizer makes tokens that the model does not know.
    """
    of = causal.local(folder)
    known = causal.vocabulary(causal.configuration(of))
    text = decoded_text(file)
    tokens = np.asarray(causal.encoder(causal.tokenizer(of))(text), dtype=np.int64)
    if len(tokens) and int(tokens.max()) >= known:
        raise ValueError(
            f"the tokenizer of {folder} makes the token {int(tokens.max())}, but the model knows {known}; they do not "
            "belong together"
        )
    return Decoded(
        parted(torch.from_numpy(tokens), length, what=f"{file}", units="tokens"),
        (),
        1.0,
        target="tokens",
        vocabulary=known,
    )
