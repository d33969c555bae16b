"""Structures: the heads of an attention layer, the hidden neurons of a feed-forward part, the tokens of an embedding.

A part of a structure (one head, one neuron, one token) is removed whole, with all its weights in several layers. Which
layers these are is not visible in a module's graph: a head passes through a softmax and a reshape. So a module says so
itself, by an attribute `prunable_structures`, or it is recognised (`winticket.units.families`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from winticket.units.families import recognised

ATTRIBUTE = "prunable_structures"
ENTRIES = ("count", "units", "inputs")
TOKENS = "tokens"


@dataclass(frozen=True, eq=False)
class Structure:
    """Equal parts of a module that are removed whole.

    module  the module that they belong to, at `path`
    kind    "heads", "neurons", "tokens", or what the module calls them
    parts   how many there are
    counts  (owner, name, n) of attributes that are n times this number
    units   its Linear layers (or embedding) whose output units are divided among the parts, in blocks of equal size
    inputs  its layers whose inputs are
    stated  False if the module does not say so itself, but was recognised by its layers
    """

    path: str
    module: nn.Module
    kind: str
    parts: int
    counts: tuple[tuple[nn.Module, str, int], ...]
    units: tuple[Any, ...]
    inputs: tuple[Any, ...]
    stated: bool = True

    @property
    def name(self) -> str:
        """Path and kind: "layers.0.attention.heads"."""
        return f"{self.path}.{self.kind}".lstrip(".")

    def weights(self) -> tuple[tuple[Any, bool], ...]:
        """Its layers, each with whether the parts are blocks of its inputs."""
        return (*((layer, False) for layer in self.units), *((layer, True) for layer in self.inputs))


def structures(module: nn.Module) -> tuple[Structure, ...]:
    """The structures of a network, in order of definition.

    A module declares its own in an attribute `prunable_structures`:
    {kind: {"units": names, "inputs": names, "count": name}}. "units" are the names of its Linear layers whose output
    units belong to the parts, in blocks of equal size; "inputs" those whose inputs do. "count" is the name of the
    attribute that says how many parts there are; without it, each unit is a part. If parts are removed from the module
    (`winticket.compact`), its layers become smaller and this attribute is set, so its `forward` should not assume other
    sizes. Modules of common families of Transformers need no declaration (`winticket.units.families`). The tokens of
    each embedding are a structure, too.
    A structure is left out if a layer's weight is computed from another tensor, as by a parametrization.

    Errors: ValueError if a declaration does not fit the module.

    >>> from winticket.models import build
    >>> network = build("chargpt-1-32", input_shape=(8,), classes=20, generator_seed=0, tokens=True)
    >>> [(one.name, one.parts) for one in structures(network)]
    [('embed.tokens', 20), ('place.tokens', 8), ('layers.0.neurons', 128), ('layers.0.attention.heads', 2)]
    """
    return tuple(one for path, layer in module.named_modules() for one in _of(path, layer))


def _of(path: str, layer: nn.Module) -> Iterator[Structure]:
    if isinstance(layer, nn.Embedding) and "weight" in layer._parameters:
        yield Structure(path, layer, TOKENS, layer.num_embeddings, (), (), (layer,))
    declared = getattr(layer, ATTRIBUTE, None)
    if declared is None or callable(declared):
        yield from _recognised(path, layer)
        return
    here = f"{type(layer).__name__}{f' at {path}' if path else ''}"
    if not isinstance(declared, Mapping):
        raise ValueError(  # noqa: TRY004 - the fault is in the user's model
            f"{here}: {ATTRIBUTE} is a {type(declared).__name__}, not a mapping "
            '{kind: {"units": names, "inputs": names, "count": name}}'
        )
    for kind, facts in declared.items():
        one = _declared(path, layer, str(kind), facts, f"{here}: {ATTRIBUTE}[{kind!r}]")
        if _owns_its_weights(one):
            yield one


def _recognised(path: str, layer: nn.Module) -> Iterator[Structure]:
    known = recognised(layer)
    if known is not None:
        one = Structure(
            path, layer, known.kind, known.parts, known.counts, known.units, known.inputs, stated=False
        )
        if _owns_its_weights(one):
            yield one


def _owns_its_weights(one: Structure) -> bool:
    return all(isinstance(owner._parameters.get("weight"), Tensor) for owner, _ in one.weights())


def _declared(path: str, module: nn.Module, kind: str, facts: Any, what: str) -> Structure:
    if not isinstance(facts, Mapping) or not {*facts} <= {*ENTRIES} or not facts.get("units"):
        raise ValueError(f"{what} is {facts!r}; it takes {', '.join(ENTRIES)}, and units are needed")
    units, inputs = (_layers(module, facts.get(side, ()), what) for side in ("units", "inputs"))
    count = str(facts.get("count") or "")
    parts = getattr(module, count, None) if count else units[0].weight.shape[0]
    if not isinstance(parts, int) or parts < 1:
        raise ValueError(f"{what}: {count} is {parts!r}, not a number of parts")
    for layer, axis in (*((one, 0) for one in units), *((one, 1) for one in inputs)):
        size = layer.weight.shape[axis]
        if size % parts:
            side = "inputs" if axis else "units"
            raise ValueError(
                f"{what}: the {size} {side} of a layer do not divide into {parts} parts of equal size"
            )
    counts = ((module, count, 1),) if count else ()
    return Structure(path, module, kind, parts, counts, units, inputs)


def _layers(module: nn.Module, names: Sequence[str], what: str) -> tuple[nn.Linear, ...]:
    layers = []
    for name in (names,) if isinstance(names, str) else names:
        try:
            layer = module.get_submodule(str(name))
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Linear):
            kind = "there is none" if layer is None else f"it is a {type(layer).__name__}"
            raise ValueError(  # noqa: TRY004 - the fault is in the user's model
                f"{what} names {name!r}, which should be a Linear layer of the module; {kind}"
            )
        layers.append(layer)
    return tuple(layers)
