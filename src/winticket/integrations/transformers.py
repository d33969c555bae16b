"""A Transformers callback that finds tickets: iterative pruning with rewinding inside one `trainer.train()`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from winticket.integrations.search import Search
from winticket.loops.levels import Density
from winticket.loops.wrapped import Replicated
from winticket.ticket import Ticket

try:
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, get_scheduler
except ImportError as error:
    raise ImportError(
        "winticket.integrations.transformers needs Transformers: pip install 'winticket[transformers]'"
    ) from error

__all__ = ["LotteryTicket"]

Rate = Callable[[int], float]


class LotteryTicket(TrainerCallback):
    """Train, prune, rewind and train again, level by level, in one `trainer.train()`.

    ```python
    search = LotteryTicket([0.5, 0.25, 0.1], steps=1000, folder="tickets")
    arguments = TrainingArguments(max_steps=search.total_steps, ...)
    Trainer(model, arguments, callbacks=[search], ...).train()
    search.tickets  # of each level; the first is the whole network
    ```
    A level lasts `steps` updates, or `epochs`. At each new one weights and buffers are rewound, the optimiser's state
    is emptied (or that of step k, under `rewind.to_step_with_optimizer`), and rates go back to where they were.
    Schedules that the trainer makes are, in each level, those that it makes for a training of a level's length, warm-up
    included; one of your own has to span a level itself. What is saved at a level's end is what it trained. Tickets are
    written to `folder` as `level-0.safetensors` and so on, when their training begins.

    The trainer tells nobody of an exception or of Ctrl-C: after one the mask stays in force until the search is closed,
    by `search.close()` or by the end of its block:
    ```python
    with LotteryTicket([0.5, 0.25, 0.1], steps=1000) as search:
        Trainer(model, arguments, callbacks=[search], ...).train()
    ```

    Within the block the mask stays in force after the training as well, for what other callbacks write to the weights
    as it ends. `averages` are AveragedModels that begin anew at each level.

    `options` are those of `winticket.Levels`: criterion, allocate, rewind, rewind_step, include, exclude, ticket, ...
    Criteria that need the network take models that return logits, so none of the library's own.

    With several processes (DistributedDataParallel) every rank prunes to the same masks and rewinds to the same start,
    or all raise; the first writes the files.

    A step that fp16 leaves out because a gradient overflowed does not count: give a larger `max_steps`; the search ends
    the training. Under fused optimisers the trainer's schedule counts it all the same.

    Raises ValueError, before any training, where the trainer would stop before the last level, a checkpoint is to be
    resumed (go on from the last ticket instead, `ticket=`), the best of all checkpoints is to be loaded at the end, the
    batch size is to be found by trying, a schedule says of itself that it does not fit into a level, or weights are cut
    up over processes (FSDP, DeepSpeed, Megatron, tensor parallelism).
    """

    def __init__(
        self,
        densities: Sequence[Density],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        folder: str | Path | None = None,
        averages: Sequence[AveragedModel] = (),
        **options: Any,
    ) -> None:
        self._block, self._averages = False, tuple(averages)
        self.search = Search(densities, epochs=epochs, steps=steps, folder=folder, options=options)

    def __enter__(self) -> Self:
        self._block = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._block = False
        if kind is None:
            self.search.release()
        self.close()

    def close(self) -> None:
        """The mask comes off after a training that was broken off; the weights stay pruned.

        Nothing happens where none is in force.
        """
        self.search.fail(RuntimeError("the search was closed"))

    @property
    def tickets(self) -> list[Ticket]:
        """What each level trains or trained, the first the whole network."""
        return self.search.tickets

    @property
    def total_steps(self) -> int:
        """`max_steps` for the trainer. ValueError where levels are counted in epochs."""
        if self.search.total_steps is None:
            raise ValueError("levels are counted in epochs; num_train_epochs is total_epochs")
        return self.search.total_steps

    @property
    def total_epochs(self) -> int:
        """`num_train_epochs` for the trainer. ValueError where levels are counted in steps."""
        if self.search.total_epochs is None:
            raise ValueError("levels are counted in steps; max_steps is total_steps")
        return self.search.total_epochs

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Refuses, as soon as the trainer is made, what cuts the weights up."""
        _check_whole()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The model as it is now is θ₀."""
        if state.global_step:
            raise ValueError(
                f"training is to go on from step {state.global_step} of a checkpoint, which does not say "
                "where the search was; go on from the ticket of its last level: ticket=Ticket.load(...)"
            )
        _check_whole()
        _check_arguments(args)
        length = _check_lengths(self.search, args, state)
        scheduler = getattr(kwargs["lr_scheduler"], "scheduler", kwargs["lr_scheduler"])
        _span(scheduler, args, total=state.max_steps, steps=length)
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        model = kwargs["model"]
        if args.world_size > 1:  # the trainer wraps the model, and shows callbacks what is within
            model = Replicated(model, broadcast_buffers=args.ddp_broadcast_buffers is not False)
        self.search.begin(
            model,
            [optimizer],
            [scheduler],
            writes=state.is_world_process_zero,
            averages=lambda: self._averages,
        )

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """The next level, where the last is complete."""
        self.search.batch_begins()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stops the trainer after the last update of the last level."""
        if self.search.steps is not None and self.search.finished():
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stops the trainer after the last epoch of the last level."""
        if not (control.should_training_stop and state.epoch and state.epoch % 1):  # broken off within it
            self.search.epoch_ended()
        if self.search.finished():
            control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The weights stay pruned; the mask comes off, or stays in force to the end of the search's block."""
        if missing := self.search.end(guard=self._block):
            warnings.warn(missing, RuntimeWarning, stacklevel=2)


