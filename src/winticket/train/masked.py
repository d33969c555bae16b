"""Keep a mask in force inside anybody's training loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from winticket.ticket import Mask, Ticket


@contextmanager
def masked(model: nn.Module, mask: Mask | Ticket) -> Iterator[nn.Module]:
    """Within the block, the pruned weights of `model` are exactly 0.

    ```python
    with masked(model, ticket):
        my_loop(model)
    ```
    A ticket is its mask *and* its start: given one, the model's weights and buffers become the ticket's first. Given a
    mask alone, the model keeps the weights it has; freshly drawn ones make it the re-init control, not the ticket.

    The mask is put on at entry, after every step of any `torch.optim` optimiser, before every forward pass
    (which covers optimisers of other makes), before a state dict is taken, and at exit, however the block
    ends. Names in the state dict stay as they are; nothing of it remains on the model afterwards, and the
    weights stay pruned.

    Multiplying gradients alone would not do: momentum, Adam's moments and weight decay move weights whose
    gradient is zero. Raises ValueError, before the first step, where mask and model disagree about a layer.
    """
    if isinstance(mask, Ticket):
        mask.load_into(model)
        mask = mask.mask
    if not isinstance(mask, Mask):
        raise TypeError(f"masked() takes a Ticket or a Mask, not a {type(mask).__name__}")
    parameters = dict(model.named_parameters())
    for name, keep in mask.keep.items():
        if name not in parameters:
            raise ValueError(
                f"the mask has a layer {name!r} that the model lacks; it has {', '.join(parameters)}"
            )
        if parameters[name].shape != keep.shape:
            given, own = tuple(keep.shape), tuple(parameters[name].shape)
            raise ValueError(f"the mask of {name!r} has shape {given}, the model's weight {own}")
    pruned = {name: ~keep for name, keep in mask.keep.items()}
    enforce = _enforcer(model, pruned)
    enforce()
    handles = [register_optimizer_step_post_hook(enforce), model.register_forward_pre_hook(enforce)]
    # A state dict may be taken of a part: every module that holds a masked weight looks after it.
    for owner in {"", *_holders(model, [parameters[name] for name in mask.keep])}:
        before_state_dict: Callable[..., RemovableHandle] = model.get_submodule(
            owner
        ).register_state_dict_pre_hook
        handles.append(before_state_dict(enforce))
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()
        enforce()
        pruned.clear()  # a copy of the model made within the block still has the hooks: they do nothing now


def _holders(model: nn.Module, weights: Sequence[Tensor]) -> set[str]:
    """The modules that hold one of these weights, which may be tied."""
    wanted = {id(weight) for weight in weights}
    return {
        name
        for name, module in model.named_modules()
        if any(id(p) in wanted for p in module.parameters(recurse=False))
    }


def _enforcer(model: nn.Module, pruned: dict[str, Tensor]) -> Callable[..., None]:
    """Zero the `pruned` weights of `model` as it is now (its parameters may have moved or been replaced)."""

    @torch.no_grad()
    def enforce(*_: Any, **__: Any) -> None:
        parameters = dict(model.named_parameters())
        for name, gone in pruned.items():
            weight = parameters[name]
            if gone.device != weight.device:
                gone = pruned[name] = gone.to(weight.device)  # noqa: PLW2901
            # Past autograd's count of versions: a second forward pass before the backward pass writes zeros
            # over zeros, and the first one's saved weights are still good.
            weight.data.masked_fill_(gone, 0)

    return enforce
