"""What each of two processes does in test_several_processes.py: `python trainers.py TRAINER RANK WORLD FOLDER`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from winticket import criteria, rewind
from winticket.loops import Levels
from winticket.ticket import JSON, Mask, Ticket

DENSITIES = [0.5, 0.25]
BATCHES, STEPS, WARMUP, REWOUND = 4, 8, 2, 4
"""Batches of an epoch on each rank; updates of a level, of its warm-up, and up to the step that is rewound to."""
HOW: dict[str, dict[str, Any]] = {
    "to_init": {},
    "to_step": {"rewind": rewind.to_step, "rewind_step": REWOUND},
    "to_step_with_optimizer": {"rewind": rewind.to_step_with_optimizer, "rewind_step": REWOUND},
}
Batch = tuple[Tensor, Tensor]


class Net(nn.Module):
    """Returns loss and logits, as Transformers wants them, and remembers what it was given."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.norm, self.two = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)
        self.batches: list[Batch] = []
        self.states: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor] | Tensor:
        logits: Tensor = self.two(self.norm(self.one(x)).relu())
        if labels is None:
            return logits
        self.batches.append((x.clone(), labels.clone()))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def remember(self) -> None:
        """From now on keep the state that every batch meets, DDP's broadcast of buffers included."""

        def keep(_: nn.Module, given: Any) -> None:
            self.states.append({n: t.detach().clone() for n, t in self.state_dict().items()})

        self.register_forward_pre_hook(keep)


def examples() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2 * 16 * BATCHES, 8, generator=generator)
    y = torch.randint(0, 4, (len(x),), generator=generator)
    return [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]


def rate(step: int) -> float:
    return step / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP)


def by_lightning(
    model: Net, search: Any, after_step: Callable[[], None], folder: Path, strategy: Any = "ddp"
) -> None:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from torch.utils.data import DataLoader

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Any:  # what criteria score by
            return self.net(x)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.net(**batch)["loss"]

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0, fused=True)
            return [optimizer], [{"scheduler": LambdaLR(optimizer, rate), "interval": "step"}]

    class Look(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            after_step()

    settings: dict[str, Any] = {"max_epochs": -1, "logger": False, "enable_checkpointing": False}
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        strategy=strategy,
        devices=2,
        gradient_clip_val=1.0,
        callbacks=[search, Look()],
        **settings,
        **quiet,
    )
    trainer.fit(Module(), DataLoader(examples(), batch_size=16))  # type: ignore[arg-type]
    assert trainer.world_size == 2


def by_transformers(model: Net, search: Any, after_step: Callable[[], None], folder: Path) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(examples())

    class Look(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            after_step()

    quiet: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    total = search.search
    length = {"num_train_epochs": total.total_epochs} if total.epochs else {"max_steps": total.total_steps}
    arguments = TrainingArguments(
        str(folder),
        ddp_backend="gloo",
        per_device_train_batch_size=16,
        dataloader_pin_memory=False,
        learning_rate=0.02,
        warmup_steps=WARMUP,
        weight_decay=0.0,
        save_strategy="no",
        **length,
        **quiet,
    )
    assert arguments.world_size == 2
    trainer = InOrder(model, arguments, train_dataset=examples(), callbacks=[search, Look()])
    trainer.train()


TRAINERS = {"lightning": by_lightning, "transformers": by_transformers}


def written_out(batches: list[Batch], how: dict[str, Any]) -> tuple[list[Ticket], Net]:
    """The plain loop of this rank, on the batches that the trainer gave it."""
    model, tickets, given = Net(0), [], iter(batches)
    ddp = DistributedDataParallel(model)
    for level in Levels(ddp, DENSITIES, **how):
        tickets.append(level.ticket)
        with level:
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0, fused=True)
            level.reset(optimizer)
            for step in range(level.ticket.start.step, STEPS):
                optimizer.param_groups[0]["lr"] = 0.02 * rate(step)
                x, labels = next(given)
                optimizer.zero_grad()
                ddp(x, labels)["loss"].backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
    assert next(given, None) is None
    return tickets, model


