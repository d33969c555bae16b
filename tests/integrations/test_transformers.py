"""The search inside Transformers' trainer, held against the same search in a loop written out."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from winticket import criteria, rewind, rigl
from winticket.criteria import Criterion, Evidence
from winticket.loops import Levels
from winticket.loops.masking import claimed
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


def train(
    model: nn.Module,
    search: Any,
    folder: Path,
    *,
    more: Any = (),
    own: Any = MappingProxyType({}),
    scaler: Any = None,
    **options: Any,
) -> Any:
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
    callbacks = [search, *more] if search is not None else [*more]
    trainer = InOrder(
        model, arguments, train_dataset=examples(), eval_dataset=examples(), callbacks=callbacks, **own
    )
    if scaler is not None:  # the trainer makes one on a GPU
        trainer.accelerator.scaler = scaler
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
    assert search.trained is not None
    assert search.trained.mask is search.tickets[-1].mask
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


@pytest.mark.filterwarnings("ignore:.*keeps no weight in .*output unit:RuntimeWarning")
@pytest.mark.parametrize("criterion", [criteria.snip, criteria.fisher])
def test_criteria_use_the_models_own_loss_of_whole_batches(criterion: Criterion, tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    batch = {n: torch.stack([example[n] for example in examples()]) for n in ("x", "labels")}
    model = Net()
    search = LotteryTicket(DENSITIES, steps=STEPS, criterion=criterion, batches=[batch])
    train(model, search, tmp_path, max_steps=search.total_steps)
    threes = [(batch["x"], batch["labels"], batch["labels"])]  # two inputs, and the target
    tickets, ended = written_out(
        criterion=criterion, batches=threes, loss=lambda out, y: F.cross_entropy(out["logits"], y)
    )
    for ours, plain in zip(search.tickets, tickets, strict=True):
        assert same_bits(ours.mask.keep, plain.mask.keep)
    assert same_bits(dict(model.state_dict()), ended)


def test_snip_of_bert_is_weight_times_gradient_of_its_loss() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=40,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=12,
            max_position_embeddings=8,
            num_labels=3,
        )
    )
    batch = {
        "input_ids": torch.randint(40, (6, 7)),
        "attention_mask": torch.tensor([[1] * 7] * 3 + [[1] * 4 + [0] * 3] * 3),
        "labels": torch.randint(3, (6,)),
    }
    names = [n for n, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in n]
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    keep = {n: torch.ones_like(weights[n], dtype=torch.bool) for n in names}
    parts = [{n: t[rows] for n, t in batch.items()} for rows in (slice(0, 4), slice(4, 6))]
    e = Evidence.of(weights, keep=keep, network=model, batches=parts)
    scores = criteria.snip(e)
    twin = model.double().eval()
    twin(**batch).loss.backward()
    for name, score in scores.items():
        p = twin.get_parameter(name)
        assert p.grad is not None
        torch.testing.assert_close(score, (p * p.grad).detach().abs(), rtol=1e-8, atol=1e-14)


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
        "the search takes 24 steps, but the trainer makes 20; set max_steps=total_steps",
        by_steps,
        max_steps=20,
    )
    refused("the search takes 6 epochs, but the trainer makes 5;", by_epochs, num_train_epochs=5)
    refused("the search takes 6 epochs, but the trainer makes 5.5;", by_epochs, num_train_epochs=5.5)
    refused(
        "max_steps=24 would end the training by steps; set only num_train_epochs", by_epochs, max_steps=24
    )
    refused("auto_find_batch_size would restart", by_steps, max_steps=24, auto_find_batch_size=True)
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


def stopping(at: int) -> Any:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == at

    return Stop()


def test_an_epoch_that_was_broken_off_does_not_count(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    def go(at: int) -> None:
        search = LotteryTicket(DENSITIES, epochs=2)
        train(Net(), search, tmp_path, more=[stopping(at)], num_train_epochs=search.total_epochs)

    with pytest.warns(RuntimeWarning, match=r"within level 2 of 2, .* this level made 1 of 2 epochs"):
        go(3 * STEPS - 1)
    go(3 * STEPS)  # without a warning, which would be an error here


def test_half_an_epoch_to_spare_leaves_the_schedule_as_it_is(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    looks = []
    for spare in (0, 0.5, 3):
        search = LotteryTicket(DENSITIES, epochs=2)
        looks.append(watching_rates())
        train(Net(), search, tmp_path, more=[looks[-1]], num_train_epochs=search.total_epochs + spare)
    assert looks[0].rates == looks[1].rates == looks[2].rates
    assert len(looks[0].rates) == 3 * STEPS


def test_a_schedule_that_follows_the_losses_is_put_back_to_after_the_step_rewound_to(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    search = LotteryTicket(DENSITIES, steps=STEPS, rewind=rewind.to_step, rewind_step=BATCHES)
    how: dict[str, Any] = {
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"patience": 0, "threshold": 0.5},
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    look = watching_rates()
    train(Net(), search, tmp_path, more=[look], max_steps=search.total_steps, **how)
    rates = look.rates
    assert rates[BATCHES - 1] > rates[BATCHES] > 0  # the validation after step k lowered it
    assert rates[STEPS] == rates[STEPS + BATCHES] == rates[BATCHES]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_with_accumulation_and_validation(precision: str, tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    seen: list[dict[str, Tensor]] = []
    model, search = Net(seen), LotteryTicket(DENSITIES, steps=STEPS)
    how: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 3, "gradient_accumulation_steps": 2}
    trained = train(model, search, tmp_path, max_steps=search.total_steps, **{precision: True}, **how)
    assert trained.state.global_step == 3 * STEPS
    start = dict(Net().state_dict())
    for ticket in search.tickets:
        assert any(same_bits(state, ticket.mask.apply(start)) for state in seen)
    assert all(not model.get_parameter(n)[~k].any() for n, k in search.tickets[2].mask.keep.items())


class Overflowing(Net):
    """Its gradients overflow in the third batch of the first level, and in that of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = super().forward(x, labels)
        self.batches += 1
        if self.batches in (3, STEPS + 4):
            out["loss"] = out["loss"] * float("inf")
        return out


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_a_step_that_a_scaler_leaves_out_does_not_count(optim: str, tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    def go(most: int) -> tuple[Any, list[float]]:
        look, search = watching_rates(), LotteryTicket(DENSITIES, steps=STEPS)
        how: dict[str, Any] = {"scaler": torch.amp.GradScaler("cpu"), "optim": optim}
        trained = train(Overflowing(), search, tmp_path, more=[look], max_steps=most, **how)
        assert len(search.tickets) == 3
        return trained, look.rates

    trained, rates = go(40)
    assert trained.state.global_step == 3 * STEPS + 2 == len(rates)
    assert len(set(rates[:STEPS])) > WARMUP
    if optim == "adamw_torch":
        assert rates[2] == rates[3]  # made again
        del rates[STEPS + 4], rates[3]
        assert rates == rates[:STEPS] * 3
    else:  # is called, and leaves the step out within, so the trainer's schedule goes on
        assert rates == [*rates[: STEPS + 1] * 2, *rates[:STEPS]]
    with pytest.warns(RuntimeWarning, match=r"within level 2 of 2, .* made 6 of 8 updates"):
        go(3 * STEPS)


def test_early_stopping_stops_the_search_with_a_warning(tmp_path: Path) -> None:
    from transformers import EarlyStoppingCallback

    from winticket.integrations.transformers import LotteryTicket

    search = LotteryTicket(DENSITIES, steps=STEPS)
    how: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}
    early = EarlyStoppingCallback(1, 10.0)  # by 10 no loss gets better: after the second look
    with pytest.warns(RuntimeWarning, match="within level 0 of 2, .* made 4 of 8 updates"):
        trained = train(Net(), search, tmp_path, more=[early], max_steps=24, greater_is_better=False, **how)
    assert trained.state.global_step == 4


SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"num_cycles": 2},
    "polynomial": {"lr_end": 1e-3, "power": 2.0},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "reduce_lr_on_plateau": {"patience": 0, "threshold": 0.5},
    "cosine_with_min_lr": {"min_lr": 1e-3},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 3, "decay_type": "linear"},
    "greedy": {"patience": 1, "factor": 0.5, "min_lr": 1e-3},
}


FOLLOW_LOSSES = ("reduce_lr_on_plateau", "greedy")


def test_every_schedule_of_the_trainer_is_tried() -> None:
    from transformers.trainer_utils import SchedulerType

    assert {kind.value for kind in SchedulerType} <= set(SCHEDULES)


def watching_rates() -> Any:
    """A callback with the rate that each update is made at."""
    from transformers import TrainerCallback

    class Look(TrainerCallback):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_pre_optimizer_step(self, *_: Any, **now: Any) -> None:
            self.rates.append(now["optimizer"].param_groups[0]["lr"])

    return Look()


@pytest.mark.parametrize("warmup", [0, WARMUP, 0.25], ids=["without", "steps", "share"])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_of_the_trainer_is_in_every_level_that_of_a_plain_training(
    kind: str, warmup: float, tmp_path: Path
) -> None:
    from transformers.trainer_utils import SchedulerType

    from winticket.integrations.transformers import LotteryTicket

    if kind not in {known.value for known in SchedulerType}:
        pytest.skip(f"this transformers has no {kind}")
    how: dict[str, Any] = {
        "lr_scheduler_type": kind,
        "lr_scheduler_kwargs": SCHEDULES[kind],
        "warmup_steps": warmup,
    }
    if kind in FOLLOW_LOSSES:
        how |= {"eval_strategy": "steps", "eval_steps": 1}
    plain, searched, search = watching_rates(), watching_rates(), LotteryTicket(DENSITIES, steps=STEPS)
    train(Net(), None, tmp_path, more=[plain], max_steps=STEPS, **how)
    train(Net(), search, tmp_path, more=[searched], max_steps=search.total_steps, **how)
    assert len(plain.rates) == STEPS
    if kind not in FOLLOW_LOSSES:  # which are other ones later
        plain.rates *= 3
    assert searched.rates[: len(plain.rates)] == pytest.approx(plain.rates, abs=1e-12, rel=0)
    assert searched.rates[STEPS] == searched.rates[2 * STEPS] == searched.rates[0]
    if kind != "constant" and (warmup or kind not in ("constant_with_warmup", "inverse_sqrt")):
        assert len(set(searched.rates[:STEPS])) > 1


