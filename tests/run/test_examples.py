"""The examples in the docstrings of the room run as they are shown."""

from __future__ import annotations

import doctest
import importlib

import pytest

from winticket.run import Store, derive, local, resolve, run, task

MODULES = sorted({thing.__module__ for thing in (Store, local, resolve, run, derive, task)})


@pytest.mark.parametrize("name", [*MODULES, "winticket.experiment.execution"])
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("thing", [Store, local, resolve, run, derive, task])
def test_public_functions_have_an_example(thing: object) -> None:
    assert ">>> " in (thing.__doc__ or "")
