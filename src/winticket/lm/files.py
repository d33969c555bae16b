"""The files of a pruned model: one safetensors file for each block, one for the rest, and what stands beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from winticket.atomic import replace_file, replacing
from winticket.bits import pack_bits, unpack_bits
from winticket.lm.blocks import Blocks, linear_layers, weight_of
from winticket.ticket import Mask
from winticket.ticket import file as ticket_file
from winticket.units import Layout
from winticket.units.layout import layout_of

MASKS = "masks.safetensors"
"""The masks, as winticket's ticket files have them, without weights."""
INDEX = "model.safetensors.index.json"


class Shards:
    """The files of a model with so many blocks, in its folder. A shard that exists is complete."""

    def __init__(self, folder: Path, blocks: int) -> None:
        self.folder, self.blocks = folder, blocks

    def path(self, number: int) -> Path:
        """The file of a block; that of the rest has the number after the last block's."""
        return self.folder / f"model-{number + 1:05d}-of-{self.blocks + 1:05d}.safetensors"

    def mask_path(self, number: int) -> Path:
        """The file that holds a block's packed mask until all blocks are pruned."""
        return self.folder / f".mask-{number + 1:05d}.safetensors"

    def done(self) -> int:
        """How many blocks are complete, from the first on."""
        for number in range(self.blocks):
            if not (self.path(number).is_file() and self.mask_path(number).is_file()):
                return number
        return self.blocks

    def tidy(self) -> None:
        """Remove what a finished model does not need: the blocks' own masks."""
        for number in range(self.blocks):
            self.mask_path(number).unlink(missing_ok=True)


def named(blocks: Blocks, number: int) -> dict[str, Tensor]:
    """The tensors of a block under their names in the model."""
    return {
        f"{blocks.name(number)}.{name}": value for name, value in blocks.modules[number].state_dict().items()
    }


def write_block(shards: Shards, blocks: Blocks, number: int, keep: Mapping[str, Tensor]) -> None:
    """Write a finished block: first its mask (bool, by the layer's name in the block), then its weights."""
    packed = {name: pack_bits(flags) for name, flags in keep.items()}
    save_tensors(packed, shards.mask_path(number))
    save_tensors(
        {name: value.contiguous() for name, value in named(blocks, number).items()}, shards.path(number)
    )


def map_block(shards: Shards, blocks: Blocks, number: int) -> None:
    """Let a block's parameters be those of its file, mapped, so that memory for them can be dropped again."""
    stored = load_file(shards.path(number))
    block = blocks.modules[number]
    tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    for name in block.state_dict():
        tensors[name].data = stored[f"{blocks.name(number)}.{name}"]


def write_rest(shards: Shards, model: nn.Module, blocks: Blocks) -> None:
    """Write what no block holds (embeddings, norms, an output layer of its own), and the index of all files.

    Of tensors that share memory, such as an output layer tied to the embeddings, the first is written; Transformers
    ties them again.
    """
    rest: dict[str, Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, value in model.state_dict().items():
        at = (value.data_ptr(), tuple(value.shape))
        if not name.startswith(f"{blocks.prefix}.") and at not in seen:
            seen.add(at)
            rest[name] = value.contiguous()
    save_tensors(rest, shards.path(shards.blocks))
    weights = {name: shards.path(n).name for n in range(shards.blocks) for name in named(blocks, n)}
    weights |= dict.fromkeys(rest, shards.path(shards.blocks).name)
    size = sum(value.numel() * value.element_size() for value in rest.values())
    size += sum(v.numel() * v.element_size() for n in range(shards.blocks) for v in named(blocks, n).values())
    index = {"metadata": {"total_size": size}, "weight_map": weights}
    replace_file(shards.folder / INDEX, f"{json.dumps(index, indent=2)}\n".encode())


def save_tensors(tensors: dict[str, Tensor], path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; `about` is its metadata (default: what Transformers writes)."""
    with replacing(path) as new:
        new.touch()
        mode = new.stat().st_mode
        save_file(tensors, new, metadata={"format": "pt"} if about is None else dict(about))
        new.chmod(mode)  # safetensors makes files that only their owner can read


class _Unpacked(Mapping[str, Tensor]):
    """The masks of all blocks, each unpacked when it is asked for, since bools take eight times the memory."""

    def __init__(self, shards: Shards, blocks: Blocks) -> None:
        self.packed = {
            f"{blocks.name(number)}.{name}.weight": (shards.mask_path(number), name, layer)
            for number, block in enumerate(blocks.modules)
            for name, layer in linear_layers(block).items()
        }

    def __getitem__(self, name: str) -> Tensor:
        path, inside, layer = self.packed[name]
        weight = weight_of(layer)
        return unpack_bits(load_file(path)[inside], weight.numel()).view(weight.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)


def write_masks(shards: Shards, blocks: Blocks, about: Mapping[str, Any], *, excluded: list[str]) -> None:
    """Put the masks of all blocks into one file, as ticket files hold them."""
    masks = _Unpacked(shards, blocks)
    layers: dict[str, Any] = {}
    for name, (_, _, layer) in masks.packed.items():
        keep, layout = masks[name], layout_of(layer)
        layers[name] = {"kept": int(keep.sum()), "total": keep.numel(), "shape": list(keep.shape)}
        if layout != Layout():
            layers[name]["layout"] = {"inputs_first": layout.inputs_first, "groups": 1, "gates": 1}
    document = {
        "origin": "lm prune",
        "step": 0,
        "seeds": {"root": int(about["seed"]), "replicate": 0},
        "about": dict(about),
        "density": sum(one["kept"] for one in layers.values()) / sum(one["total"] for one in layers.values()),
        "layers": layers,
        "excluded": excluded,
    }
    empty: dict[str, Tensor] = {}
    groups: dict[str, Mapping[str, Tensor]] = {
        "mask": masks,
        "weights": empty,
        "buffers": empty,
        "optimizer": empty,
    }
    ticket_file.write(shards.folder / MASKS, tensors=groups, document=document)


def read_masks(path: Path) -> Mask:
    """The masks beside a pruned model: `path` is its folder or the file.

    Names are those of the weights in the model, shapes those of the weights, True is kept. Raises
    winticket.ticket.TicketFileError if the file is absent or damaged.
    """
    groups, document = ticket_file.read(path / MASKS if path.is_dir() else path)
    layouts = {name: Layout(**one["layout"]) for name, one in document["layers"].items() if one.get("layout")}
    return Mask(groups["mask"], layouts)


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of a model's weights."""
    return next(iter(model.parameters())).dtype
