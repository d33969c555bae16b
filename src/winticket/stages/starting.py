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
    whole   whether they are those of a causal language model of Transformers, which reads them; in no key
    redraw  what the re-initialised control starts from: "fresh" weights, as the model draws them, or the pretrained
            ones "shuffled" within each layer
    """

    path: str
    digest: str
    redraw: str = "fresh"
    whole: bool = False

    @classmethod
    def of(cls, path: str, redraw: str = "fresh", *, whole: bool = False) -> Pretrained:
        """Read the weights once for their digest. Errors: ValueError if there are none, or `redraw` is not known."""
        if redraw not in REDRAWS:
            raise ValueError(f"redraw is {redraw!r}; it is {' or '.join(map(repr, REDRAWS))}")
        return cls(path, pretrained.digest(_weights_at(path, whole=whole)), redraw, whole)

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name. Errors: Unavailable if they cannot be read, or have changed since the plan was made."""
        try:
            found = _weights_at(self.path, whole=self.whole)
        except (OSError, ValueError) as error:
            raise Unavailable(f"the pretrained weights cannot be read now: {error}") from error
        if _digest_at(self.path, whole=self.whole) != self.digest:
            raise Unavailable(
                f"the pretrained weights {self.path} have changed since the plan was made; plan again"
            )
        return found


def _weights_at(path: str, *, whole: bool) -> dict[str, Tensor]:
    read = pretrained.language_model if whole else pretrained.read
    return read(Path(path).expanduser())


def _digest_at(path: str, *, whole: bool) -> str:
    where = Path(path).expanduser()
    files = pretrained.files_of_language_model(where) if whole else pretrained.files_of(where)
    return _digest_of(path, tuple(file.stat().st_mtime_ns for file in files), whole=whole)


@lru_cache(maxsize=4)
def _digest_of(path: str, changed: tuple[int, ...], *, whole: bool) -> str:
    del changed  # only part of the cache's key
    return pretrained.digest(_weights_at(path, whole=whole))
