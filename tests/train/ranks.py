"""What two processes do together in test_ranks.py: `python ranks.py RANK WORLD FILE OUT`."""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from winticket import criteria, rewind
from winticket.levels import Levels
from winticket.ticket import Mask
from winticket.train import masked

STEPS = 5


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def half(model: nn.Module, seed: int = 1) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    names = ("0.weight", "3.weight")
    return Mask({n: torch.rand(model.get_parameter(n).shape, generator=generator) < 0.5 for n in names})


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def revived(model: nn.Module, mask: Mask) -> int:
    return sum(int((model.get_parameter(n).detach()[~k] != 0).sum()) for n, k in mask.keep.items())


def train(ddp: nn.Module, optimizer: torch.optim.Optimizer, rank: int, mask: Mask) -> tuple[int, list[float]]:
    """Steps with clipping. Returns pruned weights that were not 0 after a step, and the norms."""
    wrong, norms = 0, []
    for step in range(STEPS):
        x, y = batch(step, rank)
        optimizer.zero_grad()
        F.cross_entropy(ddp(x), y).backward()  # type: ignore[no-untyped-call]
        norms.append(float(nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)))
        optimizer.step()
        module = ddp.module
        assert isinstance(module, nn.Module)
        wrong += revived(module, mask)
    return wrong, norms


def under_a_mask(rank: int, given: str) -> dict[str, object]:
    model = network()
    ddp = DistributedDataParallel(model)
    mask = half(model)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    with masked(ddp if given == "ddp" else model, mask):
        wrong, norms = train(ddp, optimizer, rank, mask)
        gradients = sum(
            int((p.grad[~mask.keep[n]] != 0).sum())
            for n, p in model.named_parameters()
            if n in mask.keep and p.grad is not None
        )
        names = sorted(ddp.state_dict())
    weights = {n: p.detach() for n, p in model.named_parameters()}
    return {
        "wrong": wrong,
        "gradients": gradients,
        "norms": norms,
        "weights": digest(weights),
        "names": names,
        "left": revived(model, mask),
    }


def different(rank: int) -> dict[str, object]:
    model = network()
    ddp = DistributedDataParallel(model)
    before = digest({n: p.detach() for n, p in model.named_parameters()})
    try:
        with masked(ddp, half(model, seed=rank)):
            raise AssertionError("the block must not begin")
    except ValueError as error:
        return {
            "error": str(error),
            "untouched": before == digest({n: p.detach() for n, p in model.named_parameters()}),
        }


def search(rank: int, seen: str) -> dict[str, object]:
    """A whole search; every rank trains on examples of its own, and scores on the same, or on its own."""
    model = network()
    ddp = DistributedDataParallel(model)
    found: list[object] = []
    batches = [batch(50 + i, rank if seen == "own" else 0) for i in range(2)]
    levels = Levels(
        ddp, [0.5, 0.25], criterion=criteria.snip, rewind=rewind.to_step, rewind_step=2, batches=batches
    )
    try:
        for level in levels:
            with level:
                optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1, momentum=0.9)
                wrong, _ = train(ddp, optimizer, rank, level.ticket.mask)
            state, keep = level.ticket.start, level.ticket.mask.keep
            parts: list[dict[str, Tensor]] = [
                dict(keep),
                dict(state.weights),
                dict(state.buffers),
                {n: p.detach() for n, p in model.named_parameters()},
            ]
            found.append([wrong, level.ticket.mask.count(), state.step, *map(digest, parts)])
    except ValueError as error:
        return {"error": str(error)}
    return {"levels": found}


def cut_up(_: int) -> dict[str, object]:
    """FSDP's shards, in a mask's block and in a search."""
    errors = []
    for way in (lambda m: masked(m, half(network())).__enter__(), lambda m: Levels(m, [0.5])):
        model = network()
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
        try:
            way(model)
        except ValueError as error:
            errors.append(str(error))
    return {"errors": errors}


CASES = {
    "cut up": cut_up,
    "search": lambda rank: search(rank, "same"),
    "search, own examples": lambda rank: search(rank, "own"),
    "ddp": lambda rank: under_a_mask(rank, "ddp"),
    "module": lambda rank: under_a_mask(rank, "module"),
    "different": different,
}


def main() -> None:
    rank, world, file, out = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=int(rank), world_size=int(world))
    Path(out).write_text(json.dumps({name: case(int(rank)) for name, case in CASES.items()}))
    dist.barrier()
    dist.destroy_process_group()
    # Threads of torch's own may still be there when the interpreter goes, about once in ten times, and abort it.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
