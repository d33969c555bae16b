"""What a format of shipped networks is: how a file is written, how it computes, and how one uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from winticket.results import Memory, Shipment
from winticket.ship.compact_write import Sizes
from winticket.ship.interpret import run
from winticket.ship.network import Network
from winticket.ship.shrinking import TOKENS_ALONE, Shrunk

Logits = NDArray[np.floating[Any]]
ROWS = 250
"""Examples that are computed at a time."""


class NotEvaluated(RuntimeError):  # noqa: N818 - nothing is wrong with the file
    """This machine lacks what computes the file; the message says what."""


class ShipmentError(RuntimeError):
    """What was written does not compute what the trained network computes."""


@dataclass(frozen=True, eq=False)
class Source:
    """A trained network as formats take it.

    captured  without torch, as it is to be written; None for a network that reads tokens, which is a module alone
    model     the torch module that it was captured from; None if it comes from a compact file
    whole     the network before shrinking, if there is no module
    shrunk    what was removed of it; None if nothing was to be
    dense     for a page: the dense network of the same replicate
    examples  for a page: (inputs, classes) of the test data; None if they cannot be read
    note      for a page: what is known of it, in a sentence
    counts    (weights kept, weights that may be pruned), of a module alone
    pretrained  the folder of Transformers that a language model comes from; "" for any other network
    """

    captured: Network | None
    model: nn.Module | None = None
    whole: Network | None = None
    shrunk: Shrunk | None = None
    dense: Network | None = None
    examples: tuple[NDArray[Any], NDArray[Any]] | None = None
    note: str = ""
    counts: tuple[int, int] = (0, 0)
    pretrained: str = ""

    @property
    def network(self) -> Network:
        """The network without torch. ValueError for one that reads tokens."""
        if self.captured is None:
            raise ValueError(TOKENS_ALONE)
        return self.captured

    def kept(self) -> tuple[int, int]:
        """How many weights are kept, and how many there are."""
        return self.counts if self.captured is None else self.captured.kept()

    def module(self) -> nn.Module | None:
        """The torch module as it is to be written."""
        return self.model if self.shrunk is None else self.shrunk.module

    def expected(self, x: NDArray[Any]) -> Logits:
        """The logits for inputs x that the file has to give, to rounding: the original's."""
        if self.model is not None:
            return torch_logits(self.model, x)
        return run(self.whole or self.network, x)


@dataclass(frozen=True)
class Written:
    """What a format can tell of what it wrote.

    sizes   what the bytes of a compact file are
    memory  what C takes of a microcontroller's memory
    beside  files that belong to the file
    """

    sizes: Sizes | None = None
    memory: Memory | None = None
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format.

    what      a file of it, in the words of its card: "winticket wrote it as ..."
    named     (name, values) -> the path of the file in the folder
    write     (source, path, values): writes the file
    logits    (source, path, x): what the file gives for inputs x [N, *input_shape], read anew; raises NotEvaluated
    use       (source, name of the file) -> lines of code that use it
    language  of these lines
    card      the name of the card (default: that of the file, and .md)
    header    (shipment, what its ticket says about it) -> text before the card's
    check     (source, path, values): raises ValueError for what cannot be written, before anything is
    """

    what: str
    named: Callable[[str, str], str]
    write: Callable[[Source, Path, str], Written]
    logits: Callable[[Source, Path, NDArray[Any]], Logits]
    use: Callable[[Source, str], tuple[str, ...]]
    language: str = "python"
    card: str | None = None
    header: Callable[[Shipment, Mapping[str, Any]], str] = lambda *_: ""
    check: Callable[[Source, Path, str], None] = lambda *_: None


def torch_logits(model: nn.Module, x: NDArray[Any]) -> Logits:
    """The logits of a torch module in evaluation mode."""
    model.eval()
    with torch.no_grad():
        parts = [model(torch.from_numpy(x[at : at + ROWS])).numpy() for at in range(0, len(x), ROWS)]
    return np.concatenate(parts)
