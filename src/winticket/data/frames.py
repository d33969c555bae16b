"""Tables of numbers and categories: CSV, TSV, parquet and arrow files, and how their columns become tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from winticket.data.columns import Column, Features, column, encoded, in_words, require_complete
from winticket.data.content import Decoded, Split
from winticket.data.draws import kept_rows
from winticket.data.local import Files, files_within, filled, opened_parquet, tables_by_split
from winticket.data.reading import OPTIONS, Reading
from winticket.data.splitting import Keys, keys
from winticket.data.tables import LABEL_NAMES, features_of, holds_images
from winticket.data.targets import Answers, target_of
from winticket.text import nearest

DELIMITED = (".csv", ".tsv")
ENDINGS = (*DELIMITED, ".arrow", ".feather")
LABELS = (*LABEL_NAMES, "target", "class", "y")
"""Names of columns that are taken for the label if none is named."""
MOST_COLUMNS = 20_000


def find(path: Path) -> Files | None:
    """The tables at a path, or in the folder there; None if it holds no CSV, TSV or arrow file.

    A single file is one training split. In a folder, names of files decide, as for parquet (`local.find`).
    """
    if path.is_file():
        if path.suffix.lower() not in ENDINGS:
            return None
        return filled(Files(path.parent, {"train": (path,)}, parquet=True))
    files = [file for file in files_within(path) if file.suffix.lower() in (*ENDINGS, ".parquet")]
    kinds = {file.suffix.lower() for file in files}
    if not kinds & set(ENDINGS):
        return None
    if len(kinds) > 1:
        raise ValueError(
            f"{path} holds files of several kinds ({', '.join(sorted(kinds))}); give one of them"
        )
    return filled(Files(path, tables_by_split(path, files), parquet=True))


def digest(files: Files) -> str:
    """What names the content of tables: their bytes, and the kind of file, which decides how they are read."""
    return f"table {files.splits['train'][0].suffix.lower()} {files.digest()}"


def are_numbers(files: Files) -> bool:
    """True if files hold tables of numbers and categories rather than images."""
    if not files.parquet:
        return False
    first = files.splits["train"][0]
    if first.suffix.lower() != ".parquet":
        return True
    schema = opened_parquet(first, lambda opened: opened.schema_arrow)
    return not holds_images(schema)


def decode(files: Files, reading: Reading) -> Decoded:
    """The tables as float64 features [N, F] and answers.

    Numbers are one feature each. Text, dictionary and boolean columns are categories: one feature of 0 or 1 for each
    category of the training file, in sorted order; all of them are 0 for a category that it does not have. See
    `Reading` for missing values, targets and splits. Raises ValueError for whatever cannot be used, and says what to
    do.
    """
    reading.require_only(
        *(name for name in OPTIONS if name != "size"), of="a table of numbers and categories"
    )
    tables = {split: _split_table(paths, split) for split, paths in files.splits.items()}
    origin = str(files.root if sum(map(len, files.splits.values())) > 1 else files.splits["train"][0])
    return from_tables(tables, reading, origin=origin)


def from_tables(tables: Mapping[str, Any], reading: Reading, *, origin: str) -> Decoded:
    """As `decode`, of arrow tables by split; `origin` names them in messages."""
    _check_names(tables, origin)
    if not len(tables["train"]):
        raise ValueError(f"{origin} has a header but no rows; write the examples below it")
    if reading.rows is not None:
        kept = kept_rows(len(tables["train"]), reading.rows)
        tables = {**tables, "train": tables["train"].take(kept.numpy())}
    names = list(tables["train"].column_names)
    reading = _labelled(names, reading, origin)
    _check_chosen(names, reading, origin)
    used = {*reading.label, *reading.ignore, reading.group, reading.time}
    features = [name for name in names if name not in used]
    if not features:
        raise ValueError(
            f"{origin} has no column left for features; its {len(names)} columns are all labels, ignored, or what "
            "examples are split by"
        )
    columns = {name: _columns(tables, name, origin) for name in (*features, *reading.label)}
    require_complete({name: columns[name] for name in reading.label}, "refuse", origin, labels=True)
    require_complete({name: columns[name] for name in features}, reading.missing, origin)
    target = target_of([columns[name] for name in reading.label], reading.task, origin)
    target = _named(target, tables["train"].schema)
    x = encoded([columns[name] for name in features], reading.missing, origin)
    return _together(x, target, keys(tables, reading, origin))


def _together(x: Features, target: Answers, by: Keys) -> Decoded:
    fill: Literal["mean", "median"] | None = None
    if any(np.isnan(rows).any() for rows in x.rows.values()):
        fill = x.fill
    return Decoded(
        splits={
            name: Split(torch.from_numpy(rows), torch.from_numpy(target.rows[name]))
            for name, rows in x.rows.items()
        },
        class_names=target.class_names,
        scale=1.0,
        target=target.kind,
        target_names=target.names,
        feature_names=x.names,
        scaled=x.scaled,
        fill=fill,
        label_column=target.column,
        groups=by.groups,
        moments=by.moments,
    )


def _named(target: Answers, schema: Any) -> Answers:
    """Classes with the names that a Hugging Face dataset declares for the numbers of its label."""
    declared = features_of(schema).get(target.column or "", {}).get("names")
    if target.kind != "classes" or not declared:
        return target
    numbers = [int(name) if name.isdecimal() else -1 for name in target.class_names]
    if not all(0 <= number < len(declared) for number in numbers):
        return target
    return replace(target, class_names=tuple(str(declared[number]) for number in numbers))


def _columns(tables: Mapping[str, Any], name: str, origin: str) -> Column:
    return column({split: table.column(name) for split, table in tables.items()}, name, origin)


def _labelled(names: Sequence[str], reading: Reading, origin: str) -> Reading:
    """The reading with its label named. ValueError if none is, and no usual name is among the columns."""
    if reading.label:
        return reading
    usual = [name for name in names if name in LABELS and name not in reading.ignore]
    if len(usual) == 1:
        return replace(reading, label=(usual[0],))
    found = f"several columns could be it ({', '.join(usual)})" if usual else "no column has a usual name"
    raise ValueError(
        f"which column of {origin} is the label? {found}; name it, as --label {usual[0] if usual else names[-1]} "
        f"(in Python label=); the columns are {in_words(names)}"
    )


def _check_chosen(names: Sequence[str], reading: Reading, origin: str) -> None:
    """ValueError for a column that does not exist, or that is chosen for two purposes."""
    chosen: dict[str, str] = {}
    for purpose in ("label", "ignore", "group", "time"):
        value = getattr(reading, purpose)
        for name in value if isinstance(value, tuple) else [value] if value else []:
            if name not in names:
                raise ValueError(
                    f"{OPTIONS[purpose]} names column {name!r}, which {origin} does not have{nearest(name, names)}; it "
                    f"has {in_words(names)}"
                )
            if name in chosen:
                raise ValueError(
                    f"column {name!r} is named by both {OPTIONS[chosen[name]]} and {OPTIONS[purpose]}; choose one"
                )
            chosen[name] = purpose


def _check_names(tables: Mapping[str, Any], origin: str) -> None:
    names = tables["train"].column_names
    if len(names) > MOST_COLUMNS:
        raise ValueError(
            f"{origin} has {len(names)} columns, and at most {MOST_COLUMNS} are read; write so many features as an "
            "array (.npz) of numbers"
        )
    if all(_is_number(name) for name in names):
        raise ValueError(
            f"the first line of {origin} holds numbers ({in_words(names)}), but must hold the names of the columns; "
            "add a line with names"
        )
    for split, table in tables.items():
        if set(table.column_names) != set(names):
            differ = sorted(set(table.column_names) ^ set(names))
            raise ValueError(
                f"the files for training and for {split} in {origin} differ in columns: only one has "
                f"{in_words(differ)}; give them the same columns"
            )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text.strip(), re.ASCII) is not None


def _split_table(paths: Sequence[Path], split: str) -> Any:
    import pyarrow as pa

    tables = [read_table(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        counts = Counter(table.column_names)
        if doubled := [name for name, count in counts.items() if count > 1]:
            raise ValueError(
                f"{path} has several columns of the same name: {in_words(doubled)}; give each its own name"
            )
    first = set(tables[0].column_names)
    for path, table in zip(paths, tables, strict=True):
        if set(table.column_names) != first:
            differ = sorted(set(table.column_names) ^ first)
            raise ValueError(
                f"{path} and {paths[0]} differ in columns ({in_words(differ)}); give them the same ones"
            )
    try:
        return pa.concat_tables(
            [table.select(tables[0].column_names) for table in tables], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise ValueError(
            f"the {split} files {', '.join(map(str, paths))} differ in type ({error}); write them with the same types"
        ) from error


def read_table(path: Path) -> Any:
    """The arrow table in a file, by its ending. Raises ValueError if it cannot be read."""
    if path.suffix.lower() == ".parquet":
        return opened_parquet(path, lambda opened: opened.read())
    if path.suffix.lower() in DELIMITED:
        return _delimited(path)
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as source:
            if source.read(6) == b"ARROW1":
                return pa.ipc.open_file(path.read_bytes()).read_all()
        return pa.ipc.open_stream(path.read_bytes()).read_all()
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is not a readable arrow file ({error}); write it again") from error


def _delimited(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    size = path.stat().st_size
    with path.open("rb") as opened:
        start = opened.read(1 << 16)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        raise ValueError(
            f"{path} is not UTF-8 text (it looks like UTF-16 or a binary file); save it as UTF-8 CSV"
        )
    if not start.strip():
        raise ValueError(f"{path} is empty; write a line with the columns' names and a line for each example")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(start)
    try:
        table = csv.read_csv(
            path,
            # One block: types are inferred from the first, and a later one could hold other values.
            read_options=csv.ReadOptions(block_size=min(size + 1024, 2**31 - 1)),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
        names = table.column_names
        table.validate(full=True)
        if broken := [field.name for field in table.schema if pa.types.is_binary(field.type)]:
            raise ValueError(f"{path} is not UTF-8 text (column {broken[0]!r} is none); save it as UTF-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        if reason.startswith(str(path)):
            raise
        if "utf8" in reason.lower() or "utf-8" in reason.lower():
            raise ValueError(f"{path} is not UTF-8 text ({reason}); save it as UTF-8") from error
        raise ValueError(
            f"{path} cannot be read as a table ({reason}); every line needs as many values as the first has names"
        ) from error
    return table.rename_columns([name.strip() for name in names])


def _delimiter(start: bytes) -> str:
    """The delimiter of a CSV file: whichever of comma, semicolon and tab its first line has most of."""
    line = start.splitlines()[0]
    return max((",", ";", "\t"), key=lambda mark: line.count(mark.encode()))
