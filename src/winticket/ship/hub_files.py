"""The folder of a shipped network in the layout of the Hugging Face Hub: finding its files, here or on the Hub."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from winticket.outside import Unreadable, read_file, read_json

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LIBRARY = "winticket"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""The name of a repository on the Hub: user/name."""
_LONGEST = 1 << 20
"""Most bytes of a config.json that is read."""


class Config(msgspec.Struct):
    """What is read of config.json; the compact file itself has all that it takes to compute."""

    library_name: str = ""


def model_file(path: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """The compact file at a path, in the folder at a path, or in a repository on the Hub, from which it is downloaded.

    A name like user/name is that of a repository if there is nothing at that path. revision: branch, tag or commit of a
    repository. Raises Unreadable, with the reason, for a folder or repository without a compact file.

    >>> str(model_file("small.safetensors"))
    'small.safetensors'
    """
    local, name = Path(path), os.fspath(path)
    if local.is_dir():
        found = _checked(local / MODEL, local / CONFIG)
    elif not local.exists() and REPOSITORY.fullmatch(name) and not name.endswith(".safetensors"):
        return _downloaded(name, revision)
    else:
        found = local
    if revision is not None:
        raise Unreadable(f"on this machine, and revision {revision!r} is of repositories on the Hub")
    return found


def _checked(model: Path, config: Path) -> Path:
    """The model's file, unless the two files are not what winticket writes."""
    if not model.is_file():
        raise Unreadable(
            f"a folder without {MODEL}; give a file, or a folder that `winticket ship --to hub` wrote"
        )
    if config.is_file():
        try:
            library = read_json(read_file(config, limit=_LONGEST), Config).library_name
        except Unreadable as error:
            raise Unreadable(f"a folder whose {CONFIG} is no good: {error}") from error
        if library != LIBRARY:
            raise Unreadable(f"no network of winticket: its {CONFIG} names the library {library[:40]!r}")
    return model


def hub() -> Any:
    """The package huggingface_hub. ModuleNotFoundError, with what to install, if it is missing."""
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "repositories on the Hub need the package huggingface_hub: pip install huggingface_hub",
            name=error.name,
        ) from error


def _downloaded(repository: str, revision: str | None) -> Path:
    package = hub()
    try:
        config, model = (
            Path(package.hf_hub_download(repository, name, revision=revision)) for name in (CONFIG, MODEL)
        )
    except (OSError, ValueError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise Unreadable(
            f"neither here nor a repository that can be read on the Hub with {CONFIG} and {MODEL} ({first})"
        ) from error
    return _checked(model, config)
