"""Checks before any training: whatever could go wrong later and can be known now is tried here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch

from winticket import allocate, models
from winticket.align import symmetry
from winticket.criteria.applied import tried_on
from winticket.criteria.evidence import TRAINING, needed, rounds_at_init
from winticket.experiment.names import facts
from winticket.experiment.resolved import Resolved
from winticket.experiment.spec import Experiment
from winticket.models import pretrained
from winticket.objective import check_functions
from winticket.rewind import fine_tune
from winticket.schedules import cubic_at, geometric_at
from winticket.stages import (
    Density,
    Setup,
    dense_ticket,
    device,
    needs_neighbour,
    needs_symmetry,
    prune,
    trial,
)
from winticket.ticket import Mask, Ticket, Trajectory, no_curve, same_bits
from winticket.train import check_precision
from winticket.units import why_untraceable

LARGE = 1 << 20  # Outputs of an example, as of a language model, of which one is enough to try a loss on.
DRAWS = 3  # Initialisations to compare: a network of very few weights may draw the same ones twice.


def check(question: Resolved) -> None:
    """Raise ValueError, which says what to change, if data, model, recipe and options do not go together."""
    experiment, setup = question.experiment, question.setup
    _check_sizes(experiment, setup)
    check_precision(setup.recipe.precision, device(), "auto")
    _check_augmentation(setup)
    _check_neighbours(question)
    _check_initialisation(setup)
    _check_objective(setup)
    _check_pretrained(setup)
    if ":" in setup.model or setup.recipe.stacking == "stacked":
        _try_model(setup)
    if question.source is not None:
        check(replace(question.source, controls={}))  # Its controls do not train: those of the transfer do.
        return
    _check_rates(question)
    _check_fine_tuning(question)
    _check_units(question)
    _check_criterion(question)
    named = (experiment.criterion, experiment.allocate, experiment.rewind)
    imported = any(":" in name for name in named)
    if imported or needed(question.criterion) or facts(experiment.method).gradual:
        _try_stages(question)


def _check_sizes(experiment: Experiment, setup: Setup) -> None:
    examples = setup.train_examples()
    if experiment.recipe.batch > examples:
        raise ValueError(
            f"batch {experiment.recipe.batch} is larger than the {examples} training examples of {experiment.data}; "
            f"use a batch of at most {examples}"
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
            f"crop {crop} may shift an image of {shape[1]}x{shape[2]} pixels out of view; choose less than "
            f"{min(shape[1:])}, usually an eighth of the size"
        )


def _check_rates(question: Resolved) -> None:
    experiment, module = question.experiment, question.setup.module()
    pruned = {name: module.get_parameter(name) for name in question.eligible}
    output = models.output_layer(module)
    if experiment.output_rate is not None and output is None:
        raise ValueError(
            f"output_rate is {experiment.output_rate}, but {experiment.model} has no Linear or Conv layer that "
            "could be its output layer; leave output_rate out"
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


def _check_fine_tuning(question: Resolved) -> None:
    recipe, last = question.setup.recipe, question.setup.recipe.settled().lr
    if question.rewind is fine_tune and last < recipe.lr / 1000:
        raise ValueError(
            f"rewind fine_tune continues at the last learning rate of the schedule, and the {recipe.schedule} schedule "
            f"ends at {last:.2g}; choose schedule step or constant, or rewind learning_rate"
        )


def _check_criterion(question: Resolved) -> None:
    experiment = question.experiment
    if facts(experiment.method).before_training and TRAINING in needed(question.criterion):
        raise ValueError(
            f"criterion {experiment.criterion} looks at what training did to each weight, but method "
            f"{experiment.method} prunes before any training; choose a criterion that looks at the weights "
            "(magnitude, ...) or at the network (snip, grasp, synflow)"
        )


def _check_units(question: Resolved) -> None:
    """ValueError if whole units cannot be pruned: units of the output layer, or a BatchNorm shift that is not known."""
    setup = question.setup
    if question.allocate is not allocate.units:
        return
    output = models.output_layer(setup.module())
    if output in question.eligible:
        raise ValueError(
            f"allocate units prunes whole units, and those of the output layer are the classes; exclude {output}"
        )
    if reason := why_untraceable(setup.module()):
        raise ValueError(
            "allocate units prunes whole units together with the shift of the BatchNorm that follows them, but which "
            f"shift that is in {setup.model} is not known: {reason}; choose an allocation that prunes single weights"
        )


def _check_neighbours(question: Resolved) -> None:
    """ValueError if a control needs another replicate's mask and there is none, or its units cannot be matched."""
    experiment, setup = question.experiment, question.setup
    for arm, made_by in question.controls.items():
        if needs_neighbour(made_by) and experiment.replicates % experiment.stack == 1 % experiment.stack:
            raise ValueError(
                f"control {arm} takes the mask of another replicate of its stack, but with {experiment.replicates} "
                f"replicates in stacks of {experiment.stack} one replicate is alone; choose another number of "
                "replicates, or another stack (stack=, --stack)"
            )
        if needs_symmetry(made_by):
            try:
                symmetry(setup.module(), setup.input_shape)
            except ValueError as unknown:
                raise ValueError(
                    f"control {arm}: {unknown}; control other takes the mask as it is"
                ) from unknown


