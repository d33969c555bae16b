"""Arrays as examples: tables, signals or images, and how they are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from winticket.data.array_files import Array
from winticket.data.columns import Column, encoded, require_complete
from winticket.data.reading import Reading
from winticket.text import counted


def examples(
    x: Mapping[str, Array], reading: Reading, y: Mapping[str, Array], target: str, origin: str
) -> dict[str, Any]:
    """Tensors x by split, and how they are normalised."""
    first = x["train"]
    if target == "positions":
        if first.ndim == 3:
            x = {split: values[:, None] for split, values in x.items()}
            first = x["train"]
        if first.ndim != 4 or first.shape[2:] != y["train"].shape[1:]:
            raise ValueError(
                f"x of {origin} has shape {list(first.shape)} and y {list(y['train'].shape)}; classes of positions "
                "need images [N, C, H, W] and y [N, H, W] of the same size"
            )
    if first.dtype.kind not in "biuf":
        raise ValueError(f"x of {origin} holds {first.dtype}; examples are numbers")
    if first.ndim == 2:
        return _table(x, reading, origin)
    if reading.missing != "refuse":
        raise ValueError("--missing is for tables; signals and images must have a number everywhere")
    _check_shape(first, origin)
    if first.dtype == np.uint8 and first.ndim == 4:
        _check_channels(x, origin)
        tensors = {split: torch.from_numpy(np.ascontiguousarray(values)) for split, values in x.items()}
        return {"x": tensors, "scale": 255.0, "names": (), "scaled": None, "fill": None}
    for split, values in x.items():
        if values.dtype.kind == "f" and (count := int((~np.isfinite(values)).sum())):
            raise ValueError(
                f"x of {split} of {origin} holds NaN or infinity in {counted(count, 'place')}; correct them or "
                "remove the examples"
            )
    _check_channels(x, origin)
    tensors = {split: torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32)) for split, v in x.items()}
    scaled = (True,) * first.shape[1]
    return {"x": tensors, "scale": 1.0, "names": (), "scaled": scaled, "fill": None}


def _table(x: Mapping[str, Array], reading: Reading, origin: str) -> dict[str, Any]:
    columns = {}
    for number in range(x["train"].shape[1]):
        rows = {split: values[:, number].astype(np.float64) for split, values in x.items()}
        if any(np.isinf(values).any() for values in rows.values()):
            raise ValueError(f"feature {number} of x of {origin} holds infinity; correct these examples")
        columns[f"x[{number}]"] = Column(f"x[{number}]", "real", rows)
    require_complete(columns, reading.missing, origin)
    features = encoded(list(columns.values()), reading.missing, origin)
    gaps = any(np.isnan(rows).any() for rows in features.rows.values())
    return {
        "x": {split: torch.from_numpy(rows) for split, rows in features.rows.items()},
        "scale": 1.0,
        "names": features.names,
        "scaled": features.scaled,
        "fill": features.fill if gaps else None,
    }


def _check_shape(x: Array, origin: str) -> None:
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(
            f"x of {origin} has shape {list(x.shape)}; examples are tables [N, F], signals [N, C, T] or images [N, C, "
            "H, W]"
        )
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        raise ValueError(
            f"x of {origin} has shape {list(x.shape)}, with channels last; images are [N, C, H, W]: write "
            "x.transpose(0, 3, 1, 2)"
        )


def _check_channels(x: Mapping[str, Array], origin: str) -> None:
    for channel in range(x["train"].shape[1]):
        values = x["train"][:, channel]
        if values.min() == values.max():
            raise ValueError(
                f"channel {channel} of x of {origin} has the same value {values.min():g} everywhere, so there is "
                f"nothing to learn from it; leave it out{_grey(x['train'])}"
            )


def _grey(x: Array) -> str:
    """A hint for arrays that may be images without an axis of channels; empty for others."""
    if x.ndim != 3:
        return ""
    return (
        f". {list(x.shape)} are signals of {x.shape[1]} channels; if they are grey images, write x[:, None], which is "
        "[N, 1, H, W]"
    )
