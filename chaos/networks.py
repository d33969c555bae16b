"""Compact files and folders for the Hub, changed: reading each gives the network or a named error, and no crash.

What is read is computed too, by numpy and by the compiled kernels.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from random import Random

import numpy as np

from chaos.counts import Count
from chaos.mutations import by_accident, json_text, odd_json
from chaos.reading import Say, attempt, isolated
from winticket.ship import (
    VALUES,
    CompactFileError,
    Network,
    Operation,
    Preprocessing,
    SparseModel,
    Weight,
    compact_read,
    load,
    native,
)
from winticket.ship import (
    run as compute,
)
from winticket.ship.compact_write import encode
from winticket.ship.hub_files import CONFIG, MODEL

MOST_ELEMENTS = 1 << 18
"""Most elements of all values of a network that is computed; what others take is what their shapes say."""


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """Read `many` changed files of networks."""
    with isolated(scratch):
        return networks(scratch, Random(seed), many, say)


def networks(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Compact files, each with another kind of values in turn, and every tenth time the config.json of a folder."""
    files = {values: encode(small_network(), values=values)[0] for values in VALUES}
    right = {values: compact_read.decode(content) for values, content in files.items()}
    damaged = Count("compact files, damaged")
    forged = Count("compact files, changed on purpose with a right checksum")
    configs = Count("config.json of folders for the Hub")
    model, config = folder / MODEL, folder / CONFIG
    text = json.dumps({"library_name": "winticket", "input_shape": [2, 4, 5], "id2label": {"0": "a"}})
    for number in range(many):
        values = rng.choice(VALUES)
        count = configs if number % 10 == 9 else forged if number % 2 else damaged
        content, path = files[values], folder if count is configs else model
        changed = content
        while changed == content and count is not configs:
            changed = by_accident(content, rng) if count is damaged else forged_network(content, rng)
        model.write_bytes(changed)
        if count is configs:
            config.write_text(json_text(text, rng), encoding="utf-8", errors="surrogatepass")
        count.tried += 1
        loaded = attempt(count, number, lambda path=path: load(path), (CompactFileError,))  # type: ignore[misc]
        if loaded is not None:
            if count is not forged and not same_network(loaded, right[values]):
                count.silent += 1
                count.notes.append(f"{count.what}, number {number}: another network was read")
            attempt(count, number, lambda network=loaded: _computed(network), ())  # type: ignore[misc]
        if number % 500 == 499:
            say(f"networks: {number + 1} of {many}")
    return [damaged, forged, configs]


def _computed(network: Network) -> None:
    """Compute the network for two examples by numpy and by compiled kernels. ValueError if outputs differ in shape."""
    if sum(math.prod(shape) for shape in network.shapes.values()) > MOST_ELEMENTS:
        return
    x = np.ones((2, *network.input_shape), np.float32)
    with np.errstate(all="ignore"):
        outputs = compute(network, x)
    if not native.missing and SparseModel(network)(x).shape != outputs.shape:
        raise ValueError("compiled kernels give outputs of another shape")


def small_network() -> Network:
    """Two convolutions with a sum around the second, and a linear layer: gaps, bits and whole tensors."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int, density: float) -> Weight:
        return Weight.of(name, rng.standard_normal(shape), rng.random(shape) < density)

    pad = {"padding": [[1, 1], [1, 1]]}
    bias = Weight.of("bias", rng.standard_normal(4))
    operations = (
        Operation("conv2d", ("input",), "1", pad, {"weight": weight("a", 4, 2, 3, 3, density=0.5)}),
        Operation("relu", ("1",), "2"),
        Operation("conv2d", ("2",), "3", pad, {"weight": weight("b", 4, 4, 3, 3, density=0.1), "bias": bias}),
        Operation("add", ("3", "2"), "4"),
        Operation("max_pool2d", ("4",), "5", {"kernel": [2, 2], "stride": [2, 2]}),
        Operation("reshape", ("5",), "6", {"shape": [16]}),
        Operation("linear", ("6",), "7", tensors={"weight": Weight.of("c", rng.standard_normal((3, 16)))}),
    )
    ready = Preprocessing(255.0, (0.5, 0.4), (0.3, 0.2))
    return Network((2, 4, 5), operations, ready, ("a", "b", "c"), {"test_accuracy": 0.9, "of": ["x", 1]})


def forged_network(content: bytes, rng: Random) -> bytes:
    """A compact file with an odd entry in its document or header, or other bytes in a tensor; its checksum is right."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    parts = {
        name: content[start + one["data_offsets"][0] : start + one["data_offsets"][1]]
        for name, one in header.items()
        if name != "__metadata__"
    }
    kind = rng.randrange(4)
    if kind < 2:
        text = json_text(zlib.decompress(parts["network"]).decode(), rng)
        parts["network"] = zlib.compress(text.encode("utf-8", "surrogatepass"))
    elif kind == 2:
        name = rng.choice(sorted(parts))
        parts[name] = by_accident(parts[name], rng)
    at = 0
    for name, raw in parts.items():
        size = {"F32": 4, "F16": 2, "BF16": 2}.get(header[name]["dtype"], 1)
        count = len(raw) // size
        parts[name] = raw[: count * size]
        header[name] = {**header[name], "shape": [count], "data_offsets": [at, at + count * size]}
        at += count * size
    data = b"".join(parts.values())
    header["__metadata__"]["crc32"] = f"{zlib.crc32(data):08x}"
    if kind == 3:
        header = odd_json(header, rng)
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def same_network(a: Network, b: Network) -> bool:
    """True if both have the same operations with the same tensors, and the same things beside them."""
    operations = [
        [(o.kind, o.inputs, o.output, o.options, [*o.tensors]) for o in n.operations] for n in (a, b)
    ]
    beside = [(n.input_shape, n.preprocessing, n.classes, n.about) for n in (a, b)]
    tensors = [
        {name: (w.shape, w.dense().tobytes(), w.keep().tobytes()) for name, w in n.weights().items()}
        for n in (a, b)
    ]
    return operations[0] == operations[1] and beside[0] == beside[1] and tensors[0] == tensors[1]
