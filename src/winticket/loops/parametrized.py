"""Weights that weight norm, spectral norm or another parametrization computes, under a mask."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from winticket.ticket import Mask


@torch.no_grad()
def check_finite(model: nn.Module, mask: Mask) -> None:
    """ValueError if a weight that is computed from a masked parameter would not be finite. Writes nothing.

    Weight norm divides by the norm of a unit's direction, which is 0 if the whole unit is pruned.
    """
    for name, keep in mask.keep.items():
        weight = _effective(model, name, keep)
        if weight is not None and not bool(weight.isfinite().all()):
            units = [i for i, row in enumerate(weight.flatten(1).isfinite().all(1).tolist()) if not row]
            raise ValueError(
                f"the mask prunes {len(units)} of the {len(weight)} units of {name} entirely (the first is unit "
                f"{units[0]}), and their weights are divided by a norm of 0. Keep a weight of every unit "
                "(allocate=constant_fan_in, or a higher density), or remove the norm first "
                "(torch.nn.utils.parametrize.remove_parametrizations)"
            )


def _effective(model: nn.Module, name: str, keep: Tensor) -> Tensor | None:
    """The weight that is computed from a parameter under its mask; None if the layer uses the parameter itself."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    original = owner.get_parameter(attribute)
    masked = original.masked_fill(~keep.to(original.device), 0)
    if isinstance(owner, ParametrizationList):
        twin = copy.deepcopy(owner).eval()  # in training mode spectral norm updates its estimate
        twin.get_parameter(attribute).copy_(masked)
        computed: Tensor = twin()
        return computed
    for hook in owner._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and attribute == f"{hook.name}_v":
            return torch._weight_norm(masked, owner.get_parameter(f"{hook.name}_g"), hook.dim)
        if isinstance(hook, SpectralNorm) and attribute == f"{hook.name}_orig":
            u, v = (owner.get_buffer(f"{hook.name}_{part}") for part in "uv")
            return masked / torch.dot(u, hook.reshape_weight_to_matrix(masked) @ v)
    return None
