"""The experiment that a result document speaks of, to go on from."""

import json
import os
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from winticket.experiment.plan import plan
from winticket.experiment.spec import RECIPE_FIELDS, Experiment
from winticket.train import Recipe


def load_source(path: str | os.PathLike[str]) -> tuple[Experiment, str]:
    """The experiment of a result.json and the store that has its trainings.

    ValueError where the file is no result document, or one of a transfer. A RuntimeWarning says where the same
    experiment has other trainings today (another version, data or model), which would be computed.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"there is no {file}; give the result.json of a finished run")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        found, store, keys = document["experiment"], str(document["store"]), set(document["keys"])
        recipe = Recipe(**{name: _fixed(found[name]) for name in RECIPE_FIELDS})
        names = [f.name for f in fields(Experiment) if f.name not in ("recipe", "rate")]
        # A rate that densities were said in place of is not told.
        rate = {} if found["rate"] is None else {"rate": found["rate"]}
        own: dict[str, Any] = {name: _fixed(found[name]) for name in names}
        for name in ("criterion", "rewind"):  # which not every method takes
            if own[name] is None:
                del own[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not a result document of this version ({type(error).__name__}: {error}); give the result.json "
            "of a finished run"
        ) from error
    if found.get("source"):
        raise ValueError(f"{file} is the result of a transfer; give that of the run that found the tickets")
    experiment = Experiment(recipe=recipe, **own, **rate)
    if {t.key for t in plan(experiment).tasks.values()} != keys:
        warnings.warn(
            f"{file} was made by another version, or its data or model have changed since: its tickets are found anew",
            RuntimeWarning,
            stacklevel=2,
        )
    return experiment, store


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
