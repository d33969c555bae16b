"""What could go wrong in a training and can be known before: tried here, so that it never comes up half-way."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from winticket import allocate, models
from winticket.align import symmetry
from winticket.criteria.applied import tried_on
from winticket.criteria.evidence import TRAINING, needed, rounds_at_init
from winticket.experiment.names import control, stages
from winticket.experiment.spec import Experiment
from winticket.experiment.transfers import Transfer
from winticket.rewind import fine_tune
from winticket.schedules import cubic_at, geometric_at
from winticket.stages import (
    Density,
    Setup,
    dense_ticket,
    device,
    needs_neighbour,
    needs_symmetry,
    no_curve,
    prunable,
    prune,
    trial,
)
from winticket.ticket import Mask, Ticket, Trajectory, same_bits
from winticket.train import check_precision
from winticket.units import unknown

DRAWS = 3  # initialisations compared: a network of very few weights may draw the same twice


def check(experiment: Experiment, setup: Setup) -> None:
    """Raise ValueError, saying what to change, where data, model, recipe and options do not go together."""
    _check_sizes(experiment, setup)
    check_precision(setup.recipe.precision, device(), setup.engine)
    _check_augmentation(setup)
    _check_neighbours(experiment, setup)
    _check_initialisation(setup)
    if ":" in setup.model or setup.recipe.stacking == "stacked":
        _try_model(setup)
    if isinstance(experiment, Transfer):
        check(replace(experiment.source, controls=()), experiment.source.setup())
        return
    _check_rates(experiment, setup)
    _check_fine_tuning(experiment)
    _check_units(experiment, setup)
    _check_criterion(experiment)
    asked = (experiment.criterion, experiment.allocate, experiment.rewind)
    own = any(":" in name for name in asked)
    if own or needed(stages(experiment)["criterion"]) or experiment.method == "gradual":
        _try_stages(experiment, setup)


def _check_sizes(experiment: Experiment, setup: Setup) -> None:
    there = setup.train_examples()
    if experiment.recipe.batch > there:
        raise ValueError(
            f"batch {experiment.recipe.batch} is larger than the {there} training examples of {experiment.data}; "
            f"ask for at most {there}"
        )


def _check_augmentation(setup: Setup) -> None:
    flip, crop, shape = setup.recipe.flip, setup.recipe.crop, setup.input_shape
    if (flip or crop) and len(shape) != 3:
        raise ValueError(
            f"{'flip' if flip else 'crop'} is for images, but the examples of {setup.data} have shape {shape}; "
            "leave it out"
        )
    if crop and crop >= min(shape[1:]):
        raise ValueError(
            f"crop {crop} may shift an image of {shape[1]}x{shape[2]} pixels out of view; give less than "
            f"{min(shape[1:])}, usually an eighth of the size"
        )


def _check_rates(experiment: Experiment, setup: Setup) -> None:
    pruned = {name: setup.module().get_parameter(name) for name in prunable(setup)}
    output = models.output_layer(setup.module())
    if experiment.output_rate is not None and output is None:
        raise ValueError(
            f"output_rate is {experiment.output_rate}, but {experiment.model} has no Linear or Conv layer to be its "
            "output layer; leave it out"
        )
    if experiment.output_rate is not None and output not in pruned:
        raise ValueError(
            f"output_rate is {experiment.output_rate}, but the output layer {output} is excluded; leave one of them out"
        )
    if experiment.output_rate is not None and output != (last := list(pruned)[-1]):
        raise ValueError(
            f"output_rate is {experiment.output_rate}, but {last} is included and follows the output layer {output}; "
            "leave one of them out"
        )
    if experiment.conv_rate is not None and not any(weight.ndim > 2 for weight in pruned.values()):
        raise ValueError(
            f"conv_rate is {experiment.conv_rate}, but {experiment.model} has no convolution to prune; leave it out"
        )


def _check_fine_tuning(experiment: Experiment) -> None:
    recipe, last = experiment.recipe, experiment.recipe.settled().lr
    if stages(experiment)["rewind"] is fine_tune and last < recipe.lr / 1000:
        raise ValueError(
            f"rewind fine_tune trains on at the schedule's last rate, and the {recipe.schedule} schedule ends at "
            f"{last:.2g}; choose schedule step or constant, or rewind learning_rate"
        )


def _check_criterion(experiment: Experiment) -> None:
    if experiment.method == "at-init" and TRAINING in needed(stages(experiment)["criterion"]):
        raise ValueError(
            f"criterion {experiment.criterion} looks at what training did to each weight, and method at-init prunes "
            "before any; take one that looks at the weights (magnitude, ...) or at the network (snip, grasp, synflow)"
        )


def _check_units(experiment: Experiment, setup: Setup) -> None:
    """Whole units are scored and taken together, never those of the output layer, and what goes with them is known."""
    by = stages(experiment)["allocate"]
    if by is not allocate.units:
        return
    output = models.output_layer(setup.module())
    if output in prunable(setup):
        raise ValueError(
            f"allocate units takes whole units, and those of the output layer are the classes; exclude {output}"
        )
    if reason := unknown(setup.module()):
        raise ValueError(
            "allocate units takes whole units, and the shift of a BatchNorm behind one goes with it, but which it is "
            f"in {setup.model} is not known: {reason}; take an allocation that prunes weights singly"
        )


def _check_neighbours(experiment: Experiment, setup: Setup) -> None:
    """Controls that take another replicate's mask have one to take it from, and know how to match its units."""
    for arm in experiment.controls:
        made_by = control(arm)
        if needs_neighbour(made_by) and experiment.replicates % experiment.stack == 1 % experiment.stack:
            raise ValueError(
                f"control {arm} takes the mask of another replicate of its stack, but of {experiment.replicates} "
                f"replicates in stacks of {experiment.stack} one is alone; ask for another number of replicates, or "
                "another stack (stack=, --stack)"
            )
        if needs_symmetry(made_by):
            try:
                symmetry(setup.module(), setup.input_shape)
            except ValueError as unknown:
                raise ValueError(
                    f"control {arm}: {unknown}; control other takes the mask as it is"
                ) from unknown


