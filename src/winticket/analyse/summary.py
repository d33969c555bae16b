"""Means over replicates with their intervals: what figures draw and sentences say."""

from __future__ import annotations

from collections.abc import Sequence

from winticket.judge import mean_interval
from winticket.judge.crosschecks import percent as kept_percent
from winticket.table import Table, Value

__all__ = ["kept_percent", "said", "summarised"]

REVISION = 1


def summarised(table: Table, value: str, by: Sequence[str]) -> Table:
    """The mean of a column over the rows that agree in `by`, with its 95 % t interval.

    Returns columns `by`, then `value`, low, high (None for a single row) and n; rows in order of first appearance. Rows
    without the value are left out.

    >>> from winticket.table import Table
    >>> rows = Table(("level", "overlap"), ((1, 0.2), (1, 0.4), (2, 0.5)))
    >>> summarised(rows, "overlap", ["level"]).column("n")
    [2, 1]
    """
    groups: dict[tuple[Value, ...], list[float]] = {}
    at, positions = table.columns.index(value), [table.columns.index(name) for name in by]
    for row in table.values:
        cell = row[at]
        if cell is not None:
            groups.setdefault(tuple(row[p] for p in positions), []).append(float(cell))
    rows = []
    for key, values in groups.items():
        low, high = mean_interval(values) or (None, None)
        rows.append((*key, sum(values) / len(values), low, high, len(values)))
    return Table((*by, value, "low", "high", "n"), tuple(rows))


def said(
    row: dict[str, Value], value: str, *, digits: int = 3, percent: bool = False, share: bool = False
) -> str:
    """A row of `summarised` in words: the mean and its interval. `share` means percent from 0 to 100.

    >>> said({"overlap": 0.25, "low": 0.2, "high": 0.3, "n": 5}, "overlap")
    '0.25 (0.2 to 0.3)'
    >>> said({"zeros": 0.98, "low": 0.95, "high": 1.01, "n": 5}, "zeros", share=True)
    '98 % (95 to 100 %)'
    """
    scale, unit = (100, " %") if percent or share else (1, "")
    number = f"{scale * float(row[value] or 0):.{digits}g}{unit}"
    if row["low"] is None or row["high"] is None:
        return number
    low, high = float(row["low"]), float(row["high"])
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{number} ({scale * low:.{digits}g} to {scale * high:.{digits}g}{unit})"
