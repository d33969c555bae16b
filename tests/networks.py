"""Networks that a user might bring, named by import path as `networks:attention`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn


def convolutional(*, input_shape: Sequence[int], classes: int) -> nn.Module:
    """Convolutions with BatchNorm."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * ((height + 1) // 2) * ((width + 1) // 2), classes),
    )


class Attention(nn.Module):
    """The rows of an image as tokens: one layer of a transformer, and their mean into the classes."""

    def __init__(self, input_shape: Sequence[int], classes: int, width: int = 12) -> None:
        super().__init__()
        self.embed = nn.Linear(input_shape[-1], width)
        self.place = nn.Parameter(0.02 * torch.randn(prod(input_shape[:-1]), width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.flatten(1, -2)) + self.place
        q, k, v = self.qkv(self.norm1(h)).chunk(3, -1)
        h = h + self.out(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v)
        h = h + self.down(torch.relu(self.up(self.norm2(h))))
        logits: Tensor = self.head(h.mean(1))
        return logits


def attention(*, input_shape: Sequence[int], classes: int) -> nn.Module:
    """A small transformer."""
    return Attention(input_shape, classes)


class Recurrent(nn.Module):
    """The rows of an image through a GRU, whose last state are the logits: no Linear or Conv layer."""

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_shape[-1], classes, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.gru(x.flatten(1, -2))[0][:, -1]
        return logits


def recurrent(*, input_shape: Sequence[int], classes: int) -> nn.Module:
    """A network all of whose weights have to be included."""
    return Recurrent(input_shape, classes)
