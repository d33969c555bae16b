"""Load experiments from Python files."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from winticket.experiment.spec import Experiment
from winticket.importing import look_in
from winticket.places import require_file


def load_spec(path: str | os.PathLike[str], *, variant: str = "experiment") -> Experiment:
    """The experiment that a Python file defines under the name `variant`.

    The file may import modules of its folder; they are searched for last. Raises FileNotFoundError if there is no such
    file, and ValueError if it does not run or has no such experiment.

    >>> file = Path("question.py")
    >>> _ = file.write_text("from winticket import Experiment; experiment = Experiment.of('digits', steps=20)")
    >>> load_spec(file).recipe.steps
    20
    """
    file = Path(path)
    require_file(file)
    name = f"winticket_spec_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file (.py); give one that defines `experiment`")
    module = importlib.util.module_from_spec(spec)
    look_in(file.parent, for_module=name)
    sys.modules[name] = module  # Dataclasses look up their module there.
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{file} does not run: {type(error).__name__}: {error}") from error
    offered = {name: value for name, value in vars(module).items() if isinstance(value, Experiment)}
    if variant not in offered:
        raise ValueError(
            f"{file} has no experiment {variant!r}; it has {', '.join(offered) or 'none at all'}"
            + ("" if offered else "; define one: experiment = Experiment.of('digits')")
        )
    return offered[variant]
