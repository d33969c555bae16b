"""Change what winticket keeps for itself, decoded data and measured kernels, and the requests that its server gets."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import torch

from chaos.counts import Count
from chaos.mutations import ODD, by_accident, json_text, metadata
from chaos.networks import small_network
from chaos.reading import Say, attempt, isolated
from winticket.data import cache
from winticket.data.content import Decoded, Split
from winticket.ship.predicting import InputError, Predictor
from winticket.sparse import breakeven
from winticket.sparse.choices import PROBES, Choice, Shape, Times

BODIES: tuple[str, ...] = (
    json.dumps(np.ones((2, 4, 5)).tolist()),
    json.dumps(np.arange(120.0).reshape(3, 2, 4, 5).tolist()),
    json.dumps(np.zeros((2, 40)).tolist()),
)
"""One input of the network, a list of them, and a list of flat ones."""


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """Read `many` changed files and requests, as many of each kind."""
    rng, counts = Random(seed), []
    for part in (data, measurements, requests):
        folder = scratch / part.__name__
        folder.mkdir()
        with isolated(folder):
            counts += part(folder, Random(rng.random()), max(1, many // 3), say)
    return counts


def data(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Decoded data in the cache: damaged ones are decoded again, so None is right, and any other content is silent."""
    splits = {
        name: Split(torch.arange(24.0).view(4, 6).to(torch.uint8), torch.tensor([0, 1, 0, 1]))
        for name in ("train", "test")
    }
    right = Decoded(splits, ("a", "b"), 255.0, image_column="image", label_column="label")
    path = folder / "data.safetensors"
    cache.write(path, right)
    count, content = Count("data in the cache"), path.read_bytes()
    for number in range(many):
        changed = content
        while changed == content:
            changed = metadata(content, rng, _repaired) if number % 2 else by_accident(content, rng)
        path.write_bytes(changed)
        count.tried += 1
        made = attempt(count, number, partial(cache.read, path), ())
        if made is not None and made.fingerprint != right.fingerprint:
            count.silent += 1
            count.notes.append(f"{count.what}, number {number}: other data were read")
        if number % 1000 == 999:
            say(f"{count.what}: {number + 1} of {many}")
    return [count]


def _repaired(document: dict[str, Any], _: bytes) -> dict[str, Any]:
    fields = {name: value for name, value in document.items() if name != "digest"}
    return {**fields, "digest": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()}


def measurements(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Measured kernels: an unsound file counts as none; of a sound one, the kernels can use what it says."""
    shape, sets = Shape(rows=30, columns=40, stack=2, batch=8, threads=1), ["portable"]
    choices = [Choice(d, dict.fromkeys(shape.products, "portable"), (2, 3)) for d in PROBES]
    times = Times(3.0, tuple((d, 1.0 + d) for d in PROBES))
    measured = breakeven._Measured(0.5, tuple(choices), times)
    text = json.dumps(msgspec.to_builtins(measured))
    path, count = folder / "measured.json", Count("measured kernels in the cache")

    def used() -> None:
        read = breakeven._read(path, shape, sets)
        if read is None:
            return
        for density in (0.0, 0.1, 1.0):
            across, down = read.blocks(density)
            if not (1 <= across <= shape.columns and 1 <= down <= shape.rows):
                raise AssertionError(f"blocks are {across} and {down}")

    path.write_text(text)
    if breakeven._read(path, shape, sets) is None:
        raise AssertionError("the measurement is not read before it is changed")
    for number in range(many):
        odd = json_text(text, rng).encode("utf-8", "surrogatepass")
        path.write_bytes(odd if number % 2 else by_accident(text.encode(), rng))
        count.tried += 1
        attempt(count, number, used, ())
        if number % 1000 == 999:
            say(f"{count.what}: {number + 1} of {many}")
    return [count]


def requests(_: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Bodies of requests: each is answered with a probability for every class, or refused."""
    predict, count = Predictor(small_network()), Count("bodies of requests to a server")

    def answered(body: bytes) -> None:
        for one in predict(body)["predictions"]:
            total = sum(one["probabilities"])
            if not abs(total - 1) < 1e-5:
                raise AssertionError(f"probabilities sum to {total}")

    for number in range(many):
        text = rng.choice(BODIES)
        body = odd_body(text, rng) if number % 2 else by_accident(text.encode(), rng)
        count.tried += 1
        attempt(count, number, partial(answered, body), (InputError,))
        if number % 1000 == 999:
            say(f"{count.what}: {number + 1} of {many}")
    return [count]


def odd_body(text: str, rng: Random) -> bytes:
    """The body with an odd entry, or deeper or longer."""
    way = rng.randrange(4)
    if way == 0:
        return b"[" * rng.choice((1, 3, 2000)) + text.encode() + b"]" * rng.choice((1, 3, 2000))
    if way == 1:
        value: Any = rng.choice((*ODD, 1e39, 3.4e38, -3.4e38, 1e-320))
        return json.dumps([value] * rng.choice((40, 41, 80))).encode("utf-8", "surrogatepass")
    return json_text(text, rng).encode("utf-8", "surrogatepass")
