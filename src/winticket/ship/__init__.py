"""What leaves winticket: trained networks as plain descriptions, in compact files, with what they are written beside.

    network = winticket.ship.capture(model, ticket, example=x[:1])   # the model as it is now, under the ticket's mask
    winticket.ship.run(network, x)                                   # its logits; slow and plain
    winticket.ship.SparseModel(network)(x)                           # the same by compiled kernels

Only `capture` needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from winticket.ship.engine import SparseModel
from winticket.ship.interpret import run
from winticket.ship.kinds import KINDS
from winticket.ship.network import Network, NetworkError, Operation, Preprocessing, Weight

if TYPE_CHECKING:
    from winticket.ship.capturing import capture

__all__ = [
    "KINDS",
    "Network",
    "NetworkError",
    "Operation",
    "Preprocessing",
    "SparseModel",
    "Weight",
    "capture",
    "run",
]


def __getattr__(name: str) -> object:
    # On first use, since it imports torch and the rest of this room does not.
    if name != "capture":
        raise AttributeError(f"module 'winticket.ship' has no attribute {name!r}")
    from winticket.ship.capturing import capture

    return capture
