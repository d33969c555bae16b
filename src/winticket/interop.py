"""Convert masks and tickets from and to torch.nn.utils.prune, and state dicts that hold masks beside weights.

A mask is only read from an entry that is declared as one; guessing from zeros is a separate function, `mask_of_zeros`.
Names are those of the model itself, without the prefixes of DistributedDataParallel, AveragedModel and torch.compile.
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
    """The ticket of a model that `torch.nn.utils.prune` has pruned: its `weight_mask` and its whole `weight_orig`.

    Names are those of the model without pruning. The mask covers only parameters that were pruned this way, so its
    density refers to those. `step` is the number of updates that the weights have had. `seeds` (default: derived from
    weights and masks) differ between replicates and are the same for the same model. The model does not change.
    ValueError if nothing is pruned.

    >>> import torch
    >>> from torch.nn.utils import prune
    >>> from winticket import interop
    >>> model = torch.nn.Linear(4, 2)
    >>> _ = prune.l1_unstructured(model, "weight", amount=0.5)
    >>> ticket = interop.from_torch_prune(model)
    >>> ticket.mask.count(), sorted(ticket.start.weights)
    (4, ['bias', 'weight'])
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
            weight = _joined(prefix, name.removesuffix(_MASK))
            if name.removesuffix(_MASK) in pruned:
                keep[weight] = _bool(weight, buffer)
            else:
                buffers[_joined(prefix, name)] = buffer.detach().cpu().clone()
    if not keep:
        raise ValueError(
            "torch.nn.utils.prune has pruned nothing in this model: it has no weight_orig with a weight_mask; "
            "zeros alone are not a mask (mask_of_zeros reads one from them)"
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
    """Apply a mask to `model` with `prune.custom_from_mask`, in place, for tools that use torch's own pruning.

    Weights become `weight_orig` without change, including pruned ones; a ticket's start is copied into the model first.
    `prune.remove(module, "weight")` makes the pruning permanent. Returns the model. ValueError, before anything is
    written, if mask and model disagree about a layer, or if a layer is already pruned this way.

    >>> import torch, winticket
    >>> from winticket import interop
    >>> model = torch.nn.Linear(2, 2)
    >>> mask = winticket.Mask({"weight": torch.tensor([[True, False], [False, True]])})
    >>> interop.to_torch_prune(model, mask).weight_mask
    tensor([[1., 0.],
            [0., 1.]])
    """
    keep = mask.mask.keep if isinstance(mask, Ticket) else mask.keep
    wrapped, model = model, bare(model)
    parameters = dict(model.named_parameters())
    for name in keep:
        if f"{name}{_ORIG}" in parameters:
            raise ValueError(
                f"{name!r} is already pruned by torch.nn.utils.prune; call prune.remove on it first"
            )
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
    return wrapped


def from_state_dict(state: Mapping[str, Tensor], *, unwrap: bool = True) -> tuple[Mask, dict[str, Tensor]]:
    """The mask in a state dict, and the state dict without it, under plain names; copies on the CPU.

    Reads `x.weight_orig` with `x.weight_mask` (torch.nn.utils.prune), and `x.weight` with `x.weight_mask`; likewise
    for parameters other than `weight`. A tensor named `..._mask` without such a weight is a buffer of the model. With
    `unwrap`, names lose a `module.` prefix that all of them share, and every `_orig_mod.`; turn it off for a model
    whose only part is called `module`. ValueError if there is no mask, if one has another shape than its weight, or if
    one has values other than 0 and 1.

    >>> import torch
    >>> from winticket import interop
    >>> state = {"fc.weight": torch.ones(1, 2), "fc.weight_mask": torch.tensor([[1.0, 0.0]])}
    >>> mask, plain = interop.from_state_dict(state)
    >>> mask.keep, list(plain)
    ({'fc.weight': tensor([[ True, False]])}, ['fc.weight'])
    """
    keep, plain = {}, {}
    state = _unwrapped(state) if unwrap else state
    for name, tensor in state.items():
        stem = name.removesuffix(_MASK)
        weight = state.get(f"{stem}{_ORIG}", state.get(stem)) if name.endswith(_MASK) else None
        if weight is not None and weight.shape == tensor.shape:
            keep[stem] = _bool(stem, tensor)
        elif weight is not None:
            raise ValueError(
                f"the mask of {stem!r} has shape {tuple(tensor.shape)}, its weight {tuple(weight.shape)}"
            )
    for name, tensor in state.items():
        stem = name.removesuffix(_ORIG) if name.removesuffix(_ORIG) in keep else name
        if name.removesuffix(_MASK) not in keep or not name.endswith(_MASK):
            plain[stem] = tensor.detach().cpu().clone()
    if not keep:
        raise ValueError(
            "the state dict has no mask: no `weight_mask` beside a `weight` or `weight_orig`; zeros alone are not a "
            "mask (mask_of_zeros reads one from them)"
        )
    return Mask(keep), plain


def to_state_dict(ticket: Ticket, *, masks: bool = False) -> dict[str, Tensor]:
    """The ticket's start as a state dict for `model.load_state_dict`: buffers and weights, with pruned weights 0.

    With `masks`, the whole weights are under `x.weight_orig`, each with its `x.weight_mask` in the same dtype, as in a
    model pruned by torch.nn.utils.prune. Buffers that the model does not persist are included; `load_state_dict` needs
    `strict=False` for them.

    >>> import torch, winticket
    >>> from winticket import interop
    >>> ticket = winticket.prune(torch.nn.Linear(50, 4), 0.5)
    >>> list(interop.to_state_dict(ticket))
    ['weight', 'bias']
    >>> list(interop.to_state_dict(ticket, masks=True))
    ['weight_orig', 'weight_mask', 'bias']
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
    """The mask that keeps every nonzero entry of the named weights: a guess, for files without masks.

    Beware: a live weight that happens to be 0 counts as pruned (as would whole layers that start at 0), and a pruned
    weight that training moved counts as alive. Use this only if you know that neither happened, and never instead of a
    stored mask. With `unwrap`, names lose the prefixes of wrappers, as in `from_state_dict`. ValueError if a name has
    no weight, or if a layer would keep nothing.

    >>> import torch
    >>> from winticket import interop
    >>> interop.mask_of_zeros({"weight": torch.tensor([0.0, 2.0])}, ["weight"]).keep
    {'weight': tensor([False,  True])}
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
        raise ValueError(f"{', '.join(emptied)} would keep nothing: zeros are not a mask in such a layer")
    return mask


def _bool(name: str, mask: Tensor) -> Tensor:
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"the mask of {name!r} has values other than 0 and 1, so it is not a mask")
    return (mask != 0).cpu()


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the model's own names, without the count of an AveragedModel."""
    return {plain: state[name] for name, plain in _plain_names(state).items()}


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> name without the prefixes of wrappers; without the count of an AveragedModel."""
    plain = {name: _uncompiled(name) for name in names}
    while True:
        inner = {name: short for name, short in plain.items() if short != _AVERAGED}
        if not inner or not all(short.startswith(_WRAPPED) for short in inner.values()):
            return plain
        plain = {name: short.removeprefix(_WRAPPED) for name, short in inner.items()}


def _uncompiled(name: str) -> str:
    """A name without torch.compile's `_orig_mod.`, which occurs inside names if only a part is compiled."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
