"""TFLite as formats of `winticket ship`, computed by LiteRT's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.atomic import replace_file
from winticket.ship.format import ROWS, Format, Logits, Source, Written
from winticket.ship.tflite import to_tflite

_RESOLVER = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"


def _write(*, sparse: bool) -> Callable[[Source, Path, str], Written]:
    def write(source: Source, path: Path, _: str) -> Written:
        replace_file(path, to_tflite(source.network, sparse_kernels=sparse))
        return Written()

    return write


def _logits(*, sparse: bool) -> Callable[[Source, Path, NDArray[Any]], Logits]:
    def logits(_: Source, path: Path, x: NDArray[Any]) -> Logits:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if sparse else OpResolverType.AUTO
        interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kind)
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        parts = []
        for at in range(0, len(x), ROWS):
            part = np.ascontiguousarray(x[at : at + ROWS], np.float32)
            interpreter.resize_tensor_input(taken["index"], part.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(taken["index"], part)
            interpreter.invoke()
            parts.append(interpreter.get_tensor(given["index"]))
        return np.concatenate(parts)

    return logits


def _use(*, sparse: bool) -> Callable[[Source, str], tuple[str, ...]]:
    def use(source: Source, name: str) -> tuple[str, ...]:
        more = ", OpResolverType" if sparse else ""
        choice = f", experimental_op_resolver_type=OpResolverType.{_RESOLVER}" if sparse else ""
        shape = ", ".join(map(str, source.network.input_shape))
        return (
            f"from ai_edge_litert.interpreter import Interpreter{more}",
            "",
            f"interpreter = Interpreter({name!r}{choice})",
            "(taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()",
            f"# x: float32 [N, {shape}], preprocessed as the model card says",
            "interpreter.resize_tensor_input(taken['index'], x.shape)",
            "interpreter.allocate_tensors()",
            "interpreter.set_tensor(taken['index'], x)",
            "interpreter.invoke()",
            "logits = interpreter.get_tensor(given['index'])",
        )

    return use


TFLITE = Format(
    "TFLite: kept weights alone are stored, and LiteRT makes them dense when it loads them, so it is as fast as the "
    "dense network",
    lambda name, _: f"{name}.tflite",
    _write(sparse=False),
    _logits(sparse=False),
    _use(sparse=False),
)
"""The format that every interpreter computes."""

SPARSE_TFLITE = Format(
    "TFLite for LiteRT's sparse kernels. **Only interpreters without default delegates compute it, as below; with the "
    "XNNPACK delegate its answers are wrong**",
    lambda name, _: f"{name}-sparse.tflite",
    _write(sparse=True),
    _logits(sparse=True),
    _use(sparse=True),
)
"""The format whose sparse fully connected layers are computed with kept weights alone."""
