"""What leaves winticket: networks without what a mask cut off, trained networks as plain descriptions, compact files.

    network = winticket.ship.capture(model, ticket, example=x[:1])   # the model as it is now, under the ticket's mask
    winticket.ship.save(network, "small.safetensors", values="fp16")
    network = winticket.ship.load("small.safetensors")
    winticket.ship.run(network, x)                                   # its logits; slow and plain
    winticket.ship.to_c(network, name="digits").source               # for microcontrollers
    winticket.ship.to_onnx(network)                                  # for other runtimes, dense
    winticket.ship.to_tflite(network)                                # for phones: small; computed densely, or sparsely
    winticket.ship.to_web(network, dense=other)                      # a page on which one tries it
    winticket.ship.SparseModel.load("small.safetensors")(x)          # the same by compiled kernels
    winticket.ship.shrink_network(network).network                   # without what its masks have cut off
    winticket.ship.convert("small.safetensors", to="onnx")           # a compact file in any other format

Only `capture`, `convert`, `Compact`, `expand`, `expanded` and `shrink_network` need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from winticket.ship.c import CSource, to_c
from winticket.ship.coding import VALUES
from winticket.ship.compact import CompactFileError, load, save
from winticket.ship.compact_write import Sizes
from winticket.ship.engine import SparseModel
from winticket.ship.hub import push
from winticket.ship.index_maps import IndexMaps, expand_network, load_maps, save_maps
from winticket.ship.interpret import run
from winticket.ship.kinds import KINDS
from winticket.ship.network import Network, NetworkError, Operation, Preprocessing, Weight
from winticket.ship.onnx import to_onnx
from winticket.ship.tflite import to_tflite
from winticket.ship.web import to_web

if TYPE_CHECKING:
    from winticket.ship.capturing import capture
    from winticket.ship.converting import convert
    from winticket.ship.shrink import Compact
    from winticket.ship.shrink_expand import expand, expanded
    from winticket.ship.shrinking import shrink_network

__all__ = [
    "KINDS",
    "VALUES",
    "CSource",
    "Compact",
    "CompactFileError",
    "IndexMaps",
    "Network",
    "NetworkError",
    "Operation",
    "Preprocessing",
    "Sizes",
    "SparseModel",
    "Weight",
    "capture",
    "convert",
    "expand",
    "expand_network",
    "expanded",
    "load",
    "load_maps",
    "push",
    "run",
    "save",
    "save_maps",
    "shrink_network",
    "to_c",
    "to_onnx",
    "to_tflite",
    "to_web",
]


_WITH_TORCH = {
    "capture": "capturing",
    "convert": "converting",
    "Compact": "shrink",
    "expand": "shrink_expand",
    "expanded": "shrink_expand",
    "shrink_network": "shrinking",
}


def __getattr__(name: str) -> object:
    # On first use, since these import torch and the rest of this room does not.
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'winticket.ship' has no attribute {name!r}")
    return getattr(import_module(f"winticket.ship.{_WITH_TORCH[name]}"), name)
