"""Decoded datasets on disk: one safetensors file each, written completely or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from winticket.atomic import replacing
from winticket.data.content import SPLITS, Decoded, Split
from winticket.outside import Unreadable, read_file, read_header, read_json

_UNUSABLE = (OSError, SafetensorError, Unreadable, KeyError, TypeError, ValueError, RuntimeError, MemoryError)


class _About(msgspec.Struct):
    """A file's description of its tensors; `digest` covers this description, `fingerprint` the tensors."""

    fingerprint: str
    class_names: list[str]
    scale: float
    image_column: str | None
    label_column: str | None
    validation: int | None
    test: int | None
    divide: bool
    digest: str = ""

    def computed_digest(self) -> str:
        """The digest of all fields but `digest`."""
        fields = {name: value for name, value in msgspec.structs.asdict(self).items() if name != "digest"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> Decoded | None:
    """The content that `write` stored; None if there is no file, or if it is incomplete or altered."""
    try:
        # Read completely rather than memory-mapped, so that the tensors outlive any change to the file.
        content = read_file(path)
        _, metadata = read_header(content)
        about = read_json(metadata["winticket"], _About)
        if about.digest != about.computed_digest():
            return None
        tensors = safetensors.torch.load(content)
        decoded = Decoded(
            splits={
                name: Split(tensors[f"{name}.x"], tensors[f"{name}.y"])
                for name in SPLITS
                if f"{name}.x" in tensors
            },
            class_names=tuple(about.class_names),
            scale=about.scale,
            image_column=about.image_column,
            label_column=about.label_column,
            validation=about.validation,
            test=about.test,
            divide=about.divide,
        )
        return decoded if decoded.fingerprint == about.fingerprint else None
    except _UNUSABLE:
        return None


def write(path: Path, decoded: Decoded) -> None:
    """Store `decoded` at `path`, replacing any file there. Raises OSError if it cannot be written."""
    about = _About(
        fingerprint=decoded.fingerprint,
        class_names=list(decoded.class_names),
        scale=decoded.scale,
        image_column=decoded.image_column,
        label_column=decoded.label_column,
        validation=decoded.validation,
        test=decoded.test,
        divide=decoded.divide,
    )
    about.digest = about.computed_digest()
    tensors: dict[str, Tensor] = {}
    for name, split in decoded.splits.items():
        tensors[f"{name}.x"], tensors[f"{name}.y"] = split.x, split.y
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as new:
            safetensors.torch.save_file(
                tensors, new, metadata={"winticket": json.dumps(msgspec.structs.asdict(about))}
            )
    except SafetensorError as error:
        raise OSError(str(error)) from error
