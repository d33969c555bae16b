"""Text as a language model reads it: windows of its tokenizer's tokens; each token's class is the next token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from winticket import causal
from winticket.data.content import Decoded, Split
from winticket.data.text import SHARES, decoded_text, parted, read, windows
from winticket.documents import FILES, LINES, read_documents

LENGTH = 128
"""The default number of tokens in a window, if the model reads as many."""


def usual_length(folder: str) -> int:
    """The default number of tokens in a window for the model in a folder. Raises ValueError if there is none."""
    return min(LENGTH, causal.longest(causal.configuration(causal.local(folder))) or LENGTH)


def several(path: Path) -> bool:
    """Whether the text at a path is one of documents: a .jsonl file, or a folder with several .txt files."""
    return path.suffix == LINES if path.is_file() else len([*path.rglob(FILES)]) > 1


def digest(file: Path, *, folder: str, length: int) -> str:
    """SHA-256 (hexadecimal) of a text's bytes, of the way it is cut, and of the files of the tokenizer in `folder`.

    Raises ValueError if there is no language model in the folder, or no text.
    """
    tokenizer = causal.tokenizer_digest(causal.local(folder))
    if several(file):
        total = hashlib.sha256(f"documents {length} {SHARES} {tokenizer};".encode())
        for document in read_documents(file):
            content = document.encode()
            total.update(f"{len(content)} ".encode() + content)
        return total.hexdigest()
    return hashlib.sha256(f"tokens {length} {SHARES} {tokenizer};".encode() + read(file)).hexdigest()


def decode(file: Path, *, folder: str, length: int) -> Decoded:
    """A text as three consecutive parts (training, validation, test), each cut into windows that do not overlap.

    x [N, length] are int64 tokens of the tokenizer in `folder`, without special ones, and y [N, length] those that
    follow them; parts are cut as those of characters (`winticket.data.text`). The vocabulary is that of the model in
    the folder. Of several documents, whole ones go to each part (`parted_documents`). Raises ValueError if there is no
    language model, if the text is not UTF-8 or too short, or if the tokenizer makes tokens that the model does not
    know.
    """
    of = causal.local(folder)
    known = causal.vocabulary(causal.configuration(of))
    encode = causal.encoder(causal.tokenizer(of))
    many = several(file)
    documents = [
        torch.from_numpy(np.asarray(encode(text), dtype=np.int64))
        for text in (read_documents(file) if many else [decoded_text(file)])
    ]
    largest = max((int(tokens.max()) for tokens in documents if len(tokens)), default=0)
    if largest >= known:
        raise ValueError(
            f"the tokenizer of {folder} makes the token {largest}, but the model knows {known}; they do not belong "
            "together"
        )
    splits = (
        parted_documents(documents, length, what=f"{file}")
        if many
        else parted(documents[0], length, what=f"{file}", units="tokens")
    )
    return Decoded(splits, (), 1.0, target="tokens", vocabulary=known)


def parted_documents(documents: Sequence[Tensor], length: int, *, what: str) -> dict[str, Split]:
    """Documents, int64 [tokens] each, as training, validation and test parts of windows of `length` tokens.

    In their order, whole documents go to a part, so that the parts have as nearly as possible the shares of one text,
    and at least one document each. Windows of validation and test lie within one document; training documents follow
    one another. Raises ValueError, which calls the text `what`, for fewer than three documents, or if a part would have
    no window.

    >>> documents = [torch.arange(7), torch.arange(10, 13), torch.arange(20, 25)]
    >>> {name: part.x.tolist() for name, part in parted_documents(documents, 2, what="a text").items()}
    {'train': [[0, 1], [2, 3], [4, 5]], 'validation': [[10, 11]], 'test': [[20, 21], [22, 23]]}
    """
    count = len(documents)
    if count < 3:
        raise ValueError(
            f"{what} has {count} documents, and a search needs three or more: for training, validation and testing, of "
            "which none is cut"
        )
    ends = np.cumsum([len(one) for one in documents])
    shares = ends / max(int(ends[-1]), 1)
    test = 1 + int(np.abs(shares[1 : count - 1] - (1 - SHARES["test"])).argmin()) + 1
    first = 1 + int(np.abs(shares[: test - 1] - (1 - SHARES["test"] - SHARES["validation"])).argmin())
    parts = {"train": documents[:first], "validation": documents[first:test], "test": documents[test:]}
    splits = {}
    for name, some in parts.items():
        pieces = [windows(one, length) for one in ([torch.cat([*some])] if name == "train" else some)]
        splits[name] = Split(torch.cat([one.x for one in pieces]), torch.cat([one.y for one in pieces]))
        if not len(splits[name].x):
            most = max(sum(map(len, some)) if name == "train" else max(map(len, some)), 0)
            raise ValueError(
                f"{what}: the documents for {name} have {most} tokens at most, fewer than a window of {length} and the "
                "token after it; give longer ones, or a smaller window"
            )
    return splits
