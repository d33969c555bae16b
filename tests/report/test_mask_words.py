"""The words of the picture of a mask, and identifiers of tables, which are one each."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from winticket.analyse import ANALYSES
from winticket.report import page
from winticket.report.analysed import Shown
from winticket.report.mask_view import said
from winticket.table import Table

LAYERS = [
    {"name": "fc1.weight", "shape": [5, 2], "size": 10},
    {"name": "fc2.weight", "shape": [2, 5], "size": 10},
]
PLANE: Any = {"layer": "fc1.weight", "shape": [2], "units": 5}


def level_of(replicates: int) -> Any:
    return {"density": 0.3, "replicates": replicates, "layers": {"fc1.weight": 4.0, "fc2.weight": 2.0},
            "inputs": [3.0, 1.0]}  # fmt: skip


def test_counts_are_of_the_weights_that_may_be_pruned_and_one_ticket_has_no_mean() -> None:
    masks: Any = {
        "network": {"parameters": 27, "eligible": 20, "kept": [20, 6], "layers": LAYERS},
        "plane": PLANE,
    }
    several, one = (said(level_of(count), PLANE, masks) for count in (3, 1))
    start = "30.0 % of the weights that may be pruned are kept (6), and 40.0 % in this layer. "
    assert several.startswith(start)
    assert several.endswith("each would keep 2. Mean of 3 tickets.")
    assert one.startswith(start)
    assert one.endswith("each would keep 2. One ticket.")


def test_tables_of_analyses_with_equal_captions_have_identifiers_of_their_own(digits: Any) -> None:
    tables = [Table(("density", "value"), ((0.5, float(at)),)) for at in range(3)]
    analyses = [replace(one, lines=()) for one in ANALYSES.values()]
    shown = [Shown(one, made, (), None) for one, made in zip(analyses, tables, strict=False)]
    html = page(digits, [], analyses=shown)
    assert html.count(">1 row</p>") == 3
    names = re.findall(r' id="([^"]*)"', html)
    assert sorted(names) == sorted(set(names))
    described = re.findall(r'aria-describedby="(t[^"]*)"', html)
    assert set(described) <= set(names)
