"""The network that a ticket's `about` names, built within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from torch import nn

from winticket import models
from winticket.importing import require_trust
from winticket.outside import Unreadable, converted


class _Build(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of `models.build`, as `about["build"]` holds them."""

    name: str
    input_shape: list[int]
    classes: int
    generator_seed: int
    init: str | None = None
    tokens: bool = False
    target: str = "classes"


def named_model(about: Mapping[str, Any], *, parameters: int, trust: Sequence[str]) -> nn.Module:
    """The model of `about["build"]`, freshly initialised. A built-in one of more than `parameters` is not even built.

    Raises ValueError if there is no such entry, if it is not what `models.build` takes, or if it names a module that
    `trust` does not list.
    """
    if "build" not in about:
        raise ValueError(
            "the ticket does not say which network it fits (its about has no 'build'); build yours, and call "
            "ticket.load_into(model)"
        )
    try:
        build = converted(about["build"], _Build)
    except Unreadable as error:
        raise ValueError(
            f"the ticket's about['build'] is not what winticket.models.build takes: {error}"
        ) from error
    arguments = msgspec.structs.asdict(build)
    if ":" in build.name:
        require_trust(build.name, trust, where="the ticket's model")
        return models.build(**arguments, trust=True)
    shape, classes = tuple(build.input_shape), build.classes
    models.check(build.name, input_shape=shape, classes=classes, tokens=build.tokens, target=build.target)
    if (count := models.size(build.name, input_shape=shape, classes=classes)) > parameters:
        raise ValueError(
            f"the ticket says that it fits {build.name}, which has {count} weights or more on inputs of shape "
            f"{list(shape)}, but the ticket has {parameters}"
        )
    return models.build(**arguments)
