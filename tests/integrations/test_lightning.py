"""The search inside Lightning's trainer, held against the same search in a loop written out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from winticket import criteria, rewind
from winticket.criteria import Evidence
from winticket.loops import Levels
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
    assert search.trained is not None
    state = {**search.trained.start.weights, **search.trained.start.buffers}
    assert same_bits(state, under_net(ended))
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


@pytest.mark.filterwarnings("ignore:.*keeps no weight in .*output unit:RuntimeWarning")
def test_criteria_take_a_loss_and_whole_batches() -> None:
    """The module's forward takes a mapping's entries by name."""
    from winticket.integrations.lightning import LotteryTicket

    def squared(z: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(z, F.one_hot(y, 4).to(z.dtype))

    net, (x, y) = network(), next(iter(loader()))
    module = module_of(net, [])
    type(module).forward = lambda self, x: self.net(x)
    batch = {"x": x, "y": y}
    how: Any = {"criterion": criteria.snip, "batches": [batch], "loss": lambda z, b: squared(z, b["y"])}
    search = LotteryTicket(DENSITIES, steps=STEPS, **how)
    fit(module, search)
    tickets, ended = written_out(criterion=criteria.snip, batches=[(x, y)], loss=squared)
    for ours, plain in zip(search.tickets, tickets, strict=True):
        assert same_bits(ours.mask.keep, under_net(plain.mask.keep))
    assert same_bits(dict(net.state_dict()), ended)


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

    with pytest.raises(ValueError, match="the search takes 6 epochs, but max_epochs is 5; set max_epochs=-1"):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), max_epochs=5)
    with pytest.raises(
        ValueError, match="the search takes 24 steps, but the trainer makes 20; set max_epochs=-1"
    ):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, steps=STEPS), max_epochs=5)
    with pytest.raises(
        ValueError, match="the search takes 24 steps, but the trainer makes 21; set max_epochs"
    ):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), max_steps=21)
    for least in ({"min_epochs": 7}, {"min_steps": 25}):
        length: Any
        for length in ({"epochs": EPOCHS}, {"steps": STEPS}):
            seen: list[dict[str, Tensor]] = []
            with pytest.raises(
                ValueError,
                match=r"takes 24 steps, but the trainer would continue to 2[58]; do not set min_epochs",
            ):
                fit(module_of(network(), seen), LotteryTicket(DENSITIES, **length), **least)
            assert seen == []
    fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), min_epochs=6, max_steps=24)
    uncounted = DataLoader(Uncounted(), batch_size=16)
    with pytest.raises(
        ValueError, match="takes 24 steps, but the trainer would continue to 25; do not set min_epochs"
    ):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, steps=STEPS), uncounted, min_steps=25)
    fit(module_of(network(), []), LotteryTicket(DENSITIES, steps=STEPS), uncounted, min_steps=24)
    with pytest.warns(
        RuntimeWarning, match="training ended within level 0 of 2, at density 1; the search is incomplete"
    ):
        fit(module_of(network(), []), LotteryTicket(DENSITIES, epochs=EPOCHS), callbacks=[Stop()])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "a level lasts either epochs or steps"),
        ({"epochs": 1, "steps": 3}, ValueError, "got epochs=1, steps=3"),
        ({"epochs": 0}, ValueError, "at least 1"),
        ({"epochs": 1, "rewind_step": 3}, ValueError, "to rewind to a step, count levels in steps"),
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

    with pytest.warns(RuntimeWarning, match=r"within level 2 of 2, .* this level made 1 of 2 epochs"):
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


def pruned_of(net: nn.Module, search: Any) -> int:
    """Weights of the finished network that its ticket prunes and that are not 0."""
    keep = search.tickets[-1].mask.keep.items()
    return sum(int(net.get_parameter(n.removeprefix("net."))[~k].count_nonzero()) for n, k in keep)


@pytest.mark.parametrize("first", ["search", "average"])
def test_an_exponential_average_begins_anew_at_each_level(first: str, tmp_path: Path) -> None:
    from lightning.pytorch import Callback
    from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

    from winticket.integrations.lightning import LotteryTicket

    net, ends = network(), list[dict[str, Tensor]]()

    class Look(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            ends.append({n: p.detach().clone() for n, p in net.named_parameters()})

    search = LotteryTicket(DENSITIES, epochs=EPOCHS)
    ema = EMAWeightAveraging(decay=0.5)
    every = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_epochs=1, filename="{epoch}")
    both = [search, ema] if first == "search" else [ema, search]
    fit(module_of(net, []), both[0], callbacks=[both[1], Look(), every], enable_checkpointing=True)
    expected = ends[2 * STEPS]  # after the first update of the last level
    for state in ends[2 * STEPS + 1 :]:
        expected = {n: 0.5 * expected[n] + 0.5 * state[n] for n in state}
    for name, parameter in net.named_parameters():
        assert torch.allclose(parameter, expected[name], atol=1e-6)
    assert pruned_of(net, search) == 0
    for epoch in range(3 * EPOCHS):  # which have the averages
        kept = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        ticket = search.tickets[epoch // EPOCHS]
        assert all(not kept[n][~k].any() for n, k in ticket.mask.keep.items())


def test_stochastic_weight_averaging_within_the_last_level() -> None:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    from winticket.integrations.lightning import LotteryTicket

    net, seen = network(), list[dict[str, Tensor]]()
    search = LotteryTicket(DENSITIES, epochs=3)
    swa = StochasticWeightAveraging(0.01, swa_epoch_start=8, annealing_epochs=1)
    module = module_of(net, seen)
    type(module).configure_optimizers = lambda self: torch.optim.AdamW(net.parameters(), lr=0.02)
    fit(module, search, callbacks=[swa], max_epochs=9)
    # At the starts of the last level's second and third epoch; then one pass for BatchNorm, after whose last batch
    # Lightning 2.6 steps once more by the gradients that are left, with a search or without.
    assert len(seen) == 10 * BATCHES
    one, two, averaged = seen[7 * BATCHES], seen[8 * BATCHES], seen[9 * BATCHES]
    for name, _ in net.named_parameters():
        assert torch.allclose(averaged[name], (one[name] + two[name]) / 2, atol=1e-6)
    assert pruned_of(net, search) == 0
    assert search.tickets[-1].mask.count() == 48
    with torch.no_grad():
        means = torch.stack(
            [F.linear(x, averaged["0.weight"], averaged["0.bias"]).mean(0) for x, _ in loader()]
        )
    assert torch.allclose(net.state_dict()["1.running_mean"], means.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("length", "start", "most", "words"),
    [
        (
            {"epochs": 2},
            5,
            6,
            "begins in epoch 5, and the last level in epoch 5: .* swa_epoch_start from 6 to 6",
        ),
        ({"epochs": 2}, 6, 7, "the search ends after 6 epochs; give max_epochs=6"),
        ({"epochs": 2}, 6, -1, "the search ends after 6 epochs; give max_epochs=6"),
        ({"epochs": 1}, 3, 3, "needs a second epoch within the last level; give epochs=2 or more"),
        ({"steps": 8}, 6, 6, "averages by epochs; count levels in epochs"),
    ],
)
def test_averaging_over_levels_is_refused_before_training(
    length: Any, start: int, most: int, words: str
) -> None:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    from winticket.integrations.lightning import LotteryTicket

    seen: list[dict[str, Tensor]] = []
    swa = StochasticWeightAveraging(0.01, swa_epoch_start=start)
    with pytest.raises(ValueError, match=words):
        fit(module_of(network(), seen), LotteryTicket(DENSITIES, **length), callbacks=[swa], max_epochs=most)
    assert seen == []


@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end"])
def test_dense_weights_written_as_training_ends_are_masked_and_reported(hook: str, tmp_path: Path) -> None:
    from lightning.pytorch import Callback

    from winticket.integrations.lightning import LotteryTicket

    class Writes(Callback):
        """An average of its own kind, which nothing resets, and a checkpoint of it."""

    def write(self: Any, trainer: Any, *_: Any) -> None:
        with torch.no_grad():
            net.get_parameter("0.weight").add_(1.0)
        if hook == "on_train_end":
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    setattr(Writes, hook, write)
    net, search = network(), LotteryTicket(DENSITIES, epochs=EPOCHS)
    with pytest.warns(RuntimeWarning, match=r"not 0 after the last step \(96 of net.0.weight\)"):
        fit(module_of(net, []), search, callbacks=[Writes()])
    assert pruned_of(net, search) == 0
    keep = search.tickets[-1].mask.keep["net.0.weight"]
    assert int(keep.sum()) == 32
    assert bool((net.get_parameter("0.weight")[keep] > 0.3).all())
    if hook == "on_train_end":
        kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
        assert not kept["net.0.weight"][~keep].any()
    with torch.no_grad():  # nothing stays behind
        net.get_parameter("0.weight").fill_(1.0)
    net(torch.zeros(2, 8))
    assert bool((net.get_parameter("0.weight") == 1).all())


def test_a_checkpoint_of_an_earlier_level_is_reported_when_it_is_tested(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    from winticket.integrations.lightning import LotteryTicket

    net, search = network(), LotteryTicket(DENSITIES, epochs=EPOCHS)
    module = module_of(net, [])
    type(module).test_step = lambda self, batch, _: None
    every = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_epochs=1, filename="{epoch}")
    trainer = fit(module, search, callbacks=[every], enable_checkpointing=True)
    trainer.test(
        module, loader(), verbose=False, weights_only=True
    )  # without a warning, which would be an error
    trainer.test(
        module,
        loader(),
        ckpt_path=tmp_path / f"epoch={3 * EPOCHS - 1}.ckpt",
        verbose=False,
        weights_only=True,
    )
    with pytest.warns(
        RuntimeWarning, match=r"the last ticket prunes some that are not 0 \(96 of net.0.weight"
    ):
        trainer.test(module, loader(), ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False, weights_only=True)
