"""Change files in many ways: reading each must give the right value or a named error within seconds."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from chaos.counts import Count
from chaos.mutations import by_accident, json_text, metadata
from chaos.networks import forged_network, same_network, small_network
from winticket.data import find_dataset
from winticket.experiment import Experiment, conduct, load_source
from winticket.run import Store, StoreError, codec
from winticket.ship import VALUES, CompactFileError, compact_read
from winticket.ship import load as load_network
from winticket.ship import run as run_network
from winticket.ship.compact_write import encode
from winticket.ticket import Mask, Seeds, State, Ticket, TicketFileError, same_bits
from winticket.ticket import file as ticket_file

KEY, OTHER = "ab" + "0" * 62, "cd" + "1" * 62
SLOW = 10.0  # Seconds after which reading a file counts as a hang.
Say = Callable[[str], None]


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """Read `many` changed files, over all kinds together."""
    rng, shares = (
        Random(seed),
        (("tickets", 4), ("networks", 4), ("results", 1), ("stores", 4), ("datasets", 1)),
    )
    whole = sum(share for _, share in shares)
    counts = []
    for name, share in shares:
        folder = scratch / name
        folder.mkdir(parents=True)
        with isolated(folder):
            counts += globals()[name](folder, Random(rng.random()), max(1, many * share // whole), say)
    return counts


@contextlib.contextmanager
def isolated(folder: Path) -> Iterator[None]:
    """Within the block, use a separate cache and working directory, and ignore warnings about odd files."""
    before, cache = Path.cwd(), os.environ.get("WINTICKET_CACHE")
    os.environ["WINTICKET_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.chdir(before)
        if cache is None:
            del os.environ["WINTICKET_CACHE"]
        else:
            os.environ["WINTICKET_CACHE"] = cache


def _try(count: Count, number: int, read: Callable[[], Any], named: tuple[type[Exception], ...]) -> Any:
    """The value of `read`, or None if it raises a named error. Any other error counts as raw."""
    began = time.monotonic()
    try:
        return read()
    except named as error:
        if isinstance(error, (KeyError, UnicodeError)) and not isinstance(error, StoreError):
            _raw(count, number, error)
    except BaseException as error:  # noqa: BLE001 - every error is counted
        _raw(count, number, error)
    finally:
        if time.monotonic() - began > SLOW:
            count.raw += 1
            count.notes.append(f"{count.what}, number {number}: took {time.monotonic() - began:.0f} s")
    return None


def _raw(count: Count, number: int, error: BaseException) -> None:
    count.raw += 1
    count.notes.append(f"{count.what}, number {number}: {type(error).__name__}: {str(error)[:200]}")


def tickets(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    weights = {"a.weight": torch.randn(7, 5), "a.bias": torch.randn(7), "b.weight": torch.randn(3, 7)}
    keep = {name: w.abs() > 0.5 for name, w in weights.items() if w.ndim > 1}
    state = State(weights, {"n": torch.ones(2)}, {"m/a.weight": torch.randn(7, 5)}, 40)
    right = Ticket(Mask(keep), state, "imp", Seeds(3, 1), {"model": "mine", "list": [1, 2.5]})
    path = folder / "ticket.safetensors"
    right.save(path)
    content = path.read_bytes()
    damaged, forged = (
        Count("ticket files, damaged"),
        Count("ticket files, changed on purpose with a right checksum"),
    )

    def repair(document: dict[str, Any], whole: bytes) -> dict[str, Any]:
        end = 8 + int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:end])
        with contextlib.suppress(Exception):  # Not every changed document has a checksum.
            document["sha256"] = ticket_file._checksum(document, header, whole[end:])
        return document

    for number in range(many):
        on_purpose = number % 2 == 1
        count = forged if on_purpose else damaged
        changed = content
        while changed == content:  # A change may leave the same bytes.
            changed = metadata(content, rng, repair) if on_purpose else by_accident(content, rng)
        path.write_bytes(changed)
        count.tried += 1
        loaded = _try(count, number, lambda: Ticket.load(path), (TicketFileError,))
        if loaded is not None and not on_purpose and not _same(loaded, right):
            count.silent += 1
            count.notes.append(f"{count.what}, number {number}: another ticket was read")
        if number % 500 == 499:
            say(f"tickets: {number + 1} of {many}")
    return [damaged, forged]


def _same(a: Ticket, b: Ticket) -> bool:
    weights = same_bits(a.start.weights, b.start.weights) and same_bits(a.start.optimizer, b.start.optimizer)
    about = (a.origin, a.seeds, a.about, a.start.step) == (b.origin, b.seeds, b.about, b.start.step)
    return same_bits(a.mask.keep, b.mask.keep) and weights and about


def networks(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    """Compact files, each with another kind of values in turn; what is read is computed with, too."""
    files = {values: encode(small_network(), values=values)[0] for values in VALUES}
    right = {values: compact_read.decode(content) for values, content in files.items()}
    damaged = Count("compact files, damaged")
    forged = Count("compact files, changed on purpose with a right checksum")
    path = folder / "network.safetensors"
    for number in range(many):
        on_purpose = number % 2 == 1
        values, count = rng.choice(VALUES), forged if on_purpose else damaged
        changed = content = files[values]
        while changed == content:
            changed = forged_network(content, rng) if on_purpose else by_accident(content, rng)
        path.write_bytes(changed)
        count.tried += 1
        loaded = _try(count, number, lambda: load_network(path), (CompactFileError,))
        if loaded is None:
            continue
        if not on_purpose and not same_network(loaded, right[values]):
            count.silent += 1
            count.notes.append(f"{count.what}, number {number}: another network was read")
        x = np.ones((1, *loaded.input_shape))
        if x.size < 1 << 16:  # every network that is read can be computed
            with np.errstate(all="ignore"):
                _try(count, number, lambda loaded=loaded, x=x: run_network(loaded, x), ())  # type: ignore[misc]
        if number % 500 == 499:
            say(f"networks: {number + 1} of {many}")
    return [damaged, forged]


def results(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    experiment = Experiment.of(
        "digits", model="lenet-12-8", density=(0.5,), steps=20, replicates=2, gate=False
    )
    conduct(experiment, store=folder / "runs", out=folder / "out", workers=0)
    path = folder / "out" / "result.json"
    text = path.read_text()
    short = {**json.loads(text), "levels": [], "curves": None}  # Entries that are not read need no changes.
    count = Count("result documents")
    for number in range(many):
        count.tried += 1
        if number % 2:
            path.write_text(json_text(json.dumps(short), rng), encoding="utf-8", errors="surrogatepass")
        else:
            path.write_bytes(by_accident(text.encode(), rng))
        _try(count, number, lambda: load_source(path), (ValueError, FileNotFoundError))
        if number % 200 == 199:
            say(f"results: {number + 1} of {many}")
    return [count]


def stores(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    store = Store(folder / "runs")
    value = {
        "w": torch.randn(20),
        "keep": torch.randn(9) > 0,
        "notes": ["a", 2.5, None],
        "seeds": Seeds(1, 2),
    }
    store.put(KEY, value, {"fn": "m:f", "label": {"arm": "ticket"}, "seconds": 1.0})
    store.put_failure(OTHER, "Traceback: no", {"fn": "m:f"})
    store.save_partial(OTHER, {"step": 3, "w": torch.ones(4)})
    look: dict[str, Any] = {
        "name": "first",
        "look": 1,
        "when": 1,
        "replicates": 5,
        "margin_pp": 0.5,
        "alpha": 0.05,
    }
    store.put_look("question", {**look, "claimed": [0.5], "paths": ["a"]})
    files = {p: p.read_bytes() for p in (folder / "runs").rglob("*") if p.is_file()}
    count = Count("files of a store")
    for number in range(many):
        path = rng.choice(sorted(files))
        content = files[path]
        changed = content
        while changed == content:
            changed = _changed(path, content, rng, on_purpose=number % 2 == 1)
        path.write_bytes(changed)
        count.tried += 1
        opened = _try(count, number, lambda: Store(folder / "runs"), (StoreError,))
        if opened is not None:
            _used(count, number, opened, path, value)
        path.write_bytes(content)
        if number % 500 == 499:
            say(f"stores: {number + 1} of {many}")
    return [count]


def _changed(path: Path, content: bytes, rng: Random, *, on_purpose: bool) -> bytes:
    if on_purpose and path.suffix == ".json":
        return json_text(content.decode(), rng).encode("utf-8", "surrogatepass")
    return metadata(content, rng, lambda document, _: document) if on_purpose else by_accident(content, rng)


def _used(count: Count, number: int, store: Store, path: Path, value: dict[str, Any]) -> None:
    """Call everything that reads the store; `verify` must find every file that `get` refuses."""
    named = (StoreError,)
    _try(count, number, store.ls, named)
    problems = _try(count, number, store.verify, named)
    _try(count, number, lambda: store.gc(damaged=True, failures=True, dry_run=True), named)
    got = {
        "results": _try(count, number, lambda: codec.encode(store.get(KEY)), named) == codec.encode(value),
        "failures": _try(count, number, lambda: store.failure(OTHER), named) is not None,
        "partial": _try(count, number, lambda: store.load_partial(OTHER), named) is not None,
        "looks": bool(_try(count, number, lambda: store.looks("question"), named)),
    }
    folder = path.relative_to(store.files.where).parts[0]
    reported = {problem.name for problem in problems or ()}
    name = path.relative_to(store.files.where).as_posix()
    if folder in got and not got[folder] and name not in reported:
        count.silent += 1
        count.notes.append(f"{count.what}, number {number}: {name} is refused and verify finds nothing")


def datasets(folder: Path, rng: Random, many: int, say: Say) -> list[Count]:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 5, 4), np.uint8)
    encoded = []
    (folder / "d").mkdir()
    for number, image in enumerate(pixels):
        file = folder / "d" / ("a", "b")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        encoded.append(file.read_bytes())
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": data, "path": None} for data in encoded], type=struct)
    (folder / "p").mkdir()
    pq.write_table(pa.table({"image": rows, "label": [0, 1] * 3}), folder / "p" / "train.parquet")
    (folder / "t").mkdir()
    (folder / "t" / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    count = Count("datasets: pictures, parquet, text")
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.suffix in (".png", ".parquet", ".txt")}
    for number in range(many):
        path = rng.choice(sorted(files))
        path.write_bytes(by_accident(files[path], rng))
        count.tried += 1
        top = folder / path.relative_to(folder).parts[0]
        _try(count, number, lambda top=top: find_dataset(top), (ValueError, FileNotFoundError))  # type: ignore[misc]
        path.write_bytes(files[path])
        if number % 200 == 199:
            say(f"datasets: {number + 1} of {many}")
    return [count]
