"""Tables: what they refuse, how they are sorted and filtered, and that nothing is lost in any of their forms."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from winticket.table import Table

MIXED = Table(
    ("density", "arm", "failed", "claimed"),
    ((0.5, "ticket", 0, True), (None, "a|b", 2, False), (1 / 3, "reinit", None, None)),
)


def test_a_table_refuses_a_short_row_and_an_unknown_column() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells, but the table has 2 columns: a, b"):
        Table(("a", "b"), ((1, 2), (3,)))
    with pytest.raises(KeyError, match="no column 'c'; the columns are a, b"):
        Table(("a", "b"), ((1, 2),)).column("c")


def test_csv_keeps_every_digit_and_leaves_missing_empty(tmp_path: Path) -> None:
    table = Table(("density", "arm", "accuracy"), ((0.1 + 0.2, 'a "b", c', None), (1.0, "ticket", 2 / 3)))
    path = table.to_csv(tmp_path / "t.csv")
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert rows == [
        ["density", "arm", "accuracy"],
        ["0.30000000000000004", 'a "b", c', ""],
        ["1.0", "ticket", "0.6666666666666666"],
    ]


def test_columns_of_unequal_length_and_names_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="columns differ in length: a 1, b 2"):
        Table.from_columns({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="column 'a' is named twice"):
        Table(("a", "b", "a"), ())


def test_rows_and_columns_make_the_same_table() -> None:
    assert Table.from_rows(MIXED.rows()) == MIXED
    assert Table.from_columns({name: MIXED.column(name) for name in MIXED.columns}) == MIXED
    assert Table.from_rows([{"b": 1}, {"a": 2}], columns=("a",)) == Table(("a", "b"), ((None, 1), (2, None)))
    assert len(Table.from_columns({})) == len(Table.from_rows([])) == 0
    assert len(MIXED) == 3


def test_sorting_is_stable_and_leaves_missing_cells_last_either_way() -> None:
    table = Table.from_columns({"level": [2, None, 1, 2], "arm": ["b", "a", "c", "a"]})
    assert table.sort("level").column("arm") == ["c", "b", "a", "a"]
    assert table.sort("level", descending=True).column("arm") == ["b", "a", "c", "a"]
    assert table.sort("level", "arm").column("arm") == ["c", "a", "b", "a"]
    with pytest.raises(TypeError, match="column 'x' holds both numbers and text"):
        Table(("x",), ((1,), ("a",))).sort("x")


def test_filters_combine_and_a_missing_cell_equals_none() -> None:
    assert MIXED.where(failed=None).column("arm") == ["reinit"]
    assert len(MIXED.where(arm="ticket", failed=2)) == 0
    with pytest.raises(KeyError, match="no column 'level'"):
        MIXED.where(level=1)
    assert [MIXED.has(name) for name in MIXED.columns] == [True] * 4
    assert not MIXED.where(failed=None).has("claimed")
    np.testing.assert_array_equal(MIXED.numbers("failed"), [0, 2, np.nan])


def test_json_and_markdown_have_every_cell() -> None:
    assert json.loads(MIXED.to_json()) == MIXED.rows()
    assert MIXED.to_markdown(digits=2).splitlines() == [
        "| density | arm | failed | claimed |",
        "| --: | :-- | --: | :-- |",
        "| 0.5 | ticket | 0 | True |",
        "|  | a\\|b | 2 | False |",
        "| 0.33 | reinit |  |  |",
    ]
    assert "| 0.3333333333333333 |" in MIXED.to_markdown()
    with pytest.raises(ValueError, match="JSON compliant"):
        Table(("x",), ((float("nan"),),)).to_json()


def test_pandas_gets_the_same_columns_and_values() -> None:
    pytest.importorskip("pandas")
    frame = MIXED.to_pandas()
    assert list(frame.columns) == list(MIXED.columns)
    assert frame["arm"].tolist() == MIXED.column("arm")
    assert frame["density"].iloc[0] == 0.5
    assert frame["density"].isna().tolist() == [False, True, False]


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        MIXED.to_pandas()
