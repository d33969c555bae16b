"""Tables: the form of every analysis's result, and of the numbers behind figures and pages."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Value = str | int | float | bool | None


@dataclass(frozen=True, repr=False)
class Table:
    """Named columns of equal length. A cell is a number, a text, a truth value, or None for what is missing.

    columns  names of the columns
    values   the rows, each with one cell per column

    ValueError for a row of another length, or for a name that is given twice.

    >>> from winticket.table import Table
    >>> table = Table(("density", "arm"), ((1.0, "dense"), (0.1, "ticket")))
    >>> table
    Table(2 rows: density, arm)
    >>> table.column("arm")
    ['dense', 'ticket']
    """

    __storable__: ClassVar[bool] = True

    columns: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...] = ()

    def __post_init__(self) -> None:
        twice = [name for at, name in enumerate(self.columns) if name in self.columns[:at]]
        if twice:
            raise ValueError(f"column {twice[0]!r} is named twice; a column is known by its name")
        for index, row in enumerate(self.values):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {index} has {len(row)} cells, but the table has {len(self.columns)} columns: "
                    f"{', '.join(self.columns)}"
                )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Value]]) -> Table:
        """The table of these columns. ValueError if they differ in length.

        >>> from winticket.table import Table
        >>> Table.from_columns({"level": [0, 1], "density": [1.0, 0.8]}).rows()
        [{'level': 0, 'density': 1.0}, {'level': 1, 'density': 0.8}]
        """
        lengths = {name: len(cells) for name, cells in columns.items()}
        if len(set(lengths.values())) > 1:
            counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"columns differ in length: {counted}")
        return cls(tuple(columns), tuple(zip(*columns.values(), strict=True)))

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Value]], *, columns: Sequence[str] = ()) -> Table:
        """The table of these rows; `columns` come first, then all others as they appear. Missing cells are None.

        >>> from winticket.table import Table
        >>> Table.from_rows([{"arm": "dense"}, {"arm": "ticket", "failed": 1}]).column("failed")
        [None, 1]
        """
        listed = list(rows)
        names = tuple(dict.fromkeys([*columns, *(name for row in listed for name in row)]))
        return cls(names, tuple(tuple(row.get(name) for name in names) for row in listed))

    @classmethod
    def joined(cls, tables: Iterable[Table]) -> Table:
        """The rows of all tables, one table after the other; columns as in `from_rows`.

        >>> from winticket.table import Table
        >>> Table.joined([Table(("level",), ((0,),)), Table(("level",), ((1,),))]).column("level")
        [0, 1]
        """
        listed = list(tables)
        names = dict.fromkeys(name for table in listed for name in table.columns)
        return cls.from_rows((row for table in listed for row in table.rows()), columns=tuple(names))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        rows = "1 row" if len(self) == 1 else f"{len(self)} rows"
        return f"Table({rows}: {', '.join(self.columns)})"

    def rows(self) -> list[dict[str, Value]]:
        """The rows as dictionaries, in order."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.values]

    def column(self, name: str) -> list[Value]:
        """One column, in row order. KeyError for a name that is none."""
        at = self._position(name)
        return [row[at] for row in self.values]

    def has(self, name: str) -> bool:
        """Whether a column has any cell that is not missing."""
        return any(cell is not None for cell in self.column(name))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """One column as float64, missing cells as nan: for drawing, where nan leaves a gap."""
        return np.array([np.nan if cell is None else float(cell) for cell in self.column(name)], np.float64)

    def where(self, **equal: Value) -> Table:
        """The rows whose named columns equal these values. KeyError for a name that is none.

        >>> from winticket.table import Table
        >>> Table(("arm", "level"), (("ticket", 1), ("reinit", 1), ("ticket", 2))).where(arm="ticket").column("level")
        [1, 2]
        """
        tests = [(self._position(name), value) for name, value in equal.items()]
        return Table(self.columns, tuple(row for row in self.values if all(row[at] == v for at, v in tests)))

    def sort(self, *names: str, descending: bool = False) -> Table:
        """The rows in the order of these columns, equal ones as they were; missing cells last.

        TypeError for a column that holds both numbers and text.

        >>> from winticket.table import Table
        >>> Table(("density",), ((0.5,), (None,), (0.8,))).sort("density", descending=True).column("density")
        [0.8, 0.5, None]
        """
        cells = list(self.values)
        for name in reversed(names):  # stable: the first name decides last
            at = self._position(name)
            kinds = {isinstance(row[at], str) for row in cells if row[at] is not None}
            if len(kinds) > 1:
                raise TypeError(f"column {name!r} holds both numbers and text, which have no order")
            present = [row for row in cells if row[at] is not None]
            missing = [row for row in cells if row[at] is None]
            cells = sorted(present, key=lambda row: row[at], reverse=descending) + missing  # type: ignore[arg-type, return-value]
        return Table(self.columns, tuple(cells))

    def to_csv(self, path: str | Path) -> Path:
        """Write the table as CSV to `path`: UTF-8, one header line, missing cells empty. OSError if it cannot be.

        A number is the shortest decimal that reads back as the same number.
        """
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(self.values)
        return Path(path)

    def to_json(self) -> str:
        """The table as a JSON list with one object per row. ValueError for a number that is not finite.

        >>> from winticket.table import Table
        >>> Table(("density", "arm"), ((0.1, None),)).to_json()
        '[{"density": 0.1, "arm": null}]'
        """
        return json.dumps(self.rows(), ensure_ascii=False, allow_nan=False)

    def to_markdown(self, *, digits: int | None = None) -> str:
        """The table in Markdown, numbers to the right; with `digits` floats are rounded to that many figures.

        >>> from winticket.table import Table
        >>> print(Table(("arm", "accuracy"), (("ticket", 0.98765), ("a|b", None))).to_markdown(digits=3))
        | arm | accuracy |
        | :-- | --: |
        | ticket | 0.988 |
        | a\\|b |  |
        """
        rule = ["--:" if self._numeric(at) else ":--" for at in range(len(self.columns))]
        lines = [self.columns, rule, *([_markdown(cell, digits) for cell in row] for row in self.values)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def to_latex(self, *, digits: int | None = None) -> str:
        """The table for LaTeX: a tabular with booktabs' rules, numbers to the right; `digits` as in `to_markdown`.

        >>> from winticket.table import Table
        >>> print(Table(("arm", "accuracy"), (("ticket", 0.98765), ("100 %", None))).to_latex(digits=3))
        \\begin{tabular}{lr}
        \\toprule
        arm & accuracy \\\\
        \\midrule
        ticket & 0.988 \\\\
        100 \\% &  \\\\
        \\bottomrule
        \\end{tabular}
        """
        kinds = "".join("r" if self._numeric(at) else "l" for at in range(len(self.columns)))
        head, *body = [
            " & ".join(_latex(_text(cell, digits)) for cell in row) + r" \\"
            for row in (self.columns, *self.values)
        ]
        rules = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule"]
        return "\n".join([*rules, *body, r"\bottomrule", r"\end{tabular}"])

    def to_parquet(self, path: str | Path) -> Path:
        """Write the table as a parquet file to `path`. OSError if it cannot be.

        TypeError for a column that holds both numbers and text, since a parquet column has one type.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            written = pa.table({name: pa.array(self.column(name)) for name in self.columns})
        except pa.ArrowException as error:
            raise TypeError(f"a parquet column has one type: {error}") from error
        pq.write_table(written, str(path))
        return Path(path)

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas DataFrame. ImportError that says what to install, if pandas is not there."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas, which is not installed: pip install pandas") from error
        return pd.DataFrame.from_records(list(self.values), columns=list(self.columns))

    def _numeric(self, at: int) -> bool:
        return any(isinstance(row[at], int | float) and not isinstance(row[at], bool) for row in self.values)

    def _position(self, name: str) -> int:
        if name not in self.columns:
            raise KeyError(f"no column {name!r}; the columns are {', '.join(self.columns)}")
        return self.columns.index(name)


def _text(cell: Value, digits: int | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and digits is not None:
        return f"{cell:.{digits}g}"
    return str(cell)


def _markdown(cell: Value, digits: int | None) -> str:
    return _text(cell, digits).replace("|", "\\|").replace("\n", " ")


_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "}
    | {letter: f"\\{letter}" for letter in "&%$#_{}"}
)


def _latex(text: str) -> str:
    return text.translate(_LATEX)
