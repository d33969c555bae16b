"""Put a shipped network's folder on the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path

from winticket.ship.compact import CompactFileError, load
from winticket.ship.hub_files import CARD, CONFIG, MODEL, REPOSITORY, hub
from winticket.ship.index_maps import MAPS


def push(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Upload a network with winticket",
) -> str:
    """Upload a folder that `winticket ship --to hub` wrote to a repository, "user/name"; returns the commit's address.

    The repository is made if there is none, private or not. Only config.json, README.md, model.safetensors and its
    index maps (if it was shrunk) are uploaded, and only if the folder can be loaded. token: default, that of
    `hf auth login`. Others then call `winticket.ship.load("user/name")`.

    Raises CompactFileError if the folder is not such a one; ValueError for a name that no repository has;
    ModuleNotFoundError without the package huggingface_hub; what that raises (an OSError) if the Hub refuses.

    >>> push("nowhere", "me/digits")
    Traceback (most recent call last):
    winticket.ship.compact.CompactFileError: nowhere is not a folder that `winticket ship --to hub` wrote
    """
    path = Path(folder)
    if not path.is_dir():
        raise CompactFileError(f"{path} is not a folder that `winticket ship --to hub` wrote")
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"a repository on the Hub is called user/name, not {repository!r}")
    load(path)
    missing = [name for name in (CONFIG, CARD) if not (path / name).is_file()]
    if missing:
        raise CompactFileError(f"the folder {path} has no {' and no '.join(missing)}; write it again")
    api = hub().HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repository,
        folder_path=path,
        allow_patterns=[name for name in (MODEL, CONFIG, CARD, MODEL + MAPS) if (path / name).is_file()],
        commit_message=message,
    )
    return str(commit.commit_url)
