"""The columns by which examples are split: their group, or their order in time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from winticket.data.reading import Reading
from winticket.text import counted


@dataclass(frozen=True)
class Keys:
    """Group and rank in time of each training row, int64 [N]; None if examples are not split by it."""

    groups: Tensor | None = None
    moments: Tensor | None = None


def keys(tables: Mapping[str, Any], reading: Reading, origin: str) -> Keys:
    """What the columns of `reading` say. Raises ValueError if they cannot split the rows."""
    if reading.group is not None:
        return Keys(
            groups=groups({split: t.column(reading.group).to_pylist() for split, t in tables.items()}, origin)
        )
    if reading.time is not None:
        return Keys(moments=_moments(tables["train"].column(reading.time), reading.time, origin))
    return Keys()


def groups(values: Mapping[str, list[Any]], origin: str) -> Tensor:
    """Numbers for the groups of the training rows: their positions in sorted order of their names, int64 [N]."""
    for split, rows in values.items():
        if count := sum(value is None or (isinstance(value, float) and math.isnan(value)) for value in rows):
            raise ValueError(
                f"{split} of {origin} has {counted(count, 'row')} without a group; fill the column or remove the rows"
            )
    names = sorted({str(value) for value in values["train"]})
    for split, rows in values.items():
        if split != "train" and (both := sorted({str(value) for value in rows} & set(names))):
            raise ValueError(
                f"group {both[0]!r} of {origin} has rows for training and for {split}; put each group into one of the "
                "files, or give one file to draw the splits from"
            )
    if len(names) < 3:
        raise ValueError(
            f"{origin} has {len(names)} groups, but training, validation and test need one each; split by rows instead"
        )
    number = {name: position for position, name in enumerate(names)}
    return torch.tensor([number[str(value)] for value in values["train"]], dtype=torch.int64)


def _moments(column: Any, name: str, origin: str) -> Tensor:
    """The ranks of times, int64 [N]; equal times have one rank."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError(
            f"{origin} has {counted(column.null_count, 'row')} without a time in column {name!r}; fill or remove them"
        )
    kind = column.type
    known = pa.types.is_temporal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not known:
        raise ValueError(
            f"column {name!r} of {origin} holds {kind}, which has no order in time; write dates as 2026-01-31 or "
            "2026-01-31 12:00:00, or times as numbers"
        )
    values = column.to_numpy() if not pa.types.is_time(kind) else np.array(column.to_pylist(), dtype=object)
    return ranks(np.asarray(values), name, origin)


def ranks(values: Any, name: str, origin: str) -> Tensor:
    """The ranks of numbers or dates [N], int64. Raises ValueError if all are equal or one is not a number."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(
            f"column {name!r} of {origin} holds NaN or infinity, so it gives no order; correct it"
        )
    different, rank = np.unique(values, return_inverse=True)
    if len(different) < 3:
        raise ValueError(
            f"column {name!r} of {origin} has {len(different)} different times, but training, validation and test need "
            "one each; split by rows instead"
        )
    return torch.from_numpy(rank.reshape(-1).astype(np.int64))
