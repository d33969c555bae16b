"""LeNet, Conv-2/4/6, convolutions over signals, and the network of MNIST-1D: layers in sequence, no normalisation."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SIGNAL_WIDTH = 128
"""Width of the hidden Linear layer behind the convolutions of a conv1d network."""
CONV_WIDTHS = {"conv-2": (64,), "conv-4": (64, 128), "conv-6": (64, 128, 256)}


class Mlp1d(nn.Module):
    """Greydanus 2020 (MNIST-1D, the lottery-ticket study): two hidden layers, the second one residual."""

    def __init__(self, inputs: int, classes: int, *, hidden: int = 500) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, *input_shape] -> logits [N, classes]."""
        h = torch.relu(self.fc1(x.flatten(1)))
        h = h + torch.relu(self.fc2(h))
        logits: Tensor = self.fc3(h)
        return logits


def lenet_widths(name: str) -> tuple[int, ...] | None:
    """(300, 100) of "lenet-300-100"; None for any other kind of name."""
    if re.fullmatch(r"lenet(-[1-9][0-9]*)+", name, re.ASCII) is None:
        return None
    return tuple(int(width) for width in name.split("-")[1:])


def conv1d_widths(name: str) -> tuple[int, ...] | None:
    """(32, 64) of "conv1d-32-64"; None for any other kind of name."""
    if re.fullmatch(r"conv1d(-[1-9][0-9]*)+", name, re.ASCII) is None:
        return None
    return tuple(int(width) for width in name.split("-")[1:])


def check_signals(name: str, input_shape: Sequence[int], *, blocks: int) -> None:
    """Raise ValueError unless examples are signals [channels, length] that can be halved `blocks` times."""
    if len(input_shape) != 2:
        raise ValueError(
            f"{name} needs signals [channels, length], but the examples have shape {tuple(input_shape)}; use "
            "lenet-300-100 "
            "for tables and conv-2 for images"
        )
    if input_shape[1] < 2**blocks:
        raise ValueError(
            f"{name} halves signals {blocks} times, but these have {input_shape[1]} points; give fewer widths, or "
            f"signals of at least {2**blocks} points"
        )


def plain(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of this module with that name."""
    if name == "mlp1d":
        return Mlp1d(math.prod(input_shape), classes)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    widths = (256, 256) if name in CONV_WIDTHS else lenet_widths(name)
    signals = conv1d_widths(name)
    widths = (SIGNAL_WIDTH,) if signals else widths
    assert widths is not None
    inputs = math.prod(input_shape)
    if signals:
        inputs = _add_signal_convolutions(layers, signals, input_shape)
    if name in CONV_WIDTHS:
        inputs = _add_convolutions(layers, CONV_WIDTHS[name], input_shape)
    layers["flatten"] = nn.Flatten()
    for number, (fan_in, fan_out) in enumerate(zip((inputs, *widths), (*widths, classes), strict=True), 1):
        layers[f"fc{number}"] = nn.Linear(fan_in, fan_out)
        if number <= len(widths):
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def _add_signal_convolutions(
    layers: OrderedDict[str, nn.Module], widths: tuple[int, ...], input_shape: tuple[int, ...]
) -> int:
    """Add a convolution over 5 points and a max-pool over 2 per width; return the number of features behind them."""
    channels, length = input_shape
    for block, filters in enumerate(widths, 1):
        layers[f"conv{block}"] = nn.Conv1d(channels, filters, 5, padding=2)
        layers[f"conv{block}_relu"] = nn.ReLU()
        layers[f"pool{block}"] = nn.MaxPool1d(2)
        channels, length = filters, length // 2
    return channels * length


def _add_convolutions(
    layers: OrderedDict[str, nn.Module], widths: tuple[int, ...], input_shape: tuple[int, ...]
) -> int:
    """Add two 3x3 convolutions and a 2x2 max-pool per width; return the number of features that they output."""
    channels, height, width = input_shape
    for block, filters in enumerate(widths, 1):
        for number in (2 * block - 1, 2 * block):
            layers[f"conv{number}"] = nn.Conv2d(channels, filters, 3, padding=1)
            layers[f"conv{number}_relu"] = nn.ReLU()
            channels = filters
        layers[f"pool{block}"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    return channels * height * width
