"""Columns of a table: what kind each is, what is missing in it, and the features that it becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from winticket.text import counted

Values = NDArray[Any]
Kind = Literal["whole", "real", "boolean", "text"]
MOST_CATEGORIES = 1000
MOST_FEATURES = 100_000
_SHOWN = 12


@dataclass(frozen=True)
class Column:
    """One column in every split: numbers and booleans as float64 with NaN where missing, text as objects with None."""

    name: str
    kind: Kind
    rows: Mapping[str, Values]

    def missing(self) -> int:
        """How many values are missing, in all splits."""
        return sum(int(absent(values).sum()) for values in self.rows.values())


@dataclass(frozen=True)
class Features:
    """The features [N, F] of every split, float64, and for each whether it is scaled; `fill` is for NaN."""

    rows: Mapping[str, NDArray[np.float64]]
    names: tuple[str, ...]
    scaled: tuple[bool, ...]
    fill: Literal["mean", "median"]


def in_words(names: Sequence[str]) -> str:
    """A list of names for messages, cut short if it is long."""
    shown = [name if len(name) <= 60 else name[:57] + "..." for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more


def absent(values: Values) -> NDArray[np.bool_]:
    """Which values are missing, bool [N]."""
    if values.dtype == object:
        return np.fromiter((value is None for value in values), bool, len(values))
    return np.isnan(values)


def column(chunks: Mapping[str, Any], name: str, origin: str) -> Column:
    """A column of arrow tables by split. Raises ValueError for a type that is neither number nor category."""
    kinds = {split: _kind(values.type) for split, values in chunks.items()}
    for split, kind in kinds.items():
        if kind is None:
            kept = chunks[split].type
            advice = "use it as --split-by-time, or ignore it" if _is_time(kept) else "ignore it"
            raise ValueError(
                f"column {name!r} of {origin} holds {kept}, which is neither a number nor a category; {advice} "
                f"(--ignore {_typed(name)})"
            )
    present = {kind for kind in kinds.values() if kind != "null"}
    if not present:
        raise ValueError(
            f"column {name!r} of {origin} has no value in any row; ignore it (--ignore {_typed(name)})"
        )
    if present == {"whole", "real"}:
        present = {"real"}
    if len(present) > 1:
        differ = ", ".join(f"{kind} in {split}" for split, kind in kinds.items())
        raise ValueError(
            f"column {name!r} of {origin} holds different kinds of values: {differ}; make them alike"
        )
    kind = present.pop()
    assert kind in ("whole", "real", "boolean", "text")
    rows = {split: _text(values) if kind == "text" else _numbers(values) for split, values in chunks.items()}
    if kind == "text":
        _check_text(rows, name, origin)
    else:
        _check_finite(rows, name, origin)
    return Column(name, kind, rows)


def _kind(kind: Any) -> Kind | Literal["null"] | None:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return "text" if _kind(kind.value_type) is not None else None
    if pa.types.is_null(kind):
        return "null"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "whole"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "real"
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return "text" if any(test(kind) for test in texts) else None


def _is_time(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_temporal(kind))


def _numbers(values: Any) -> NDArray[np.float64]:
    import pyarrow as pa

    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numbers = values.cast(pa.float64(), safe=False).to_numpy()
    # One NaN for all: a table that another program wrote may have another, and would have another fingerprint.
    return np.where(np.isnan(numbers), np.nan, numbers).astype(np.float64)


def _text(values: Any) -> Values:
    texts = [None if value is None else str(value) for value in values.to_pylist()]
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _check_finite(rows: Mapping[str, Values], name: str, origin: str) -> None:
    if count := sum(int(np.isinf(values).sum()) for values in rows.values()):
        raise ValueError(
            f"column {name!r} of {origin} holds infinity in {counted(count, 'row')}; correct them, or leave "
            "them empty and choose what happens to missing values (--missing)"
        )


def _check_text(rows: Mapping[str, Values], name: str, origin: str) -> None:
    """ValueError for text that was probably meant as numbers: at least half of its different values are numbers."""
    distinct = sorted({value for values in rows.values() for value in values if value is not None})
    others = [value for value in distinct if not _is_number(value)]
    commas = [value for value in others if value.count(",") == 1 and _is_number(value.replace(",", "."))]
    if len(commas) * 2 >= len(distinct) > 1:
        raise ValueError(
            f"column {name!r} of {origin} holds numbers with a decimal comma, such as {commas[0]!r}; write them with a "
            "point"
        )
    if others and 2 * len(others) <= len(distinct):
        split, row = next(
            (split, row)
            for split, values in rows.items()
            for row, value in enumerate(values)
            if value == others[0]
        )
        raise ValueError(
            f"column {name!r} of {origin} holds numbers, but also text such as {others[0]!r} (row {row + 1} of "
            f"{split}); correct it, or leave it empty and choose --missing; or ignore the column (--ignore "
            f"{_typed(name)})"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _typed(name: str) -> str:
    """A column's name as it is typed in a shell."""
    import shlex

    return shlex.quote(name)


