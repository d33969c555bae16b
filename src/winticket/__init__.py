"""winticket finds, proves and ships winning lottery tickets.

result = winticket.find("digits", replicates=5)     # the whole search, with its controls and the verdict
ticket = winticket.Ticket.load("ticket.safetensors")
with winticket.masked(model, ticket):               # its weights, its mask; your own loop, your own optimiser
    my_training_loop(model)
ticket = winticket.prune(model, 0.1)                # one-shot, or at initialisation; of the model as it is
for level in winticket.Levels(model, [0.5, 0.25]):  # the search itself around your own loop
    with level:
        my_training_loop(model)
with winticket.rigl(model, 0.1, steps=2000):        # a mask that changes while it trains; also set_ and gradual
    my_training_loop(model)
with winticket.edge_popup(model, 0.5) as learned:   # a mask that is learned, and no weight; also supermask
    my_training_loop(model, learned.parameters())
"""

import os
import sys

_typed = getattr(sys, "orig_argv", [])
if (
    sys.argv[:1] == ["-m"]
    and "winticket" in [word for before, word in zip(_typed, _typed[1:], strict=False) if before == "-m"]  # noqa: RUF007 - as below
    and sys.path[:1] == [os.getcwd()]  # noqa: PTH109 - itertools and pathlib would be looked for there
):
    # `python -m winticket` has put the working directory first, where a file called like a module would be run in its
    # place. `winticket.importing` looks there for the user's modules, after everywhere else.
    sys.path[:1] = []

from typing import TYPE_CHECKING, Any  # noqa: E402

from winticket.version import __version__  # noqa: E402

if TYPE_CHECKING:
    from winticket import allocate, controls, criteria, interop, judge, models, rewind, schedules
    from winticket.experiment import Experiment, Result, find
    from winticket.levels import Levels
    from winticket.loops import edge_popup, gradual, prune, rigl, set_, supermask
    from winticket.ticket import Mask, Ticket
    from winticket.train import Recipe, masked

__all__ = [
    "Experiment",
    "Levels",
    "Mask",
    "Recipe",
    "Result",
    "Ticket",
    "__version__",
    "allocate",
    "controls",
    "criteria",
    "edge_popup",
    "find",
    "gradual",
    "interop",
    "judge",
    "masked",
    "models",
    "prune",
    "rewind",
    "rigl",
    "schedules",
    "set_",
    "supermask",
]

_HOMES = {
    "Experiment": "experiment",
    "Result": "experiment",
    "find": "experiment",
    "Levels": "levels",
    "edge_popup": "loops",
    "gradual": "loops",
    "prune": "loops",
    "rigl": "loops",
    "set_": "loops",
    "supermask": "loops",
    "Mask": "ticket",
    "Ticket": "ticket",
    "Recipe": "train",
    "masked": "train",
}
_ROOMS = {"allocate", "controls", "criteria", "interop", "judge", "models", "rewind", "schedules"}


def __getattr__(name: str) -> Any:
    # On first use, so that `winticket --help` does not wait for torch.
    if name not in _HOMES and name not in _ROOMS:
        raise AttributeError(f"module 'winticket' has no attribute {name!r}")
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"winticket.{name}")
    return getattr(import_module(f"winticket.{_HOMES[name]}"), name)