def test_a_schedule_that_does_not_fit_into_a_level_is_refused(tmp_path: Path) -> None:
    from transformers import get_cosine_schedule_with_warmup
    from transformers import get_wsd_schedule as stable

    from winticket.integrations.transformers import LotteryTicket

    def refused(words: str, own: Any = None, **how: Any) -> None:
        model, search = Net(), LotteryTicket(DENSITIES, steps=STEPS)
        given: dict[str, Any] = {}
        if own is not None:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            given = {"optimizers": (optimizer, own(optimizer))}
        with pytest.raises(ValueError, match=re.escape(words)):
            train(model, search, tmp_path, own=given, max_steps=24, **how)
        assert search.tickets == []
        assert same_bits(dict(model.state_dict()), dict(Net().state_dict()))

    refused("a warm-up of 9 steps does not fit into a level of 8", warmup_steps=9)
    late: dict[str, Any] = {"lr_scheduler_type": "warmup_stable_decay"}
    refused(
        "takes 2 steps of warm-up, 0 at the full rate and 7 of decay, but a level has 8",
        **late,
        lr_scheduler_kwargs={"num_decay_steps": 7},
    )
    refused(
        "the schedule spans 24 steps, but a level has 8", lambda o: get_cosine_schedule_with_warmup(o, 1, 24)
    )
    refused(
        "1 steps of warm-up, 6 at the full rate and 2 of decay",
        lambda o: stable(o, 1, 2, num_training_steps=9),
    )


