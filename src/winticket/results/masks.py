"""What masks look like: the network's layers, what every level keeps of them, and of the weights of every input."""

from __future__ import annotations

from typing import TypedDict

from winticket.results.measures import Fraction


class Layer(TypedDict):
    """A weight that may be pruned."""

    name: str
    """Name of the parameter."""
    shape: list[int]
    """Its shape."""
    size: int
    """Number of its weights."""


class Network(TypedDict):
    """The network, as far as its size goes."""

    parameters: int
    """All parameters, pruned or not."""
    eligible: int
    """Weights that may be pruned."""
    layers: list[Layer]
    """The parameters that these are in."""
    kept: list[int]
    """Eligible weights kept at levels 0, 1, ..."""


class InputPlane(TypedDict):
    """The layer whose inputs are the examples themselves, value by value."""

    layer: str
    """Name of its weight."""
    shape: list[int]
    """Shape of an example: channels, rows, columns; or channels and positions."""
    units: int
    """Units of the layer, so weights of each input."""


class MaskLevel(TypedDict):
    """The tickets of one level; means over replicates."""

    density: Fraction
    """Share of the eligible weights kept."""
    replicates: int
    """Replicates that finished."""
    layers: dict[str, float]
    """By layer, weights kept."""
    inputs: list[float] | None
    """By input, weights kept, in the order of a flattened example; null without an input plane."""


class Masks(TypedDict):
    """masks.json: what the tickets of every level keep."""

    network: Network
    """The network."""
    plane: InputPlane | None
    """The layer that reads examples directly; null if there is none, as in a network that begins with a convolution."""
    levels: list[MaskLevel]
    """Every pruned level of which a ticket finished, from the densest down."""
