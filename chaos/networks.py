"""Compact files, folders for the Hub and pages, changed: reading each gives the network or a named error, and no crash.

What is read is computed too, by numpy and by the compiled kernels.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from chaos.counts import Count
from chaos.greedy import greedy_network
from chaos.mutations import by_accident, json_text, odd_json
from chaos.reading import Say, attempt, isolated
from winticket.outside import Unreadable
from winticket.ship import (
    VALUES,
    CompactFileError,
    Network,
    NetworkError,
    Operation,
    Preprocessing,
    SparseModel,
    Weight,
    compact_read,
    expand_network,
    load,
    load_maps,
    native,
    save_maps,
    shrink_network,
    to_web,
)
from winticket.ship import (
    run as compute,
)
from winticket.ship.compact_write import encode
from winticket.ship.hub_files import CONFIG, MODEL
from winticket.ship.web import network_of

MOST_ELEMENTS = 1 << 18
"""Most elements of all values, paddings and tensors of a network that is computed; others take what they say."""
AROUND = 60
"""Characters of a page before and after its network that are damaged with it."""


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """Read `many` changed files of networks: as many compact files, folders for the Hub, pages, and index maps."""
    rng, counts = Random(seed), []
    for part in (compact_files, folders, pages, maps):
        folder = scratch / part.__name__
        folder.mkdir()
        with isolated(folder):
            counts += part(folder, Random(rng.random()), max(1, many // 4), say)
    return counts


def compact_files(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Compact files with another kind of values in turn. Of ten, one is damaged as by disks, and its checksum shows it.

    Of the others, where the checksum is right again, four are damaged, four have odd entries, and one asks for much.
    """
    files = {values: encode(small_network(), values=values)[0] for values in VALUES}
    right = {values: compact_read.decode(content) for values, content in files.items()}
    damaged = Count("compact files, damaged")
    mended = Count("compact files, damaged under a right checksum")
    forged = Count("compact files, changed on purpose under a right checksum")
    greedy = Count("compact files that ask for much")
    ways: tuple[tuple[Count, Callable[[bytes, Random], bytes]], ...] = (
        (damaged, by_accident), *[(mended, damaged_network), (forged, forged_network)] * 4, (greedy, greedy_network),
    )  # fmt: skip
    path = folder / "network.safetensors"
    for number in range(many):
        values = rng.choice(VALUES)
        count, change = ways[number % len(ways)]
        changed = content = files[values]
        while changed == content:
            changed = change(content, rng)
        path.write_bytes(changed)
        _tried(count, number, partial(load, path), right[values] if count is damaged else None)
        if number % 1000 == 999:
            say(f"compact files: {number + 1} of {many}")
    return [damaged, mended, forged, greedy]


