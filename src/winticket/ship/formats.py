"""The formats that a trained network is shipped in: how each is written, and how it computes once it is read back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors
from torch import nn

from winticket.atomic import replace_file
from winticket.ship.compact import load, save
from winticket.ship.compact_write import Sizes
from winticket.ship.interpret import run
from winticket.ship.network import Network
from winticket.ship.web import network_of, to_web

Logits = NDArray[np.floating[Any]]
ROWS = 250
"""Examples that a torch module computes at a time."""


@dataclass(frozen=True, eq=False)
class Source:
    """A trained network as formats take it.

    network   without torch
    model     the torch module that it was captured from
    dense     for a page: the dense network of the same replicate
    examples  for a page: (inputs, classes) of the test data; None if they cannot be read
    note      for a page: what is known of it, in a sentence
    """

    network: Network
    model: nn.Module
    dense: Network | None = None
    examples: tuple[NDArray[Any], NDArray[Any]] | None = None
    note: str = ""


@dataclass(frozen=True)
class Format:
    """One format.

    named   (name, values) -> the name of the file
    write   (source, path, values): writes the file; returns what its bytes are, if the format can tell
    logits  (source, path, x): what the file gives for inputs x [N, *input_shape], read anew
    use     (name of the file) -> lines of Python that use it
    """

    named: Callable[[str, str], str]
    write: Callable[[Source, Path, str], Sizes | None]
    logits: Callable[[Source, Path, NDArray[Any]], Logits]
    use: Callable[[str], tuple[str, ...]]


def _use_compact(name: str) -> tuple[str, ...]:
    return (
        "import winticket",
        "",
        f"network = winticket.ship.load({name!r})  # numpy alone, no torch",
        "x = network.preprocessing.apply(pixels) if network.preprocessing else pixels  # [N, channels, ...]",
        "logits = winticket.ship.run(network, x)  # plain and slow",
    )


def _write_state_dict(source: Source, path: Path, _: str) -> None:
    replace_file(path, state_dict_bytes(source.model))


def _state_dict_logits(source: Source, path: Path, x: NDArray[Any]) -> Logits:
    """Those of a copy of the module whose own values are gone before it loads the file's."""
    model = copy.deepcopy(source.model)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    model.load_state_dict(load_file(path))
    return torch_logits(model, x)


def _use_state_dict(name: str) -> tuple[str, ...]:
    return (
        "from safetensors.torch import load_file",
        "",
        f"model.load_state_dict(load_file({name!r}))  # pruned weights are 0",
        "model.eval()",
    )


def _write_page(source: Source, path: Path, values: str) -> None:
    page = to_web(
        source.network, dense=source.dense, examples=source.examples, values=values, note=source.note
    )
    replace_file(path, page.encode())


def _use_page(name: str) -> tuple[str, ...]:
    return ("import webbrowser", "", f"webbrowser.open({name!r})  # or open the file in any browser")


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(
        lambda name, values: f"{name}-{values}.safetensors",
        lambda source, path, values: save(source.network, path, values=values),
        lambda _, path, x: run(load(path), x),
        _use_compact,
    ),
    # No pickle, as torch.save would write.
    "torch": Format(
        lambda name, _: f"{name}-torch.safetensors",
        _write_state_dict,
        _state_dict_logits,
        _use_state_dict,
    ),
    "web": Format(
        lambda name, values: f"{name}-{values}.html",
        _write_page,
        lambda _, path, x: run(network_of(path.read_text("utf-8")), x),
        _use_page,
    ),
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
