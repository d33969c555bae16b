"""Attention and feed-forward modules of other libraries, recognised by the names and shapes of their layers.

They declare no `prunable_structures`. A module is recognised only if every parameter in it is accounted for: a further
parameter, such as one for each head or a norm over all hidden neurons, may mean that parts depend on one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Family:
    """Modules of one form; names are paths within the module.

    units, inputs  as in `prunable_structures`
    size     the attribute that holds how many units of the last of `units` a part has; "": one
    counts   attributes that grow with the number of parts, where the module has them
    each     layers whose parameters are shared by all parts: they have as many elements as a part has units
    after    layers that are applied to the result
    within   where every parameter has to be accounted for; (): in the whole module
    """

    kind: str
    units: tuple[str, ...]
    inputs: tuple[str, ...]
    size: str = ""
    counts: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    within: tuple[str, ...] = ()


MIXING = ("is_kv_shared_layer", "activation_sparsity")
"""Attributes of modules whose parts depend on others, in Gemma 3n: keys that further layers read, and neurons that are
switched off by the spread of all."""
_QKV = ("q_proj", "k_proj", "v_proj")
_HEADS = ("num_heads", "num_attention_heads", "num_key_value_heads")
FAMILIES = (
    # Llama, Mistral, Qwen, Gemma, SmolLM. A part is a group of query heads with the key and value head that they share.
    Family("heads", _QKV, ("o_proj",), "head_dim", _HEADS, each=("q_norm", "k_norm")),
    # OPT, GPT-Neo, CLIP, Whisper, BART; Phi
    Family("heads", _QKV, ("out_proj",), "head_dim", _HEADS, each=("q_norm", "k_norm")),
    Family("heads", _QKV, ("dense",), "head_dim", _HEADS, each=("q_norm", "k_norm")),
    # BERT, RoBERTa, ELECTRA
    Family(
        "heads",
        ("self.query", "self.key", "self.value"),
        ("output.dense",),
        "self.attention_head_size",
        ("self.num_attention_heads", "self.all_head_size"),
        after=("output.LayerNorm",),
    ),
    Family("neurons", ("gate_proj", "up_proj"), ("down_proj",), counts=("intermediate_size",)),
    Family("neurons", ("up_proj",), ("down_proj",), counts=("intermediate_size",)),
    # DistilBERT
    Family("heads", ("q_lin", "k_lin", "v_lin"), ("out_lin",), "attention_head_size", ("n_heads",)),
    Family("neurons", ("fc1",), ("fc2",)),
    Family("neurons", ("lin1",), ("lin2",)),
    # GPT-NeoX, Pythia, BLOOM; GPT-J, CodeGen; Starcoder 2
    Family("neurons", ("dense_h_to_4h",), ("dense_4h_to_h",)),
    Family("neurons", ("fc_in",), ("fc_out",)),
    Family("neurons", ("c_fc",), ("c_proj",)),
    Family(
        "neurons",
        ("intermediate.dense",),
        ("output.dense",),
        after=("output.LayerNorm",),
        within=("intermediate", "output"),
    ),
)


@dataclass(frozen=True)
class Recognised:
    """A family's module: its layers, the number of parts, and (owner, attribute, how much of it is one part's)."""

    kind: str
    parts: int
    units: tuple[nn.Linear, ...]
    inputs: tuple[nn.Linear, ...]
    counts: tuple[tuple[nn.Module, str, int], ...]


def recognised(module: nn.Module) -> Recognised | None:
    """The parts of a module that is of one of the families; None if it is of none.

    >>> class MLP(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)
    >>> recognised(MLP()).kind, recognised(MLP()).parts
    ('neurons', 6)
    >>> recognised(nn.Linear(4, 6)) is None
    True
    """
    return next((found for family in FAMILIES if (found := _member(module, family))), None)


def _member(module: nn.Module, family: Family) -> Recognised | None:
    if any(hasattr(module, name) for name in MIXING):
        return None
    layers = [_at(module, name) for name in (*family.units, *family.inputs)]
    if not all(isinstance(one, nn.Linear) for one in layers):
        return None
    units, inputs = layers[: len(family.units)], layers[len(family.units) :]
    size = _at(module, family.size) if family.size else 1
    if not isinstance(size, int) or size < 1 or units[-1].out_features % size:
        return None
    if not (parts := units[-1].out_features // size):
        return None
    widths = [one.out_features for one in units]
    # Queries may have several heads for each key and value head; everything else has one block for each part.
    if widths[0] % (parts * size) or any(one != widths[-1] for one in widths[1:]):
        return None
    if any(one.in_features != widths[0] for one in inputs) or (not family.size and widths[0] != parts):
        return None
    if not _accounted_for(module, family, size):
        return None
    counts = []
    for path in family.counts:
        above, _, name = path.rpartition(".")
        owner, value = _at(module, above) if above else module, _at(module, path)
        if isinstance(value, int) and not value % parts:
            counts.append((owner, name, value // parts))
    return Recognised(family.kind, parts, tuple(units), tuple(inputs), tuple(counts))


def _accounted_for(module: nn.Module, family: Family, size: int) -> bool:
    known = {f"{name}.{which}" for name in (*family.units, *family.inputs) for which in ("weight", "bias")}
    for name, parameter in module.named_parameters():
        layer = name.rpartition(".")[0]
        if name in known or layer in family.after:
            continue
        if layer in family.each and parameter.numel() == size:
            continue
        if family.within and name.split(".")[0] not in family.within:
            continue
        return False
    return True


def _at(module: nn.Module, path: str) -> Any:
    """What is at a path of attributes; None if there is nothing."""
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
