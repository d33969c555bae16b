"""The formats that a trained network is shipped in: how each is written, and how it computes once it is read back.

A format is a `Format`: a row of FORMATS, and one of `winticket.ship.choices.HOLDS`, which the command reads first.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors
from torch import Tensor

from winticket.atomic import replace_file
from winticket.ship.as_c import C
from winticket.ship.as_hub import HUB
from winticket.ship.as_onnx import ONNX
from winticket.ship.as_tflite import SPARSE_TFLITE, TFLITE
from winticket.ship.as_transformers import TRANSFORMERS
from winticket.ship.as_web import WEB
from winticket.ship.compact import load, save
from winticket.ship.format import Format, Logits, Source, Written, torch_logits
from winticket.ship.index_maps import MAPS
from winticket.ship.interpret import run
from winticket.ship.network import Network, Weight
from winticket.ship.using import compact_lines


def _use_compact(source: Source, name: str) -> tuple[str, ...]:
    return compact_lines(source.network, name, "numpy and compiled kernels, no torch")


def _write_state_dict(source: Source, path: Path, _: str) -> Written:
    replace_file(path, state_dict_bytes(tensors_of(source)))
    return Written()


def _state_dict_logits(source: Source, path: Path, x: NDArray[Any]) -> Logits:
    """Those of a copy of the module whose own values are gone before it loads the file's.

    Without a module, the file's tensors take the place of the network's.
    """
    tensors, module = load_file(path), source.module()
    if module is None:
        return run(_with_tensors(source, tensors), x)
    model = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    model.load_state_dict(tensors)
    return torch_logits(model, x)


def tensors_of(source: Source) -> Mapping[str, Tensor]:
    """The state dict of a source; of a network without a module, its tensors by their names, without unread inputs."""
    if (module := source.module()) is not None:
        state: Mapping[str, Tensor] = module.state_dict()
        return state
    inputs = source.shrunk.inputs() if source.shrunk else {}
    dense = {name: weight.dense() for name, weight in source.network.weights().items()}
    cut = {name: value[:, inputs[name]] if name in inputs else value for name, value in dense.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in cut.items()}


def _with_tensors(source: Source, tensors: Mapping[str, Tensor]) -> Network:
    """The network of a source with tensors as `tensors_of` gives them."""
    inputs = source.shrunk.inputs() if source.shrunk else {}

    def made(weight: Weight) -> Weight:
        value = tensors[weight.name].numpy()
        if weight.name in inputs:
            whole = np.zeros(weight.shape, np.float32)
            whole[:, inputs[weight.name]] = value
            value = whole
        return Weight.of(weight.name, value)

    weights = {name: made(weight) for name, weight in source.network.weights().items()}
    operations = [
        replace(one, tensors={role: weights[weight.name] for role, weight in one.tensors.items()})
        for one in source.network.operations
    ]
    return replace(source.network, operations=tuple(operations))


def _use_state_dict(source: Source, name: str) -> tuple[str, ...]:
    lines = ["from safetensors.torch import load_file", ""]
    file, maps = f"load_file({name!r})", f"load_file({str(maps_path(Path(name)))!r})"
    if source.shrunk is not None:
        lines = [
            "import winticket",
            *lines,
            f"maps = {maps}  # which units and inputs of the original these are",
        ]
        lines += [f"whole = winticket.ship.expand({file}, maps, like=model)  # in the original's shapes"]
        if source.shrunk.module is not None:
            of = (
                "remove_parts(model, ticket, example=x).module"
                if source.pretrained
                else "compact(model, ticket, example=x)"
            )
            lines += [f"small = winticket.{of}", f"small.load_state_dict({file})"]
    elif source.model is not None:
        lines += [f"model.load_state_dict({file})  # pruned weights are 0", "model.eval()"]
    else:
        lines += [f"tensors = {file}  # pruned weights are 0; BatchNorm is folded into the layers before it"]
        lines += ["model.load_state_dict(tensors)  # a model without BatchNorm", "model.eval()"]
    return tuple(lines)


def maps_path(path: Path) -> Path:
    """The file of index maps that belongs to a shrunk network's file.

    >>> str(maps_path(Path("ship/net.onnx")))
    'ship/net.onnx.maps.safetensors'
    """
    return path.with_name(f"{path.name}{MAPS}")


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


def format_of(source: Source, to: str) -> Format:
    """The format that `--to` names, for this network."""
    return TRANSFORMERS if to == "hub" and source.pretrained else FORMATS[to]


def state_dict_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as a safetensors file, every entry a tensor of its own."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    content: bytes = save_safetensors(tensors, metadata={"format": "pt"})
    return content
