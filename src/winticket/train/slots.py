"""The state of a torch optimiser as named tensors: "slot/parameter" -> tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def slots_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the optimiser's state of these parameters, as "slot/parameter" -> tensor.

    ValueError for state that is no tensor, which a ticket cannot keep.

    >>> import torch
    >>> from winticket.train.slots import slots_of
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    >>> layer(torch.ones(1, 2)).sum().backward()
    >>> optimizer.step()
    >>> slots_of(optimizer, dict(layer.named_parameters()))
    {'momentum_buffer/weight': tensor([[1., 1.]])}
    """
    slots = {}
    for name, parameter in parameters.items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                slots[f"{slot}/{name}"] = value.detach().clone()
            elif value is not None:
                raise ValueError(
                    f"{type(optimizer).__name__} keeps {type(value).__name__} under {slot!r}, and a ticket keeps "
                    "tensors; rewind without the optimiser's state"
                )
    return slots


def load_slots(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], slots: Mapping[str, Tensor]
) -> None:
    """Replace the optimiser's state of these parameters by copies of `slots`.

    ValueError for a slot of a parameter that is not among them.
    """
    by_id = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for parameter in parameters.values():
        optimizer.state.pop(parameter, None)
    for key, value in slots.items():
        slot, name = key.split("/", 1)
        if name not in parameters:
            raise ValueError(
                f"optimiser state {key!r} belongs to no parameter; there are {', '.join(parameters)}"
            )
        parameter = parameters[name]
        group = by_id.get(id(parameter), {})
        # Torch keeps the count of steps on the CPU, unless the update is fused or recorded in a graph.
        beside = slot != "step" or group.get("fused") or group.get("capturable")
        optimizer.state[parameter][slot] = value.detach().clone().to(parameter.device if beside else "cpu")
