"""ONNX models, checked and computed by onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[np.float32]


def evaluator(data: bytes) -> Callable[[Mapping[str, Array]], Array]:
    """The model as a function of its inputs by name; skips the test if onnx is not installed."""
    onnx = pytest.importorskip("onnx", reason="ONNX files are written with the package onnx")
    reference: Any = pytest.importorskip("onnx.reference")
    pool: Any = pytest.importorskip("onnx.reference.ops.op_max_pool").MaxPool

    def padded(self: Any, x: Array, **options: Any) -> Any:
        return self._max_pool(x, **options)

    # With all strides 1, onnx 1.23 takes another path for MaxPool, which forgets the padding; this is the usual one.
    usual = type("MaxPool", (pool,), {"_run": padded, "op_domain": ""})
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    made = reference.ReferenceEvaluator(model, new_ops=[usual])

    def evaluate(inputs: Mapping[str, Array]) -> Array:
        with np.errstate(over="ignore"):  # a sigmoid of a large number is 1, whatever exp says
            (output,) = made.run(None, dict(inputs))
        assert output.dtype == np.float32
        return np.asarray(output, np.float32)

    return evaluate
