"""The arithmetic of a training step: float32, or less of it where hardware is faster so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]


def check_precision(precision: Precision, device: torch.device, engine: str) -> None:
    """ValueError for a precision that this device or engine does not have."""
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"precision tf32 is a mode of NVIDIA GPUs, and this training runs on {device.type}; possible here: "
            "float32, bf16"
        )
    if precision == "bf16" and engine == "sparse":
        raise ValueError(
            "the sparse kernels compute in float32; with precision bf16, ask for engine auto or dense"
        )


@contextmanager
def matrix_products(precision: Precision) -> Iterator[None]:
    """Whether a GPU's float32 products may round their operands to TF32: only where that was asked for."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