def _check_initialisation(setup: Setup) -> None:
    """The draws of a model repeat with their seed and differ without: else seeds would say nothing."""
    first = setup.initial(0)
    if not same_bits(first.weights, setup.initial(0).weights):
        raise ValueError(
            f"model {setup.model!r} draws other weights each time, from the same seed; it should draw from torch's "
            "global generator only (which is seeded for it), or be given an init"
        )
    if all(same_bits(first.weights, setup.initial(seed).weights) for seed in range(1, DRAWS + 1)):
        raise ValueError(
            f"model {setup.model!r} draws the same weights from every seed, so replicates would be copies; it should "
            "not set a seed of its own, or be given an init"
        )


def _try_model(setup: Setup) -> None:
    """One step of training on noise."""
    try:
        trial(setup, [dense_ticket(setup, 0)], steps=1)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"model {setup.model!r} cannot be trained: {type(error).__name__}: {error}"
        ) from error


def _try_stages(experiment: Experiment, setup: Setup) -> None:
    """One round of pruning, of the network at its initialisation, by the user's own functions."""
    ticket, end = dense_ticket(setup, 0), setup.recipe.steps
    parts: dict[str, Any] = {**stages(experiment), "rewind_step": experiment.rewind_step}
    state = tried_on(parts["criterion"], ticket.start)
    saved = {step: replace(state, step=step) for step in (experiment.rewind_step, end)}
    path = Trajectory(ticket, saved, no_curve())
    rounds = rounds_at_init(parts["criterion"])
    if experiment.method == "at-init" and rounds > 1:
        words = f"{experiment.criterion} prunes at initialisation in {rounds} rounds of falling density"
        _try_on_the_way(experiment, setup, ticket, partial(geometric_at, share=1 / rounds), words)
    if experiment.method == "gradual":
        words = "method gradual prunes a little at a time"
        _try_on_the_way(experiment, setup, ticket, partial(cubic_at, share=0.5), words)
    told = ", ".join(f"{k} {v!r}" for k, v in _own(experiment).items())
    try:
        pruned = prune(setup, path, density=experiment.densities(setup)[0], **parts)
        if not isinstance(pruned, Ticket) or not isinstance(pruned.mask, Mask):
            raise TypeError(f"a rewind gives a Ticket, not {type(pruned).__name__}")
        if not pruned.mask.within(ticket.mask):
            raise ValueError("the new mask keeps weights that were pruned")
    except (Exception, SystemExit) as error:
        raise ValueError(f"pruning with {told} fails: {type(error).__name__}: {error}") from error


def _try_on_the_way(
    experiment: Experiment, setup: Setup, ticket: Ticket, way: Callable[[Density], Density], words: str
) -> None:
    """The allocation at a density on the way to one that was asked for: patterns take few."""
    scores = {name: ticket.start.weights[name].abs() for name in ticket.mask.keep}
    for density in experiment.densities(setup):
        try:
            stages(experiment)["allocate"](scores, ticket.mask, density=way(density))
        except ValueError as error:
            raise ValueError(
                f"{words}, which allocate {experiment.allocate} does not take: {error}"
            ) from error


def _own(experiment: Experiment) -> dict[str, str]:
    named = {name: getattr(experiment, name) for name in ("criterion", "allocate", "rewind")}
    own = {name: path for name, path in named.items() if ":" in path}
    return own or {"criterion": experiment.criterion}
