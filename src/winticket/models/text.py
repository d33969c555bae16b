"""A small transformer that reads text character by character."""

from __future__ import annotations

import math
import re
from typing import ClassVar

import torch
from torch import Tensor, nn

LAYERS, WIDTH = 2, 64
HEAD = 16
"""Width of an attention head."""


class Attention(nn.Module):
    """Causal self-attention: every position attends to itself and earlier ones. Vaswani et al. 2017, section 3.2.

    Queries, keys and values are three Linear layers, so that each is a layer to be pruned. The arithmetic uses plain
    operators, so it stacks and can be differentiated twice (GraSP).
    """

    prunable_structures: ClassVar = {
        "heads": {"count": "heads", "units": ("query", "key", "value"), "inputs": ("out",)}
    }

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.head_width = width // self.heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] -> [N, T, width]."""
        count, length, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(count, length, self.heads, -1).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        attention = query @ key.transpose(-2, -1) / math.sqrt(self.head_width)
        position = torch.arange(length, device=x.device)
        later = position > position.unsqueeze(1)
        attention = torch.softmax(attention.masked_fill(later, -math.inf), -1)
        out: Tensor = self.out((attention @ value).transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention, then two Linear layers with a GELU; each follows a LayerNorm and is added to its input."""

    prunable_structures: ClassVar = {"neurons": {"units": ("up",), "inputs": ("down",)}}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] -> [N, T, width]."""
        x = x + self.attention(self.norm1(x))
        added: Tensor = self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return x + added


class CharGpt(nn.Module):
    """A GPT of a few layers: predicts the next character at every position from the characters up to it.

    Radford et al. 2019 (GPT-2: LayerNorm before each part and at the end, learnt positions), without dropout. The head
    is a separate Linear layer, not tied to the embedding, so it is eligible; embeddings are not.
    """

    def __init__(self, length: int, characters: int, *, layers: int = LAYERS, width: int = WIDTH) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*[Layer(width) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, T], T at most `length` -> logits [N, T, characters]."""
        positions = torch.arange(x.shape[-1], device=x.device)
        h = self.layers(self.embed(x) + self.place(positions))
        logits: Tensor = self.head(self.norm(h))
        return logits


def parse(name: str) -> tuple[int, int, int | None] | None:
    """(layers, width, context) of "chargpt", "chargpt-4-128" or "chargpt-4-128-256"; None for any other name.

    The context is None if the data decide it. Raises ValueError for a width that does not split into attention heads.
    """
    if name == "chargpt":
        return LAYERS, WIDTH, None
    match = re.fullmatch(r"chargpt-([1-9][0-9]?)-([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?", name, re.ASCII)
    if match is None:
        return None
    layers, width = int(match[1]), int(match[2])
    if width > HEAD and width % HEAD:
        raise ValueError(
            f"{name}: attention heads are {HEAD} wide, so give a width that is a multiple of {HEAD}"
        )
    return layers, width, int(match[3]) if match[3] else None


def chargpt(name: str, length: int, characters: int) -> nn.Module:
    """The transformer of a name that `parse` accepts."""
    parsed = parse(name)
    assert parsed is not None
    return CharGpt(length, characters, layers=parsed[0], width=parsed[1])
