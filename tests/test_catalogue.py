"""Names that can be typed: the same as the rooms offer, told apart, and answered without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from winticket import catalogue, data, models
from winticket.experiment import offered
from winticket.experiment.names import ARMS, METHODS
from winticket.train import Recipe


@pytest.mark.parametrize("kind", ["method", "criterion", "allocate", "rewind", "pruning", "control"])
def test_names_read_from_the_sources_are_those_that_the_rooms_offer(kind: str) -> None:
    assert catalogue.names(kind) == tuple(offered()[kind])


def test_names_of_methods_controls_and_data() -> None:
    assert catalogue.names("method") == tuple(METHODS)
    assert catalogue.names("control") == tuple(ARMS)
    assert catalogue.names("data") == data.names()


@pytest.mark.parametrize("kind", ["optimizer", "schedule"])
def test_names_of_the_recipe_are_those_that_it_takes(kind: str) -> None:
    for name in catalogue.names(kind):
        Recipe(**{"steps": 100, "evaluate_every": 50, "batch": 5, "lr": 0.1, kind: name})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=", ".join(catalogue.names(kind))):
        Recipe(**{"steps": 100, "evaluate_every": 50, "batch": 5, "lr": 0.1, kind: "none"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", models.names())
def test_every_model_is_known_for_one_where_data_are_wanted(name: str) -> None:
    assert "is a model" in catalogue.unknown_dataset(name)


@pytest.mark.parametrize(
    ("what", "name", "hint"),
    [
        ("method", "snip", "which is a criterion: type --method at-init --criterion snip"),
        ("method", "magnitude", "which is a criterion: type --criterion magnitude"),
        ("method", "global_top", "which is an allocation: type --allocate global_top"),
        ("method", "IMP", "(did you mean 'imp'?)"),
        ("method", "one_shot", "(did you mean 'one-shot'?)"),
        ("method", "imp,rigl", "winticket compare DATA --method imp --method rigl"),
        ("criterion", "rigl", "which is a method: type --method rigl"),
        ("criterion", "erk", "which is an allocation: type --allocate erk"),
        ("criterion", "snip,grasp", "only one can be used; type --criterion snip"),
        ("allocate", "global-top", "(did you mean 'global_top'?)"),
        ("allocate", "lamp", "which is a criterion: type --criterion lamp"),
        ("rewind", "inverted", "which is a control: type --control inverted"),
        ("pruning", "cosine", "which is a learning-rate schedule: type --schedule cosine"),
        ("control", "adam", "which is an optimiser: type --optimizer adam"),
        ("control", "reinit,random", "type --control reinit --control random"),
        ("control", "other_aligned", "(did you mean 'other-aligned'?)"),
    ],
)
def test_what_was_meant_is_said_as_it_is_typed(what: str, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^unknown {what} '{name}'") as error:
        catalogue.choose(what, name, catalogue.names(what))
    assert hint in str(error.value)
    for known in catalogue.names(what):
        assert known in str(error.value)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("snip", "type --method at-init:snip"),
        ("magnitude", "type --method one-shot:magnitude"),
        ("imp,snip", "type --method imp --method at-init:snip"),
        ("imp:60", "type --method imp@60"),
        ("at-init:rigl", "which is a method: type --method rigl"),
    ],
)
def test_what_was_meant_in_a_comparison(asked: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        catalogue.check_methods(("imp", asked))
    assert hint in str(error.value)
    catalogue.check_methods(("imp", "imp@60", "at-init:snip", "one-shot:mylab.scores:fisher@5"))


HEAVY = {"torch", "numpy", "scipy", "matplotlib", "datasets", "pyarrow", "sklearn"}
ANSWERED_AT_ONCE = [
    "--version",
    "--help",
    "find --help",
    "compare --help",
    "transfer --help",
    "store --help",
    "",
    "digits",
    "fnid",
    "find",
    "find digts",
    "find lenet-300-100",
    "find digits --model mnist",
    "find digits --method snip",
    "find digits --criterion magnitud",
    "find digits --allocate layer",
    "find digits --rewind to_stpe",
    "find digits --pruning cosine",
    "find digits --control reinit,random",
    "find digits --density 0.1,0.05",
    "find digits --levels some",
    "find digits --nonsense",
    "find digits --lr -1",
    "find digits --steps 0",
    "find digits --steps 10000000000000",
    "find digits --replicates 0",
    "find digits --rate 1.5",
    "find digits --momentum 2",
    "find digits --alpha 0.7",
    "find digits --search-lr inf",
    "find digits --model lenett",
    "find digits --optimizer adagrad",
    "find digits --schedule linear",
    "plan digits --method imb",
    "compare digits --method snip",
    "compare digits --method at-init:snipp",
    "transfer nowhere.json",
    "transfer .",
    "run nowhere.py",
    "store ls --store nowhere",
    "store verify --store nowhere",
]


def test_help_and_refusals_import_nothing_that_takes_seconds(tmp_path: Path) -> None:
    """One process for all of them: whichever imported torch would be named."""
    code = (
        "import sys\n"
        "from winticket import cli\n"
        f"for words in {ANSWERED_AT_ONCE!r}:\n"
        "    sys.argv = ['winticket', *words.split()]\n"
        "    try:\n"
        "        cli.main()\n"
        "    except SystemExit as left:\n"
        f"        loaded = {HEAVY!r} & set(sys.modules)\n"
        "        assert not loaded, (words, loaded)\n"
        "        wanted = 0 if '--' in words and words.split()[-1] in ('--help', '--version') else 2\n"
        "        assert left.code == wanted, (words, left.code)\n"
        "print('all')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=100
    )
    assert (done.returncode, done.stdout.endswith("all\n")) == (0, True), done.stderr[-2000:]
