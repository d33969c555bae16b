"""The command on a page asks the same question: typed again, it plans the same trainings."""

from __future__ import annotations

import shlex
from html import unescape
from typing import Any, cast

import pytest

from winticket.cli import app
from winticket.experiment import Experiment, plan, transferred
from winticket.report.reproduce import commands, reproduction


def planned_by(typed: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The experiment of a `winticket find` command."""
    caught: list[Experiment] = []
    monkeypatch.setattr(
        "winticket.cli.searches.search", lambda experiment, *_, **__: caught.append(experiment)
    )
    program, *arguments = shlex.split(typed)
    assert program == "winticket"
    app(arguments, standalone_mode=False)
    (experiment,) = caught
    return experiment


QUESTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "densities": {"density": (0.5, 0.1), "controls": ("reinit",), "gate": False},
    "final density": {"final_density": 0.1, "pruning": "linear", "levels": 3, "seed": 7},
    "no controls": {"controls": (), "model": "lenet-20-10", "replicates": 6, "stack": 3},
    "sgd": {
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "schedule": "step",
        "milestones": (0.3,),
    },
    "rewound": {"rewind": "to_step", "rewind_step": 5, "margin_pp": 1.0, "alpha": 0.1, "levels": 2},
    "rigl": {"method": "rigl", "levels": 2, "every": 20},
    "at-init": {"method": "at-init", "criterion": "synflow", "density": (0.2,)},
    "excluded": {"exclude": ("fc3.*",), "output_rate": None, "levels": 2},
    "training": {"clip_norm": 1.5, "warmup": 10, "weight_decay": 0.001, "early_points": False, "batch": 32},
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_command_of_a_search_plans_the_same_trainings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment.of("digits", steps=40, **QUESTIONS[name])
    document: Any = {"experiment": experiment.describe(), "levels": []}
    (typed,) = commands(document)
    again = planned_by(typed, monkeypatch)
    assert again.describe() == experiment.describe()
    assert plan(again).keys() == plan(experiment).keys()


def test_the_commands_of_a_transfer_are_two() -> None:
    source = Experiment.of("digits", steps=40, levels=3, replicates=5)
    experiment = transferred(source, density=(0.6,), lr=0.01)
    density = plan(experiment).densities()[1]
    document: Any = {"experiment": experiment.describe(), "levels": [{"density": 1.0}, {"density": density}]}
    find, transfer = commands(document)
    assert find.startswith("winticket find digits --model lenet-300-100 ")
    assert find.endswith(" --out source")
    assert transfer.startswith(f"winticket transfer source --density {density:.6g} ")
    assert " --lr 0.01" in transfer
    assert "--optimizer" not in transfer, "it is the source's"
    assert "--to" not in transfer, "the data are the source's"


def test_a_long_command_is_broken_between_options_and_never_within_quotes() -> None:
    question = Experiment.of("digits", steps=40).describe() | {"data": "my data --set one --levels --lr two"}
    html = reproduction(cast("Any", {"experiment": question, "levels": []}))
    typed = unescape(html[html.index("<code>") + len("<code>") : html.index("</code>")])
    (command,) = commands(cast("Any", {"experiment": question, "levels": []}))
    assert len(typed.splitlines()) > 2
    assert shlex.split(typed.replace("\\\n", " ")) == shlex.split(command)
    assert "'my data --set one --levels --lr two'" in typed
