"""Models inside other modules: DistributedDataParallel, torch.compile, averaged and sharded weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from winticket.bits import digest
from winticket.ticket import Mask, Ticket, Weights


class Replicated(nn.Module):
    """A model that a trainer keeps equal on all ranks by a DDP module that it does not hand out.

    This module takes the place of that one: ranks compare their masks and tickets, and share the first rank's buffers
    if DDP does (`broadcast_buffers`).
    """

    def __init__(self, module: nn.Module, *, broadcast_buffers: bool) -> None:
        super().__init__()
        self.module, self.broadcast_buffers = module, broadcast_buffers
        world = torch.distributed.group.WORLD
        assert world is not None
        self.process_group = world


_SHARDED = {"FullyShardedDataParallel": "FSDP", "FSDPModule": "FSDP", "DeepSpeedEngine": "DeepSpeed"}


def check_whole(model: nn.Module) -> None:
    """ValueError if `model`'s weights are sharded over processes: FSDP, DeepSpeed, tensor parallelism."""
    # By name, so that none of these classes has to be imported.
    shards = {_SHARDED.get(kind.__name__) for module in model.modules() for kind in type(module).__mro__}
    for parameter in model.parameters():
        if hasattr(parameter, "ds_id"):
            shards.add("DeepSpeed")
        elif not shards - {None} and any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
            shards.add("tensor parallelism")
    if named := sorted(name for name in shards if name):
        raise ValueError(
            f"the model's weights are sharded over processes ({', '.join(named)}), and a mask needs whole weights; "
            "train the model on one device or with DistributedDataParallel"
        )


def check_fits(model: nn.Module, mask: Mask) -> None:
    """ValueError if the mask has a layer that the model lacks, or one of another shape."""
    parameters = dict(model.named_parameters())
    for name, keep in mask.keep.items():
        if name not in parameters:
            raise ValueError(
                f"the mask has a layer {name!r} that the model lacks; the model has {', '.join(parameters)}"
            )
        if parameters[name].shape != keep.shape:
            raise ValueError(
                f"the mask of {name!r} has shape {tuple(keep.shape)}, but the model's weight has shape "
                f"{tuple(parameters[name].shape)}"
            )


def holders(model: nn.Module, weights: Iterable[nn.Parameter | Tensor]) -> list[tuple[str, str]]:
    """Path of the module and name of the attribute, for every place that holds one of these weights.

    A tied weight has several.
    """
    ids = {id(weight) for weight in weights}
    return [
        (path, attribute)
        for path, module in model.named_modules()
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in ids
    ]


def bare(model: nn.Module) -> nn.Module:
    """The inner model, whose names tickets use: without DDP, torch.compile's module or AveragedModel.

    >>> import torch
    >>> from winticket.loops.wrapped import bare
    >>> model = torch.nn.Linear(2, 2)
    >>> bare(torch.optim.swa_utils.AveragedModel(model))
    Linear(in_features=2, out_features=2, bias=True)
    """
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
    """Restart `average` from the current weights and buffers of `model`, or of the part of it that is averaged."""
    averaged = dict(_tensors(bare(average)))
    for part in bare(model).modules():
        current = dict(_tensors(part))
        if current.keys() == averaged.keys() and all(
            current[n].shape == t.shape for n, t in averaged.items()
        ):
            for name, tensor in averaged.items():
                tensor.copy_(current[name])
            break
    average.n_averaged.zero_()  # the next update copies the weights, whatever was averaged before


@torch.no_grad()
def put_back_buffers(model: nn.Module, buffers: Mapping[str, Tensor], persistent: Mapping[str, bool]) -> None:
    """Restore the buffers of `model` to exactly these, with their shapes and types.

    A buffer that was added since is removed, or set to None again if None was registered under its name. A buffer that
    was removed is registered again; `persistent` says whether a state dict has it (default: True).
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


def buffer_persistence(model: nn.Module) -> dict[str, bool]:
    """Name of every registered buffer, also of those that are None -> whether a state dict has it."""
    return {
        f"{path}.{name}" if path else name: name not in module._non_persistent_buffers_set
        for path, module in bare(model).named_modules()
        for name in module._buffers
    }


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def distributed(model: nn.Module) -> DistributedDataParallel | Replicated | None:
    """The DistributedDataParallel module that `model` is, or that torch.compile wrapped; None if there is none."""
    while not isinstance(model, DistributedDataParallel | Replicated):
        inner = model._modules.get("_orig_mod")
        if inner is None:
            return None
        model = inner
    return model


def check_ranks(model: nn.Module, ticket: Ticket | Mask) -> None:
    """ValueError on every rank of a DDP or replicated model unless all ranks have one mask and start weights.

    Does nothing for any other model.
    """
    ddp = distributed(model)
    if ddp is None:
        return
    group = ddp.process_group
    groups: list[Weights] = (
        [ticket.mask.keep, ticket.start.weights] if isinstance(ticket, Ticket) else [ticket.keep]
    )
    digests: list[bytes | None] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(digests, digest(*groups), group=group)
    kinds: dict[bytes | None, list[int]] = {}
    for rank, one in enumerate(digests):
        kinds.setdefault(one, []).append(rank)
    if len(kinds) > 1:
        raise ValueError(
            f"the ranks have different {'tickets' if isinstance(ticket, Ticket) else 'masks'}: "
            f"{' differ from '.join(str(ranks) for ranks in kinds.values())}; make it from the same weights, seeds "
            "and examples on every rank, or make it on one rank and send it to the others"
        )


def drawn_seed(model: nn.Module) -> int:
    """A seed from torch's global generator; all ranks of a DDP or replicated model get the first rank's."""
    drawn = int(torch.randint(2**62, (), device="cpu"))
    ddp = distributed(model)
    if ddp is None:
        return drawn
    each: list[int] = [drawn] * torch.distributed.get_world_size(ddp.process_group)
    torch.distributed.all_gather_object(each, drawn, group=ddp.process_group)
    return each[0]


def summed_over_ranks(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor's sum over the ranks of a DDP model, the same on all ranks; the tensors themselves for any other."""
    sums, ddp = dict(tensors), distributed(model)
    if ddp is not None:
        for name, tensor in sums.items():
            sums[name] = tensor.clone()
            torch.distributed.all_reduce(sums[name], group=ddp.process_group)
    return sums


def shared_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers, by their bare names, on the CPU; the first rank's for a DDP model that shares buffers.

    DDP broadcasts the first rank's buffers at the beginning of each forward pass; after the pass they differ.
    """
    buffers = {name: buffer.detach().clone() for name, buffer in bare(model).named_buffers()}
    ddp = distributed(model)
    if ddp is not None and ddp.broadcast_buffers:
        first = torch.distributed.get_global_rank(ddp.process_group, 0)
        for buffer in buffers.values():
            sent = buffer.view(torch.uint8) if buffer.dtype == torch.bool else buffer  # gloo sends no bools
            torch.distributed.broadcast(sent, first, group=ddp.process_group)
    return {name: buffer.cpu() for name, buffer in buffers.items()}