def require_complete(
    columns: Mapping[str, Column], missing: str, origin: str, *, labels: bool = False
) -> None:
    """ValueError, which counts them, for missing values that are to be refused."""
    counts = {name: count for name, one in columns.items() if (count := one.missing())}
    if missing == "category":
        counts = {name: count for name, count in counts.items() if columns[name].kind != "text"}
    elif missing != "refuse":
        counts = {}
    if not counts:
        return
    words = in_words([f"{name} ({count})" for name, count in counts.items()])
    if labels:
        raise ValueError(f"{origin} has rows without a label: {words}; remove these rows or label them")
    advice = (
        "--missing category is for text; fill numbers with --missing mean, median or indicator"
        if missing == "category"
        else "choose --missing mean, median, indicator or category, or leave the columns out with --ignore"
    )
    raise ValueError(f"{origin} has missing values in {counted(len(counts), 'column')}: {words}; {advice}")


def encoded(columns: Sequence[Column], missing: str, origin: str) -> Features:
    """The features of all columns, in their order; see `frames.decode`. Raises ValueError for useless columns."""
    _check_useful(columns, origin)
    blocks: dict[str, list[NDArray[np.float64]]] = {split: [] for split in columns[0].rows}
    names: list[str] = []
    scaled: list[bool] = []
    for one in columns:
        for name, is_scaled, rows in _features(one, missing):
            names.append(name)
            scaled.append(is_scaled)
            for split, values in rows.items():
                blocks[split].append(values)
        if len(names) > MOST_FEATURES:
            raise ValueError(
                f"{origin} would have more than {MOST_FEATURES} features; ignore columns with --ignore"
            )
    rows = {split: np.ascontiguousarray(np.stack(block, axis=1)) for split, block in blocks.items()}
    return Features(rows, tuple(names), tuple(scaled), "median" if missing == "median" else "mean")


def _features(one: Column, missing: str) -> Iterator[tuple[str, bool, dict[str, NDArray[np.float64]]]]:
    """Name, whether it is scaled, and values by split of each feature that a column becomes."""
    if one.kind in ("whole", "real"):
        yield one.name, True, {split: values.astype(np.float64) for split, values in one.rows.items()}
        if missing == "indicator" and absent(one.rows["train"]).any():
            yield (
                f"{one.name} missing",
                False,
                {split: absent(v).astype(np.float64) for split, v in one.rows.items()},
            )
        return
    for category in categories(one):
        yield (
            f"{one.name}={category}",
            False,
            {split: (words(one, split) == category).astype(np.float64) for split in one.rows},
        )
    if absent(one.rows["train"]).any():
        yield (
            f"{one.name} missing",
            False,
            {split: absent(v).astype(np.float64) for split, v in one.rows.items()},
        )


def words(one: Column, split: str) -> Values:
    """A column's categories as text, object [N]; None if missing."""
    values = one.rows[split]
    if one.kind == "text":
        return values
    array = np.empty(len(values), dtype=object)
    if one.kind == "boolean":
        array[:] = [None if np.isnan(value) else "true" if value else "false" for value in values]
    else:
        array[:] = [None if np.isnan(value) else f"{value:.0f}" for value in values]
    return array


def categories(one: Column) -> list[str]:
    """The categories of the training rows, sorted."""
    return sorted({value for value in words(one, "train") if value is not None})


def _check_useful(columns: Sequence[Column], origin: str) -> None:
    """ValueError for columns that are constant, that name each row, or that have too many categories."""
    constant = [one.name for one in columns if _constant(one)]
    if constant:
        options = " ".join(f"--ignore {_typed(name)}" for name in constant[:_SHOWN])
        raise ValueError(
            f"{origin} has columns with one value in all training rows: {in_words(constant)}; nothing can be learned "
            f"from them, so leave them out: {options}"
        )
    for one in columns:
        if one.kind != "text":
            continue
        different, rows = len(categories(one)), int((~absent(one.rows["train"])).sum())
        if different == rows and rows > 2:
            raise ValueError(
                f"column {one.name!r} of {origin} has another text in each of its {rows} rows, so it names the rows "
                f"and is no category; leave it out: --ignore {_typed(one.name)}"
            )
        if different > MOST_CATEGORIES:
            raise ValueError(
                f"column {one.name!r} of {origin} has {different} categories, and at most {MOST_CATEGORIES} are "
                f"encoded; group them, or leave the column out: --ignore {_typed(one.name)}"
            )


def _constant(one: Column) -> bool:
    values = one.rows["train"]
    known = values[~absent(values)]
    varies = len(set(known.tolist())) > 1
    # A value that is only sometimes there can be told from its absence, if that is a category.
    return not varies and not (len(known) and len(known) < len(values) and one.kind in ("text", "boolean"))
