"""TFLite models, computed by LiteRT's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[np.float32]


def interpreter(data: bytes, *, delegates: bool = True) -> Callable[[Array], Array]:
    """The model as a function of inputs [N, ...], of any N; skips the test if ai-edge-litert is not installed."""
    litert: Any = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="TFLite files are written with the package ai-edge-litert"
    )
    kinds = litert.OpResolverType
    kind = kinds.AUTO if delegates else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    made = litert.Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    (taken,), (given,) = made.get_input_details(), made.get_output_details()
    assert (taken["name"], given["name"]) == ("input", "output")
    assert taken["dtype"] == given["dtype"] == np.float32

    def compute(x: Array) -> Array:
        made.resize_tensor_input(taken["index"], x.shape, strict=True)
        made.allocate_tensors()
        made.set_tensor(taken["index"], np.ascontiguousarray(x))
        made.invoke()
        return np.array(made.get_tensor(given["index"]))

    return compute