def test_a_schedule_of_ones_own_is_left_as_it_is(tmp_path: Path) -> None:
    from transformers import get_cosine_schedule_with_warmup

    from winticket.integrations.transformers import LotteryTicket

    model, look, search = Net(), watching_rates(), LotteryTicket(DENSITIES, steps=STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    own = {"optimizers": (optimizer, get_cosine_schedule_with_warmup(optimizer, 3, STEPS))}
    train(model, search, tmp_path, more=[look], own=own, max_steps=search.total_steps)
    alone = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule, rates = get_cosine_schedule_with_warmup(alone, 3, STEPS), []
    for _ in range(STEPS):
        rates.append(alone.param_groups[0]["lr"])
        alone.step()
        schedule.step()
    assert look.rates == pytest.approx(rates * 3, abs=1e-12, rel=0)


def breaking_off(at: int) -> Any:
    from transformers import TrainerCallback

    class BreakOff(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at:
                raise KeyboardInterrupt

    return BreakOff()


def free(model: nn.Module) -> bool:
    """Whether nothing of a mask stayed behind: fresh weights stay whole, and a mask that changes may come."""
    model.load_state_dict(Net().state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        batch = examples()[:16]
        optimizer.zero_grad()
        model(torch.stack([e["x"] for e in batch]), torch.stack([e["labels"] for e in batch]))[
            "loss"
        ].backward()
        optimizer.step()
    whole = all(bool(p.all()) for n, p in model.named_parameters() if n in ("one.weight", "two.weight"))
    with claimed(model, alone=True):
        pass
    return whole and not model._forward_pre_hooks and not model.get_parameter("one.weight")._backward_hooks


@pytest.mark.parametrize("how", ["block", "close"])
def test_a_training_that_was_broken_off_leaves_no_mask_once_closed(how: str, tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    model, search = Net(), LotteryTicket(DENSITIES, steps=STEPS)
    options: dict[str, Any] = {"more": [breaking_off(STEPS + 2)], "max_steps": search.total_steps}
    if how == "block":
        with pytest.raises(KeyboardInterrupt), search:
            train(model, search, tmp_path, **options)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(model, search, tmp_path, **options)
        with (
            pytest.raises(ValueError, match=re.escape("call close() on its LotteryTicket")),
            rigl(model, 0.5, steps=8),
        ):
            pass
        search.close()
    mask = search.tickets[1].mask
    assert [mask.count(), len(search.tickets)] == [96, 2]
    assert all(not model.get_parameter(n)[~k].any() for n, k in mask.keep.items())  # the weights stay pruned
    assert free(model)
    search.close()  # a second time changes nothing
    assert free(model)


def test_a_block_around_a_search_that_ends_changes_nothing(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    model = Net()
    with LotteryTicket(DENSITIES, steps=STEPS) as search:
        train(model, search, tmp_path, max_steps=search.total_steps)
    assert same_bits(dict(model.state_dict()), written_out()[1])
    assert len(search.tickets) == 3
    assert free(model)


def test_a_ticket_that_cannot_be_written_leaves_no_mask(tmp_path: Path) -> None:
    from winticket.integrations.transformers import LotteryTicket

    (tmp_path / "tickets").write_text("a file in the folder's place")
    model, search = Net(), LotteryTicket(DENSITIES, steps=STEPS, folder=tmp_path / "tickets")
    with pytest.raises(FileExistsError):
        train(model, search, tmp_path, max_steps=search.total_steps)
    assert free(model)


@pytest.mark.parametrize("block", [False, True])
def test_dense_weights_that_callbacks_write_as_training_ends(block: bool, tmp_path: Path) -> None:
    """One that comes before the search, and within its block one that comes after it as well."""
    from transformers import TrainerCallback

    from winticket.integrations.transformers import LotteryTicket

    class Writes(TrainerCallback):
        def on_train_end(self, *_: Any, **__: Any) -> None:
            with torch.no_grad():
                model.one.weight.add_(1.0)

    model, search = Net(), LotteryTicket(DENSITIES, steps=STEPS)
    order = [search, Writes()] if block else [Writes(), search]
    with (
        pytest.warns(RuntimeWarning, match=r"not 0 after the last step \(96 of one.weight\)"),
        search if block else nullcontext(),
    ):
        train(model, order[0], tmp_path, more=order[1:], max_steps=search.total_steps)
    keep = search.tickets[-1].mask.keep["one.weight"]
    assert not model.one.weight[~keep].any()
    assert bool((model.one.weight[keep] > 0.3).all())
    with torch.no_grad():  # nothing stays behind
        model.one.weight.fill_(1.0)
    model(torch.zeros(2, 8), torch.zeros(2, dtype=torch.int64))
    assert bool((model.one.weight == 1).all())


def test_averages_that_are_given_begin_anew_at_each_level(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    from winticket.integrations.transformers import LotteryTicket

    class Averages(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            average.update_parameters(model)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            model.load_state_dict(average.module.state_dict())

    model = Net()
    average = AveragedModel(model)
    search = LotteryTicket(DENSITIES, steps=STEPS, averages=[average])
    train(model, Averages(), tmp_path, more=[search], max_steps=search.total_steps)
    assert int(average.n_averaged) == STEPS  # those of the last level alone
    for name, keep in search.tickets[-1].mask.keep.items():
        assert not model.get_parameter(name)[~keep].any()
