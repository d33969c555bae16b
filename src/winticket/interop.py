"""Masks and tickets from and to what others keep: torch.nn.utils.prune, and state dicts with masks beside weights.

A mask is only ever read from an entry that says it is one; `mask_of_zeros`, which guesses, is another function. Names
are those of the model itself: what DistributedDataParallel, AveragedModel and torch.compile put before them goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from winticket.bits import digest
from winticket.loops.wrapped import bare, check_fits
from winticket.ticket import Mask, Seeds, State, Ticket, Weights
from winticket.units import layouts

__all__ = ["from_state_dict", "from_torch_prune", "mask_of_zeros", "to_state_dict", "to_torch_prune"]

_ORIG, _MASK = "_orig", "_mask"
_WRAPPED, _COMPILED, _AVERAGED = "module.", "_orig_mod", "n_averaged"


def from_torch_prune(model: nn.Module, *, step: int = 0, seeds: Seeds | None = None) -> Ticket:
    """What `torch.nn.utils.prune` has done to a model, as a ticket: `weight_mask` and, unpruned, `weight_orig`.

    Names are those that the model has without pruning. Only what was pruned that way is under the mask, so its density
    is over those layers; `step` is how many updates the weights have had. `seeds` are derived from weights and masks by
    default, so that replicates differ and the same model gives the same ticket. The model stays as it is. Raises
    ValueError where nothing of it is pruned.
    """
    keep, weights, buffers = {}, {}, {}
    for path, module in bare(model).named_modules():
        prefix = _uncompiled(f"{path}.").removesuffix(".") if path else ""
        pruned = {
            name.removesuffix(_ORIG)
            for name, _ in module.named_parameters(recurse=False)
            if name.endswith(_ORIG) and f"{name.removesuffix(_ORIG)}{_MASK}" in module._buffers
        }
        for name, parameter in module.named_parameters(recurse=False):
            plain = name.removesuffix(_ORIG) if name.removesuffix(_ORIG) in pruned else name
            weights[_joined(prefix, plain)] = parameter.detach().cpu().clone()
        for name, buffer in module.named_buffers(recurse=False):
            whose = _joined(prefix, name.removesuffix(_MASK))
            if name.removesuffix(_MASK) in pruned:
                keep[whose] = _bool(whose, buffer)
            else:
                buffers[_joined(prefix, name)] = buffer.detach().cpu().clone()
    if not keep:
        raise ValueError(
            "torch.nn.utils.prune has pruned nothing of this model: it has no weight_orig with a weight_mask; "
            "zeros do not make a mask (mask_of_zeros takes them for one)"
        )
    state = State(weights, buffers, {}, step)
    layout = {_uncompiled(name).removesuffix(_ORIG): laid for name, laid in layouts(bare(model)).items()}
    return Ticket(
        Mask(keep, layout),
        state,
        "torch.nn.utils.prune",
        seeds or Seeds(int.from_bytes(digest({**weights, **keep})[:8], "big") >> 2, 0),
    )


def to_torch_prune(model: nn.Module, mask: Mask | Ticket) -> nn.Module:
    """Put a mask on `model` by `prune.custom_from_mask`, in place, for whatever works with torch's own pruning.

    Weights go to `weight_orig` as they are, also where pruned; a ticket's start is put into the model first.
    `prune.remove(module, "weight")` makes it permanent. Returns the model. ValueError, before anything is
    written, where mask and model disagree about a layer or one is pruned that way already.
    """
    keep = mask.mask.keep if isinstance(mask, Ticket) else mask.keep
    whole, model = model, bare(model)
    parameters = dict(model.named_parameters())
    for name in keep:
        if f"{name}{_ORIG}" in parameters:
            raise ValueError(f"{name!r} is pruned by torch.nn.utils.prune already; prune.remove it first")
    check_fits(model, mask.mask if isinstance(mask, Ticket) else mask)
    if isinstance(mask, Ticket):
        mask.load_into(model)
        with torch.no_grad():  # the start whole, as weight_orig keeps it
            for name in keep:
                parameters[name].copy_(mask.start.weights[name])
    for name, layer in keep.items():
        owner, _, parameter = name.rpartition(".")
        prune.custom_from_mask(  # type: ignore[no-untyped-call]
            model.get_submodule(owner), parameter, layer.to(parameters[name].device)
        )
    return whole


def from_state_dict(state: Mapping[str, Tensor], *, unwrap: bool = True) -> tuple[Mask, dict[str, Tensor]]:
    """The mask in a state dict, and the state dict without it, under plain names; copies, on the CPU.

    Understood are `x.weight_orig` with `x.weight_mask` (torch.nn.utils.prune) and `x.weight` with `x.weight_mask`;
    so too for other parameters than `weight`. A tensor named `..._mask` beside which there is no such weight of its
    shape is a buffer of the model's own. With `unwrap`, names lose the `module.` that stands before all of them and
    every `_orig_mod.`; turn it off for a model whose only part is called `module`. Raises ValueError where there is no
    mask or one is not of zeros and ones.
    """
    keep, plain = {}, {}
    state = _unwrapped(state) if unwrap else state
    for name, tensor in state.items():
        stem = name.removesuffix(_MASK)
        weight = state.get(f"{stem}{_ORIG}", state.get(stem)) if name.endswith(_MASK) else None
        if weight is not None and weight.shape == tensor.shape:
            keep[stem] = _bool(stem, tensor)
        elif weight is not None:
            given, own = tuple(tensor.shape), tuple(weight.shape)
            raise ValueError(f"the mask of {stem!r} has shape {given}, its weight {own}")
    for name, tensor in state.items():
        stem = name.removesuffix(_ORIG) if name.removesuffix(_ORIG) in keep else name
        if name.removesuffix(_MASK) not in keep or not name.endswith(_MASK):
            plain[stem] = tensor.detach().cpu().clone()
    if not keep:
        raise ValueError(
            "the state dict has no mask: no `weight_mask` beside a `weight` or `weight_orig`; zeros do not make one "
            "(mask_of_zeros takes them for one)"
        )
    return Mask(keep), plain


def to_state_dict(ticket: Ticket, *, masks: bool = False) -> dict[str, Tensor]:
    """The ticket's start as a state dict: weights, pruned ones 0, and buffers, for `model.load_state_dict`.

    With `masks`, weights are whole under `x.weight_orig`, with `x.weight_mask` in their dtype beside: what a model
    pruned by torch.nn.utils.prune has. Buffers that the model does not persist are there as well, for which
    `load_state_dict` wants `strict=False`.
    """
    if not masks:
        plain = {**ticket.mask.apply(ticket.start.weights)}
    else:
        plain = {}
        for name, weight in ticket.start.weights.items():
            keep = ticket.mask.keep.get(name)
            plain[name if keep is None else f"{name}{_ORIG}"] = weight.clone()
            if keep is not None:
                plain[f"{name}{_MASK}"] = keep.to(weight.dtype)
    return {**plain, **{name: buffer.clone() for name, buffer in ticket.start.buffers.items()}}


def mask_of_zeros(weights: Weights, names: Sequence[str], *, unwrap: bool = True) -> Mask:
    """The mask that keeps whatever is not 0 in the named weights: a guess, for files that lost their masks.

    Beware: a live weight that happens to be 0 counts as pruned (whole layers that start at 0 would be), and a pruned
    one that training moved counts as alive. Use it where you know that neither is so, never in place of a mask that
    was kept. With `unwrap`, names lose what wrappers put before them, as in `from_state_dict`. ValueError where a name
    has no weight or everything would go from a layer.
    """
    if unwrap:
        plain = _plain_names(weights)
        weights, names = _unwrapped(weights), [plain.get(name, name) for name in names]
    missing = [name for name in names if name not in weights]
    if missing or not names:
        raise ValueError(
            f"no weight is called {', '.join(missing) or '(no name)'}; there are {', '.join(weights)}"
        )
    mask = Mask({name: weights[name].detach().cpu() != 0 for name in names})
    if emptied := mask.emptied():
        raise ValueError(f"{', '.join(emptied)} would keep nothing: weights of 0 are not a mask there")
    return mask


def _bool(name: str, mask: Tensor) -> Tensor:
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"the mask of {name!r} has values other than 0 and 1, so it is no mask")
    return (mask != 0).cpu()


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that the model itself has; an average's count of models goes."""
    return {plain: state[name] for name, plain in _plain_names(state).items()}


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> name without prefixes of wrappers, less what an AveragedModel has of its own."""
    plain = {name: _uncompiled(name) for name in names}
    while True:
        inner = {name: short for name, short in plain.items() if short != _AVERAGED}
        if not inner or not all(short.startswith(_WRAPPED) for short in inner.values()):
            return plain
        plain = {name: short.removeprefix(_WRAPPED) for name, short in inner.items()}


def _uncompiled(name: str) -> str:
    """A name without torch.compile's `_orig_mod.`, which also stands within names of models with compiled parts."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
