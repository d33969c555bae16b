"""The arrays in npz and npy files, read without unpickling anything."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.data.images import memory
from winticket.outside import Unreadable, read_file

Array = NDArray[Any]


def content(path: Path) -> bytes:
    """The bytes of a file. Raises ValueError if it cannot be read."""
    try:
        size, most = path.stat().st_size, memory()
        if most is not None and size > most:
            raise ValueError(f"{path} has {size} bytes, more than this machine's memory; use fewer examples")
        return read_file(path)
    except (OSError, Unreadable) as error:
        raise ValueError(f"{path} cannot be read ({error}); check it") from error


def archive(path: Path) -> dict[str, Array]:
    """All arrays of an npz file by name."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content(path))) as opened:
            for member in opened.infolist():
                limit = memory()
                if limit is not None and member.file_size > limit:
                    raise ValueError(
                        f"{member.filename} of {path} has {member.file_size} bytes, more than the memory"
                    )
                name = member.filename.removesuffix(".npy")
                arrays[name] = array(opened.read(member), f"{name} of {path}")
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
