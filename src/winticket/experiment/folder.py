"""The folder of a run's outputs: every file is complete, and files of two runs never mix."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from winticket.alive import alive
from winticket.places import RESULT

_STAGE = re.compile(r"\.winticket-(?P<pid>[0-9]+)-[0-9a-f]{8}")


class OutputFolder:
    """Moves finished files into `path`. Files of other names there belong to the user and stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._clear_up()

    @contextmanager
    def staged(self, *, instead_of: Sequence[str] = ()) -> Iterator[Path]:
        """A temporary folder whose files move to their places together when the block ends without an error.

        First the files named in `instead_of` (relative paths) are removed: those of an earlier run. So a kill in
        between leaves some files of one run, never of both. If the block raises, nothing changes.
        """
        stage = self.path / f".winticket-{os.getpid()}-{secrets.token_hex(4)}"
        stage.mkdir()
        try:
            yield stage
            files = (p.relative_to(stage) for p in stage.rglob("*") if p.is_file())
            # The result comes first, since it identifies the run that the other files belong to.
            new = sorted(files, key=lambda file: (file.name != RESULT, file))
            for name in instead_of:
                (self.path / name).unlink(missing_ok=True)
            for file in new:
                (self.path / file).parent.mkdir(parents=True, exist_ok=True)
                (stage / file).replace(self.path / file)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _clear_up(self) -> None:
        """Remove the temporary folders of runs that were killed."""
        for entry in self.path.iterdir():
            stage = _STAGE.fullmatch(entry.name)
            if stage is None or entry.is_symlink() or not entry.is_dir():
                continue
            if not alive(int(stage["pid"])):
                shutil.rmtree(entry, ignore_errors=True)
