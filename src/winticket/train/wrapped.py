"""Models inside other modules: DistributedDataParallel, torch.compile, averaged weights; and what is cut up by them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from winticket.ticket import Mask, Ticket, Weights


class Replicated(nn.Module):
    """A model that a trainer keeps equal on all ranks with a DDP module of its own, which nobody is given.

    It stands for that module: ranks compare what they were given, and share the first one's buffers where DDP does
    (`broadcast_buffers`).
    """

    def __init__(self, module: nn.Module, *, broadcast_buffers: bool) -> None:
        super().__init__()
        self.module, self.broadcast_buffers = module, broadcast_buffers
        world = torch.distributed.group.WORLD
        assert world is not None
        self.process_group = world


_CUT_UP = {"FullyShardedDataParallel": "FSDP", "FSDPModule": "FSDP", "DeepSpeedEngine": "DeepSpeed"}


def check_whole(model: nn.Module) -> None:
    """Raise ValueError where `model`'s weights are cut up over processes: FSDP, DeepSpeed, tensor parallelism."""
    # By name: none of these classes is imported for the question.
    found = {_CUT_UP.get(kind.__name__) for module in model.modules() for kind in type(module).__mro__}
    for parameter in model.parameters():
        if hasattr(parameter, "ds_id"):
            found.add("DeepSpeed")
        elif not found - {None} and any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
            found.add("tensor parallelism")
    if cut := sorted(name for name in found if name):
        raise ValueError(
            f"the model's weights are cut up over processes ({', '.join(cut)}), and a mask is over whole weights; "
            "train it whole, on one device or with DistributedDataParallel"
        )


def bare(model: nn.Module) -> nn.Module:
    """The model whose names tickets use: without DDP, torch.compile's module or AveragedModel."""
    while True:
        if isinstance(model, DistributedDataParallel | DataParallel | AveragedModel | Replicated):
            inner = model.module
        else:
            inner = model._modules.get("_orig_mod")  # torch.compile's module; its class is slow to import
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@torch.no_grad()
def reset_average(average: AveragedModel, model: nn.Module) -> None:
    """Let `average` begin anew from the weights and buffers that `model`, or the part that it averages, has now."""
    parts = {name: dict(_tensors(part)) for name, part in bare(model).named_modules()}
    mine = dict(_tensors(bare(average)))
    for theirs in parts.values():
        if theirs.keys() == mine.keys() and all(theirs[n].shape == t.shape for n, t in mine.items()):
            for name, tensor in mine.items():
                tensor.copy_(theirs[name])
            break
    average.n_averaged.zero_()  # the next update copies, whatever was there


@torch.no_grad()
def put_back_buffers(model: nn.Module, buffers: Mapping[str, Tensor], persistent: Mapping[str, bool]) -> None:
    """Give `model` these buffers and no others, in the shapes and types that they have.

    One that came since is removed, or None again if None was registered for it; one that went is registered anew,
    persistent as `persistent` says, True if it does not.
    """
    model = bare(model)
    for name, buffer in dict(model.named_buffers()).items():
        path, _, attribute = name.rpartition(".")
        owner = model.get_submodule(path)
        if name not in buffers:
            if name in persistent:
                owner._buffers[attribute] = None
            else:
                delattr(owner, attribute)
        elif (buffer.shape, buffer.dtype) != (buffers[name].shape, buffers[name].dtype):
            owner._buffers[attribute] = buffers[name].to(buffer.device, copy=True)
    known = dict(model.named_buffers(remove_duplicate=False))
    device = next((p.device for p in model.parameters()), None)
    for name in buffers.keys() - known.keys():
        path, _, attribute = name.rpartition(".")
        owner = model.get_submodule(path)
        owner._buffers.pop(attribute, None)
        owner.register_buffer(
            attribute, buffers[name].to(device, copy=True), persistent=persistent.get(name, True)
        )


def buffer_places(model: nn.Module) -> dict[str, bool]:
    """Every registered buffer's name, those that are None as well, with whether a state dict has it."""
    return {
        f"{path}.{name}" if path else name: name not in module._non_persistent_buffers_set
        for path, module in bare(model).named_modules()
        for name in module._buffers
    }


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def distributed(model: nn.Module) -> DistributedDataParallel | Replicated | None:
    """The DistributedDataParallel that `model` is, or that stands within what torch.compile made of it."""
    while not isinstance(model, DistributedDataParallel | Replicated):
        inner = model._modules.get("_orig_mod")
        if inner is None:
            return None
        model = inner
    return model


def check_ranks(model: nn.Module, ticket: Ticket | Mask) -> None:
    """Raise ValueError on every rank of a DDP or replicated model unless all were given one mask and start weights.

    Nothing is compared where `model` is neither.
    """
    ddp = distributed(model)
    if ddp is None:
        return
    group = ddp.process_group
    digests: list[str | None] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(digests, _digest(ticket), group=group)
    kinds: dict[str | None, list[int]] = {}
    for rank, digest in enumerate(digests):
        kinds.setdefault(digest, []).append(rank)
    if len(kinds) > 1:
        raise ValueError(
            f"the ranks were given different {'tickets' if isinstance(ticket, Ticket) else 'masks'}: "
            f"{' differ from '.join(str(ranks) for ranks in kinds.values())}; make it from the same weights, seeds "
            "and examples on every rank, or make it on one and send it to the others"
        )


def drawn_seed(model: nn.Module) -> int:
    """A seed from torch's global generator; on the ranks of a DDP or replicated model, that of the first."""
    drawn = int(torch.randint(2**62, (), device="cpu"))
    ddp = distributed(model)
    if ddp is None:
        return drawn
    each: list[int] = [drawn] * torch.distributed.get_world_size(ddp.process_group)
    torch.distributed.all_gather_object(each, drawn, group=ddp.process_group)
    return each[0]


def summed_over_ranks(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor's sum over the ranks of a DDP model, the same on all of them; as it is where `model` is none."""
    found, ddp = dict(tensors), distributed(model)
    if ddp is not None:
        for name, tensor in found.items():
            found[name] = tensor.clone()
            torch.distributed.all_reduce(found[name], group=ddp.process_group)
    return found


def shared_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers, by their bare names, on the CPU; of a DDP model that shares them, those of its first rank.

    DDP sends the first rank's to the others at the beginning of each forward pass; after it they differ.
    """
    buffers = {name: buffer.detach().clone() for name, buffer in bare(model).named_buffers()}
    ddp = distributed(model)
    if ddp is not None and ddp.broadcast_buffers:
        first = torch.distributed.get_global_rank(ddp.process_group, 0)
        for buffer in buffers.values():
            sent = buffer.view(torch.uint8) if buffer.dtype == torch.bool else buffer  # gloo sends no bools
            torch.distributed.broadcast(sent, first, group=ddp.process_group)
    return {name: buffer.cpu() for name, buffer in buffers.items()}


def _digest(ticket: Ticket | Mask) -> str:
    found = hashlib.sha256()
    parts: list[Weights] = (
        [ticket.mask.keep, ticket.start.weights] if isinstance(ticket, Ticket) else [ticket.keep]
    )
    for part in parts:
        for name, tensor in part.items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found.update(raw.numpy().data)
    return found.hexdigest()
