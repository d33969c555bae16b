"""Keep a mask in force inside any training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from winticket.loops.hooks import MaskHooks, Optimizer, follow, without_hooks
from winticket.loops.parametrized import check_finite
from winticket.loops.wrapped import bare, check_fits, check_ranks, check_whole, holders
from winticket.ticket import Mask, Ticket

_CALLER = 3  # of the `with` statement, through contextlib


@contextmanager
def masked(
    model: nn.Module, mask: Mask | Ticket, *, optimizer: Optimizer | Sequence[Optimizer] = ()
) -> Iterator[nn.Module]:
    """Hold the pruned weights of `model` at exactly 0 within the block.

    A ticket is a mask and a start: `masked` first copies the ticket's weights and buffers into the model. A plain mask
    leaves the model's weights as they are; if those are freshly drawn, you train the re-init control, not the ticket.

    The mask is applied on entry, after every step of a `torch.optim` optimiser, before every forward pass, before a
    state dict is taken, and on exit, even if the block raises. The forward pass covers optimisers that do not derive
    from `torch.optim.Optimizer`; those passed as `optimizer` are followed after every step as well. Names in the state
    dict do not change. After the block the model has no hooks left, and its weights stay pruned.

    If the mask keeps or prunes whole units (filters or neurons), the bias of a dead unit, the scale and shift of its
    BatchNorm and the weights that read it are 0 as well, as far as the model's graph can be read. The model then
    computes what it would with those units cut out. Under any other mask biases stay as they are.

    Gradients of pruned weights are exactly 0, so gradient clipping sees the norm of the ticket alone, and a new
    optimiser's moments are 0 for pruned weights. Zero gradients are not enough by themselves: weight decay, and moments
    gathered earlier, move weights whose gradient is 0.

    `torch.func.functional_call` substitutes tensors that are not the model's; they are not masked.

    `model` may be wrapped by DistributedDataParallel, torch.compile or AveragedModel; names are those of the inner
    model. The ranks of a DDP model compare their masks, so every rank has to enter the block. A model can be exported
    and traced within the block (`torch.export`, `torch.onnx.export`, `torch.jit.trace`); the exported model has the
    zeros and none of the hooks.

    Raises ValueError, before the first step, if mask and model disagree about a layer, if ranks have different masks,
    if the model's weights are sharded (FSDP, DeepSpeed, tensor parallelism), if another block already changes or learns
    this model's mask, or if the mask leaves a weight-normed unit empty. Raises RuntimeError if a masked parameter is
    renamed or replaced within the block. Warns (RuntimeWarning) if something other than an optimiser wrote to pruned
    weights after the last step, for example averaged weights that began dense; the weights are 0 again.

    >>> import torch, winticket
    >>> model = torch.nn.Linear(4, 2)
    >>> mask = winticket.Mask({"weight": torch.tensor([[True, False, False, True]] * 2)})
    >>> with winticket.masked(model, mask):
    ...     optimizer = torch.optim.Adam(model.parameters())
    ...     model(torch.ones(1, 4)).sum().backward()
    ...     optimizer.step()
    >>> (model.weight != 0).int().tolist()
    [[1, 0, 0, 1], [1, 0, 0, 1]]
    """
    if not isinstance(mask, Mask | Ticket):
        raise TypeError(f"masked() takes a Ticket or a Mask, not a {type(mask).__name__}")
    with claimed(model, alone=False), in_force(model, mask, optimizer=optimizer) as hooks:
        yield model
    warn_of_overwritten(hooks, stacklevel=_CALLER)


@contextmanager
def claimed(model: nn.Module, *, alone: bool) -> Iterator[None]:
    """Register that a block controls a mask of `model`; with `alone`, no other block may control one as well.

    ValueError if two such blocks share a parameter.
    """
    parameters = list(bare(model).parameters())
    ids = {id(p) for p in parameters}
    for other_alone, claimed_parameters in _claims:
        if (alone or other_alone) and any(id(p) in ids for p in claimed_parameters):
            raise ValueError(
                "another block already keeps a mask on this model, and a mask that changes or is learned must be the "
                "model's only one; leave that block first (after an interrupted Transformers training, call close() "
                "on its LotteryTicket)"
            )
    claim = (alone, parameters)
    _claims.append(claim)
    try:
        yield
    finally:
        _claims[:] = [other for other in _claims if other is not claim]


_claims: list[tuple[bool, list[nn.Parameter]]] = []


@contextmanager
def in_force(
    model: nn.Module, mask: Mask | Ticket, *, optimizer: Optimizer | Sequence[Optimizer] = ()
) -> Iterator[MaskHooks]:
    """Keep a mask in force within the block, as `masked` says. The hooks can take another mask and record gradients.

    After a block that ends without an exception, `overwritten` holds what `warn_of_overwritten` warns of.
    """
    check_whole(model)
    check_ranks(model, mask)
    wrapped, model = model, bare(model)
    if isinstance(mask, Ticket):
        mask.load_into(model)
        mask = mask.mask
    check_fits(model, mask)
    check_finite(model, mask)
    hooks = MaskHooks(model, mask)
    with ExitStack() as stack:
        stack.callback(hooks.end)
        stack.callback(hooks.zero_remaining)
        hooks()
        handles = [register_optimizer_step_post_hook(hooks), model.register_forward_pre_hook(hooks)]
        if (
            wrapped is not model
        ):  # a graph that torch.compile made before the block does not run the inner hooks
            handles.append(wrapped.register_forward_pre_hook(hooks))
        # A state dict may be taken of a part, so every module that holds a masked weight has the hook.
        parameters = dict(model.named_parameters())
        weights = [parameters[name] for name in hooks.pruned]
        for path in {"", *(path for path, _ in holders(model, weights))}:
            before_state_dict: Callable[..., RemovableHandle] = model.get_submodule(
                path
            ).register_state_dict_pre_hook
            handles.append(before_state_dict(hooks.settle))
        for handle in handles:
            stack.callback(handle.remove)
        for other in without_hooks(optimizer):
            stack.callback(follow(other, hooks))
        yield hooks
        hooks.settle()


def warn_of_overwritten(hooks: MaskHooks, *, stacklevel: int) -> None:
    """RuntimeWarning, at the caller's `stacklevel`, if something wrote dense weights over the pruned ones."""
    if hooks.overwritten:
        counts = ", ".join(f"{count} of {name}" for name, count in hooks.overwritten.items())
        warnings.warn(
            f"pruned weights were not 0 after the last step ({counts}), and no optimiser had moved them; they are "
            "0 again. Averages that began before the mask are dense: begin them within the block, or put them at the "
            "level's start with level.reset(average). Load checkpoints before the training. Pass an optimiser that "
            "does not derive from torch.optim.Optimizer as optimizer=...",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )
