"""Which arrays of a file are examples and which are labels, and of which split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from winticket.data.array_files import Array
from winticket.data.columns import in_words
from winticket.data.content import SPLITS
from winticket.data.reading import Reading
from winticket.data.tables import split_called
from winticket.text import nearest

X = ("x", "data", "features", "signals", "images", "inputs")
Y = ("y", "label", "labels", "target", "targets", "classes")
"""Names of arrays, in lower case, that are taken for examples and for labels."""


def roles(
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


def labels_of(path: Path, reading: Reading) -> Path:
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
