"""Deep convolutional networks for small images: VGG and ResNet, with BatchNorm."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

VGG = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Layers -> convolutions in each of five blocks. Simonyan & Zisserman 2015, table 1, A, B, D and E."""

DEEPEST = 1202
"""Layers of the deepest ResNet in the paper (He et al. 2016, table 6)."""


class Vgg(nn.Module):
    """VGG for small images, as in lottery-ticket papers: with BatchNorm, and one linear layer at the end.

    It has five blocks of 3x3 convolutions with 64, 128, 256, 512 and 512 filters (`width` times 1, 2, 4, 8 and 8).
    Max-pooling after each block but the last halves the image; the mean over the remaining pixels follows. Liu et al.
    2019 (Rethinking the Value of Network Pruning); OpenLTH's cifar_vgg. The convolutions have no bias, because the
    BatchNorm after them would undo it.
    """

    def __init__(self, channels: int, classes: int, *, blocks: Sequence[int], width: int = 64) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        number = 0
        for block, (count, factor) in enumerate(zip(blocks, (1, 2, 4, 8, 8), strict=True), 1):
            for _ in range(count):
                number += 1
                layers[f"conv{number}"] = nn.Conv2d(channels, factor * width, 3, padding=1, bias=False)
                layers[f"bn{number}"] = nn.BatchNorm2d(factor * width)
                layers[f"relu{number}"] = nn.ReLU()
                channels = factor * width
            if block < len(blocks):
                layers[f"pool{block}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> logits [N, classes]."""
        logits: Tensor = self.fc(self.features(x).mean((-2, -1)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut around them; if the width changes, it is a 1x1 convolution of stride 2."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        stride = 1 if channels == filters else 2
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if channels != filters:
            self.shortcut.add_module("conv", nn.Conv2d(channels, filters, 1, stride=stride, bias=False))
            self.shortcut.add_module("bn", nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, filters, H/stride, W/stride]."""
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResNet(nn.Module):
    """He et al. 2016, section 4.2: a convolution, three stages of `blocks` blocks, a mean over pixels, a linear layer.

    The stages have 16, 32 and 64 filters (`width` times 1, 2 and 4); the second and third each halve the image. If the
    size changes, the shortcut is a 1x1 convolution with BatchNorm (their option B), as in OpenLTH's cifar_resnet, and
    its weights are eligible. The paper's CIFAR networks copy and pad with zeros instead (option A), which saves 2 752
    parameters.
    """

    def __init__(self, channels: int, classes: int, *, blocks: int, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        sizes = [width * 2**stage for stage in range(3) for _ in range(blocks)]
        before = [width, *sizes[:-1]]
        self.blocks = nn.Sequential(*[Block(a, b) for a, b in zip(before, sizes, strict=True)])
        self.fc = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> logits [N, classes]."""
        h = self.blocks(torch.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(h.mean((-2, -1)))
        return logits


def parse(name: str) -> tuple[str, int, int] | None:
    """(family, layers, width) of "vgg-16" or, with its width, "resnet-20-32"; None for any other kind of name."""
    match = re.fullmatch(r"(vgg|resnet)-([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?", name, re.ASCII)
    if match is None:
        return None
    family, layers = match[1], int(match[2])
    exists = layers in VGG if family == "vgg" else layers % 6 == 2 and 8 <= layers <= DEEPEST
    return (family, layers, int(match[3] or (64 if family == "vgg" else 16))) if exists else None


def deep(name: str, input_shape: Sequence[int], classes: int) -> nn.Module:
    """The VGG or ResNet of a name that `parse` accepts."""
    parsed = parse(name)
    assert parsed is not None
    family, layers, width = parsed
    if family == "vgg":
        return Vgg(input_shape[0], classes, blocks=VGG[layers], width=width)
    return ResNet(input_shape[0], classes, blocks=(layers - 2) // 6, width=width)


def check_images(name: str, input_shape: Sequence[int], *, halved: int) -> None:
    """Raise ValueError unless examples are images that can be halved `halved` times."""
    if len(input_shape) != 3:
        raise ValueError(
            f"{name} needs images [channels, height, width], but the examples have shape "
            f"{tuple(input_shape)}; lenet-300-100 takes any shape"
        )
    smallest = 2**halved
    if min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{name} halves its images {halved} times, so they must be at least "
            f"{smallest}x{smallest}; these are {input_shape[1]}x{input_shape[2]}"
        )
