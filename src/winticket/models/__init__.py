"""The networks: built by name for the shape of the data, or by a user's function; and which weights are eligible.

`build` and `initialise` use separate generators and leave the global random state unchanged. Modules map inputs
[N, *input_shape] to logits [N, classes], or for text, tokens [N, T] to logits [N, T, classes]. None writes to its
input, so they stack under `torch.func.functional_call` and `vmap`.
"""

from __future__ import annotations

from winticket.models.eligibility import (
    chosen,
    eligible,
    excluded,
    includable,
    output_layer,
    unpruned_by,
)
from winticket.models.initial import SCHEMES, init_of, initialise
from winticket.models.named import MOST_PARAMETERS, build, check, context, default_init, names, size

REVISION = 2
"""Raised when a model or its initial weights change."""

__all__ = [
    "MOST_PARAMETERS",
    "REVISION",
    "SCHEMES",
    "build",
    "check",
    "chosen",
    "context",
    "default_init",
    "eligible",
    "excluded",
    "includable",
    "init_of",
    "initialise",
    "names",
    "output_layer",
    "size",
    "unpruned_by",
]
