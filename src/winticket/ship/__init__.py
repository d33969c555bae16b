"""What leaves winticket: trained networks as plain descriptions, in compact files, with what they are written beside.

network = winticket.ship.capture(model, ticket, example=x[:1])   # the model as it is now, under the ticket's mask
winticket.ship.save(network, "small.safetensors", values="fp16")
network = winticket.ship.load("small.safetensors")               # numpy alone, no torch
winticket.ship.run(network, x)                                   # logits; slow and plain
"""

from __future__ import annotations

from winticket.ship.interpret import run
from winticket.ship.kinds import KINDS
from winticket.ship.network import Network, NetworkError, Operation, Preprocessing, Weight

__all__ = [
    "KINDS",
    "Network",
    "NetworkError",
    "Operation",
    "Preprocessing",
    "Weight",
    "run",
]
