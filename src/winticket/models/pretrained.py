"""Pretrained weights as the start of a search: read from safetensors, and put into a network by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from winticket import causal
from winticket.models.eligibility import output_layer
from winticket.outside import Unreadable, read_file, read_header, read_json

_LARGEST = 64 << 30  # bytes of a file
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # DDP, torch.compile, Lightning
_INDEX = "model.safetensors.index.json"


def files_of(path: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint: the file itself, or those of a folder in the Hub's layout.

    Raises ValueError, which says what is there, if there are none.
    """
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise ValueError(f"start {str(path)!r}: there is no such file or folder")
    if (path / "result.json").is_file():
        raise ValueError(
            f"start {str(path)!r} is the folder of a run, which holds no trained weights; write one of its networks "
            f"with winticket.open({str(path)!r}).trained('dense').ticket.save(FILE), and start from that file"
        )
    if (path / _INDEX).is_file():
        try:
            index = read_json(read_file(path / _INDEX, limit=1 << 28), dict[str, object])
        except Unreadable as error:
            raise ValueError(f"start {str(path)!r}: {_INDEX} is {error}") from error
        shards = index.get("weight_map")
        names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise ValueError(f"start {str(path)!r}: {_INDEX} lists no files of this folder")
        return tuple(path / name for name in names)
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        found = ", ".join(f.name for f in (files or sorted(path.iterdir())[:5])) or "nothing"
        raise ValueError(
            f"start {str(path)!r} is a folder with {len(files)} safetensors files, and needs one, or {_INDEX}; it has "
            f"{found}. Weights that torch.save wrote are pickles, which winticket does not open; convert them with "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
        )
    return tuple(files)


@lru_cache(maxsize=2)
def _read(files: tuple[tuple[Path, int, int], ...]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file, _, _ in files:
        try:
            data = read_file(file, limit=min(_LARGEST, max(8, file.stat().st_size)))
            read_header(data)
        except Unreadable as error:
            raise ValueError(
                f"start {str(file)!r} is {error}. Save weights with "
                "safetensors.torch.save_file(model.state_dict(), FILE)"
            ) from error
        tensors |= load(data)
    return tensors


@lru_cache(maxsize=1)
def _loaded(of: causal.Source, *changed: tuple[str, int, int]) -> dict[str, Tensor]:
    del changed  # only part of the cache's key
    model = causal.load(of)
    stored = model.state_dict().keys()
    tensors = {name: value.detach() for name, value in model.named_parameters()}
    return tensors | {name: value for name, value in model.named_buffers() if name in stored}


def language_model(path: Path) -> dict[str, Tensor]:
    """The tensors of a causal language model by their names in it, which may differ from those in its files.

    path: a folder of Transformers, a GGUF file, or a folder with one. Of weights that are tied, the first is there.
    They are mapped from their files where these allow it, and kept for the next call; never write to them. Raises
    ValueError if there is no such model, or if it lacks weights.
    """
    files = ((file, file.stat()) for file in files_of_language_model(path))
    return _loaded(
        causal.local(path), *((file.name, about.st_mtime_ns, about.st_size) for file, about in files)
    )


def files_of_language_model(path: Path) -> list[Path]:
    """The files on which the tensors of a causal language model depend. Raises ValueError if there is no such model."""
    of = causal.local(path)
    return [file for file in (*of.files(), Path(of.folder) / "config.json") if file.is_file()]


def is_language_model(path: Path) -> bool:
    """True for what `language_model` reads, as far as names tell.

    >>> is_language_model(Path("smol.gguf")), is_language_model(Path("net.safetensors"))
    (True, False)
    """
    return path.suffix.lower() == ".gguf" or (path / "config.json").is_file() or any(path.glob("*.gguf"))


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, with the prefixes of DDP, torch.compile and Lightning taken off.

    path: a .safetensors file, also that of a ticket, or a folder in the Hub's layout (model.safetensors, in one file or
    in shards). They are kept in memory for the next call; read them, never write to them. Raises ValueError if there is
    nothing to read, and OSError if the file cannot be read.
    """
    files = tuple((file, (s := file.stat()).st_mtime_ns, s.st_size) for file in files_of(path))
    tensors = _read(files)
    if any(name.startswith("mask/") for name in tensors):  # a ticket's file: its weights, whatever its mask
        parts = ("weights/", "buffers/")
        return {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(parts)}
    for prefix in _WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) of names, types, shapes and bytes, whatever file they came from.

    >>> digest({"w": torch.zeros(2)})[:8] == digest({"w": torch.zeros(2)})[:8] != digest({"v": torch.zeros(2)})[:8]
    True
    """
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


@dataclass(frozen=True)
class Fit:
    """How pretrained tensors go with a network: names that are taken, drawn anew, and not used."""

    taken: tuple[str, ...]
    drawn: tuple[str, ...]
    unused: tuple[str, ...]


def fit(module: nn.Module, tensors: Mapping[str, Tensor]) -> Fit:
    """Which of a network's parameters and buffers come from pretrained tensors of the same name and shape.

    Only the output layer may be missing or have another shape: it is drawn anew, as a new head for other classes.
    Raises ValueError, with the names, if anything else is missing.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> fit(net, {"0.weight": torch.zeros(3, 4), "0.bias": torch.zeros(3), "2.weight": torch.zeros(9, 3)}).drawn
    ('2.weight', '2.bias')
    """
    stored = module.state_dict().keys()  # without buffers that the model computes, such as rotary frequencies
    buffers = {n: value for n, value in module.named_buffers() if n in stored}
    own = {**dict(module.named_parameters()), **buffers}
    tensors = for_network(module, tensors)
    taken = tuple(n for n, value in own.items() if n in tensors and tensors[n].shape == value.shape)
    drawn = tuple(n for n in own if n not in taken and not n.endswith("num_batches_tracked"))
    head = output_layer(module)
    layer = "" if head is None else head.removesuffix("weight")
    if wrong := [n for n in drawn if head is None or not n.startswith(layer)]:
        raise ValueError(_unfit(wrong, own, tensors, taken))
    unused = tuple(n for n in tensors if n not in taken)
    if drawn and drawn[0] == head and not taken:
        raise ValueError(_unfit(list(drawn), own, tensors, taken))
    return Fit(taken, drawn, unused)


def for_network(module: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors with a prefix that `read` took off put back, if that is what the network's own parameters have.

    >>> net = nn.ModuleDict({"model": nn.Linear(2, 1, bias=False)})
    >>> list(for_network(net, {"weight": torch.zeros(1, 2)}))
    ['model.weight']
    """
    own = {name for name, _ in module.named_parameters()}
    if own & tensors.keys():
        return tensors
    for prefix in _WRAPPERS:
        if any(prefix + name in own for name in tensors):
            return {prefix + name: value for name, value in tensors.items()}
    return tensors


def _unfit(
    wrong: Sequence[str], own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], taken: Sequence[str]
) -> str:
    def of(name: str) -> str:
        there = f"has {list(tensors[name].shape)} there" if name in tensors else "is not there"
        return f"{name} {list(own[name].shape)} {there}"

    spare = [f"{n} {list(t.shape)}" for n, t in tensors.items() if n not in taken][:5]
    return (
        f"the pretrained weights do not fit the model: {'; '.join(map(of, wrong[:5]))}"
        + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        + f". Not used: {', '.join(spare) or 'nothing'}. Names and shapes must agree, except for those of the "
        "output layer"
    )


def overlaid(
    values: Mapping[str, Tensor], tensors: Mapping[str, Tensor], taken: Sequence[str]
) -> dict[str, Tensor]:
    """The values with those that are `taken` replaced by pretrained ones, in their own dtype."""
    chosen = set(taken)
    return {n: tensors[n].to(v.dtype).clone() if n in chosen else v for n, v in values.items()}


def shuffled(
    values: Mapping[str, Tensor], names: Sequence[str], generator: torch.Generator
) -> dict[str, Tensor]:
    """The values with the entries of each named tensor of two dimensions or more in a random order.

    Each layer keeps the distribution of its weights and loses their places.
    """
    chosen = set(names)
    return {
        n: v.flatten()[torch.randperm(v.numel(), generator=generator)].view_as(v)
        if n in chosen and v.ndim > 1
        else v
        for n, v in values.items()
    }
