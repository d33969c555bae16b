"""What two processes do together in test_ranks.py: `python ranks.py RANK WORLD FILE OUT`."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import winticket
from winticket import criteria, rewind
from winticket.loops import Levels, masked
from winticket.ticket import Mask, Seeds

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
    """FSDP's shards, wherever a mask would go on them."""
    errors = []
    ways: list[Callable[[nn.Module], object]] = [
        lambda m: masked(m, half(network())).__enter__(),
        lambda m: Levels(m, [0.5]),
        lambda m: winticket.prune(m, 0.5),
        lambda m: winticket.rigl(m, 0.5, steps=20).__enter__(),
        lambda m: winticket.edge_popup(m, 0.5).__enter__(),
    ]
    for way in ways:
        model = network()
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
        try:
            way(model)
        except ValueError as error:
            errors.append(str(error))
    return {"errors": errors}


def regrown(rank: int, **own: object) -> dict[str, object]:
    """RigL on two ranks, each step in two parts; and in one process on the examples of both."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.uniform_(p, -0.5, 0.5)
    alone, ddp, how = copy.deepcopy(model), DistributedDataParallel(model), {"steps": 12, "every": 2}
    counts = set()
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(100 + rank)  # without seeds, every rank takes the first rank's draw
    try:
        with winticket.rigl(ddp, 0.5, **how, **own) as sparse:  # type: ignore[arg-type]
            first = sparse.mask
            for step in range(12):
                optimizer.zero_grad()
                with ddp.no_sync():
                    F.cross_entropy(ddp(batch(step, rank)[0]), batch(step, rank)[1]).backward()  # type: ignore[no-untyped-call]
                x, y = batch(step + 100, rank)
                F.cross_entropy(ddp(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                counts.add(str(sparse.mask.layers()))
    except ValueError as error:
        return {"error": str(error)}
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
    with winticket.rigl(alone, 0.5, seeds=sparse.ticket.seeds, **how) as wanted:  # type: ignore[arg-type]
        for step in range(12):
            parts = [batch(s, r) for s in (step, step + 100) for r in range(2)]
            optimizer.zero_grad()
            # Parts of the same size: a sum over the parts of means over ranks.
            (
                2 * F.cross_entropy(alone(torch.cat([x for x, _ in parts])), torch.cat([y for _, y in parts]))
            ).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {
        "mask": digest(dict(sparse.mask.keep)),
        "wanted": digest(dict(wanted.mask.keep)),
        "first": digest(dict(first.keep)),
        "weights": digest({n: p.detach() for n, p in model.named_parameters()}),
        "counts": sorted(counts),
        "wrong": revived(model, sparse.mask),
    }


def scored_on_their_own(rank: int) -> dict[str, object]:
    return regrown(rank, criterion=criteria.taylor, batches=[batch(7, rank)])


def sharded(rank: int) -> dict[str, object]:
    """RigL under an optimiser that steps another over its own rank's share, and over nothing elsewhere."""
    with warnings.catch_warnings():  # torch's own, of what it imports
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.distributed.optim import ZeroRedundancyOptimizer
    ddp = DistributedDataParallel(network())
    steps = []
    with winticket.rigl(ddp, 0.5, steps=12, every=2) as sparse:
        first = sparse.mask
        optimizer = ZeroRedundancyOptimizer(ddp.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
        for step in range(12):
            optimizer.zero_grad()
            x, y = batch(step, rank)
            F.cross_entropy(ddp(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps.append(sparse.step)
    return {
        "steps": steps,
        "first": digest(dict(first.keep)),
        "mask": digest(dict(sparse.mask.keep)),
        "weights": digest({n: p.detach() for n, p in ddp.module.named_parameters()}),
        "wrong": revived(ddp.module, sparse.mask),
    }


def learned(rank: int) -> dict[str, object]:
    """Edge-popup on two ranks, wrapped within the block; and in one process on the examples of both."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.uniform_(p, -0.5, 0.5)
    alone = copy.deepcopy(model)
    torch.manual_seed(100)
    with winticket.edge_popup(model, 0.5) as found:
        ddp, first = DistributedDataParallel(model), found.mask
        optimizer = torch.optim.SGD(found.parameters(), lr=0.5, momentum=0.9)
        for step in range(12):
            optimizer.zero_grad()
            x, y = batch(step, rank)
            F.cross_entropy(ddp(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with winticket.edge_popup(alone, 0.5, seeds=found.ticket.seeds) as wanted:
        optimizer = torch.optim.SGD(wanted.parameters(), lr=0.5, momentum=0.9)
        for step in range(12):
            both = [batch(step, r) for r in range(2)]
            optimizer.zero_grad()
            F.cross_entropy(
                alone(torch.cat([x for x, _ in both])), torch.cat([y for _, y in both])
            ).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    try:
        with winticket.supermask(DistributedDataParallel(network()), 0.5):
            raise AssertionError("the block must not begin")
    except ValueError as error:
        told = str(error)
    return {
        "mask": digest(dict(found.mask.keep)),
        "wanted": digest(dict(wanted.mask.keep)),
        "first": digest(dict(first.keep)),
        "wrong": revived(model, found.mask),
        "told": told,
    }


CASES = {
    "cut up": cut_up,
    "learned": learned,
    "regrown": regrown,
    "regrown, own seeds": lambda rank: regrown(rank, seeds=Seeds(rank, 0)),
    "regrown, own examples": scored_on_their_own,
    "sharded": sharded,
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
