"""The search inside Lightning's trainer, held against the same search in a loop written out."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from winticket import rewind
from winticket.criteria import Evidence
from winticket.levels import Levels
from winticket.ticket import Ticket, same_bits

pytestmark = [
    # Lightning's own, of its use of torch and of loaders too small for workers.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
DENSITIES = [0.5, 0.25]
BATCHES, EPOCHS = 4, 2
STEPS = BATCHES * EPOCHS


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16 * BATCHES, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(0, 4, (len(x),), generator=generator)), batch_size=16)


def optimisers(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=STEPS + 1)


def module_of(net: nn.Module, seen: list[dict[str, Tensor]], **how: Any) -> Any:
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, index: int) -> Tensor:
            seen.append({n: t.detach().clone() for n, t in net.state_dict().items()})
            if how.get("raises") == len(seen):
                raise ZeroDivisionError
            x, y = batch
            return F.cross_entropy(net(x), y)

        def configure_optimizers(self) -> Any:
            optimizer, schedule = optimisers(net)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    return Module()


class Uncounted(IterableDataset[tuple[Tensor, Tensor]]):
    """The same examples, of no known number."""

    def __iter__(self) -> Any:
        return iter(loader().dataset)


def fit(module: Any, search: Any, data: Any = None, **options: Any) -> Any:
    from lightning.pytorch import Trainer

    settings = {"max_epochs": -1, "logger": False, "enable_checkpointing": False, **options}
    callbacks = [search, *settings.pop("callbacks", ())]
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=callbacks, **quiet, **settings)
    trainer.fit(module, loader() if data is None else data)
    return trainer


def written_out(**how: Any) -> tuple[list[Ticket], dict[str, Tensor]]:
    """The plain loop: one optimiser and schedule per level, which a rewound level takes up at its step."""
    model, tickets, kept = network(), [], list(loader())
    for level in Levels(model, DENSITIES, **how):
        tickets.append(level.ticket)
        with level:
            optimizer, schedule = optimisers(model)
            first = level.ticket.start.step
            if first and level.ticket.start.optimizer:
                level.reset(optimizer)
            params = optimizer.param_groups[0]["params"]
            optimizer.param_groups[0]["params"] = []
            for _ in range(first):  # the schedule alone, up to step k
                optimizer.step()
                schedule.step()
            optimizer.param_groups[0]["params"] = params
            for step in range(STEPS - first):
                x, y = kept[step % BATCHES]
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return tickets, {n: t.clone() for n, t in model.state_dict().items()}


def under_net(tensors: Any) -> dict[str, Tensor]:
    return {f"net.{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("by", ["epochs", "steps"])
def test_it_is_the_search_of_a_plain_loop(by: str, tmp_path: Path) -> None:
    from winticket.integrations.lightning import LotteryTicket

    net, seen = network(), list[dict[str, Tensor]]()
    length: Any = {"epochs": EPOCHS} if by == "epochs" else {"steps": STEPS}
    search = LotteryTicket(DENSITIES, folder=tmp_path / "tickets", **length)
    trainer = fit(module_of(net, seen), search)
    tickets, ended = written_out()
    assert trainer.global_step == 3 * STEPS
    assert [t.mask.count() for t in search.tickets] == [192, 96, 48]
    for ours, plain in zip(search.tickets, tickets, strict=True):
        assert same_bits(ours.mask.keep, under_net(plain.mask.keep))
    assert same_bits(dict(net.state_dict()), ended)
    start = {n: t.detach() for n, t in network().state_dict().items()}
    for number, ticket in enumerate(search.tickets):
        saved = Ticket.load(tmp_path / "tickets" / f"level-{number}.safetensors")
        assert same_bits(saved.mask.keep, ticket.mask.keep)
        mask = {n.removeprefix("net."): k for n, k in ticket.mask.keep.items()}
        # What the level's first batch met: the start, bit for bit, BatchNorm's statistics as well.
        expected = {n: t.masked_fill(~mask[n], 0) if n in mask else t for n, t in start.items()}
        assert same_bits(seen[number * STEPS], expected)
        if number:
            assert ticket.mask.within(search.tickets[number - 1].mask)
    with torch.no_grad():  # nothing stays behind
        net.get_parameter("0.weight").fill_(1.0)
    net(torch.zeros(2, 8))
    assert bool((net.get_parameter("0.weight") == 1).all())


@pytest.mark.parametrize("kind", ["to_step", "to_step_with_optimizer"])
def test_rewinding_to_a_step_with_the_schedule_of_that_step(kind: str) -> None:
    from winticket.integrations.lightning import LotteryTicket

    how: Any = {"rewind": getattr(rewind, kind), "rewind_step": BATCHES}
    net = network()
    search = LotteryTicket(DENSITIES, steps=STEPS, **how)
    trainer = fit(module_of(net, []), search)
    tickets, ended = written_out(**how)
    assert trainer.global_step == search.search.total_steps == STEPS + 2 * (STEPS - BATCHES)
    for ours, plain in zip(search.tickets, tickets, strict=True):
        assert ours.start.step == plain.start.step
        assert same_bits(ours.mask.keep, under_net(plain.mask.keep))
    assert same_bits(dict(net.state_dict()), ended)


def test_checkpoints_hold_what_a_level_trained_with_pruned_weights_zero(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    from winticket.integrations.lightning import LotteryTicket

    net, seen = network(), list[dict[str, Tensor]]()
    search = LotteryTicket(DENSITIES, epochs=EPOCHS)
    every = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_epochs=1, filename="{epoch}")
    fit(module_of(net, seen), search, callbacks=[every], enable_checkpointing=True)
    assert len(list(tmp_path.glob("*.ckpt"))) == 3 * EPOCHS
    for epoch in range(3 * EPOCHS):
        kept = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        ticket = search.tickets[epoch // EPOCHS]
        assert all(not kept[n][~k].any() for n, k in ticket.mask.keep.items())
        following = (epoch + 1) * BATCHES
        if (epoch + 1) % EPOCHS:  # within a level, the next batch met what was saved
            assert same_bits(kept, under_net(seen[following]))
        elif following < len(seen):  # at its end, what was saved is trained and not the rewound start
            assert not same_bits(kept, under_net(seen[following]))
    assert same_bits(kept, under_net(net.state_dict()))


def test_a_training_that_raises_leaves_no_mask() -> None:
    from winticket.integrations.lightning import LotteryTicket

    net = network()
    search = LotteryTicket(DENSITIES, epochs=1)
    with pytest.raises(ZeroDivisionError):
        fit(module_of(net, [], raises=BATCHES + 2), search)
    assert len(search.tickets) == 2
    with torch.no_grad():
        net.get_parameter("0.weight").fill_(1.0)
    net(torch.zeros(2, 8))
    assert bool((net.get_parameter("0.weight") == 1).all())
    assert len(search.tickets) == 2


def test_what_goes_wrong_between_two_levels_is_told_as_it_is() -> None:
    from winticket.integrations.lightning import LotteryTicket

    tried: list[int] = []

    def scores(evidence: Evidence) -> dict[str, Tensor]:
        if tried:
            raise ZeroDivisionError("of the criterion")
        tried.append(1)  # before any training
        return {name: evidence.now.weights[name].abs() for name in evidence.mask.keep}

    net = network()
    search = LotteryTicket(DENSITIES, epochs=1, criterion=scores)
    with pytest.raises(ValueError, match=r"raises ZeroDivisionError at .*: of the criterion"):
        fit(module_of(net, []), search)
    assert len(search.tickets) == 1


def test_a_search_that_cannot_end_is_refused_and_one_that_did_not_says_so() -> None:
    from lightning.pytorch import Callback

    from winticket.integrations.lightning import LotteryTicket

    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = True

    with pytest.raises(ValueError, match="the search takes 6 epochs, max_epochs is 5; give it -1"):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), max_epochs=5)
    with pytest.raises(
        ValueError, match="the search takes 24 steps, the trainer makes 20; give it max_epochs=-1"
    ):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, steps=STEPS), max_epochs=5)
    with pytest.raises(
        ValueError, match="the search takes 24 steps, the trainer makes 21; give it max_epochs"
    ):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), max_steps=21)
    for least in ({"min_epochs": 7}, {"min_steps": 25}):
        length: Any
        for length in ({"epochs": EPOCHS}, {"steps": STEPS}):
            seen: list[dict[str, Tensor]] = []
            with pytest.raises(
                ValueError, match=r"takes 24 steps, the trainer would go on to 2[58]; leave min_epochs"
            ):
                fit(module_of(network(), seen), LotteryTicket(DENSITIES, **length), **least)
            assert seen == []
    fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), min_epochs=6, max_steps=24)
    uncounted = DataLoader(Uncounted(), batch_size=16)
    with pytest.raises(ValueError, match="takes 24 steps, the trainer would go on to 25; leave min_epochs"):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, steps=STEPS), uncounted, min_steps=25)
    fit(module_of(network(), []), LotteryTicket(DENSITIES, steps=STEPS), uncounted, min_steps=24)
    with pytest.warns(
        RuntimeWarning, match="training ended within level 0 of 2, at density 1; the search is not"
    ):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), callbacks=[Stop()])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "so many epochs or so many steps"),
        ({"epochs": 1, "steps": 3}, ValueError, "given are epochs=1, steps=3"),
        ({"epochs": 0}, ValueError, "at least 1"),
        ({"epochs": 1, "rewind_step": 3}, ValueError, "rewinding to a step needs the steps of a level"),
        ({"steps": 3, "rewind_step": 3}, ValueError, "rewind_step 3 is not within a level of 3 steps"),
        ({"steps": 3, "criterium": None}, TypeError, "unexpected keyword argument 'criterium'"),
    ],
)
def test_mistakes_are_told_when_the_callback_is_made(options: Any, error: Any, words: str) -> None:
    from winticket.integrations.lightning import LotteryTicket

    with pytest.raises(error, match=re.escape(words)):
        LotteryTicket(DENSITIES, **options)


def test_an_epoch_that_was_broken_off_does_not_count() -> None:
    from lightning.pytorch import Callback

    from winticket.integrations.lightning import LotteryTicket

    class Stop(Callback):
        def __init__(self, at: int) -> None:
            self.at = at

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop |= trainer.global_step == self.at

    def go(at: int) -> None:
        fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), callbacks=[Stop(at)])

    with pytest.warns(RuntimeWarning, match=r"within level 2 of 2, .* of this level 1 of 2 epochs were made"):
        go(3 * STEPS - 1)
    go(3 * STEPS)  # without a warning, which would be an error here


@pytest.mark.parametrize("length", [{"epochs": EPOCHS}, {"steps": 3}], ids=["epochs", "steps"])
def test_half_precision_with_accumulation_and_clipping(length: Any) -> None:
    from winticket.integrations.lightning import LotteryTicket

    net, seen = network(), list[dict[str, Tensor]]()
    search = LotteryTicket(DENSITIES, **length)
    how: dict[str, Any] = {"accumulate_grad_batches": 3, "gradient_clip_val": 1.0, "precision": "bf16-mixed"}
    trainer = fit(module_of(net, seen), search, **how)
    # Updates of 3 batches and of 1: 2 an epoch.
    assert trainer.global_step == 3 * (2 * EPOCHS if "epochs" in length else 3)
    start = {n: t.detach() for n, t in network().state_dict().items()}
    for ticket in search.tickets:
        mask = {n.removeprefix("net."): k for n, k in ticket.mask.keep.items()}
        begun = {n: t.masked_fill(~mask[n], 0) if n in mask else t for n, t in start.items()}
        assert any(same_bits(state, begun) for state in seen)
    assert all(not net.get_parameter(n)[~k].any() for n, k in mask.items())
