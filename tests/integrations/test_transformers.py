"""The search inside Transformers' trainer, held against the same search in a loop written out."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from winticket import rewind
from winticket.levels import Levels
from winticket.ticket import Ticket, same_bits

DENSITIES = [0.5, 0.25]
BATCHES, STEPS, WARMUP = 4, 8, 2


class Net(nn.Module):
    def __init__(self, seen: list[dict[str, Tensor]] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.norm, self.two = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)
        self.seen = seen

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if self.seen is not None:
            self.seen.append({n: t.detach().clone() for n, t in self.state_dict().items()})
        logits = self.two(self.norm(self.one(x)).relu())
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def examples() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16 * BATCHES, 8, generator=generator)
    y = torch.randint(0, 4, (len(x),), generator=generator)
    return [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]


def train(model: nn.Module, search: Any, folder: Path, **options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(examples())

    settings: dict[str, Any] = {
        "save_strategy": "no",
        "learning_rate": 0.02,
        "warmup_steps": WARMUP,
        "weight_decay": 0.0,
        **options,
    }
    quiet: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=16, dataloader_pin_memory=False, **quiet, **settings
    )
    trainer = InOrder(model, arguments, train_dataset=examples(), callbacks=[search])
    trainer.train()
    return trainer


def written_out(**how: Any) -> tuple[list[Ticket], dict[str, Tensor]]:
    """The plain loop: AdamW, clipped, warm-up and linear decay over one level, taken up at the step rewound to."""
    model, tickets, data = Net(), [], examples()
    for level in Levels(model, DENSITIES, **how):
        tickets.append(level.ticket)
        with level:
            model.train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0, fused=True)
            level.reset(optimizer)

            def rate(step: int) -> float:
                return step / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP)

            schedule = LambdaLR(optimizer, rate)
            first = level.ticket.start.step
            for step in range(first, STEPS):
                optimizer.param_groups[0]["lr"] = 0.02 * rate(step)
                part = data[16 * ((step - first) % BATCHES) :][:16]
                optimizer.zero_grad()
                loss = model(torch.stack([p["x"] for p in part]), torch.stack([p["labels"] for p in part]))
                loss["loss"].backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            assert schedule.last_epoch == 0
    return tickets, {n: t.clone() for n, t in model.state_dict().items()}


@pytest.mark.parametrize("by", ["epochs", "steps"])
def test_it_is_the_search_of_a_plain_loop(by: str, tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    seen: list[dict[str, Tensor]] = []
    model = Net(seen)
    length: Any = {"epochs": STEPS // BATCHES} if by == "epochs" else {"steps": STEPS}
    search = LotteryTicket(DENSITIES, folder=tmp_path / "tickets", **length)
    if by == "epochs":
        trained = train(model, search, tmp_path, num_train_epochs=search.total_epochs)
    else:
        trained = train(model, search, tmp_path, max_steps=search.total_steps)
    assert trained.state.global_step == 3 * STEPS == len(seen)
    tickets, ended = written_out()
    assert [t.mask.count() for t in search.tickets] == [192, 96, 48]
    for ours, plain in zip(search.tickets, tickets, strict=True):
        assert same_bits(ours.mask.keep, plain.mask.keep)
    assert same_bits(dict(model.state_dict()), ended)
    start = dict(Net().state_dict())
    for number, ticket in enumerate(search.tickets):
        saved = Ticket.load(tmp_path / "tickets" / f"level-{number}.safetensors")
        assert same_bits(saved.mask.keep, ticket.mask.keep)
        assert same_bits(seen[number * STEPS], ticket.mask.apply(start))  # BatchNorm's statistics as well
        if number:
            assert ticket.mask.within(search.tickets[number - 1].mask)


@pytest.mark.parametrize("kind", ["to_step", "to_step_with_optimizer"])
def test_rewinding_to_a_step_with_the_schedule_of_that_step(kind: str, tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    how: Any = {"rewind": getattr(rewind, kind), "rewind_step": BATCHES}
    model = Net()
    search = LotteryTicket(DENSITIES, steps=STEPS, **how)
    train(model, search, tmp_path, max_steps=search.total_steps)
    tickets, ended = written_out(**how)
    for ours, plain in zip(search.tickets, tickets, strict=True):
        assert ours.start.step == plain.start.step
        assert same_bits(ours.mask.keep, plain.mask.keep)
    assert same_bits(dict(model.state_dict()), ended)


def test_saved_checkpoints_hold_what_a_level_trained_with_pruned_weights_zero(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    model = Net()
    search = LotteryTicket(DENSITIES, steps=STEPS)
    train(model, search, tmp_path, max_steps=search.total_steps, save_strategy="steps", save_steps=STEPS // 2)
    start = dict(Net().state_dict())
    for number, ticket in enumerate(search.tickets):
        for step in (STEPS // 2, STEPS):
            saved = load_file(tmp_path / f"checkpoint-{number * STEPS + step}" / "model.safetensors")
            assert all(not saved[n][~k].any() for n, k in ticket.mask.keep.items())
            assert all((saved[n][k] != start[n][k]).any() for n, k in ticket.mask.keep.items())
    assert same_bits(saved, dict(model.state_dict()))


def test_accumulation_and_two_epochs_of_uneven_length(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    seen: list[dict[str, Tensor]] = []
    search = LotteryTicket(DENSITIES, epochs=1)
    more: dict[str, Any] = {"gradient_accumulation_steps": 3}  # of 4 batches: updates of 3 and of 1
    trained = train(Net(seen), search, tmp_path, num_train_epochs=search.total_epochs, **more)
    assert trained.state.global_step == 6
    for number, ticket in enumerate(search.tickets):
        assert same_bits(seen[number * BATCHES], ticket.mask.apply(dict(Net().state_dict())))


def test_what_cannot_be_is_refused_before_training(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    def refused(words: str, search: Any, **options: Any) -> None:
        model = Net()
        with pytest.raises(ValueError, match=re.escape(words)):
            train(model, search, tmp_path, **options)
        assert same_bits(dict(model.state_dict()), dict(Net().state_dict()))

    by_steps, by_epochs = LotteryTicket(DENSITIES, steps=STEPS), LotteryTicket(DENSITIES, epochs=2)
    refused(
        "the search takes 24 steps, the trainer makes 20; give max_steps=total_steps", by_steps, max_steps=20
    )
    refused("the search takes 6 epochs, the trainer makes 5", by_epochs, num_train_epochs=5)
    best: dict[str, Any] = {
        "load_best_model_at_end": True,
        "eval_strategy": "no",
        "save_strategy": "best",
        "metric_for_best_model": "loss",
    }
    refused("load_best_model_at_end would put weights", by_steps, max_steps=24, **best)
    for search, name in ((by_steps, "total_epochs"), (by_epochs, "total_steps")):
        with pytest.raises(ValueError, match="levels are counted in"):
            getattr(search, name)


def test_one_that_did_not_end_says_so(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    from winticket.integrations.transformers import LotteryTicket

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == STEPS + 1

    search, model = LotteryTicket(DENSITIES, steps=STEPS), Net()
    from transformers import Trainer, TrainingArguments

    quiet: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    arguments = TrainingArguments(str(tmp_path), save_strategy="no", max_steps=24, **quiet)
    trainer = Trainer(model, arguments, train_dataset=examples(), callbacks=[search, Stop()])
    with pytest.warns(
        RuntimeWarning, match=r"training ended within level 1 of 2, at density 0\.5; the search"
    ):
        trainer.train()
    assert all(not model.get_parameter(n)[~k].any() for n, k in search.tickets[1].mask.keep.items())
