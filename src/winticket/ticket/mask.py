"""Mask: which eligible weights are alive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from winticket.units import PLAIN, Layout

Weights: TypeAlias = Mapping[str, Tensor]

SHOWN = 8
"""How many output units are named at most if several have no weight left."""


def output_units(layer: str, units: Sequence[int]) -> str:
    """Units of the output layer in words.

    >>> from winticket.ticket import output_units
    >>> output_units("fc3.weight", [0, 7])
    'fc3.weight (output units 0, 7)'
    """
    shown = ", ".join(map(str, units[:SHOWN])) + (f" and {len(units) - SHOWN} more" if units[SHOWN:] else "")
    return f"{layer} (output {'unit' if len(units) == 1 else 'units'} {shown})"


@dataclass(frozen=True, eq=False)
class Mask:
    """Which eligible weights are alive; kept separately, never inferred from zeros in the weights.

    keep: one bool tensor per eligible weight, of the weight's shape; True is alive. layout: which axis is which, for
    weights that are not [units, inputs, *positions], such as a transposed convolution's;
    `winticket.units.layouts(model)` returns it. Allocations, criteria and controls use it. Raises TypeError, naming the
    layer, if a tensor is not bool.

    >>> import torch
    >>> from winticket import Mask
    >>> mask = Mask({"fc.weight": torch.tensor([[True, False], [True, True]])})
    >>> mask.count(), mask.density()
    (3, 0.75)
    """

    __storable__: ClassVar[bool] = True

    keep: Mapping[str, Tensor]
    layout: Mapping[str, Layout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, keep in self.keep.items():
            if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
                kind = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
                raise TypeError(
                    f"the mask of layer {name!r} is {kind}, not torch.bool; a comparison makes one, e.g. scores > 0"
                )
        object.__setattr__(self, "keep", dict(self.keep))
        special = {n: self.layout[n] for n in self.keep if self.layout.get(n, PLAIN) != PLAIN}
        object.__setattr__(self, "layout", special)

    @classmethod
    def full(cls, weights: Weights, *, layout: Mapping[str, Layout] | None = None) -> Mask:
        """The mask that keeps all of `weights`, which must be the eligible ones only. layout: as in `Mask`."""
        keep = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        return cls(keep, layout or {})

    def laid_out(self, name: str) -> Layout:
        """Which axis of a layer's weight is which."""
        return self.layout.get(name, PLAIN)

    def empty_units(self, name: str) -> tuple[int, ...]:
        """The units of a layer that no kept weight leads into, by number."""
        rows = self.laid_out(name).by_unit(self.keep[name]).flatten(1)
        return tuple(torch.nonzero(~rows.any(1)).flatten().tolist()) if rows.numel() else ()

    def layers(self) -> dict[str, tuple[int, int]]:
        """Layer name -> (weights kept, weights in total), in the order of the mask."""
        return {name: (int(keep.sum()), keep.numel()) for name, keep in self.keep.items()}

    def count(self) -> int:
        """Number of weights kept."""
        return sum(kept for kept, _ in self.layers().values())

    def total(self) -> int:
        """Number of eligible weights, kept or not."""
        return sum(keep.numel() for keep in self.keep.values())

    def density(self, layer: str | None = None) -> float:
        """Kept / eligible, in 0..1, of all layers or of one.

        Raises ValueError for a mask over no weights, and KeyError for an unknown layer.
        """
        if layer is not None:
            if layer not in self.keep:
                raise KeyError(f"the mask has no layer {layer!r}; it has {_names(self.keep)}")
            return Mask({layer: self.keep[layer]}).density()
        if not self.total():
            raise ValueError("a mask over no weights has no density; the model has no eligible weight")
        return self.count() / self.total()

    def emptied(self, *, output: str | None = None) -> tuple[str, ...]:
        """Names of the layers that have weights but keep none, so that nothing passes through them.

        output: name of the layer whose units are the classes. If some of its units keep no weight, it is listed too,
        with those units in words.
        """
        names = tuple(name for name, (kept, total) in self.layers().items() if total and not kept)
        if output is None or output not in self.keep or output in names:
            return names
        lost = self.empty_units(output)
        return (*names, output_units(output, lost)) if lost else names

    def within(self, wider: Mask) -> bool:
        """True if every weight kept here is kept in `wider` too. Raises ValueError if the layers differ."""
        same_layers("the two masks", self.keep, wider.keep)
        return not any(
            bool((keep & ~wider.keep[name].to(keep.device)).any()) for name, keep in self.keep.items()
        )

    def apply(self, weights: Weights) -> dict[str, Tensor]:
        """A copy of `weights` with pruned weights exactly 0.0 and all others, eligible or not, unchanged.

        Raises ValueError if a masked layer is absent from `weights` or has another shape.
        """
        same_layers(
            "mask and weights", self.keep, {name: w for name, w in weights.items() if name in self.keep}
        )
        # masked_fill instead of a product: inf * 0 is nan and -1 * 0 is -0.
        return {
            name: w.masked_fill(~self.keep[name].to(w.device), 0) if name in self.keep else w.clone()
            for name, w in weights.items()
        }


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def same_layers(what: str, a: Weights, b: Weights) -> None:
    """Raise ValueError, naming the layers, if names or shapes differ."""
    if a.keys() != b.keys():
        raise ValueError(
            f"{what} do not cover the same layers: only one of them has {_names(a.keys() ^ b.keys())}"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise ValueError(
                f"{what} disagree about layer {name!r}: shapes {tuple(a[name].shape)} and "
                f"{tuple(b[name].shape)}"
            )
