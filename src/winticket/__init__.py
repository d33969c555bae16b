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
run = winticket.open("runs/digits")                 # a run again: arms, levels, replicates, masks, weights, tables
small = winticket.compact(model.eval(), ticket)     # a smaller module, without what the mask has cut off
small = winticket.remove_parts(model, ticket, example=x)  # without heads and hidden neurons, of the same class
"""

import os
import sys

_typed = getattr(sys, "orig_argv", [])
if os.path.basename(sys.argv[0]).split(".")[0] in ("winticket", "winticket-script") or (  # noqa: PTH119 - see below
    sys.argv[0] == "-m" and "-m winticket" in " ".join(_typed)
):
    # The command. Python, or an empty entry in PYTHONPATH, may have put the working directory where modules are looked
    # for, and then a file there that is called like one would be run in its place: also in the place of what the next
    # lines import, so nothing is imported before this. `winticket.importing` looks there for the user's own modules.
    try:
        _here = os.getcwd()  # noqa: PTH109 - see above
    except OSError:  # it has been removed
        _here = ""
    sys.path[:] = [entry for entry in sys.path if entry not in ("", _here)]

from winticket.version import __version__  # noqa: E402

TYPE_CHECKING = False  # not typing's own, for the same reason
if TYPE_CHECKING:
    from winticket import (
        allocate,
        analyse,
        controls,
        criteria,
        integrations,
        interop,
        judge,
        models,
        rewind,
        schedules,
        ship,
        units,
    )
    from winticket.experiment import Experiment, Result, Run, find
    from winticket.experiment import open as open  # noqa: A004 - not in __all__
    from winticket.loops import Levels, edge_popup, gradual, masked, prune, rigl, set_, supermask
    from winticket.objective import metric
    from winticket.ship.parts import remove_parts
    from winticket.ship.shrink import compact
    from winticket.ticket import Mask, Ticket
    from winticket.train import Recipe

__all__ = [
    "Experiment",
    "Levels",
    "Mask",
    "Recipe",
    "Result",
    "Run",
    "Ticket",
    "__version__",
    "allocate",
    "analyse",
    "compact",
    "controls",
    "criteria",
    "edge_popup",
    "find",
    "gradual",
    "integrations",
    "interop",
    "judge",
    "masked",
    "metric",
    "models",
    "prune",
    "remove_parts",
    "rewind",
    "rigl",
    "schedules",
    "set_",
    "ship",
    "supermask",
    "units",
]

_HOMES = {
    "Experiment": "experiment",
    "Result": "experiment",
    "Run": "experiment",
    "open": "experiment",
    "find": "experiment",
    "Levels": "loops",
    "edge_popup": "loops",
    "gradual": "loops",
    "masked": "loops",
    "prune": "loops",
    "rigl": "loops",
    "set_": "loops",
    "supermask": "loops",
    "metric": "objective",
    "compact": "ship.shrink",
    "remove_parts": "ship.parts",
    "Mask": "ticket",
    "Ticket": "ticket",
    "Recipe": "train",
}
_ROOMS = {
    "allocate",
    "analyse",
    "controls",
    "criteria",
    "integrations",
    "interop",
    "judge",
    "models",
    "rewind",
    "schedules",
    "ship",
    "units",
}


def __getattr__(name: str) -> object:
    # On first use, so that `winticket --help` does not wait for torch.
    if name not in _HOMES and name not in _ROOMS:
        raise AttributeError(f"module 'winticket' has no attribute {name!r}")
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"winticket.{name}")
    return getattr(import_module(f"winticket.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    # What users type: neither the imports above nor the modules that happen to be loaded.
    # `open` is not in __all__: `from winticket import *` would hide Python's own.
    return sorted([*__all__, "open"])
