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

from winticket.units import layouts

NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

_Owner = tuple[str, nn.Module, str]
"""An owner of a parameter: the path of the module, the module, and the parameter's name in it."""


def eligible(module: nn.Module, include: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the weights that may be pruned, in order of definition: the weights of Linear and Conv layers.

    A weight that several such layers share is one weight, named once. A weight that another kind of module holds as
    well (an output layer tied to its embedding) is not eligible by default. Nor are the copies in an AveragedModel
    within the module, since they follow the weights that they average. include: patterns of further parameters to make
    eligible, among those that `includable` names.

    >>> from torch import nn
    >>> from winticket import models
    >>> models.eligible(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    ('0.weight', '2.weight')
    """
    further = {n for n in includable(module) if any(fnmatchcase(n, pattern) for pattern in include)}
    averages = _averages(module)
    return tuple(
        n
        for n, owners in _owners(module).items()
        if n in further or (_eligible_by_default(owners) and not n.startswith(averages))
    )


def includable(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that are not eligible by default but can be included; they have two or more dimensions.

    For a parametrized weight, this is the original tensor if its zeros are zeros of the computed weight too: the
    direction of weight norm, the original of spectral norm; none if the parametrization mixes the entries.

    >>> from torch import nn
    >>> from winticket import models
    >>> models.includable(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)))
    ('0.weight',)
    """
    shapes = {name: parameter.ndim for name, parameter in module.named_parameters()}
    further = [
        n for n, owners in _owners(module).items() if shapes[n] > 1 and not _eligible_by_default(owners)
    ]
    averages = _averages(module)
    return tuple(n for n in further if _can_be_masked(module, n) and not n.startswith(averages))


def chosen(
    module: nn.Module, *, include: Sequence[str], exclude: Sequence[str], of: str = "", spared: bool = False
) -> tuple[str, ...]:
    """Names of the weights to prune: the eligible ones and `include`, minus `exclude`; both are names or patterns.

    Raises ValueError if a pattern fits nothing; `of`, such as " of the model", completes its message. spared:
    `exclude` may also fit parameters that could be included and are not.

    >>> from torch import nn
    >>> from winticket import models
    >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3), nn.Linear(3, 2))
    >>> models.chosen(model, include=["0.*"], exclude=["2.weight"])
    ('0.weight', '1.weight')
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
    """Every parameter that is not eligible -> the reason in words.

    >>> from torch import nn
    >>> from winticket import models
    >>> models.excluded(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))["0.bias"]
    'bias'
    """
    may_prune = set(eligible(module, include))
    return {name: _reason(owners) for name, owners in _owners(module).items() if name not in may_prune}


def output_layer(module: nn.Module) -> str | None:
    """Name of the last Linear or Conv weight in order of definition; in the built-in models, it computes the logits.

    None if the module has no such weight, so that only included weights are eligible.

    >>> from torch import nn
    >>> from winticket import models
    >>> models.output_layer(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    '2.weight'
    """
    weights = eligible(module)
    return weights[-1] if weights else None


def unpruned_by(allocate: str, module: nn.Module, include: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the eligible weights that an allocation of whole units or structures should leave out by default.

    Under `units` this is the output layer, whose units are the classes; under `structures` all weights that belong to
    no structure, unless that is all of them.

    >>> from torch import nn
    >>> from winticket import models
    >>> models.unpruned_by("units", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    ('2.weight',)
    """
    names = eligible(module, include)
    if allocate == "units":
        output = output_layer(module)
        return () if output is None else (output,)
    if allocate == "structures":
        known = layouts(module)
        others = tuple(n for n in names if n not in known or not known[n].structure)
        return () if len(others) == len(names) else others
    return ()


def _owners(module: nn.Module) -> dict[str, list[_Owner]]:
    """Each parameter's name -> all modules that hold it, in order of definition."""
    held: dict[int, list[_Owner]] = {}
    for path, layer in module.named_modules():
        for attribute, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            held.setdefault(id(parameter), []).append((path, layer, attribute))
    return {name: held[id(parameter)] for name, parameter in module.named_parameters()}


def _averages(module: nn.Module) -> tuple[str, ...]:
    """Prefixes of the names of parameters that an AveragedModel within the module holds."""
    return tuple(f"{n}." for n, m in module.named_modules() if n and isinstance(m, AveragedModel))


def _can_be_masked(module: nn.Module, name: str) -> bool:
    """True if entries that are 0 in this parameter are 0 in the weight that is computed from it, if one is."""
    path, _, attribute = name.rpartition(".")
    owner = module.get_submodule(path)
    above = path
    while above := above.rpartition(".")[0]:
        if isinstance(module.get_submodule(above), ParametrizationList):
            return False  # a parameter of the parametrization itself, not the tensor that it is applied to
    if not isinstance(owner, ParametrizationList):
        norms = [hook.name for hook in owner._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
        return attribute not in {f"{norm}_g" for norm in norms}  # the norms themselves
    twin = copy.deepcopy(owner).eval()  # in training mode, spectral norm would update its estimate
    with torch.no_grad():
        original = twin.get_parameter(attribute)
        gone = torch.arange(original.numel(), device=original.device).view(original.shape) % 2 == 0
        original.masked_fill_(gone, 0)
        effective = twin()
    return effective.shape == original.shape and not bool(effective[gone].any())


def _eligible_by_default(owners: Sequence[_Owner]) -> bool:
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
