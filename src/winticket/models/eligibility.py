"""Which parameters may be pruned, and why the others may not."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

_Owner = tuple[str, nn.Module, str]
"""Where a parameter is: path of the module, the module, name in it."""


def eligible(module: nn.Module, include: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the weights that may be pruned, in order of definition: those of Linear and Conv layers.

    A weight shared by several such layers is one weight, named once; one that another kind of module holds as well
    (an output layer tied to its embedding) is not eligible by itself. `include` are patterns of further parameters
    that are, of those that `includable` names.
    """
    further = {n for n in includable(module) if any(fnmatchcase(n, pattern) for pattern in include)}
    return tuple(n for n, owners in _owners(module).items() if _by_itself(owners) or n in further)


def includable(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that are not eligible by themselves and can be included: of two dimensions or more."""
    shapes = {name: parameter.ndim for name, parameter in module.named_parameters()}
    return tuple(n for n, owners in _owners(module).items() if shapes[n] > 1 and not _by_itself(owners))


def excluded(module: nn.Module, include: Sequence[str] = ()) -> dict[str, str]:
    """Every parameter that is not eligible, by name, with the reason in words."""
    may_prune = set(eligible(module, include))
    return {name: _reason(owners) for name, owners in _owners(module).items() if name not in may_prune}


def output_layer(module: nn.Module) -> str:
    """Name of the last Linear or Conv weight by order of definition, which gives the logits in models built here.

    Raises ValueError where the module has no such weight.
    """
    weights = eligible(module)
    if not weights:
        raise ValueError(f"{type(module).__name__} has no Linear or Conv layer, so nothing can be pruned")
    return weights[-1]


def last_layer(module: nn.Module) -> str:
    """Name of the last Linear or Conv weight by order of definition, "" if there is none."""
    return next(reversed(eligible(module)), "")


def _owners(module: nn.Module) -> dict[str, list[_Owner]]:
    """Each parameter's name with all the places that hold it, in order of definition."""
    held: dict[int, list[_Owner]] = {}
    for path, layer in module.named_modules():
        for attribute, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            held.setdefault(id(parameter), []).append((path, layer, attribute))
    return {name: held[id(parameter)] for name, parameter in module.named_parameters()}


def _by_itself(owners: Sequence[_Owner]) -> bool:
    return all(isinstance(layer, nn.Linear | _ConvNd) and name == "weight" for _, layer, name in owners)


def _reason(owners: Sequence[_Owner]) -> str:
    layers = [(path, layer) for path, layer, _ in owners if isinstance(layer, nn.Linear | _ConvNd)]
    others = [layer for _, layer, _ in owners if not isinstance(layer, nn.Linear | _ConvNd)]
    name = owners[0][2]
    if any(isinstance(layer, NORMALISATIONS) for layer in others):
        return "normalisation parameter"
    if name == "bias" or name.startswith("bias_") or name.endswith("_bias"):
        return "bias"
    if layers and others:
        return f"shared by {layers[0][0]} and {type(others[0]).__name__}, which is no Linear or Conv layer"
    kind = type((others or [layers[0][1]])[0]).__name__
    return f"parameter of {kind}, which is no Linear or Conv layer"
