"""Networks that give an answer at each position of an image: plain convolutions, without pooling."""

from __future__ import annotations

import re
from collections import OrderedDict

from torch import nn


def widths(name: str) -> tuple[int, ...] | None:
    """(32, 32) of "fcn-32-32"; None for any other kind of name.

    >>> widths("fcn-32-16"), widths("lenet-20")
    ((32, 16), None)
    """
    if re.fullmatch(r"fcn(-[1-9][0-9]*)+", name, re.ASCII) is None:
        return None
    return tuple(int(width) for width in name.split("-")[1:])


def fcn(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fully convolutional network (Long et al. 2015) in its simplest form, which keeps the size of the image.

    One 3x3 convolution with a ReLU per width, then a 1x1 convolution: [N, C, H, W] -> logits [N, classes, H, W].
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, filters = input_shape[0], widths(name)
    assert filters is not None
    for number, width in enumerate(filters, 1):
        layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        channels = width
    layers["head"] = nn.Conv2d(channels, classes, 1)
    return nn.Sequential(layers)
