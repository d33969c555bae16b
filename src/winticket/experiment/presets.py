"""Defaults by dataset, sized for two cores.

LeNet on digits or MNIST, and MNIST-1D, take minutes. Convolutional networks on CIFAR take most of a day. `winticket
plan` forecasts the time.

Optimiser, learning rate, batch and pruning rates are those of the 2019 paper (Frankle & Carbin, Figure 2). Trainings
are shorter, and their learning rate is annealed. For mnist1d, optimiser, length and layerwise pruning are those of
Greydanus & Kobak, with larger pruning steps than their hundred. The full protocols are in `experiments/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from winticket.catalogue import is_folder
from winticket.data import DatasetInfo

LENET = {"model": "lenet-300-100", "optimizer": "adam", "lr": 1.2e-3, "batch": 60}
CONV = {"model": "conv-2", "optimizer": "adam", "lr": 2e-4, "batch": 60, "conv_rate": 0.1}
CONV1D = {"model": "conv1d-32-64", "optimizer": "adam", "lr": 1e-3, "batch": 60}
FCN = {"model": "fcn-32-32", "optimizer": "adam", "lr": 1e-3, "batch": 60}
SIGNAL = 8  # Points of a signal from which on it is read by convolutions.
# Cosine: at a constant rate, noise of the last steps hides what a few replicates could show (docs/LOG.md).
SHORT = {"schedule": "cosine", "steps": 2400, "evaluate_every": 240, "levels": 12, "replicates": 5}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "digits": {
        **LENET,
        "steps": 800,
        "schedule": "cosine",
        "evaluate_every": 40,
        "levels": 16,
        "replicates": 30,
    },
    "mnist": {**LENET, **SHORT},
    "fashion_mnist": {**LENET, **SHORT},
    "mnist1d": {
        "model": "mlp1d",
        "optimizer": "adam",
        "lr": 2e-2,
        "batch": 100,
        "steps": 1500,
        "evaluate_every": 100,
        "levels": 6,
        "rate": 0.35,
        "replicates": 10,
    },
    "cifar10": {**CONV, **SHORT},
    "cifar100": {**CONV, **SHORT},
}


# OpenLTH's hyperparameters for both kinds, except for the length.
DEEP = {
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch": 128,
    "allocate": "global_top",
}

MODELS: Mapping[str, Mapping[str, Any]] = {
    "lenet-": {"optimizer": "adam", "lr": 1.2e-3},
    "conv1d-": {"optimizer": "adam", "lr": 1e-3},
    "fcn-": {"optimizer": "adam", "lr": 1e-3},
    "conv-2": {"optimizer": "adam", "lr": 2e-4, "conv_rate": 0.1},
    "conv-4": {"optimizer": "adam", "lr": 3e-4, "conv_rate": 0.1},
    "conv-6": {"optimizer": "adam", "lr": 3e-4, "conv_rate": 0.15},
    "vgg-": DEEP,
    "resnet-": DEEP,
}
"""Defaults for a network that is not the usual one for the data: Figure 2 of the 2019 paper, or OpenLTH's."""

TEXT = {
    "model": "chargpt",
    "optimizer": "adamw",
    "lr": 3e-3,
    "weight_decay": 0.01,
    "batch": 32,
    "schedule": "cosine",
    "steps": 1000,
    "evaluate_every": 100,
    "levels": 6,
    "rate": 0.3,
    "replicates": 5,
}

FINE_TUNING = {
    "optimizer": "adamw",
    "lr": 5e-5,
    "clip_norm": 1.0,
    "batch": 4,
    "schedule": "cosine",
    "steps": 500,
    "evaluate_every": 100,
    "early_points": False,
    "metric": "perplexity",
    "allocate": "global_top",
    "rate": 0.1,
    "levels": 7,
    "replicates": 5,
    "stack": 1,
}
"""Defaults for a language model of Transformers. Of Chen et al. 2020, BERT Networks: AdamW, the length of the gradient,
the ranking of all weights together, and a tenth pruned at each level."""
FINE_TUNED_DENSITY = (0.5,)
"""The densities of a language model's tickets, unless levels, a rate or a last density are chosen."""
RISE = 10
"""A language model's learning rate rises during the first tenth of the steps."""
HELD_OUT = 64
"""Most windows of validation and of test text for a language model, since each costs a forward pass at every point."""

SHAPES = {"digits": (1, 8, 8), "mnist1d": (1, 40)}


def preset(data: str, input_shape: tuple[int, ...]) -> Mapping[str, Any]:
    """The row for a dataset's name, or for the last part of its path; else one for the shape of an example.

    >>> preset("mnist", (1, 28, 28))["model"], preset("my/photos", (3, 64, 64))["model"]
    ('lenet-300-100', 'conv-2')
    """
    name = PurePath(data).stem.lower().replace("-", "_")
    if name in PRESETS and input_shape == SHAPES.get(name, input_shape):
        return PRESETS[name]
    if len(input_shape) == 3 and input_shape[0] == 3 and min(input_shape[1:]) >= 16:
        return {**CONV, **SHORT}
    if len(input_shape) == 2 and input_shape[1] >= SIGNAL:
        return {**CONV1D, **SHORT}
    return {**LENET, **SHORT}


def fitting(dataset: DatasetInfo, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The row for a dataset, adapted to the model and optimiser among `choices`."""
    usual = dict(TEXT if dataset.tokens else preset(dataset.name, dataset.input_shape))
    if dataset.target == "positions":
        usual = {**FCN, **SHORT}
    model = str(choices.get("model", usual["model"]))
    if model != usual["model"]:
        usual.pop("conv_rate", None)  # It is meant for the convolutions of the usual model.
        usual.update(next((row for name, row in MODELS.items() if model.startswith(name)), {}))
    if is_folder(model):
        usual.update(_fine_tuning(dataset, choices))
    if choices.get("optimizer", "sgd") != "sgd":
        usual.pop("momentum", None)
    return {**usual, "model": model}


def _fine_tuning(dataset: DatasetInfo, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a language model, with what follows from the steps, the text, and how densities are chosen."""
    usual: dict[str, Any] = {**FINE_TUNING, "weight_decay": 0.0}
    if not {"levels", "rate", "final_density", "density"} & {k for k, v in choices.items() if v is not None}:
        usual["density"] = FINE_TUNED_DENSITY
    steps = choices.get("steps", usual["steps"])
    usual["warmup"] = steps // RISE if isinstance(steps, int) and steps > 0 else 0
    for part in ("validation", "test"):
        usual[part] = min(HELD_OUT, getattr(dataset, f"stored_{part}") or HELD_OUT)
    return usual
