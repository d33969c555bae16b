"""Parts of a TFLite file: tensors, dense and sparse ones, operators and layouts, put together by flatbuffers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.ship.kinds import Shape
from winticket.ship.network import INPUT, Network, Weight
from winticket.text import visible

Array = npt.NDArray[Any]
OUTPUT = "output"
SIGNATURE = "serving_default"
NONE = -1
"""The index of an optional tensor that is absent."""


def package() -> tuple[Any, Any]:
    """(flatbuffers, the schema of ai-edge-litert). ModuleNotFoundError, with what to install, if one is missing."""
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"TFLite files are written with the package ai-edge-litert, and {error.name} is not installed: "
            "pip install 'winticket[ship]'",
            name=error.name,
        ) from error
    return flatbuffers, schema


@dataclass(frozen=True)
class Value:
    """A value of the network in the graph: as the network has it (plain), as an image, or both.

    plain  [batch, *shape];  image  [batch, rows, columns, channels], with one row for signals
    """

    plain: int | None = None
    image: int | None = None


class Graph:
    """Collects tensors and operators.

    values          by name of a value of the network, where it is
    sparse_kernels  whether operators that compute with kept weights alone may be used
    """

    def __init__(self, network: Network, *, sparse_kernels: bool = False) -> None:
        self.network, self.sparse_kernels = network, sparse_kernels
        self.flatbuffers, self.schema = package()
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.buffers: list[Array] = [np.empty(0, np.uint8)]  # the first one is for all tensors without data
        self.codes: dict[str, int] = {}
        self.made: dict[Hashable, int] = {}
        self.values = {INPUT: Value(self.tensor(network.input_shape, INPUT))}

    def tensor(self, shape: Shape, name: str = "") -> int:
        """A tensor of values, [batch, *shape]; batches of other sizes than 1 come by resizing the input."""
        made = self.schema.TensorT(shape=[1, *shape], shapeSignature=[-1, *shape], name=name, hasRank=True)
        return self._added(made, name or "value")

    def _added(self, tensor: Any, name: str) -> int:
        tensor.name = name if name in (INPUT, OUTPUT) else f"{name}:{len(self.tensors)}"
        tensor.type = tensor.type or self.schema.TensorType.FLOAT32
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _buffer(self, array: Array) -> int:
        self.buffers.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return len(self.buffers) - 1

    def constant(self, key: Hashable, name: str, make: Callable[[], Array]) -> int:
        """A tensor of float32 or int32, which is made if none has that key yet."""
        if key not in self.made:
            array = make()
            kinds = self.schema.TensorType
            kind = kinds.INT32 if array.dtype == np.int32 else kinds.FLOAT32
            shape, buffer = list(array.shape), self._buffer(array)
            made = self.schema.TensorT(shape=shape, type=kind, buffer=buffer, hasRank=True)
            self.made[key] = self._added(made, name)
        return self.made[key]

    def integers(self, values: Sequence[int] | Sequence[Sequence[int]]) -> int:
        array = np.array(values, np.int32)
        return self.constant(("integers", array.shape, array.tobytes()), "integers", lambda: array)

    def number(self, value: float) -> int:
        return self.constant(("number", value), "number", lambda: np.array(value, np.float32))

    def vector(self, weight: Weight | None, shape: Shape | None = None) -> int:
        """A dense tensor; NONE for none."""
        if weight is None:
            return NONE
        dense = weight.dense
        return self.constant(
            ("dense", id(weight), shape), visible(weight.name), lambda: dense().reshape(shape or weight.shape)
        )

    def weights(self, weight: Weight, arranged: Callable[[Array], Array], *, direct: bool = False) -> int:
        """A weight's tensor, with its axes arranged as an operator takes them.

        If that is smaller, kept weights alone are stored, and an operator makes them dense. direct: they are stored so
        in any case, and the operator that takes them must compute with them alone.
        """
        key = ("weights", id(weight), direct)
        if key in self.made:
            return self.made[key]
        whole, name = arranged(weight.dense()), visible(weight.name)
        sparse = None
        if 0 < weight.density() < 1:
            most = math.inf if direct else whole.nbytes
            sparse = self._sparse(whole, arranged(weight.keep()), most)
        if sparse is None:
            return self.constant(key, name, lambda: whole)
        self.made[key] = tensor = self._added(sparse, name)
        if not direct:
            dense = self.schema.TensorT(shape=list(whole.shape), hasRank=True)
            self.made[key] = self._added(dense, f"{name}, dense")
            self.operator("DENSIFY", [tensor], self.made[key], options="DensifyOptions")
        return self.made[key]

    def _sparse(self, whole: Array, keep: Array, most: float) -> Any:
        """A tensor of kept values and their columns, row by row, all axes but the last being dense.

        None if it has as many bytes as `most`.
        """
        positions, columns = np.flatnonzero(keep), whole.shape[-1]
        counts = np.bincount(positions // columns, minlength=whole.size // columns)
        segments = self._vector(np.concatenate([[0], counts.cumsum()]))
        indices = self._vector(positions % columns)
        values = whole.reshape(-1)[positions]
        if values.nbytes + segments[1].values.nbytes + indices[1].values.nbytes >= most:
            return None
        kinds = self.schema.DimensionType
        axes = [self.schema.DimensionMetadataT(kinds.DENSE, size) for size in whole.shape[:-1]]
        axes.append(self.schema.DimensionMetadataT(kinds.SPARSE_CSR, 0, *segments, *indices))
        sparsity = self.schema.SparsityParametersT(list(range(whole.ndim)), None, axes)
        return self.schema.TensorT(
            shape=list(whole.shape), buffer=self._buffer(values), sparsity=sparsity, hasRank=True
        )

    def _vector(self, numbers: Array) -> tuple[int, Any]:
        """(Type, vector) of the narrowest integers that hold the numbers."""
        kinds, most = self.schema.SparseIndexVector, int(numbers.max(initial=0))
        if most < 1 << 8:
            return kinds.Uint8Vector, self.schema.Uint8VectorT(numbers.astype(np.uint8))
        if most < 1 << 16:
            return kinds.Uint16Vector, self.schema.Uint16VectorT(numbers.astype(np.uint16))
        return kinds.Int32Vector, self.schema.Int32VectorT(numbers.astype(np.int32))

    def node(self, kind: str, inputs: Sequence[int], shape: Shape, **options: Any) -> int:
        """Adds an operator, whose output has that shape besides the batch; the output's tensor.

        Options are those of the kind's table of options, whose name is `options`, as "Conv2DOptions".
        """
        output = self.tensor(shape, kind.lower())
        self.operator(kind, inputs, output, **options)
        return output

    def operator(
        self, kind: str, inputs: Sequence[int], output: int, *, options: str = "", **entries: Any
    ) -> None:
        schema = self.schema
        code = self.codes.setdefault(kind, len(self.codes))
        made = schema.OperatorT(opcodeIndex=code, inputs=list(inputs), outputs=[output])
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")(**entries)
        self.operators.append(made)

    def reshaped(self, tensor: int, shape: Shape) -> int:
        """The tensor with other axes; the first one is the batch, or what the batch has grown to."""
        return self.node("RESHAPE", [tensor, self.integers([-1, *shape])], shape, options="ReshapeOptions",
                         newShape=[-1, *shape])  # fmt: skip

    def turned(self, tensor: int, axes: Sequence[int], shape: Shape) -> int:
        return self.node("TRANSPOSE", [tensor, self.integers(axes)], shape)

    def plain(self, name: str) -> int:
        """The value as the network has it, [batch, *shape]."""
        value, shape = self.values[name], self.network.shapes[name]
        if value.plain is None:
            assert value.image is not None
            if shape[0] == 1 or math.prod(shape[1:]) == 1:
                made = self.reshaped(value.image, shape)
            else:
                channels, positions = shape[0], math.prod(shape[1:])
                flat = self.reshaped(value.image, (positions, channels))
                made = self.turned(flat, (0, 2, 1), (channels, positions))
                made = self.reshaped(made, shape) if len(shape) > 2 else made
            self.values[name] = Value(made, value.image)
        return self.values[name].plain or 0

    def image(self, name: str) -> int:
        """The value of shape [channels, *positions] as an image, [batch, rows, columns, channels]."""
        value, shape = self.values[name], self.network.shapes[name]
        if value.image is None:
            assert value.plain is not None
            made = value.plain
            if shape[0] > 1 and math.prod(shape[1:]) > 1:
                axes = (0, 2, 3, 1) if len(shape) == 3 else (0, 2, 1)
                made = self.turned(made, axes, (*shape[1:], shape[0]))
            if len(shape) == 2 or made == value.plain:
                made = self.reshaped(made, image_shape(shape))
            self.values[name] = Value(value.plain, made)
        return self.values[name].image or 0

    def packed(self, output: int, description: str) -> bytes:
        """The file, whose output is that tensor."""
        schema = self.schema
        self._unshared(output)
        self.tensors[output].name = OUTPUT
        kinds = {kind: getattr(schema.BuiltinOperator, kind) for kind in self.codes}
        # Readers of old take the code from the first entry, which has but seven bits.
        codes = [schema.OperatorCodeT(min(n, 127), None, 1, n) for n in kinds.values()]
        graph = schema.SubGraphT(self.tensors, [0], [output], self.operators, "network")
        ends = [schema.TensorMapT(INPUT, 0)], [schema.TensorMapT(OUTPUT, output)]
        signature = schema.SignatureDefT(*ends, SIGNATURE, 0)
        model = schema.ModelT(3, codes, [graph], description, [self._aligned(b) for b in self.buffers])
        model.signatureDefs = [signature]
        builder = self.flatbuffers.Builder(sum(map(len, self.buffers)) + (1 << 16))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _unshared(self, output: int) -> None:
        """Have a RESHAPE read a copy of a tensor that others read as well.

        LiteRT gives both sides of a RESHAPE one buffer. Without delegates, its version 2.3 lets an operator that alone
        reads the result write into that buffer, before the others have read it.
        """
        readers = Counter(tensor for operator in self.operators for tensor in operator.inputs)
        readers[output] += 1
        operators, self.operators = self.operators, []
        for operator in operators:
            read = operator.inputs[0]
            if operator.opcodeIndex == self.codes.get("RESHAPE") and readers[read] > 1:
                copy = self.tensor(tuple(self.tensors[read].shape[1:]), "copy")
                self.operator("ADD", [read, self.number(0.0)], copy, options="AddOptions")
                operator.inputs = [copy, *operator.inputs[1:]]
            self.operators.append(operator)

    def _aligned(self, data: Array) -> Any:
        """A buffer whose data begin at a multiple of 16 bytes, as runtimes want them."""
        made = self.schema.BufferT(data if len(data) else None)
        pack = made.Pack

        def aligned(builder: Any) -> Any:
            builder.Prep(16, len(data))
            return pack(builder)

        made.Pack = aligned
        return made


def image_shape(shape: Shape) -> Shape:
    """[channels, *positions] as (rows, columns, channels); signals have one row."""
    channels, *positions = shape
    return (*(1,) * (2 - len(positions)), *positions, channels)
