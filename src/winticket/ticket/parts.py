"""Masks by part of a structure: by attention head, hidden neuron or token (see `winticket.units.structures`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from winticket.ticket.mask import Mask

__all__ = ["kept_parts", "members", "with_parts"]


def members(mask: Mask) -> dict[str, tuple[str, ...]]:
    """The structures of a mask: name -> the names of its weights. ValueError if a mask has some of these weights only.

    >>> import torch
    >>> from winticket.units import Layout
    >>> rows = Layout(structure="neurons", parts=2, members=2)
    >>> columns = Layout(structure="neurons", parts=2, members=2, by_inputs=True)
    >>> whole = {"up": torch.ones(2, 3, dtype=torch.bool), "down": torch.ones(3, 2, dtype=torch.bool)}
    >>> members(Mask(whole, {"up": rows, "down": columns}))
    {'neurons': ('up', 'down')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, layout in mask.layout.items():
        if layout.structure:
            found[layout.structure] = (*found.get(layout.structure, ()), name)
    for structure, names in found.items():
        wanted = mask.layout[names[0]].members
        if len(names) < wanted:
            raise ValueError(
                f"{structure} are pruned with {wanted} weights together, of which only {', '.join(names)} may be "
                "pruned; exclude these too, or none of them"
            )
    return found


def kept_parts(mask: Mask) -> dict[str, Tensor]:
    """The parts that a mask keeps, if it prunes whole parts alone: structure -> bool [parts].

    Empty if it prunes nothing, or anything else than whole parts of its structures.

    >>> import torch
    >>> from winticket.units import Layout
    >>> rows = Layout(structure="neurons", parts=2, members=2)
    >>> columns = Layout(structure="neurons", parts=2, members=2, by_inputs=True)
    >>> keep = {"up": torch.tensor([[True], [False]]), "down": torch.tensor([[True, False]])}
    >>> kept_parts(Mask(keep, {"up": rows, "down": columns}))
    {'neurons': tensor([ True, False])}
    >>> kept_parts(Mask({**keep, "down": ~keep["down"]}, {"up": rows, "down": columns}))
    {}
    """
    structured = {name for name, layout in mask.layout.items() if layout.structure}
    if any(not bool(keep.all()) for name, keep in mask.keep.items() if name not in structured):
        return {}
    try:
        of_structure = members(mask)
    except ValueError:
        return {}
    kept = {}
    for structure, names in of_structure.items():
        blocks = [mask.layout[name].by_part(mask.keep[name]) for name in names]
        first = blocks[0].any(1)
        if any(not bool((block == first[:, None]).all()) for block in blocks):
            return {}
        kept[structure] = first
    return kept if any(not bool(parts.all()) for parts in kept.values()) else {}


def with_parts(mask: Mask, kept: Mapping[str, Tensor]) -> Mask:
    """The mask without the parts that `kept`, structure -> bool [parts], does not keep."""
    keep = dict(mask.keep)
    for structure, names in members(mask).items():
        if structure in kept:
            for name in names:
                layout, before = mask.layout[name], mask.keep[name]
                blocks = layout.by_part(before) & kept[structure].to(before.device)[:, None]
                keep[name] = layout.from_parts(blocks, before)
    return replace(mask, keep=keep)
