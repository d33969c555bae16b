"""Pretrained weights as what searches start from, as plain values that plans and keys hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from winticket.models import pretrained
from winticket.run import Unavailable

REDRAWS = ("fresh", "shuffled")


@dataclass(frozen=True)
class Pretrained:
    """Weights that every search starts from.

    path    a safetensors file, or a folder in the Hub's layout; in no key
    digest  the hash of its tensors
    redraw  what the re-initialised control starts from: "fresh" weights, as the model draws them, or the pretrained
            ones "shuffled" within each layer
    """

    path: str
    digest: str
    redraw: str = "fresh"

    @classmethod
    def of(cls, path: str, redraw: str = "fresh") -> Pretrained:
        """Read the weights once for their digest. Errors: ValueError if there are none, or `redraw` is not known."""
        if redraw not in REDRAWS:
            raise ValueError(f"redraw is {redraw!r}; it is {' or '.join(map(repr, REDRAWS))}")
        return cls(path, pretrained.digest(_weights_at(path)), redraw)

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name. Errors: Unavailable if they cannot be read, or have changed since the plan was made."""
        try:
            found = _weights_at(self.path)
        except (OSError, ValueError) as error:
            raise Unavailable(f"the pretrained weights cannot be read now: {error}") from error
        if _digest_at(self.path) != self.digest:
            raise Unavailable(
                f"the pretrained weights {self.path} have changed since the plan was made; plan again"
            )
        return found


def _weights_at(path: str) -> dict[str, Tensor]:
    return pretrained.read(Path(path).expanduser())


def _digest_at(path: str) -> str:
    files = pretrained.files_of(Path(path).expanduser())
    return _digest_of(path, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=4)
def _digest_of(path: str, changed: tuple[int, ...]) -> str:
    del changed  # only part of the cache's key
    return pretrained.digest(_weights_at(path))
