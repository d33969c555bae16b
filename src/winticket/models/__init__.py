"""The networks: built by name for the data's shape, or by a user's own function; which weights are eligible.

`build` and `initialise` draw from generators of their own and leave the global random state alone. Modules
take inputs [N, *input_shape] and give logits [N, classes], or, of text, tokens [N, T] and give logits
[N, T, classes]; none writes to its input, so that they stack under `torch.func.functional_call` and `vmap`.
"""

from __future__ import annotations

from winticket.models.eligibility import chosen, eligible, excluded, includable, output_layer
from winticket.models.initial import SCHEMES, init_of, initialise
from winticket.models.named import MOST_PARAMETERS, build, check, context, default_init, names

REVISION = 2
"""Raised whenever a model or its initial weights change."""

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
]
