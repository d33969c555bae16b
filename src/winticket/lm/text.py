"""Text for calibration and evaluation: files, their tokens, and windows of equal length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from winticket.outside import Unreadable, read_file

LONGEST = 1 << 30
"""Most bytes of a text that is read."""
HELD_OUT = 0.2
"""Share of the text, at its end, that is kept for evaluation if no other text is given."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises ValueError if it cannot be read, is no UTF-8, or is blank.

    >>> read_text(Path(__file__)).splitlines()[2]
    'from __future__ import annotations'
    """
    try:
        text = read_file(path, limit=LONGEST).decode()
    except FileNotFoundError:
        raise ValueError(f"there is no text file at {path}") from None
    except OSError as error:
        raise ValueError(f"the text {path} cannot be read: {error.strerror}") from error
    except Unreadable as error:
        raise ValueError(f"the text {path} is {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error
    if not text.strip():
        raise ValueError(f"the text {path} is blank")
    return text


def token_ids(text: str, encode: Callable[[str], Sequence[int]]) -> Tensor:
    """The text's tokens: int64 [tokens]. `encode` must add no special tokens.

    >>> token_ids("abca", lambda text: [ord(letter) - 97 for letter in text]).tolist()
    [0, 1, 2, 0]
    """
    return torch.tensor(encode(text), dtype=torch.long)


def parted(tokens: Tensor, share: float = HELD_OUT) -> tuple[Tensor, Tensor]:
    """The tokens for calibration, and those at the end that are held out for evaluation.

    >>> [len(part) for part in parted(torch.arange(10))]
    [8, 2]
    """
    cut = tokens.numel() - int(share * tokens.numel())
    return tokens[:cut], tokens[cut:]


def drawn_windows(tokens: Tensor, *, samples: int, length: int, seed: int, what: str = "the text") -> Tensor:
    """Windows that begin at random tokens: int64 [samples, length].

    Windows may overlap, as those of the authors of SparseGPT and Wanda do. Raises ValueError, naming the text by
    `what`, if there are fewer tokens than one window has.

    >>> drawn_windows(torch.arange(9), samples=2, length=3, seed=0).shape
    torch.Size([2, 3])
    """
    _enough(tokens, length, what)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(tokens.numel() - length + 1, (samples,), generator=generator)
    return torch.stack([tokens[start : start + length] for start in starts.tolist()])


def even_windows(tokens: Tensor, *, most: int, length: int, what: str = "the text") -> Tensor:
    """At most `most` windows that do not overlap, spread evenly over the text: int64 [windows, length].

    Raises ValueError, naming the text by `what`, if there are fewer tokens than one window has.

    >>> even_windows(torch.arange(9), most=2, length=2).tolist()
    [[0, 1], [4, 5]]
    """
    _enough(tokens, length, what)
    possible = tokens.numel() // length
    count = min(most, possible)
    starts = [number * possible // count * length for number in range(count)]
    return torch.stack([tokens[start : start + length] for start in starts])


def _enough(tokens: Tensor, length: int, what: str) -> None:
    if tokens.numel() < length:
        raise ValueError(
            f"{what} has {tokens.numel()} tokens, fewer than one window of {length}; give a longer text or a smaller "
            "--length"
        )
