"""Causal language models of Transformers as networks from tokens to logits; their names are their folders' paths."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from winticket import causal
from winticket.catalogue import is_folder


def check(path: str, input_shape: tuple[int, ...], classes: int, *, tokens: bool) -> None:
    """Raise ValueError, with the reason, unless the language model at `path` reads and answers such examples."""
    causal.local(path)
    if not tokens:
        raise ValueError(
            f"{path} is a language model, but the examples have shape {input_shape}; it reads text"
        )
    config = _read(path)
    if causal.vocabulary(config) != classes:
        raise ValueError(
            f"{path} knows {causal.vocabulary(config)} tokens, but the text is read as {classes} different ones; read "
            f"it by the model's tokenizer (tokenizer=, --tokenizer {path})"
        )
    most = causal.longest(config)
    if most is not None and input_shape[0] > most:
        raise ValueError(
            f"{path} reads {most} tokens at once, but the text is cut into windows of {input_shape[0]}; give a smaller "
            "window (window=, --window)"
        )


def network(path: str, seed: int) -> nn.Module:
    """The language model at `path` as its configuration initialises it, float32: tokens [N, T] -> logits [N, T, K].

    Parameters have the names that they have in Transformers. What is drawn depends on `seed` alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return causal.from_tokens(causal.drawn(_read(path)))


def size(path: str) -> int:
    """The number of parameters, without building the model. Raises ValueError if the configuration cannot be read."""
    return sum(p.numel() for p in causal.skeleton(_read(path)).parameters())


def configured(name: str) -> str | None:
    """The hash of the configuration of a language model's folder; None for a network that has another kind of name.

    Raises ValueError if it cannot be read.
    """
    return causal.digest(_read(name)) if is_folder(name) else None


def keyed(name: str) -> str:
    """A model's name as keys hold it: without the path of a folder, which may be moved."""
    return "causal language model" if is_folder(name) else name


def title(name: str) -> str:
    """A model's name for people: of a path, the last part.

    >>> title("models/smol"), title("lenet-300-100")
    ('smol', 'lenet-300-100')
    """
    return Path(name).name if is_folder(name) else name


def absolute(name: str) -> str:
    """A model's name that a process in another working directory understands."""
    return str(Path(name).expanduser().absolute()) if is_folder(name) else name


def _read(path: str) -> Any:
    """The configuration at a path, read again only if its file has changed."""
    return _configuration(causal.local(path), *_changed(path))


def _changed(path: str) -> tuple[int, ...]:
    of = causal.local(path)
    folder = Path(of.folder)
    about = (folder / (of.gguf or "config.json")).stat()
    return about.st_size, about.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _configuration(of: causal.Source, *changed: int) -> Any:
    del changed  # only part of the cache's key
    return causal.configuration(of)
