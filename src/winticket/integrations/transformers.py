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

    A level lasts `steps` updates, or `epochs`. Each new level rewinds weights and buffers, empties the optimiser's
    state (or restores that of step k, under `rewind.to_step_with_optimizer`), and restores learning rates. A schedule
    that the trainer creates is, in each level, the one it would create for a training of a level's length, including
    warm-up; your own schedule has to span one level. What the trainer saves at the end of a level is what that level
    trained. If you pass a `folder`, each ticket is written to `level-0.safetensors` and so on when its training
    begins.

    The trainer does not report an exception or Ctrl-C to its callbacks. After one, the mask stays in force until you
    call `search.close()`, or until the search's own block ends: `with LotteryTicket(...) as search: trainer.train()`.
    Within that block the mask also stays in force after the training, for what other callbacks write to the weights as
    it ends. `averages` are AveragedModels that restart at each level.

    `options` are those of `winticket.Levels`: criterion, allocate, rewind, rewind_step, include, exclude, ticket, ...
    Criteria that look at the network need a model that returns logits, which the library's own models do not.

    With several processes (DistributedDataParallel) all ranks prune to the same masks and rewind to the same start, or
    all raise; the first rank writes the files.

    A step that fp16 skips because a gradient overflowed does not count: set a larger `max_steps`; the search ends the
    training. With fused optimisers the trainer's schedule counts such a step nevertheless.

    Raises ValueError, before any training, if the trainer would stop before the last level, resume a checkpoint (pass
    the last ticket as `ticket` instead), load the best checkpoint at the end, or search for a batch size; if a schedule
    does not fit into a level; or if weights are sharded (FSDP, DeepSpeed, Megatron, tensor parallelism).

    >>> import torch
    >>> from transformers import Trainer, TrainingArguments
    >>> from winticket.integrations.transformers import LotteryTicket
    >>> class Network(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(8, 2)
    ...     def forward(self, x, labels):
    ...         return {"loss": torch.nn.functional.cross_entropy(self.layer(x), labels)}
    >>> data = [{"x": torch.randn(8), "labels": n % 2} for n in range(16)]
    >>> search = LotteryTicket([0.5, 0.25], steps=4)
    >>> quiet = dict(report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True)
    >>> arguments = TrainingArguments("out", max_steps=search.total_steps, **quiet)
    >>> with search:
    ...     _ = Trainer(Network(), arguments, train_dataset=data, callbacks=[search]).train()
    {...}
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
        """Remove the mask's hooks after an interrupted training; the weights stay pruned.

        Does nothing if no mask is in force.
        """
        self.search.fail(RuntimeError("the search was closed"))

    @property
    def tickets(self) -> list[Ticket]:
        """The ticket of each level that has begun; the first is the whole network."""
        return self.search.tickets

    @property
    def trained(self) -> Ticket | None:
        """The network of the last level, as its training left it: a ticket whose start are the trained weights."""
        return self.search.trained

    @property
    def total_steps(self) -> int:
        """`max_steps` for the trainer. ValueError if levels are counted in epochs."""
        if self.search.total_steps is None:
            raise ValueError("levels are counted in epochs; set num_train_epochs=total_epochs")
        return self.search.total_steps

    @property
    def total_epochs(self) -> int:
        """`num_train_epochs` for the trainer. ValueError if levels are counted in steps."""
        if self.search.total_epochs is None:
            raise ValueError("levels are counted in steps; set max_steps=total_steps")
        return self.search.total_epochs

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Refuse sharded weights as soon as the trainer is created."""
        _check_whole()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the current state of the model as θ₀."""
        if state.global_step:
            raise ValueError(
                f"training would resume from step {state.global_step} of a checkpoint, which does not record the "
                "state of the search; continue from the ticket of its last level: ticket=Ticket.load(...)"
            )
        _check_whole()
        _check_arguments(args)
        length = _check_lengths(self.search, args, state)
        scheduler = getattr(kwargs["lr_scheduler"], "scheduler", kwargs["lr_scheduler"])
        _span(scheduler, args, total=state.max_steps, steps=length)
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        model = kwargs["model"]
        if args.world_size > 1:  # the trainer wraps the model, but shows callbacks the inner one
            model = Replicated(model, broadcast_buffers=args.ddp_broadcast_buffers is not False)
        self.search.begin(
            model,
            [optimizer],
            [scheduler],
            writes=state.is_world_process_zero,
            averages=lambda: self._averages,
        )

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Begin the next level if the current one is complete."""
        self.search.batch_begins()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop the trainer after the last update of the last level."""
        if self.search.steps is not None and self.search.finished():
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop the trainer after the last epoch of the last level."""
        if not (control.should_training_stop and state.epoch and state.epoch % 1):  # interrupted
            self.search.epoch_ended()
        if self.search.finished():
            control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Remove the mask's hooks, or keep them until the search's block ends; the weights stay pruned."""
        if missing := self.search.end(guard=self._block):
            warnings.warn(missing, RuntimeWarning, stacklevel=2)


def _check_whole() -> None:
    kind = AcceleratorState().distributed_type
    if kind != DistributedType.NO and not kind.name.startswith("MULTI_"):
        raise ValueError(
            f"{kind.name} does not give each process the whole weights, or has not been tested with LotteryTicket; "
            "a search runs on one device, or on several with DistributedDataParallel"
        )


def _check_arguments(args: TrainingArguments) -> None:
    if args.load_best_model_at_end:
        raise ValueError(
            "load_best_model_at_end would put weights of one level under the mask of another; do not set it"
        )
    if args.auto_find_batch_size:
        raise ValueError(
            "auto_find_batch_size would restart with weights that are already trained; set a batch size"
        )


def _check_lengths(search: Search, args: TrainingArguments, state: TrainerState) -> int:
    """Updates per level. ValueError if the trainer would stop before the last level ends."""
    epochs, steps = search.total_epochs, search.total_steps
    if steps is not None and state.max_steps < steps:
        raise ValueError(
            f"the search takes {steps} steps, but the trainer makes {state.max_steps}; set max_steps=total_steps"
        )
    if epochs is None or search.epochs is None:
        assert search.steps is not None
        return search.steps
    if args.max_steps > 0:
        raise ValueError(
            f"levels are counted in epochs, and max_steps={args.max_steps} would end the training by steps; set "
            "only num_train_epochs=total_epochs, or count levels in steps"
        )
    if args.num_train_epochs < epochs:
        raise ValueError(
            f"the search takes {epochs} epochs, but the trainer makes {args.num_train_epochs:g}; set "
            "num_train_epochs=total_epochs"
        )
    # Exact: the trainer rounds the steps of its epochs up, and a level has at most half of them.
    length: int = round(state.max_steps * search.epochs / args.num_train_epochs)
    return length


def _span(scheduler: Any, args: TrainingArguments, *, total: int, steps: int) -> None:
    """Replace a schedule that the trainer made for `total` steps by the one that it makes for `steps`.

    ValueError if that one, or a user's own schedule, does not fit into a level.
    """
    if type(scheduler) is not LambdaLR:
        return  # the trainer makes no other kind for a number of steps
    peak = scheduler.optimizer.defaults.get("lr", args.learning_rate)
    whole, rate = _made(args, peak, total), _made(args, peak, steps)
    if whole is not None and rate is not None and all(_same(each, whole) for each in scheduler.lr_lambdas):
        scheduler.lr_lambdas = [rate for _ in scheduler.lr_lambdas]
        scheduler._last_lr = [base * rate(scheduler.last_epoch) for base in scheduler.base_lrs]
        for group, now in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
            group["lr"] = now
    for rate in scheduler.lr_lambdas:
        _check_span(rate, steps)


def _made(args: TrainingArguments, peak: float, steps: int) -> Rate | None:
    """The schedule that the trainer makes from these arguments for `steps` updates at the learning rate `peak`.

    None if it does not depend on a number of steps.
    """
    stand_in = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the trainer has already issued these
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
    """ValueError if a schedule is visibly made for another length than `steps`."""
    options = rate.keywords if isinstance(rate, partial) else {}
    warmup, spans = options.get("num_warmup_steps", 0), options.get("num_training_steps", steps)
    if warmup > steps:
        raise ValueError(f"a warm-up of {warmup} steps does not fit into a level of {steps}")
    if spans != steps:
        raise ValueError(
            f"the schedule spans {spans} steps, but a level has {steps}; make it for {steps}: it restarts at each level"
        )
    stable, decay = options.get("num_stable_steps", 0), options.get("num_decay_steps", 0)
    if stable < 0 or warmup + stable + decay > steps:
        parts = f"{warmup} steps of warm-up, {max(stable, 0)} at the full rate and {decay} of decay"
        raise ValueError(
            f"the schedule takes {parts}, but a level has {steps} steps; reduce them (lr_scheduler_kwargs)"
        )
