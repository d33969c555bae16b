"""The arithmetic of a training step: float32, or a lower precision that the hardware computes faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]


def check_precision(precision: Precision, device: torch.device, engine: str) -> None:
    """Raise ValueError if this device or engine does not have the precision.

    >>> check_precision("tf32", torch.device("cpu"), "auto")
    Traceback (most recent call last):
    ValueError: precision tf32 exists only on NVIDIA GPUs, and this training runs on cpu; use float32 or bf16
    """
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"precision tf32 exists only on NVIDIA GPUs, and this training runs on {device.type}; use float32 or bf16"
        )
    if precision == "bf16" and engine == "sparse":
        raise ValueError(
            "the sparse kernels compute in float32; with precision bf16, use engine auto or dense"
        )


def bf16_instructions() -> str:
    """The processor's instructions for products in bfloat16, as torch names them; empty if it has none.

    Without them, the products are emulated, and a training in bf16 is no faster than one in float32.

    >>> set(bf16_instructions().split(", ")) <= {"", "amx_bf16", "avx512_bf16", "bf16", "sve_bf16"}
    True
    """
    having: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return ", ".join(sorted(name for name, there in having.items() if "bf16" in name and there is True))


@contextmanager
def matrix_products(precision: Precision) -> Iterator[None]:
    """Within this context, a GPU's float32 products round their operands to TF32 only if `precision` is tf32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