def folders(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Folders for the Hub: the config.json has odd entries or is damaged; or the compact file is changed."""
    content, _ = encode(small_network())
    right = compact_read.decode(content)
    text = json.dumps({"library_name": "winticket", "input_shape": [2, 4, 5], "id2label": {"0": "a"}})
    configs, models = Count("config.json of folders for the Hub"), Count("networks of folders for the Hub")
    for number in range(many):
        config, model, count = text.encode(), content, models if number % 4 == 3 else configs
        if count is models:
            model = rng.choice(_CHANGES)(content, rng)
        else:
            odd = json_text(text, rng).encode("utf-8", "surrogatepass")
            config = odd if number % 2 else by_accident(config, rng)
        (folder / CONFIG).write_bytes(config)
        (folder / MODEL).write_bytes(model)
        _tried(count, number, partial(load, folder), right if count is configs else None)
        if number % 1000 == 999:
            say(f"folders for the Hub: {number + 1} of {many}")
    return [configs, models]


def pages(_: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Pages that are damaged in and about their network; or whole, with a changed compact file for a network."""
    page = to_web(small_network(), examples=(np.ones((1, 2, 4, 5), np.float32), np.zeros(1, np.int64)))
    right = network_of(page)
    match = re.search(r'id="ticket">([^<]*)<', page)
    assert match
    content, (begin, end) = base64.b64decode(match[1]), match.span(1)
    damaged, changed = Count("pages, damaged"), Count("pages with a changed network")
    for number in range(many):
        if number % 2:
            file = base64.b64encode(rng.choice(_CHANGES)(content, rng)).decode()
            text, count = page[:begin] + file + page[end:], changed
        else:
            part = by_accident(page[begin - AROUND : end + AROUND].encode(), rng).decode("utf-8", "replace")
            text, count = page[: begin - AROUND] + part + page[end + AROUND :], damaged
        _tried(count, number, partial(network_of, text), right if count is damaged else None)
        if number % 1000 == 999:
            say(f"pages: {number + 1} of {many}")
    return [damaged, changed]


def maps(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Index maps, damaged, or with odd entries; what is read is used to expand a network."""
    keep = np.arange(60).reshape(12, 5) % 4 == 0
    tensors = {"weight": Weight.of("a.weight", np.ones((12, 5)), keep)}
    last = {"weight": Weight.of("b.weight", np.ones((3, 12)), np.tile(np.arange(12) % 3 > 0, (3, 1)))}
    operations = (
        Operation("linear", ("input",), "1", {}, tensors),
        Operation("linear", ("1",), "2", {}, last),
    )
    small = shrink_network(Network((5,), operations))
    path, count = folder / "network.maps.safetensors", Count("index maps of shrunk networks")
    save_maps(small.maps, path)
    content = path.read_bytes()
    for number in range(many):
        path.write_bytes(_CHANGES_OF_MAPS[number % 3](content, rng))
        count.tried += 1
        read = attempt(count, number, partial(load_maps, path), (Unreadable,))
        if read is not None:
            attempt(count, number, partial(expand_network, small.network, read), (NetworkError,))
        if number % 1000 == 999:
            say(f"index maps: {number + 1} of {many}")
    return [count]


def _forged_maps(content: bytes, rng: Random) -> bytes:
    """Index maps with an odd entry in the header, or in its document of sizes."""
    header, parts = _parts(content)
    if rng.randrange(2):
        return _file(odd_json(header, rng), b"".join(parts.values()))
    header["__metadata__"]["sizes"] = json_text(header["__metadata__"]["sizes"], rng)
    return _file(header, b"".join(parts.values()))


def _odd_positions(content: bytes, rng: Random) -> bytes:
    """Index maps with odd positions, as many as before: huge ones, negative ones, and others out of order."""
    header, parts = _parts(content)
    name = rng.choice(sorted(parts))
    positions = np.frombuffer(parts[name], "<i8").copy()
    for _ in range(rng.choice((1, 1, 2, 3))):
        positions[rng.randrange(len(positions))] = rng.choice(
            (-1, 0, 1, 11, 12, 1 << 31, (1 << 63) - 1, -(1 << 63), -2)
        )
    return _file(header, b"".join({**parts, name: positions.tobytes()}.values()))


def _tried(
    count: Count,
    number: int,
    read: Callable[[], Network],
    right: Network | None,
    *,
    computed: bool = True,
) -> None:
    """Read a network once more. If there is a `right` one, any other that is read is silent damage."""
    count.tried += 1
    loaded = attempt(count, number, read, (CompactFileError, Unreadable))
    if loaded is None:
        return
    if right is not None and not same_network(loaded, right):
        count.silent += 1
        count.notes.append(f"{count.what}, number {number}: another network was read")
    if computed:
        attempt(count, number, lambda: _computed(loaded), ())


def _computed(network: Network) -> None:
    """Compute the network for two examples by numpy and by compiled kernels. ValueError if outputs differ in shape."""
    if _asked(network) > MOST_ELEMENTS:
        return
    x = np.ones((2, *network.input_shape), np.float32)
    with np.errstate(all="ignore"):
        outputs = compute(network, x)
    if not native.missing and SparseModel(network)(x).shape != outputs.shape:
        raise ValueError("compiled kernels give outputs of another shape")


def _asked(network: Network) -> int:
    """Elements of all values, of those with padding, and of all tensors."""
    whole = sum(math.prod(shape) for shape in network.shapes.values())
    whole += sum(weight.size for weight in network.weights().values())
    for operation in network.operations:
        channels, *positions = network.shapes[operation.inputs[0]] or (1,)
        padding = operation.options.get("padding")
        if padding:
            whole += channels * math.prod(n + sum(p) for n, p in zip(positions, padding, strict=True))
    return whole


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
    """A compact file with an odd entry in its document or header; its checksum is right."""
    header, parts = _parts(content)
    if rng.randrange(3):
        text = json_text(zlib.decompress(parts["network"]).decode(), rng)
        parts["network"] = zlib.compress(text.encode("utf-8", "surrogatepass"))
        return _whole(header, parts)
    return _whole(header, parts, lambda header: odd_json(header, rng))


def damaged_network(content: bytes, rng: Random) -> bytes:
    """A compact file whose masks, values or document are damaged; deflation and checksum are not."""
    header, parts = _parts(content)
    name = rng.choice(sorted(parts))
    if name == "network":
        parts[name] = zlib.compress(by_accident(zlib.decompress(parts[name]), rng))
    else:
        parts[name] = by_accident(parts[name], rng)
    return _whole(header, parts)


_CHANGES_OF_MAPS = (by_accident, _forged_maps, _odd_positions)
_CHANGES = (by_accident, damaged_network, damaged_network, forged_network, forged_network, greedy_network)


def _parts(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header, and the bytes of each tensor."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ends = {name: one["data_offsets"] for name, one in header.items() if name != "__metadata__"}
    return header, {name: content[start + low : start + high] for name, (low, high) in ends.items()}


def _whole(
    header: dict[str, Any], parts: dict[str, bytes], change: Callable[[Any], Any] = lambda header: header
) -> bytes:
    """The file of these tensors, cut to whole elements, its header right but for `change`."""
    at, data = 0, b""
    for name, raw in parts.items():
        size = {"F32": 4, "F16": 2, "BF16": 2}.get(header[name]["dtype"], 1)
        count = len(raw) // size
        header[name] = {**header[name], "shape": [count], "data_offsets": [at, at + count * size]}
        at, data = at + count * size, data + raw[: count * size]
    header["__metadata__"]["crc32"] = f"{zlib.crc32(data):08x}"
    return _file(change(header), data)


def _file(header: Any, data: bytes) -> bytes:
    """A safetensors file."""
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
