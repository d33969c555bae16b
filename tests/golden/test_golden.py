"""Keys are exactly as they were; numbers are, to rounding, unless a REVISION says that they changed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from .made import made, read, revisions

# Sums over a few hundred products in another order, through 24 steps: 1e-5 was the most that two instruction sets
# differed by. A training that does anything else differs in the second digit.
CLOSE = 2e-4
# Two scores that nearly tie at a mask's edge may change places: each such pair is two weights of more than 900.
SWAPPED = 4


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return made()


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=CLOSE, abs_tol=1e-6)
    if isinstance(one, str) and isinstance(two, str):
        return (
            len(one) == len(two)
            and sum((int(a, 16) ^ int(b, 16)).bit_count() for a, b in zip(one, two, strict=True)) <= SWAPPED
        )
    return bool(one == two)


@pytest.mark.parametrize("name", sorted(read()))
def test_what_was_is_still(name: str, now: dict[str, Any]) -> None:
    entry = read()[name]
    if name.startswith("keys:"):
        assert now[name]["value"] == entry["value"], (
            f"{name}: keys changed, so that stored results are not found any more. If numbers changed, a REVISION was "
            "raised and this is right: run python -m tests.golden"
        )
        return
    here = revisions(*entry["revisions"])
    assert here == entry["revisions"], f"{name}: a REVISION was raised; run python -m tests.golden"
    assert same(now[name]["value"], entry["value"]), (
        f"{name}: numbers changed and no REVISION of {', '.join(here)} did; raise that of the room that you changed, "
        "or stored results pass for new ones; then run python -m tests.golden"
    )


def test_nothing_is_left_out(now: dict[str, Any]) -> None:
    assert now.keys() == read().keys(), "run python -m tests.golden"


def test_another_number_is_seen() -> None:
    """The comparison itself."""
    assert same({"a": [1.0, 2.0]}, {"a": [1.0, 2.0001]})
    assert not same({"a": [1.0, 2.0]}, {"a": [1.0, 2.01]})
    assert same({"w": "ffff"}, {"w": "fffe"})
    assert not same({"w": "ffff"}, {"w": "f80f"})
    assert not same({"w": 1}, {"v": 1})
