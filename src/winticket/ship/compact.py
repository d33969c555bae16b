"""The compact file of a network: safetensors with coded masks and short values, readable by numpy alone.

docs/compact-file.md describes the layout, so that others can read and write it.
"""

from __future__ import annotations

import os
from pathlib import Path

from winticket.atomic import replace_file
from winticket.outside import Unreadable, read_file
from winticket.ship.compact_read import decode
from winticket.ship.compact_write import Sizes, encode
from winticket.ship.hub_files import model_file
from winticket.ship.network import Network


class CompactFileError(ValueError):
    """The file is not a readable compact file; the message says why.

    >>> from winticket.ship import CompactFileError, load
    >>> try:
    ...     load("no-such.safetensors")
    ... except CompactFileError as error:
    ...     print(error)
    there is no file at no-such.safetensors; check the path
    """


def save(network: Network, path: str | os.PathLike[str], *, values: str = "fp32") -> Sizes:
    """Write a network to a compact file, whole or not at all; returns what its bytes are.

    values: how kept weights are stored: "fp32" (exact), "fp16", "bf16" or "int8" (one scale for each output unit;
    biases stay fp32). Raises ValueError for another name, for values beyond the range of fp16, or for a description
    of more than 4 MiB; OSError if the file
    cannot be written.

    >>> import tempfile
    >>> import numpy as np
    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc.weight", np.eye(4, dtype=np.float32), np.eye(4, dtype=bool))
    >>> network = Network((4,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sizes = save(network, f"{folder}/eye.safetensors", values="fp16")
    >>> sizes.values, sizes.masks
    (8, 2)
    """
    content, sizes = encode(network, values=values)
    replace_file(Path(path), content)
    return sizes


def load(path: str | os.PathLike[str], *, revision: str | None = None) -> Network:
    """Read the network that `save` wrote. It needs numpy alone, and runs nothing.

    path: a file; a folder that `winticket ship --to hub` wrote; or the name of a repository on the Hub, "user/name", if
    there is nothing at that path: it is downloaded by huggingface_hub. revision: its branch, tag or commit.

    Raises CompactFileError, with the reason, if the file is absent, truncated, damaged, of a newer version, or anything
    else than a compact file; ModuleNotFoundError if a repository is named without the package huggingface_hub.
    """
    try:
        return decode(read_file(model_file(path, revision=revision)))
    except FileNotFoundError:
        raise CompactFileError(f"there is no file at {path}; check the path") from None
    except OSError as error:
        raise CompactFileError(f"the file {path} cannot be read: {error.strerror}") from error
    except Unreadable as error:
        raise CompactFileError(f"{path} is {error}") from error
