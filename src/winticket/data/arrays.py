"""Arrays in npz and npy files: tables [N, F], signals [N, C, T] and images [N, C, H, W]. Nothing is unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from winticket.data.array_examples import examples
from winticket.data.array_files import Array, archive, array, content
from winticket.data.array_roles import labels_of, roles
from winticket.data.columns import in_words
from winticket.data.content import Decoded, Split
from winticket.data.draws import kept_rows
from winticket.data.reading import Reading
from winticket.data.splitting import Keys, groups, ranks
from winticket.data.targets import of_array
from winticket.text import nearest

ENDINGS = (".npz", ".npy")


def find(path: Path) -> bool:
    """True if the path is an npz or npy file."""
    return path.is_file() and path.suffix.lower() in ENDINGS


def digest(path: Path, reading: Reading) -> str:
    """What names the content of arrays: SHA-256 (hexadecimal) of the files that hold them."""
    files = [path] if path.suffix.lower() == ".npz" else [path, labels_of(path, reading)]
    return (
        "arrays "
        + hashlib.sha256(b"".join(hashlib.sha256(content(file)).digest() for file in files)).hexdigest()
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
        arrays = archive(path)
        x, y, names = roles(arrays, reading, path)
    else:
        if reading.group or reading.time:
            raise ValueError(
                "an npy file has no columns to split by; write x, y and the groups or times into an npz file"
            )
        file = labels_of(path, reading)
        x, y = {"train": array(content(path), str(path))}, {"train": array(content(file), str(file))}
        arrays, names = {}, ("x", "y")
    x, y, kept = _chosen(x, y, reading.rows, names, str(path))
    by = _keys(arrays, reading, kept, len(y["train"]), str(path))
    answers = of_array(y, reading.task, name=names[1], origin=str(path))
    decoded = examples(x, reading, y, answers.kind, str(path))
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
