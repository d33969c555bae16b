"""Arrays in npz and npy files: tables [N, F], signals [N, C, T] and images [N, C, H, W]. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from winticket.data.columns import Column, encoded, in_words, require_complete
from winticket.data.content import SPLITS, Decoded, Split
from winticket.data.draws import kept_rows
from winticket.data.images import memory
from winticket.data.reading import Reading
from winticket.data.splitting import Keys, groups, ranks
from winticket.data.tables import split_called
from winticket.data.targets import of_array
from winticket.outside import Unreadable, read_file
from winticket.text import counted, nearest

ENDINGS = (".npz", ".npy")
X = ("x", "data", "features", "signals", "images", "inputs")
Y = ("y", "label", "labels", "target", "targets", "classes")
"""Names of arrays, in lower case, that are taken for examples and for labels."""

Array = NDArray[Any]


def find(path: Path) -> bool:
    """True if the path is an npz or npy file."""
    return path.is_file() and path.suffix.lower() in ENDINGS


def digest(path: Path, reading: Reading) -> str:
    """What names the content of arrays: SHA-256 (hexadecimal) of the files that hold them."""
    files = [path] if path.suffix.lower() == ".npz" else [path, _labels_of(path, reading)]
    return (
        "arrays "
        + hashlib.sha256(b"".join(hashlib.sha256(_content(file)).digest() for file in files)).hexdigest()
    )


def decode(path: Path, reading: Reading) -> Decoded:
    """The arrays in a file as examples and answers.

    An npz file has arrays x and y (or the usual names in X and Y), perhaps with a split in their names, as x_train and
    y_test. An npy file holds x; its labels are in y.npy beside it, or in the file that `reading.label` names. Images of
    8-bit whole numbers are divided by 255; all other numbers are standardised by channel, and tables by feature. Raises
    ValueError for whatever cannot be used, and never unpickles.
    """
    reading.require_only("label", "missing", "task", "group", "time", "rows", of="arrays (.npz, .npy)")
    if path.suffix.lower() == ".npz":
        arrays = _archive(path)
        x, y, names = _roles(arrays, reading, path)
    else:
        if reading.group or reading.time:
            raise ValueError(
                "an npy file has no columns to split by; write x, y and the groups or times into an npz file"
            )
        file = _labels_of(path, reading)
        x, y = {"train": array(_content(path), str(path))}, {"train": array(_content(file), str(file))}
        arrays, names = {}, ("x", "y")
    x, y, kept = _chosen(x, y, reading.rows, names, str(path))
    by = _keys(arrays, reading, kept, len(y["train"]), str(path))
    answers = of_array(y, reading.task, name=names[1], origin=str(path))
    decoded = _examples(x, reading, y, answers.kind, str(path))
    splits = {name: Split(rows, torch.from_numpy(answers.rows[name])) for name, rows in decoded["x"].items()}
    return Decoded(
        splits,
        answers.class_names,
        decoded["scale"],
        label_column=answers.column,
        target=answers.kind,
        target_names=answers.names,
        feature_names=decoded["names"],
        scaled=decoded["scaled"],
        fill=decoded["fill"],
        groups=by.groups,
        moments=by.moments,
    )


def _chosen(
    x: Mapping[str, Array], y: Mapping[str, Array], rows: int | None, names: tuple[str, str], origin: str
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """x and y with `rows` of their training examples, and which these are. ValueError if their lengths differ."""
    for split in x:
        lengths = [len(part[split]) if part[split].ndim else 0 for part in (x, y)]
        if lengths[0] != lengths[1]:
            raise ValueError(
                f"{names[0]} of {origin} has {lengths[0]} examples for {split}, but {names[1]} has {lengths[1]} "
                "labels; each example needs one"
            )
        if not lengths[0]:
            raise ValueError(f"{origin} has no examples for {split}; write arrays with examples")
        if x[split].shape[1:] != x["train"].shape[1:]:
            raise ValueError(
                f"examples for {split} in {origin} have shape {list(x[split].shape[1:])}, those for training "
                f"{list(x['train'].shape[1:])}; make them alike"
            )
    count = len(y["train"])
    kept = np.arange(count) if rows is None else kept_rows(count, rows).numpy()
    chosen = [{**part, "train": part["train"][kept]} for part in (x, y)]
    return chosen[0], chosen[1], kept


def _keys(arrays: Mapping[str, Array], reading: Reading, kept: Array, count: int, origin: str) -> Keys:
    name = reading.group or reading.time
    if name is None:
        return Keys()
    if name not in arrays:
        raise ValueError(
            f"{origin} has no array {name!r}{nearest(name, arrays)}; it has {in_words(list(arrays))}"
        )
    values = arrays[name]
    if values.ndim != 1 or (len(values) != len(kept) and len(values) <= int(kept.max())):
        raise ValueError(
            f"array {name!r} of {origin} has shape {list(values.shape)}; it needs a value for each example"
        )
    values = values[kept]
    if len(values) != count:
        raise ValueError(f"array {name!r} of {origin} needs a value for each training example")
    if reading.group:
        return Keys(groups=groups({"train": values.tolist()}, origin))
    return Keys(moments=ranks(values, name, origin))


def _examples(
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


def _roles(
    arrays: Mapping[str, Array], reading: Reading, path: Path
) -> tuple[dict[str, Array], dict[str, Array], tuple[str, str]]:
    """x and y by split among the arrays of an archive, and their names."""
    if len(reading.label) > 1:
        raise ValueError("--label names one array of an npz file; several labels are the columns of y [N, K]")
    sorted_out: dict[str, dict[str, str]] = {}
    for name in arrays:
        words = re.split(r"[^A-Za-z0-9]+", name)
        split = next((called for word in words if (called := split_called(word))), "train")
        base = "_".join(word for word in words if split_called(word) is None).lower()
        sorted_out.setdefault(base, {})[split] = name
    label = reading.label[0] if reading.label else None
    if label is not None and label not in arrays and label not in sorted_out:
        raise ValueError(
            f"{path} has no array {label!r}{nearest(label, arrays)}; it has {in_words(list(arrays))}"
        )
    ys = [label] if label in sorted_out else [name for name in Y if name in sorted_out]
    y_names = sorted_out[ys[0]] if ys and ys[0] is not None else {}
    if label is not None and label not in sorted_out:
        y_names = {"train": label}
    xs = [name for name in X if name in sorted_out and sorted_out[name] != y_names]
    if not xs or not y_names:
        what = "x" if not xs else "y"
        raise ValueError(
            f"{path} has no array {what}; it has {in_words(list(arrays)) or 'no arrays'}. Write one: np.savez(file, "
            "x=x, y=y), or name the labels with --label"
        )
    x_names = sorted_out[xs[0]]
    if set(x_names) != set(y_names) or "train" not in x_names:
        raise ValueError(
            f"the arrays of {path} do not pair up: {in_words([*x_names.values(), *y_names.values()])}; each split "
            "needs both x and y, and one of them is train"
        )
    order = [split for split in SPLITS if split in x_names]
    x, y = ({split: arrays[names[split]] for split in order} for names in (x_names, y_names))
    return x, y, (x_names["train"], y_names["train"])


def _labels_of(path: Path, reading: Reading) -> Path:
    """The file of labels that goes with an npy file."""
    if len(reading.label) > 1:
        raise ValueError(
            "--label names one file beside an npy file; several labels are the columns of y [N, K]"
        )
    if reading.label:
        named = Path(reading.label[0]).expanduser()
        for file in (path.parent / named, named):
            if file.is_file():
                return file
        raise ValueError(
            f"--label {reading.label[0]}: there is no such file beside {path}; give the npy file with labels"
        )
    names = [re.sub(r"(?i)(^|[^a-z])x(?=[^a-z]|$)", r"\1y", path.stem), *Y, "Y"]
    for name in names:
        file = path.with_name(f"{name}.npy")
        if file.is_file() and file != path:
            return file
    raise ValueError(
        f"{path} has no labels beside it; write them to {path.with_name('y.npy')}, or name the file: --label FILE"
    )


def _content(path: Path) -> bytes:
    try:
        size, most = path.stat().st_size, memory()
        if most is not None and size > most:
            raise ValueError(f"{path} has {size} bytes, more than this machine's memory; use fewer examples")
        return read_file(path)
    except (OSError, Unreadable) as error:
        raise ValueError(f"{path} cannot be read ({error}); check it") from error


def _archive(path: Path) -> dict[str, Array]:
    """All arrays of an npz file by name."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(_content(path))) as archive:
            for member in archive.infolist():
                limit = memory()
                if limit is not None and member.file_size > limit:
                    raise ValueError(
                        f"{member.filename} of {path} has {member.file_size} bytes, more than the memory"
                    )
                name = member.filename.removesuffix(".npy")
                arrays[name] = array(archive.read(member), f"{name} of {path}")
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a readable npz file ({error}); write it again with np.savez"
        ) from error
    return arrays


def array(content: bytes, origin: str) -> Array:
    """The array in the bytes of an npy file. Raises ValueError for Python objects, which would have to be unpickled."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, kind = read(stream, max_header_size=10_000)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{origin} is not a readable npy array ({reason}); write it again with numpy.save"
        ) from error
    if kind.hasobject or kind.kind not in "biufUS":
        raise ValueError(
            f"{origin} holds {'Python objects' if kind.hasobject else kind}, which are not read, since unpickling runs "
            "code; write numbers, or text for labels (np.array(labels, dtype=str))"
        )
    need = math.prod(shape) * kind.itemsize
    rest = len(content) - stream.tell()
    if need != rest:
        raise ValueError(
            f"{origin} announces {need} bytes of values but has {rest}; it is damaged, so write it again"
        )
    values = np.frombuffer(content, dtype=kind, offset=stream.tell(), count=math.prod(shape))
    ordered = values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)
    return ordered.astype(kind.newbyteorder("="), order="C")
