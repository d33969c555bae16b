"""`winticket ship` of a language model: its folder as one compact file, and that file as its folder again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from winticket.cli.answers import answer, without_state
from winticket.cli.progress import patient
from winticket.outside import Unreadable, read_file, read_json
from winticket.places import TICKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from winticket.lm.compact.record import PackedFile, UnpackedFolder


def language_model(run: Path) -> Literal["folder", "file"] | None:
    """Whether RUN is the folder of a language model, or a compact file of one; None if it is neither.

    >>> language_model(Path("no-such-run"))
    """
    if run.is_dir():
        if (run / TICKET).is_file() or not any(run.glob("*.safetensors")):
            return None
        try:
            config = read_json(read_file(run / "config.json", limit=1 << 24), dict[str, object])
        except (OSError, Unreadable):
            return None
        return "folder" if "model_type" in config else None
    if run.suffix != ".safetensors" or not run.is_file():
        return None
    from winticket.lm.compact import is_packed

    return "file" if is_packed(run) else None


@dataclass(frozen=True)
class ShippedModel:
    """What was written, where, and what to say of it."""

    result: PackedFile | UnpackedFolder
    path: Path
    sentences: tuple[str, ...]

    def show(self, *, as_json: bool) -> None:
        """Print it as the command's answer."""
        answer(self.result, self.sentences, kept=self.path, as_json=as_json)


def ship_model(
    run: Path, kind: str, out: Path | None, *, to: str, name: str, unused: Mapping[str, object]
) -> ShippedModel:
    """Write the folder's compact file, or the file's folder.

    unused: options that were given, and that are for runs. Raises ValueError, with what is possible, before anything is
    computed if the two do not go together, or if what is to be written is there already.
    """
    for option, value in unused.items():
        if value:
            raise ValueError(f"{option} is not for language models; their weights are shipped as they are")
    right = {"folder": "safetensors", "file": "hub"}[kind]
    if to != right:
        raise ValueError(
            f"{run} is the folder of a language model, and it can be shipped --to compact; {to} is for runs"
            if kind == "folder"
            else f"{run} is the compact file of a language model; --to hub makes its folder again"
        )
    name = name or (run.resolve().name if kind == "folder" else run.stem)
    target = (out or run.resolve().parent) / (f"{name}.safetensors" if kind == "folder" else name)
    if target.exists() and not (kind == "file" and target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target} is there already; give another name with --name, or a folder with --out")
    from winticket.lm.compact.record import packed_sentences, unpacked_sentences

    with without_state():
        if kind == "folder":
            packed = _packed(run, target)
            return ShippedModel(packed, target, tuple(packed_sentences(packed)))
        unpacked = _unpacked(run, target)
    return ShippedModel(unpacked, target, tuple(unpacked_sentences(unpacked)))


def _packed(run: Path, target: Path) -> PackedFile:
    from winticket.lm.compact import open_folder, pack
    from winticket.lm.finishing import peak_bytes
    from winticket.version import __version__

    began, folder = time.monotonic(), open_folder(run)
    with patient() as say:
        sizes = pack(run, target, say=say)
    return {
        "winticket": __version__,
        "file": str(target),
        "bytes": sizes.file,
        "original": sizes.original,
        "masks": sizes.masks,
        "values": sizes.values,
        "whole": sizes.whole,
        "description": sizes.description,
        "information": sizes.information,
        "kept": sizes.kept,
        "weights": sizes.weights,
        "left_out": list(folder.left_out),
        "seconds": round(time.monotonic() - began, 1),
        "peak_bytes": peak_bytes(),
    }


def _unpacked(run: Path, target: Path) -> UnpackedFolder:
    from winticket.lm.compact import PackedModel, unpack
    from winticket.lm.finishing import peak_bytes
    from winticket.version import __version__

    began = time.monotonic()
    with PackedModel(run) as model:
        files = len(model.document.files)
    with patient() as say:
        size = unpack(run, target, say=say)
    return {
        "winticket": __version__,
        "folder": str(target),
        "bytes": size,
        "files": files,
        "seconds": round(time.monotonic() - began, 1),
        "peak_bytes": peak_bytes(),
    }
