"""A Lightning callback that finds tickets: iterative pruning with rewinding inside one `trainer.fit`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from winticket.integrations.search import Search
from winticket.loops.levels import Density
from winticket.ticket import Ticket

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import StochasticWeightAveraging
    from lightning.pytorch.strategies import (
        DDPStrategy,
        DeepSpeedStrategy,
        SingleDeviceStrategy,
        Strategy,
        XLAStrategy,
    )
except ImportError as error:
    raise ImportError(
        "winticket.integrations.lightning needs Lightning: pip install 'winticket[lightning]'"
    ) from error

__all__ = ["LotteryTicket"]


class LotteryTicket(Callback):
    """Train, prune, rewind and train again, level by level, in one `trainer.fit`.

    A level lasts `epochs`, or `steps` updates. Each new level rewinds weights and buffers, empties the optimiser's
    state (or restores that of step k, under `rewind.to_step_with_optimizer`), and restores learning rates and
    schedules, so a schedule spans one level. When a level ends, the trainer has validated and saved what it trained.
    If you pass a `folder`, each ticket is written to `level-0.safetensors` and so on when its training begins.

    `options` are those of `winticket.Levels`: criterion, allocate, rewind, rewind_step, include, exclude, batches, ...

    With several processes (`strategy="ddp"` and its variants) all ranks prune to the same masks and rewind to the same
    start, or all raise; the first rank writes the files. Under `ddp_spawn` and similar strategies `tickets` stay in the
    processes that trained; read them from `folder`.

    Averages that callbacks keep as AveragedModel (WeightAveraging, EMAWeightAveraging, your own) restart at each level.
    StochasticWeightAveraging must start within the last level; its average is then the finished network. Whatever else
    is written to the weights when training ends, the finished network and its checkpoints have the mask's zeros. A
    RuntimeWarning reports dense weights, also if you test the checkpoint of an earlier level.

    Raises ValueError, before any training, if the trainer would stop before the last level or continue after it, if it
    would resume a checkpoint (pass the last ticket as `ticket` instead), or under a strategy that shards weights (FSDP,
    DeepSpeed, model parallelism) or hides its processes (XLA).

    >>> import torch
    >>> from lightning.pytorch import Trainer
    >>> from lightning.pytorch.demos.boring_classes import BoringModel
    >>> from winticket.integrations.lightning import LotteryTicket
    >>> search = LotteryTicket([0.5, 0.25], steps=4)
    >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    >>> trainer = Trainer(max_epochs=-1, callbacks=[search], accelerator="cpu", limit_val_batches=0, **quiet)
    >>> trainer.fit(BoringModel())  # stops after the last level
    >>> [ticket.mask.density() for ticket in search.tickets]
    [1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        densities: Sequence[Density],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        folder: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.search = Search(densities, epochs=epochs, steps=steps, folder=folder, options=options)

    @property
    def tickets(self) -> list[Ticket]:
        """The ticket of each level that has begun; the first is the whole network."""
        return self.search.tickets

    @property
    def trained(self) -> Ticket | None:
        """The network of the last level, as its training left it: a ticket whose start are the trained weights."""
        return self.search.trained

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy that the search does not support, before the strategy gets the model."""
        _check_strategy(trainer.strategy)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the current state of the module as θ₀."""
        if trainer.global_step:
            raise ValueError(
                f"training would resume from step {trainer.global_step} of a checkpoint, which does not record the "
                "state of the search; continue from the ticket of its last level: ticket=Ticket.load(...)"
            )
        _check_lengths(self.search, trainer)
        _check_swa(self.search, trainer)
        wrapped = trainer.strategy.model
        self.search.begin(
            wrapped if isinstance(wrapped, DistributedDataParallel) else pl_module,
            trainer.optimizers,
            [config.scheduler for config in trainer.lr_scheduler_configs],
            writes=trainer.is_global_zero,
            averages=lambda: _averages(trainer),
        )

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin the next level if the current one is complete."""
        self.search.batch_begins()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop the trainer after the last update of the last level."""
        if self.search.steps is not None and self.search.finished():
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop the trainer after the last epoch of the last level."""
        if trainer.is_last_batch:  # otherwise the epoch was interrupted
            self.search.epoch_ended()
        if self.search.finished() and not _swa(trainer):  # SWA ends by itself, after a pass for BatchNorm
            trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:
        """Keep the mask in force until the other callbacks have ended; the weights stay pruned."""
        if missing := self.search.end(guard=True):
            warnings.warn(missing, RuntimeWarning, stacklevel=2)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the mask's hooks."""
        self.search.release()

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        """Warn if the weights that are evaluated are not the finished network's."""
        self._report(trainer)

    def on_test_start(self, trainer: Trainer, *_: Any) -> None:
        """Warn if the weights that are evaluated are not the finished network's."""
        self._report(trainer)

    def on_predict_start(self, trainer: Trainer, *_: Any) -> None:
        """Warn if the weights that are used are not the finished network's."""
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        if not trainer.training and not trainer.sanity_checking and (revived := self.search.revived()):
            counts = ", ".join(f"{count} of {name}" for name, count in revived.items())
            warnings.warn(
                f"these weights are not the finished network's: the last ticket prunes some that are not 0 ({counts}). "
                "They may come from the checkpoint of an earlier level, whose density is higher; its ticket is in "
                "`tickets`",
                RuntimeWarning,
                stacklevel=3,
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the mask's hooks if the training raised."""
        self.search.fail(exception)


def _check_strategy(strategy: Strategy) -> None:
    whole = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
    if not whole or isinstance(strategy, DeepSpeedStrategy | XLAStrategy):  # which derive from DDPStrategy
        raise ValueError(
            f"{type(strategy).__name__} does not give each process the whole weights, or has not been tested with "
            'LotteryTicket; a search runs on one device, or on several with strategy="ddp"'
        )


def _check_lengths(search: Search, trainer: Trainer) -> None:
    epochs, steps = search.total_epochs, search.total_steps
    if epochs is not None and trainer.max_epochs is not None and 0 <= trainer.max_epochs < epochs:
        raise ValueError(
            f"the search takes {epochs} epochs, but max_epochs is {trainer.max_epochs}; set max_epochs=-1"
        )
    epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
    if not trainer.lightning_module.automatic_optimization:
        epoch = math.inf  # the module decides how many updates it makes
    if not math.isinf(epoch):
        epoch = math.ceil(epoch)
    takes = steps if steps is not None else (epochs or 0) * epoch
    most = trainer.estimated_stepping_batches if steps is not None else trainer.max_steps
    if 0 <= most < takes < math.inf:
        raise ValueError(
            f"the search takes {takes} steps, but the trainer makes {most}; set max_epochs=-1 and max_steps=-1"
        )
    # The number of steps in epochs of unknown length is unknown.
    by_epochs = 0 if math.isinf(epoch) else (trainer.min_epochs or 0) * epoch
    if takes < (least := max(trainer.min_steps or 0, by_epochs)):
        raise ValueError(
            f"the search takes {takes} steps, but the trainer would continue to {least}; do not set "
            "min_epochs or min_steps"
        )


def _averages(trainer: Trainer) -> Iterator[AveragedModel]:
    for callback in trainer.callbacks:
        yield from (kept for kept in vars(callback).values() if isinstance(kept, AveragedModel))


def _swa(trainer: Trainer) -> list[StochasticWeightAveraging]:
    return [c for c in trainer.callbacks if isinstance(c, StochasticWeightAveraging)]


def _check_swa(search: Search, trainer: Trainer) -> None:
    """ValueError unless StochasticWeightAveraging averages only weights of the last level.

    At the start of an epoch it averages the weights of the previous epoch, and its learning rate stays in place.
    """
    for swa in _swa(trainer):
        if search.total_epochs is None or search.epochs is None:
            raise ValueError(
                "StochasticWeightAveraging averages by epochs; count levels in epochs (epochs=...)"
            )
        total, first = search.total_epochs, search.total_epochs - search.epochs
        if search.epochs < 2:
            raise ValueError(
                "StochasticWeightAveraging needs a second epoch within the last level; give epochs=2 or more"
            )
        if swa.swa_start <= first:
            raise ValueError(
                f"StochasticWeightAveraging begins in epoch {swa.swa_start + 1}, and the last level in epoch "
                f"{first + 1}: it would average weights that are pruned since; give swa_epoch_start from {first + 2} "
                f"to {total}"
            )
        if swa.swa_end + 1 != total:
            raise ValueError(
                f"StochasticWeightAveraging takes its average at max_epochs, and the search ends after {total} epochs; "
                f"give max_epochs={total}"
            )
