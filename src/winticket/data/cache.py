"""Decoded datasets on disk: one safetensors file each, written completely or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from winticket.atomic import replacing
from winticket.data.content import SPLITS, Decoded, Split, Target
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
    target: Target = "classes"
    target_names: list[str] = []
    feature_names: list[str] = []
    scaled: list[bool] | None = None
    fill: Literal["mean", "median"] | None = None
    vocabulary: int = 0

    def computed_digest(self) -> str:
        """The digest of all fields but `digest`."""
        fields = {name: value for name, value in msgspec.structs.asdict(self).items() if name != "digest"}
        # Files from before these fields existed hold none of them, and remain valid.
        fields = {
            name: value for name, value in fields.items() if name not in _LATER or value != _LATER[name]
        }
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


_LATER: Mapping[str, Any] = {
    "target": "classes",
    "target_names": [],
    "feature_names": [],
    "scaled": None,
    "fill": None,
    "vocabulary": 0,
}
"""Fields that were added, with the value that stands for their absence."""


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
            target=about.target,
            target_names=tuple(about.target_names),
            feature_names=tuple(about.feature_names),
            scaled=None if about.scaled is None else tuple(about.scaled),
            fill=about.fill,
            vocabulary=about.vocabulary,
            groups=tensors.get("groups"),
            moments=tensors.get("moments"),
        )
        if decoded.target == "classes" and decoded.splits["train"].y.ndim == 2:
            decoded = replace(decoded, target="tokens")  # text that was stored before there were targets
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
        target=decoded.target,
        target_names=list(decoded.target_names),
        feature_names=list(decoded.feature_names),
        scaled=None if decoded.scaled is None else list(decoded.scaled),
        fill=decoded.fill,
        vocabulary=decoded.vocabulary,
    )
    about.digest = about.computed_digest()
    tensors: dict[str, Tensor] = {}
    for name, split in decoded.splits.items():
        tensors[f"{name}.x"], tensors[f"{name}.y"] = split.x, split.y
    by = {"groups": decoded.groups, "moments": decoded.moments}
    tensors |= {name: rows for name, rows in by.items() if rows is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as new:
            safetensors.torch.save_file(
                tensors, new, metadata={"winticket": json.dumps(msgspec.structs.asdict(about))}
            )
    except SafetensorError as error:
        raise OSError(str(error)) from error
