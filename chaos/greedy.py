"""Small compact files that ask for much: huge values, windows, paddings and tensors, or very many of something."""

from __future__ import annotations

import json
import math
import zlib
from random import Random
from typing import Any

Entry = dict[str, Any]
MOST = 31
"""The largest number is 2 ** MOST."""
MANY = 15
"""Of inputs and operations at most 2 ** MANY, which a file of some hundred bytes may have."""
LONGEST = 1 << 23
"""About the most characters of a description: twice what a reader may take."""


def greedy_network(_: bytes, rng: Random) -> bytes:
    """A compact file without any kept weight, whose checksum is right."""
    shape = [_number(rng, 8), *(_number(rng, 12) for _ in range(rng.randrange(1, 3)))]
    operations = [rng.choice(_MAKERS)(shape, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if rng.random() < 0.1:
        most = LONGEST // len(json.dumps(operations[0]))
        operations = operations[:1] * max(1, min(_number(rng, MANY), most))
    if rng.random() < 0.1:
        shape = [_number(rng, MOST) for _ in shape]
    classes = ["c"] * _number(rng, MANY) if rng.random() < 0.05 else []
    text = json.dumps({"input": shape, "operations": operations, "classes": classes})
    network = zlib.compress(text.encode(), 9)
    about = {"format": "winticket compact 1", "crc32": f"{zlib.crc32(network):08x}"}
    entry = {"dtype": "U8", "shape": [len(network)], "data_offsets": [0, len(network)]}
    header = json.dumps({"__metadata__": about, "network": entry}).encode()
    return len(header).to_bytes(8, "little") + header + network


def _number(rng: Random, most: int = MOST) -> int:
    """From 1 to 2 ** most, each order of magnitude as probable as any other."""
    return max(1, int(2 ** rng.uniform(0, most)) + rng.choice((-1, 0, 0, 1)))


def _option(rng: Random) -> int:
    """Mostly small, so that the rest of the file matters too."""
    return _number(rng, rng.choice((1, 1, 3, 16, MOST)))


def _each(shape: list[int], rng: Random) -> list[int]:
    return [_option(rng) for _ in shape[1:]]


def _sides(shape: list[int], rng: Random) -> list[list[int]]:
    return [[_option(rng) - 1, _option(rng) - 1] for _ in shape[1:]]


def _empty(name: str, shape: list[int]) -> Entry:
    """A tensor of which nothing is kept."""
    return {"name": name, "shape": shape, "kept": 0, "rice": 0, "bytes": 0}


def _adaptive(shape: list[int], rng: Random) -> Entry:
    return {"kind": f"adaptive_avg_pool{len(shape) - 1}d", "size": [_number(rng, 29) for _ in shape[1:]]}


def _several(shape: list[int], rng: Random) -> Entry:
    kind = rng.choice(("add", "concat"))
    more = {"axis": rng.randrange(len(shape))} if kind == "concat" else {}
    return {"kind": kind, "inputs": ["input"] * _number(rng, MANY), **more}


def _conv(shape: list[int], rng: Random) -> Entry:
    groups = rng.choice((1, 1, shape[0], _option(rng)))
    kernel = _each(shape, rng)
    weight = [groups * _option(rng), max(1, shape[0] // groups), *kernel]
    return {
        "kind": f"conv{len(shape) - 1}d", "stride": _each(shape, rng), "padding": _sides(shape, rng),
        "dilation": _each(shape, rng), "groups": groups, "weight": _empty(f"w{rng.random()}", weight),
    }  # fmt: skip


def _pool(shape: list[int], rng: Random) -> Entry:
    kind, kernel = rng.choice(("max", "avg")), _each(shape, rng)
    padding = [[min(p, k - 1) for p in pair] for pair, k in zip(_sides(shape, rng), kernel, strict=True)]
    more = {"dilation": _each(shape, rng)} if kind == "max" else {"count_padding": bool(rng.randrange(2))}
    stride = [max(1, k // rng.choice((1, 2))) if rng.random() < 0.5 else _option(rng) for k in kernel]
    return {
        "kind": f"{kind}_pool{len(shape) - 1}d", "kernel": kernel, "stride": stride, "padding": padding, **more,
    }  # fmt: skip


def _linear(shape: list[int], rng: Random) -> Entry:
    return {"kind": "linear", "weight": _empty(f"w{rng.random()}", [_number(rng), shape[-1]])}


def _reshape(shape: list[int], rng: Random) -> Entry:
    return {"kind": "reshape", "shape": rng.choice(([math.prod(shape)], [1] * 8, [_number(rng)] * 8))}


_MAKERS = (_adaptive, _several, _conv, _conv, _pool, _pool, _linear, _reshape)
