"""The formats that a trained network is shipped in: how each is written, and how it computes once it is read back.

A format is a `Format`: a row of FORMATS, and one of `winticket.ship.choices.HOLDS`, which the command reads first.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors
from torch import nn

from winticket.atomic import replace_file
from winticket.ship.as_c import C
from winticket.ship.as_hub import HUB
from winticket.ship.as_onnx import ONNX
from winticket.ship.as_tflite import SPARSE_TFLITE, TFLITE
from winticket.ship.as_web import WEB
from winticket.ship.compact import load, save
from winticket.ship.format import ROWS, Format, Logits, Source, Written
from winticket.ship.interpret import run
from winticket.ship.network import Network
from winticket.ship.using import compact_lines


def _use_compact(network: Network, name: str) -> tuple[str, ...]:
    return compact_lines(network, name, "numpy and compiled kernels, no torch")


def _write_state_dict(source: Source, path: Path, _: str) -> Written:
    replace_file(path, state_dict_bytes(source.model))
    return Written()


def _state_dict_logits(source: Source, path: Path, x: NDArray[Any]) -> Logits:
    """Those of a copy of the module whose own values are gone before it loads the file's."""
    model = copy.deepcopy(source.model)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    model.load_state_dict(load_file(path))
    return torch_logits(model, x)


def _use_state_dict(_: Network, name: str) -> tuple[str, ...]:
    return (
        "from safetensors.torch import load_file",
        "",
        f"model.load_state_dict(load_file({name!r}))  # pruned weights are 0",
        "model.eval()",
    )


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(
        "a compact file: masks are coded, and pruned weights are not in it",
        lambda name, values: f"{name}-{values}.safetensors",
        lambda source, path, values: Written(save(source.network, path, values=values)),
        lambda _, path, x: run(load(path), x),
        _use_compact,
    ),
    # No pickle, as torch.save would write.
    "torch": Format(
        "a state dict, in which pruned weights are 0",
        lambda name, _: f"{name}-torch.safetensors",
        _write_state_dict,
        _state_dict_logits,
        _use_state_dict,
    ),
    "onnx": ONNX,
    "tflite": TFLITE,
    "tflite-sparse": SPARSE_TFLITE,
    "c": C,
    "hub": HUB,
    "web": WEB,
}
"""The formats by the name that `--to` takes, which are those of `winticket.ship.choices`."""


def state_dict_bytes(model: nn.Module) -> bytes:
    """A model's state dict as a safetensors file, every entry a tensor of its own."""
    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()
    }
    content: bytes = save_safetensors(tensors, metadata={"format": "pt"})
    return content


def torch_logits(model: nn.Module, x: NDArray[Any]) -> Logits:
    """The logits of a torch module in evaluation mode."""
    model.eval()
    with torch.no_grad():
        parts = [model(torch.from_numpy(x[at : at + ROWS])).numpy() for at in range(0, len(x), ROWS)]
    return np.concatenate(parts)
