"""From a language model's folder and a text to the search for tickets that start from the model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from winticket import causal, models
from winticket.documents import read_documents
from winticket.lm.blocks import find_blocks, linear_layers


def choices(path: str, data: Path, *, length: int | None = None) -> dict[str, Any]:
    """The choices of an experiment whose tickets start from the language model at `path`, for `Experiment.of(data)`.

    Network, weights and tokenizer are those of the model. The linear layers inside its blocks are pruned, and nothing
    else is. length: tokens of a window (default: that of `winticket.data.tokens`, or as many as the model reads). The
    re-initialised control starts from the model's weights, shuffled within each layer (Chen et al. 2020, BERT).
    Raises ValueError, before weights are read, if there is no such model or text.
    """
    config = causal.configuration(causal.local(path))
    most = causal.longest(config)
    if length is not None and length < 2:
        raise ValueError(f"--length {length} is less than 2")
    if length is not None and most is not None and length > most:
        raise ValueError(f"--length {length} is more than the {most} tokens that the model reads at once")
    read_documents(data)
    include, exclude = patterns(causal.skeleton(config))
    chosen: dict[str, Any] = {"model": path, "start": path, "tokenizer": path, "redraw": "shuffled"}
    given = {"window": length, "include": include, "exclude": exclude}
    return {**chosen, **{name: value for name, value in given.items() if value}}


def patterns(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to include and to exclude, as patterns of names, so that exactly the blocks' linear layers are pruned.

    Raises ValueError, as `find_blocks` does, for a model whose blocks hold other matrices.

    >>> head = nn.ModuleDict({"h": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), "out": nn.Linear(2, 3)})
    >>> patterns(head)
    ((), ('out.weight',))
    """
    blocks, usual = find_blocks(model), models.eligible(model)
    inside = {
        f"{blocks.name(number)}.{name}.weight" if name else f"{blocks.name(number)}.weight": (
            f"{blocks.prefix}.*.{name}.weight" if name else f"{blocks.prefix}.*.weight"
        )
        for number, block in enumerate(blocks.modules)
        for name in linear_layers(block)
    }
    further = dict.fromkeys(pattern for name, pattern in inside.items() if name not in usual)
    return tuple(further), tuple(name for name in usual if name not in inside)
