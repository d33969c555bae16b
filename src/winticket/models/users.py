"""Users' networks: `package.module:build`, imported, called and tested."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import torch
from torch import Tensor, nn

from winticket.importing import object_named


def imported(name: str) -> Callable[..., object]:
    """The function that "package.module:build" names. Raises ValueError with the cause if there is none."""
    path, _, attribute = name.partition(":")
    if not path or not attribute.isidentifier():
        raise ValueError(
            f"model {name!r} should have the form package.module:build, a module and a function in it"
        )
    try:
        function = object_named(name)
    except ValueError as error:
        raise ValueError(f"model {error}") from error.__cause__
    if not callable(function):
        raise TypeError(f"model {name!r}: {attribute!r} is {type(function).__name__}, which cannot be called")
    build: Callable[..., object] = function
    return build


_OF_LIBRARIES = {"num_classes", "pretrained", "weights", "progress"}
"""Parameters by which the functions of torchvision and timm are recognised."""


def _arguments(
    function: Callable[..., object], input_shape: tuple[int, ...], classes: int
) -> dict[str, object]:
    """The keyword arguments of a build function: `input_shape` and `classes`, or what torchvision and timm call them.

    Their functions take `num_classes`, and timm's `in_chans` as well, often as part of **kwargs; channels are passed
    only if they are not 3, which both assume.
    """
    usual = {"input_shape": input_shape, "classes": classes}
    try:
        parameters = signature(function).parameters
    except ValueError:  # a function written in C, without a signature
        return usual
    if parameters.keys() & usual.keys() or not parameters.keys() & _OF_LIBRARIES:
        return usual
    channels = input_shape[0] if len(input_shape) > 1 else 3
    return {"num_classes": classes, **({"in_chans": channels} if channels != 3 else {})}


def users_network(
    name: str, input_shape: tuple[int, ...], classes: int, seed: int, *, target: str
) -> nn.Module:
    """Call a user's function with torch's global generator seeded, and restore the generator afterwards."""
    function = imported(name)
    given = _arguments(function, input_shape, classes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            module = function(**given)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"model {name!r}: calling it with {', '.join(f'{k}={v}' for k, v in given.items())} failed with "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise TypeError(f"model {name!r} returned {type(module).__name__}, not a torch.nn.Module")
        _check_logits(name, module, input_shape, classes, target=target)
    return module


def _check_logits(
    name: str, module: nn.Module, input_shape: tuple[int, ...], classes: int, *, target: str
) -> None:
    """Pass two blank examples through the module, in evaluation mode so that no statistic changes."""
    training = {layer: layer.training for layer in module.modules()}
    blank = torch.zeros(2, *input_shape, dtype=torch.int64 if target == "tokens" else torch.float32)
    try:
        with torch.no_grad():
            logits = module.eval()(blank)
    except (Exception, SystemExit) as error:
        kind = "tokens" if target == "tokens" else "inputs"
        raise ValueError(
            f"model {name!r} does not take {kind} [N, {', '.join(map(str, input_shape))}]: "
            f"{type(error).__name__}: {error}"
        ) from error
    for layer, was_training in training.items():
        layer.training = was_training
    output = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    shapes = {"tokens": (*input_shape, classes), "positions": (classes, *input_shape[1:])}
    expected = shapes.get(target, (classes,))
    if output != (2, *expected):
        raise ValueError(
            f"model {name!r} should give logits [N, {', '.join(map(str, expected))}], but for N = 2 gives {output}"
        )
