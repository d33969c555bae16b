"""The compact file of a pruned language model: what its folder holds, bit for bit, without its pruned weights."""

from __future__ import annotations

import os
from pathlib import Path

from winticket.atomic import require_empty
from winticket.lm.compact.layout import CompactModelError
from winticket.lm.compact.read import PackedModel, is_packed, read, restore
from winticket.lm.compact.write import Sizes, open_folder, write
from winticket.lm.progress import Say, silent

__all__ = ["CompactModelError", "PackedModel", "Sizes", "is_packed", "open_folder", "pack", "unpack"]


def pack(folder: str | os.PathLike[str], path: str | os.PathLike[str], *, say: Say = silent) -> Sizes:
    """Write a folder of `winticket lm prune` or `tune` to one compact file; returns what its bytes are.

    The file appears whole or not at all. It is read again, and each file of the folder must come out with the SHA-256
    that it has. Tensors are coded one by one, and memory holds three to six times the largest.

    Raises ValueError if the folder is no pruned model or has weights that are not 0 under their masks; OSError if the
    file cannot be written; CompactModelError if it does not read back, as on a broken disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = write(open_folder(Path(folder)), path, say)
    try:
        with PackedModel(path) as model:
            read(model, None, say)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return sizes


def unpack(path: str | os.PathLike[str], folder: str | os.PathLike[str], *, say: Say = silent) -> int:
    """Write the folder that a compact file was made of, bit for bit, which `from_pretrained` loads; its bytes.

    Raises CompactModelError, with the reason, if the file is absent, damaged or another; ValueError if there is
    something in the folder, or the disk has no room for it. Then no folder is written.
    """
    out = Path(folder)
    require_empty(out)
    with PackedModel(path) as model:
        return restore(model, out, say)
