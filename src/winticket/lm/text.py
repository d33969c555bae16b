"""Text for calibration and evaluation: the tokens of documents, and windows of equal length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

HELD_OUT = 0.2
"""Share of the text, at its end, that is kept for evaluation if no other text is given."""


class Tokens(NamedTuple):
    """The tokens of a text. ids: int64 [tokens], document after document; lengths: the tokens of each document."""

    ids: Tensor
    lengths: tuple[int, ...]


class Windows(NamedTuple):
    """Windows of a text. ids: int64 [windows, length]; documents: the number of the document that each is from."""

    ids: Tensor
    documents: tuple[int, ...]


def tokens_of(documents: Sequence[str], encode: Callable[[str], Sequence[int]]) -> Tokens:
    """The tokens of documents. `encode` must add no special tokens.

    >>> tokens_of(["ab", "ca"], lambda text: [ord(letter) - 97 for letter in text])
    Tokens(ids=tensor([0, 1, 2, 0]), lengths=(2, 2))
    """
    parts = [torch.tensor(encode(document), dtype=torch.long) for document in documents]
    return Tokens(torch.cat(parts), tuple(map(len, parts)))


def parted(tokens: Tokens, share: float = HELD_OUT) -> tuple[Tokens, Tokens]:
    """The tokens for calibration, and those at the end that are held out for evaluation.

    Several documents are held out whole: as many at the end as have `share` of the tokens, and never all of them.

    >>> [one.lengths for one in parted(Tokens(torch.arange(10), (10,)))]
    [(8,), (2,)]
    >>> [one.lengths for one in parted(Tokens(torch.arange(10), (5, 4, 1)))]
    [(5,), (4, 1)]
    """
    whole = tokens.ids.numel()
    cut = whole - int(share * whole)
    if len(tokens.lengths) == 1:
        return Tokens(tokens.ids[:cut], (cut,)), Tokens(tokens.ids[cut:], (whole - cut,))
    ends = list(accumulate(tokens.lengths))
    first = max(1, sum(end <= cut for end in ends))
    cut = ends[first - 1]
    return (
        Tokens(tokens.ids[:cut], tokens.lengths[:first]),
        Tokens(tokens.ids[cut:], tokens.lengths[first:]),
    )


def drawn_windows(tokens: Tokens, *, samples: int, length: int, seed: int, what: str = "the text") -> Tensor:
    """Windows that begin at random tokens: int64 [samples, length].

    Windows may overlap and run from one document into the next, as those of the authors of SparseGPT and Wanda do on
    WikiText-2; on C4 theirs lie within documents.
    Raises ValueError, naming the text by `what`, if there are fewer tokens than one window has.

    >>> drawn_windows(Tokens(torch.arange(9), (9,)), samples=2, length=3, seed=0).shape
    torch.Size([2, 3])
    """
    ids = tokens.ids
    if ids.numel() < length:
        raise ValueError(_too_short(what, ids.numel(), length))
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(ids.numel() - length + 1, (samples,), generator=generator)
    return torch.stack([ids[start : start + length] for start in starts.tolist()])


def even_windows(tokens: Tokens, *, most: int, length: int, what: str = "the text") -> Windows:
    """At most `most` windows that do not overlap, spread evenly over the text; each lies within one document.

    Raises ValueError, naming the text by `what`, if no document has as many tokens as a window.

    >>> even_windows(Tokens(torch.arange(9), (9,)), most=2, length=2).ids.tolist()
    [[0, 1], [4, 5]]
    >>> even_windows(Tokens(torch.arange(9), (3, 1, 5)), most=9, length=2)
    Windows(ids=tensor([[0, 1],
            [4, 5],
            [6, 7]]), documents=(0, 2, 2))
    """
    ends = list(accumulate(tokens.lengths))
    possible = [
        (number, end - size + at * length)
        for number, (end, size) in enumerate(zip(ends, tokens.lengths, strict=True))
        for at in range(size // length)
    ]
    if not possible:
        raise ValueError(
            _too_short(what, max(tokens.lengths, default=0), length, documents=len(tokens.lengths))
        )
    count = min(most, len(possible))
    chosen = [possible[number * len(possible) // count] for number in range(count)]
    ids = torch.stack([tokens.ids[start : start + length] for _, start in chosen])
    return Windows(ids, tuple(number for number, _ in chosen))


def _too_short(what: str, tokens: int, length: int, *, documents: int = 1) -> str:
    which = what if documents < 2 else f"the longest document of {what}"
    return f"{which} has {tokens} tokens, fewer than one window of {length}; give a longer text or a smaller --length"