def _check_initialisation(setup: Setup) -> None:
    """ValueError unless a model's draws repeat for equal seeds and differ between seeds."""
    first = setup.drawn(0)
    if not same_bits(first.weights, setup.drawn(0).weights):
        raise ValueError(
            f"model {setup.model!r} draws different weights each time from the same seed; let it draw from torch's "
            "global generator only (winticket seeds it), or choose an init"
        )
    if all(same_bits(first.weights, setup.drawn(seed).weights) for seed in range(1, DRAWS + 1)):
        raise ValueError(
            f"model {setup.model!r} draws the same weights from every seed, so replicates would be copies; remove "
            "the seed that it sets, or choose an init"
        )


def _check_pretrained(setup: Setup) -> None:
    """ValueError if pretrained weights do not fit the model, or are not finite."""
    if setup.pretrained is None:
        return
    tensors = pretrained.for_network(setup.module(), setup.pretrained.tensors())
    for name in pretrained.fit(setup.module(), tensors).taken:
        if tensors[name].is_floating_point() and not bool(tensors[name].isfinite().all()):
            raise ValueError(
                f"the pretrained weights {setup.pretrained.path} have values in {name} that are not finite"
            )


def _check_objective(setup: Setup) -> None:
    """ValueError if the loss or metric cannot be computed, before anything trains."""
    made = setup.loss_and_metric()
    if made is None:
        return
    dataset = setup.dataset(torch.device("cpu"))
    shape = (setup.classes, *setup.input_shape[1:]) if setup.target == "positions" else (setup.classes,)
    if setup.tokens:
        shape = (*setup.input_shape, setup.classes)
    rows = 16 if prod(shape) <= LARGE else 1
    check_functions(made, shape, dataset.train.y[:rows], dataset.test.y)


def _try_model(setup: Setup) -> None:
    """One step of training on noise."""
    try:
        trial(setup, [dense_ticket(setup, 0)], steps=1)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"model {setup.model!r} cannot be trained: {type(error).__name__}: {error}"
        ) from error


def _try_stages(question: Resolved) -> None:
    """Prune the network once at its initialisation, with the criterion, allocation and rewind of the experiment."""
    experiment, setup = question.experiment, question.setup
    ticket, end = dense_ticket(setup, 0), setup.recipe.steps
    parts: dict[str, Any] = {**question.functions, "rewind_step": experiment.rewind_step}
    state = tried_on(parts["criterion"], ticket.start)
    saved = {step: replace(state, step=step) for step in (experiment.rewind_step, end)}
    path = Trajectory(ticket, saved, no_curve())
    rounds = rounds_at_init(parts["criterion"])
    if facts(experiment.method).before_training and rounds > 1:
        words = f"{experiment.criterion} prunes at initialisation in {rounds} rounds of falling density"
        _try_on_the_way(question, ticket, partial(geometric_at, share=1 / rounds), words)
    if facts(experiment.method).gradual:
        words = f"method {experiment.method} prunes a little at a time"
        _try_on_the_way(question, ticket, partial(cubic_at, share=0.5), words)
    parts_in_words = ", ".join(f"{k} {v!r}" for k, v in _imported(experiment).items())
    try:
        pruned = prune(setup, path, density=question.densities[0], **parts)
        if not isinstance(pruned, Ticket) or not isinstance(pruned.mask, Mask):
            raise TypeError(f"a rewind returns a Ticket, not {type(pruned).__name__}")
        if not pruned.mask.within(ticket.mask):
            raise ValueError("the new mask keeps weights that were pruned")
    except (Exception, SystemExit) as error:
        raise ValueError(f"pruning with {parts_in_words} fails: {type(error).__name__}: {error}") from error


def _try_on_the_way(
    question: Resolved, ticket: Ticket, way: Callable[[Density], Density], words: str
) -> None:
    """Try the allocation at the densities that a gradual method passes through: a pattern allows only a few."""
    scores = {name: ticket.start.weights[name].abs() for name in ticket.mask.keep}
    for density in question.densities:
        try:
            question.allocate(scores, ticket.mask, density=way(density))
        except ValueError as error:
            raise ValueError(
                f"{words}, which allocate {question.experiment.allocate} does not take: {error}"
            ) from error


def _imported(experiment: Experiment) -> dict[str, str]:
    """The parts that come from the user's modules, by option; the criterion if there are none."""
    named = {name: getattr(experiment, name) for name in ("criterion", "allocate", "rewind")}
    imported = {name: path for name, path in named.items() if ":" in path}
    return imported or {"criterion": experiment.criterion}
