"""The nodes and tensors of an ONNX file while it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.ship.network import INPUT, Floats, Network, Operation, Positions, Weight
from winticket.text import visible

OUTPUT = "output"


def package() -> Any:
    """The package onnx. Raises ModuleNotFoundError, which says how to install it, without it."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX files are written with the package onnx, and {error.name} is not installed: "
            "pip install 'winticket[ship]'",
            name=error.name,
        ) from error
    return onnx


class Graph:
    """Collects nodes and tensors.

    values  by value of the network, its name in the graph
    read    by name of a weight, the inputs that are read
    """

    def __init__(self, network: Network, read: Mapping[str, Positions]) -> None:
        self.network, self.read = network, read
        self.values = {INPUT: INPUT}
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._onnx = package()
        self._names = {INPUT, OUTPUT}
        self._made: dict[object, str] = {}

    def name(self, wanted: str) -> str:
        """The name, or a similar one if it is taken or empty; tensors and values share their names."""
        wanted = wanted or "tensor"
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}#{number}"
        self._names.add(name)
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds a node; its output, which gets a name if it has none."""
        output = output or self.name(kind.lower())
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, key: object, name: str, make: Callable[[], npt.NDArray[Any]]) -> str:
        """The name of a tensor, which is made if none has that key yet."""
        if key not in self._made:
            self._made[key] = self.name(name)
            self.tensors.append(
                self._onnx.numpy_helper.from_array(np.asarray(make(), order="C"), self._made[key])
            )
        return self._made[key]

    def number(self, value: float) -> str:
        """The name of a float32 constant."""
        return self.constant(("number", value), "number", lambda: np.asarray(value, np.float32))

    def weight(self, weight: Weight, shape: Sequence[int] | None = None) -> str:
        """The name of a dense tensor, reshaped if a shape is named."""
        key = ("weight", id(weight), shape)
        return self.constant(key, visible(weight.name), lambda: self.dense(weight, shape))

    def dense(self, weight: Weight, shape: Sequence[int] | None = None) -> Floats:
        """A dense tensor, without the inputs that are not read."""
        whole = weight.dense().reshape(shape or weight.shape)
        if (read := self.read.get(weight.name)) is None:
            return whole
        narrow = whole[:, read]
        if weight.keep().sum() > weight.keep()[:, read].sum():
            raise ValueError(f"tensor {weight.name!r} has kept weights of inputs that would be left out")
        return narrow

    def gathered(self, weight: Weight, source: str, axis: int) -> str:
        """The value that a layer of that weight takes: the source, or the inputs of it that are read."""
        if (read := self.read.get(weight.name)) is None:
            return source
        index = self.constant(("read", weight.name), "read", lambda: read.astype(np.int64))
        return self.node("Gather", [source, index], axis=axis)

    def shape(self, operation: Operation) -> tuple[int, ...]:
        """The shape of an operation's first input, per example."""
        return self.network.shapes[operation.inputs[0]]
