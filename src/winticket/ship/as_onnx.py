"""ONNX as a format of `winticket ship`, computed by ONNX Runtime if that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.atomic import replace_file
from winticket.ship.format import ROWS, Format, Logits, NotEvaluated, Source, Written
from winticket.ship.network import INPUT
from winticket.ship.onnx import to_onnx


def _write(source: Source, path: Path, _: str) -> Written:
    inputs = None if source.shrunk is None else source.shrunk.inputs()
    replace_file(path, to_onnx(source.network, inputs=inputs))
    return Written()


def _logits(_: Source, path: Path, x: NDArray[Any]) -> Logits:
    try:
        import onnxruntime
    except ImportError:
        raise NotEvaluated("ONNX Runtime is not installed (pip install onnxruntime)") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # else it complains where threads cannot be bound to cores
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {INPUT: x[at : at + ROWS]})[0] for at in range(0, len(x), ROWS)]
    return np.concatenate(parts)


def _use(_: Source, name: str) -> tuple[str, ...]:
    return (
        "import onnxruntime",
        "",
        f"session = onnxruntime.InferenceSession({name!r}, providers=['CPUExecutionProvider'])",
        f"(logits,) = session.run(None, {{{INPUT!r}: x}})  # x: float32 [N, ...], preprocessed as the model card says",
    )


ONNX = Format(
    "ONNX, in which pruned weights are 0: it is as large and as fast as the dense network",
    lambda name, _: f"{name}.onnx",
    _write,
    _logits,
    _use,
)
"""The format."""
