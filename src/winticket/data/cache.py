"""Decoded sources on disk: one safetensors file each, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from winticket.data.content import SPLITS, Decoded, Split

_UNUSABLE = (OSError, SafetensorError, KeyError, TypeError, ValueError)


def read(path: Path) -> Decoded | None:
    """What `write` put there; None where there is no file, or one that is not whole and unaltered."""
    try:
        with safe_open(path, framework="pt") as opened:
            about = json.loads(opened.metadata()["winticket"])
        # Read whole rather than mapped: tensors then outlive any change to the file.
        tensors = safetensors.torch.load(path.read_bytes())
        found = Decoded(
            splits={
                name: Split(tensors[f"{name}.x"], tensors[f"{name}.y"])
                for name in SPLITS
                if f"{name}.x" in tensors
            },
            class_names=tuple(about["class_names"]),
            scale=about["scale"],
            image_column=about["image_column"],
            label_column=about["label_column"],
            validation=about["validation"],
            test=about["test"],
            divide=about["divide"],
        )
        return found if found.fingerprint == about["fingerprint"] else None
    except _UNUSABLE:
        return None


def write(path: Path, decoded: Decoded) -> None:
    """Store at `path`, replacing what is there; raises OSError where that cannot be done."""
    about = {
        "fingerprint": decoded.fingerprint,
        "class_names": decoded.class_names,
        "scale": decoded.scale,
        "image_column": decoded.image_column,
        "label_column": decoded.label_column,
        "validation": decoded.validation,
        "test": decoded.test,
        "divide": decoded.divide,
    }
    tensors: dict[str, Tensor] = {}
    for name, split in decoded.splits.items():
        tensors[f"{name}.x"], tensors[f"{name}.y"] = split.x, split.y
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    os.close(handle)
    try:
        safetensors.torch.save_file(tensors, temporary, metadata={"winticket": json.dumps(about)})
        Path(temporary).replace(path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
