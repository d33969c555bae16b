"""The procedures that find tickets. Each is a generator over densities that reads like its paper; it runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from winticket.procedures.at_init import at_init
from winticket.procedures.dynamic import gradual, rigl, set_
from winticket.procedures.early_bird import early_bird
from winticket.procedures.facts import Method, method_of
from winticket.procedures.force import force, iter_snip
from winticket.procedures.imp import imp
from winticket.procedures.one_shot import one_shot
from winticket.procedures.supermasks import edge_popup, supermask
from winticket.procedures.transfer import transfer
from winticket.stages import Setup

METHODS: dict[str, Callable[..., Any]] = {
    method_of(procedure).name: procedure
    for procedure in (
        imp,
        one_shot,
        at_init,
        force,
        iter_snip,
        early_bird,
        gradual,
        set_,
        rigl,
        edge_popup,
        supermask,
    )
}
"""The procedures by the names of their methods, in the order in which they are listed."""

__all__ = [
    "METHODS",
    "Method",
    "Setup",
    "at_init",
    "early_bird",
    "edge_popup",
    "force",
    "gradual",
    "imp",
    "iter_snip",
    "method_of",
    "one_shot",
    "rigl",
    "set_",
    "supermask",
    "transfer",
]