def _check_whole() -> None:
    kind = AcceleratorState().distributed_type
    if kind != DistributedType.NO and not kind.name.startswith("MULTI_"):
        raise ValueError(
            f"{kind.name} does not give each process the whole of the weights, or is one that this was never tried "
            "under; a search runs on one device, or on several with DistributedDataParallel"
        )


def _check_arguments(args: TrainingArguments) -> None:
    if args.load_best_model_at_end:
        raise ValueError(
            "load_best_model_at_end would put weights of one level under the mask of another; leave it out"
        )
    if args.auto_find_batch_size:
        raise ValueError(
            "auto_find_batch_size would begin again with weights that are trained by then; give a batch size"
        )


def _check_lengths(search: Search, args: TrainingArguments, state: TrainerState) -> int:
    """Updates of a level. ValueError where the trainer would stop before the last one's end."""
    epochs, steps = search.total_epochs, search.total_steps
    if steps is not None and state.max_steps < steps:
        raise ValueError(
            f"the search takes {steps} steps, the trainer makes {state.max_steps}; give max_steps=total_steps"
        )
    if epochs is None or search.epochs is None:
        assert search.steps is not None
        return search.steps
    if args.max_steps > 0:
        raise ValueError(
            f"levels are counted in epochs, and max_steps={args.max_steps} would end the training by steps; give "
            "num_train_epochs=total_epochs alone, or count levels in steps"
        )
    if args.num_train_epochs < epochs:
        raise ValueError(
            f"the search takes {epochs} epochs, the trainer makes {args.num_train_epochs:g}; give "
            "num_train_epochs=total_epochs"
        )
    # The trainer's steps are its epochs' rounded up, and a level is half of them at most: this is exact.
    length: int = round(state.max_steps * search.epochs / args.num_train_epochs)
    return length


def _span(scheduler: Any, args: TrainingArguments, *, total: int, steps: int) -> None:
    """Have a schedule that the trainer made for `total` steps be the one that it makes for `steps`.

    ValueError where that one, or one of the user's own, does not fit into a level.
    """
    if type(scheduler) is not LambdaLR:
        return  # none that the trainer makes for a number of steps
    peak = scheduler.optimizer.defaults.get("lr", args.learning_rate)
    whole, rate = _made(args, peak, total), _made(args, peak, steps)
    if whole is not None and rate is not None and all(_same(own, whole) for own in scheduler.lr_lambdas):
        scheduler.lr_lambdas = [rate for _ in scheduler.lr_lambdas]
        scheduler._last_lr = [base * rate(scheduler.last_epoch) for base in scheduler.base_lrs]
        for group, now in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
            group["lr"] = now
    for rate in scheduler.lr_lambdas:
        _check_span(rate, steps)


def _made(args: TrainingArguments, peak: float, steps: int) -> Rate | None:
    """What the trainer makes of these arguments for a training of `steps`, at the learning rate `peak`.

    None where that follows no number of steps.
    """
    stand_in = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the trainer has warned of them
        made = get_scheduler(
            args.lr_scheduler_type,
            optimizer=stand_in,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    return made.lr_lambdas[0] if isinstance(made, LambdaLR) else None


def _same(one: Rate, other: Rate) -> bool:
    if isinstance(one, partial) and isinstance(other, partial):
        return (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)
    return one is other


def _check_span(rate: Rate, steps: int) -> None:
    """ValueError where a schedule says of itself that it is for another length than `steps`."""
    told = rate.keywords if isinstance(rate, partial) else {}
    warmup, spans = told.get("num_warmup_steps", 0), told.get("num_training_steps", steps)
    if warmup > steps:
        raise ValueError(f"a warm-up of {warmup} steps does not end within a level of {steps}")
    if spans != steps:
        raise ValueError(
            f"the schedule spans {spans} steps, a level has {steps}; make it for {steps}, it begins anew at each level"
        )
    stable, decay = told.get("num_stable_steps", 0), told.get("num_decay_steps", 0)
    if stable < 0 or warmup + stable + decay > steps:
        parts = f"{warmup} steps of warm-up, {max(stable, 0)} at the full rate and {decay} of decay"
        raise ValueError(
            f"the schedule takes {parts}, a level has {steps}; give it fewer (lr_scheduler_kwargs)"
        )
