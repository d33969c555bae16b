"""Which parameters may be pruned, and why the others may not."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim.swa_utils import AveragedModel

NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

_Owner = tuple[str, nn.Module, str]
"""Where a parameter is: path of the module, the module, name in it."""


def eligible(module: nn.Module, include: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the weights that may be pruned, in order of definition: those of Linear and Conv layers.

    A weight shared by several such layers is one weight, named once; one that another kind of module holds as well
    (an output layer tied to its embedding) is not eligible by itself. Nor are the copies that an AveragedModel within
    the module holds: they follow the weights that they average. `include` are patterns of further parameters
    that are, of those that `includable` names.
    """
    further = {n for n in includable(module) if any(fnmatchcase(n, pattern) for pattern in include)}
    averages = _averages(module)
    return tuple(
        n
        for n, owners in _owners(module).items()
        if n in further or (_by_itself(owners) and not n.startswith(averages))
    )


def includable(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that are not eligible by themselves and can be included: of two dimensions or more.

    Of a parametrized weight it is the original whose zeros are zeros of the weight that is computed from it: the
    direction of weight norm, the original of spectral norm; none under a parametrization that mixes its entries.
    """
    shapes = {name: parameter.ndim for name, parameter in module.named_parameters()}
    further = [n for n, owners in _owners(module).items() if shapes[n] > 1 and not _by_itself(owners)]
    averages = _averages(module)
    return tuple(n for n in further if _can_be_masked(module, n) and not n.startswith(averages))


def chosen(
    module: nn.Module, *, include: Sequence[str], exclude: Sequence[str], of: str = "", spared: bool = False
) -> tuple[str, ...]:
    """Names of the weights to prune: eligible ones and those of `include`, less `exclude`, both names or patterns.

    ValueError, with `of` behind what the pattern is to fit, if one fits nothing. With `spared`, `exclude` may name
    parameters as well that could be included and are not.
    """
    further = includable(module)
    for pattern in include:
        if not any(fnmatchcase(n, pattern) for n in further):
            raise ValueError(
                f"include {pattern!r} fits no parameter{of} that could be included; there are "
                f"{', '.join(further) or 'none: parameters of one dimension are not pruned'}"
            )
    names = eligible(module, include)
    for pattern in exclude:
        if not any(fnmatchcase(n, pattern) for n in (*names, *(further if spared else ()))):
            raise ValueError(
                f"exclude {pattern!r} fits no eligible weight{of}; there are {', '.join(names) or 'none'}"
            )
    return tuple(n for n in names if not any(fnmatchcase(n, p) for p in exclude))


def excluded(module: nn.Module, include: Sequence[str] = ()) -> dict[str, str]:
    """Every parameter that is not eligible, by name, with the reason in words."""
    may_prune = set(eligible(module, include))
    return {name: _reason(owners) for name, owners in _owners(module).items() if name not in may_prune}


def output_layer(module: nn.Module) -> str | None:
    """Name of the last Linear or Conv weight by order of definition, which gives the logits in models built here.

    None if the module has no such weight, so that all of its eligible weights are included ones.
    """
    weights = eligible(module)
    return weights[-1] if weights else None


def _owners(module: nn.Module) -> dict[str, list[_Owner]]:
    """Each parameter's name with all the places that hold it, in order of definition."""
    held: dict[int, list[_Owner]] = {}
    for path, layer in module.named_modules():
        for attribute, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            held.setdefault(id(parameter), []).append((path, layer, attribute))
    return {name: held[id(parameter)] for name, parameter in module.named_parameters()}


def _averages(module: nn.Module) -> tuple[str, ...]:
    """What the names of parameters begin with that an AveragedModel within the module holds."""
    return tuple(f"{n}." for n, m in module.named_modules() if n and isinstance(m, AveragedModel))


def _can_be_masked(module: nn.Module, name: str) -> bool:
    """Whether weights that are 0 in this parameter are 0 in what is computed from it, if anything is."""
    path, _, attribute = name.rpartition(".")
    owner = module.get_submodule(path)
    above = path
    while above := above.rpartition(".")[0]:
        if isinstance(module.get_submodule(above), ParametrizationList):
            return False  # a parameter of the parametrization, no tensor that it is applied to
    if not isinstance(owner, ParametrizationList):
        norms = [hook.name for hook in owner._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
        return attribute not in {f"{norm}_g" for norm in norms}  # the norms themselves
    twin = copy.deepcopy(owner).eval()  # spectral norm estimates anew in training mode
    with torch.no_grad():
        original = twin.get_parameter(attribute)
        gone = torch.arange(original.numel(), device=original.device).view(original.shape) % 2 == 0
        original.masked_fill_(gone, 0)
        effective = twin()
    return effective.shape == original.shape and not bool(effective[gone].any())


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
