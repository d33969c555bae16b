"""A user's criterion that raises or returns nonsense: the same report wherever it is used, with file and line."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import winticket
from winticket.allocate import layerwise
from winticket.cli import main
from winticket.criteria import Evidence, magnitude
from winticket.criteria.applied import mask_of, scores_of
from winticket.experiment import Experiment
from winticket.experiment.checks import check
from winticket.experiment.resolved import resolve
from winticket.ticket import Mask, Scores, State, same_bits

SOURCE = """
from winticket import criteria
from winticket.criteria.evidence import DATA, NETWORK, needs

def raises(e):
    names = list(e.mask.keep)
    return e.now.weights["nowhere"]

def nothing(e):
    pass

def lacks(e):
    name = next(iter(e.mask.keep))
    return {name: e.now.weights[name].abs()}

def misshapen(e):
    return {name: e.now.weights[name].abs().sum(1) for name in e.mask.keep}

def untyped(e):
    return {name: e.now.weights[name].abs().numpy() for name in e.mask.keep}

def wild(e):
    return {name: 0 * e.now.weights[name] / 0 for name in e.mask.keep}

@needs(NETWORK, DATA, mode="training")
def deep(e):
    weights = e.weights()
    return {name: weights[name] * e.mean_loss(weights, (x, y, 3)) for x, y in e.examples() for name in e.mask.keep}

class Scorer:
    def __call__(self, e):
        raise RuntimeError("of an object")

scorer = Scorer()

def strange(e, *, power):
    return {name: e.now.weights[name].abs() ** power for name in e.mask.keep}

def fine(e):
    return {name: e.now.weights[name].abs().requires_grad_() for name in e.now.weights}
"""

# The line that is reported, and the words about what was wrong.
CASES: dict[str, tuple[int, str]] = {
    "raises": (5, "raises KeyError at FILE, line 7: 'nowhere'"),
    "nothing": (9, "returns NoneType"),
    "lacks": (12, "returns no scores of"),
    "misshapen": (16, "returns scores of shape"),
    "untyped": (19, "returns ndarray for"),
    "wild": (22, "are not all finite"),
    "deep": (25, "raises ValueError at FILE, line 28: Sequential does not compute on inputs ["),
    "scorer": (30, "raises RuntimeError at FILE, line 32: of an object"),
}
CONTRACT = "a criterion takes an Evidence e and returns one finite score per weight"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "badscores.py"
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("badscores", None)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def in_levels(criterion: Any, batches: Any) -> None:
    winticket.Levels(network(), [0.5], criterion=criterion, batches=batches)


def in_a_search(criterion: Any, batches: Any) -> None:
    experiment = Experiment.of(
        "digits", criterion=f"badscores:{criterion.__name__}", model="lenet-12", steps=20
    )
    check(resolve(experiment))


def in_a_block(block: Callable[..., Any], criterion: Any, batches: Any) -> None:
    with block(network(), 0.5, steps=20, every=2, criterion=criterion, batches=batches):
        raise AssertionError("it was to be refused before any training")


def in_one_call(criterion: Any, batches: Any) -> None:
    winticket.prune(network(), 0.5, criterion=criterion, batches=batches)


USES: dict[str, Callable[..., None]] = {
    "prune": in_one_call,
    "Levels": in_levels,
    "find": in_a_search,
    **{f.__name__: partial(in_a_block, f) for f in (winticket.rigl, winticket.set_, winticket.gradual)},
}


# A search takes functions alone, which workers find by name.
USED = [(name, use) for name in CASES for use in USES if (name, use) != ("scorer", "find")]


@pytest.mark.parametrize(("name", "use"), USED)
def test_what_went_wrong_is_told_with_file_and_line(file: Path, name: str, use: str) -> None:
    criterion = getattr(importlib.import_module("badscores"), name)
    line, words = CASES[name]
    shown = "Scorer" if name == "scorer" else name
    with pytest.raises(ValueError, match=re.escape(words.replace("FILE", str(file)))) as caught:
        USES[use](criterion, [(torch.randn(20, 8), torch.randint(4, (20,)))])
    assert f"criterion {shown} ({file}, line {line})" in str(caught.value)
    if name != "wild":
        assert CONTRACT in str(caught.value)


def test_options_of_ones_own_criterion_are_told_too(file: Path) -> None:
    strange = importlib.import_module("badscores").strange
    message = f"criterion strange(power=-inf) ({file}, line 36)"
    with pytest.raises(ValueError, match=re.escape(message)):
        winticket.prune(nn.Sequential(nn.Linear(4, 4)), 0.5, criterion=partial(strange, power=-torch.inf))
    options: dict[str, Any] = {"criterion": partial(strange, power=2.0)}
    assert winticket.prune(network(), 0.5, **options).mask.count() == 96


def test_more_than_is_wanted_is_no_mistake(file: Path) -> None:
    """Scores of other weights as well, and with gradients."""
    fine = importlib.import_module("badscores").fine
    assert winticket.prune(network(), 0.5, criterion=fine).mask.count() == 96


def test_the_command_ends_with_status_2(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    choices = ("--criterion", "badscores:raises", "--steps", "20", "--model", "lenet-12")
    arguments = ["winticket", "find", "digits", *choices, "--store", str(tmp_path / "store")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    message = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert f"line 7: 'nowhere'; {CONTRACT}" in message


def writes_everywhere(e: Evidence) -> Scores:
    scores = {name: e.now.weights[name].abs() for name in e.mask.keep}
    for tensors in (e.now.weights, e.now.buffers, e.start.weights, e.mask.keep):
        for tensor in tensors.values():
            tensor.zero_()
    return scores


def takes_and_writes(scores: Scores, mask: Mask, *, density: float) -> Mask:
    smaller = layerwise(scores, mask, density=density)
    for keep in mask.keep.values():
        keep.zero_()
    return smaller


def leaves(_: Evidence) -> Scores:
    raise SystemExit(0)


def test_what_a_criterion_or_an_allocation_writes_into_what_it_is_given_changes_nothing() -> None:
    weights = {"a.weight": torch.randn(4, 3), "b.weight": torch.randn(2, 4)}
    state = State(weights, {"a.count": torch.ones(1)}, {}, 0)
    e = Evidence(now=state, start=state, mask=Mask.full(weights), generator=torch.Generator())
    before = {name: tensor.clone() for name, tensor in weights.items()}
    mask = mask_of(writes_everywhere, e, allocate=takes_and_writes, density=0.5)
    assert same_bits(mask.keep, mask_of(magnitude, e, allocate=layerwise, density=0.5).keep)
    assert same_bits(weights, before)
    assert e.mask.density() == 1
    assert float(state.buffers["a.count"]) == 1


def test_a_criterion_that_exits_is_reported_and_ends_nothing() -> None:
    weights = {"a.weight": torch.randn(4, 3)}
    state = State(weights, {}, {}, 0)
    e = Evidence(now=state, start=state, mask=Mask.full(weights), generator=torch.Generator())
    with pytest.raises(ValueError, match=r"leaves .* raises SystemExit at .*test_criteria_own\.py, line"):
        scores_of(leaves, e)
