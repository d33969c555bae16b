"""The folder of a run's outputs: each file whole, and never files of two runs side by side."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from winticket.places import RESULT

_STAGE = re.compile(r"\.winticket-(?P<pid>[0-9]+)-[0-9a-f]{8}")


class OutputFolder:
    """Puts finished files into `path`. What lies there under other names is the user's, and stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._clear_up()

    @contextmanager
    def staged(self, *, instead_of: Sequence[str] = ()) -> Iterator[Path]:
        """A folder to write files into, which are put in their places together when the block ends without an error.

        Before that, files named in `instead_of` (relative; what an earlier run left) are removed; so a kill in between
        leaves some files of one run, and never some of each. If the block raises, everything is as it was.
        """
        stage = self.path / f".winticket-{os.getpid()}-{secrets.token_hex(4)}"
        stage.mkdir()
        try:
            yield stage
            files = (p.relative_to(stage) for p in stage.rglob("*") if p.is_file())
            new = sorted(
                files, key=lambda file: (file.name != RESULT, file)
            )  # which says whose the others are
            for name in instead_of:
                (self.path / name).unlink(missing_ok=True)
            for file in new:
                (self.path / file).parent.mkdir(parents=True, exist_ok=True)
                (stage / file).replace(self.path / file)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _clear_up(self) -> None:
        """Removes what killed runs were writing."""
        for entry in self.path.iterdir():
            stage = _STAGE.fullmatch(entry.name)
            if stage is None or entry.is_symlink() or not entry.is_dir():
                continue
            try:
                os.kill(int(stage["pid"]), 0)
            except ProcessLookupError:
                shutil.rmtree(entry, ignore_errors=True)
            except (OSError, OverflowError):  # somebody else's process, or no process's number at all
                continue
