"""The procedures that find tickets. Each is a generator over densities that reads like its paper; it runs nothing."""

from winticket.procedures.at_init import at_init
from winticket.procedures.dynamic import gradual, rigl, set_
from winticket.procedures.early_bird import early_bird
from winticket.procedures.imp import imp
from winticket.procedures.one_shot import one_shot
from winticket.procedures.supermasks import edge_popup, supermask
from winticket.procedures.transfer import transfer
from winticket.stages import Setup

__all__ = [
    "Setup",
    "at_init",
    "early_bird",
    "edge_popup",
    "gradual",
    "imp",
    "one_shot",
    "rigl",
    "set_",
    "supermask",
    "transfer",
]