def digest(tensors: Any, prefix: str = "") -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        found.update(name.removeprefix(prefix).encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def told(ticket: Ticket, prefix: str = "") -> dict[str, object]:
    """A ticket by its bytes, without the trainer's own prefix of names."""
    start = ticket.start
    parts = {
        "mask": ticket.mask.keep,
        "weights": start.weights,
        "buffers": start.buffers,
        "optimizer": {k.replace(prefix, ""): v for k, v in start.optimizer.items()},
    }
    return {
        "count": ticket.mask.count(),
        "step": start.step,
        **{name: digest(part, prefix) for name, part in parts.items()},
    }


def run(trainer: str, kind: str, rank: int, folder: Path) -> dict[str, object]:
    """A whole search. Each rank draws initial weights of its own, of which DDP keeps the first rank's."""
    how, prefix = HOW[kind], "net." if trainer == "lightning" else ""
    length: dict[str, Any] = {"steps": STEPS} if how else {"epochs": STEPS // BATCHES}
    search = ticket_callback(trainer)(DENSITIES, folder=folder / kind, **length, **how)
    model, wrong, saved = Net(rank), [], list[str]()
    model.remember()

    def after_step() -> None:
        keep = search.tickets[-1].mask.keep.items()
        wrong.append(
            sum(int(model.get_parameter(n.removeprefix(prefix))[~k].count_nonzero()) for n, k in keep)
        )

    save = Ticket.save

    def noted(ticket: Ticket, path: str | Path, **metadata: JSON) -> None:
        saved.append(Path(path).name)
        save(ticket, path, **metadata)

    with patch.object(Ticket, "save", noted):
        TRAINERS[trainer](model, search, after_step, folder)
    tickets: list[Ticket] = search.tickets
    firsts, first = [], 0
    for ticket in tickets:
        mask = Mask({n.removeprefix(prefix): k for n, k in ticket.mask.keep.items()})
        whole = {
            n.removeprefix(prefix): w for n, w in {**ticket.start.weights, **ticket.start.buffers}.items()
        }
        firsts.append(digest(model.states[first]) == digest(mask.apply(whole)))
        first += STEPS - ticket.start.step
    dist.barrier()
    files = [folder / kind / f"level-{number}.safetensors" for number in range(len(tickets))]
    plain, net = written_out(model.batches, how)
    return {
        "updates": len(wrong),
        "revived": sum(wrong),
        "batches": digest({str(i): x for i, (x, _) in enumerate(model.batches)}),
        "starts met": firsts,
        "begun": digest(model.states[0]) == digest(Net(0).state_dict()),
        "levels": [told(ticket, prefix) for ticket in tickets],
        "plain levels": [told(ticket) for ticket in plain],
        "weights": digest(dict(model.named_parameters())),
        "plain weights": digest(dict(net.named_parameters())),
        "saved": saved,
        "files": [told(Ticket.load(file), prefix) for file in files],
    }


def own_examples(trainer: str, rank: int, folder: Path) -> dict[str, object]:
    """Ranks that score on other examples each, which has to be told on all of them."""
    generator = torch.Generator().manual_seed(rank)
    batches = [(torch.randn(16, 8, generator=generator), torch.randint(0, 4, (16,), generator=generator))]
    options: dict[str, Any] = {"criterion": criteria.snip, "batches": batches}
    search = ticket_callback(trainer)(DENSITIES, steps=STEPS, folder=folder / "own", **options)
    try:
        TRAINERS[trainer](Net(0), search, lambda: None, folder)
    except ValueError as error:
        return {"error": str(error), "levels": len(search.tickets)}
    return {}


def cut_up(folder: Path) -> dict[str, object]:
    """A strategy that shares the weights out over the processes; it has to be refused with nothing trained."""
    from lightning.pytorch.strategies import ModelParallelStrategy

    search, model = ticket_callback("lightning")(DENSITIES, steps=STEPS), Net(0)
    before = digest(model.state_dict())
    try:
        by_lightning(model, search, lambda: None, folder, strategy=ModelParallelStrategy())
    except ValueError as error:
        same = before == digest(model.state_dict())
        return {"error": str(error), "untouched": same and not model.batches, "levels": len(search.tickets)}
    return {}


def ticket_callback(trainer: str) -> Any:
    import importlib

    return importlib.import_module(f"winticket.integrations.{trainer}").LotteryTicket


def main() -> None:
    trainer, rank, world, place = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    # Before the trainer, which takes the group that is there: a file, where a port might be taken.
    dist.init_process_group(
        "gloo", init_method=f"file://{place / 'meeting'}", rank=rank, world_size=int(world)
    )
    found: dict[str, object] = {kind: run(trainer, kind, rank, place) for kind in HOW}
    found["own examples"] = own_examples(trainer, rank, place)
    if trainer == "lightning":
        found["cut up"] = cut_up(place)
    (place / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    sys.stderr.flush()
    os._exit(0)  # as in tests/loops/ranks.py: threads of torch's own may still be there


if __name__ == "__main__":
    main()
