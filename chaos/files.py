"""Change files in many ways: reading each must give the right value or a named error within seconds."""

from __future__ import annotations

import contextlib
import json
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
from chaos.reading import Say, attempt, isolated
from winticket.data import find_dataset
from winticket.run import Store, StoreError, codec
from winticket.run.claim_files import claim_name
from winticket.run.claims import Claims
from winticket.run.files import host
from winticket.ticket import Mask, Seeds, State, Ticket, TicketFileError, same_bits
from winticket.ticket import file as ticket_file

KEY, OTHER = "ab" + "0" * 62, "cd" + "1" * 62


def run(scratch: Path, seed: int, many: int, say: Say) -> list[Count]:
    """Read `many` changed files, as many of each kind."""
    rng, kinds = Random(seed), ("tickets", "stores", "datasets")
    counts = []
    for name in kinds:
        folder = scratch / name
        folder.mkdir(parents=True)
        with isolated(folder):
            counts += globals()[name](folder, Random(rng.random()), max(1, many // len(kinds)), say)
    return counts


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
        loaded = attempt(count, number, lambda: Ticket.load(path), (TicketFileError,))
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
    claim = {"owner": "ab", "host": host(), "boot": "cd", "pid": 1, "beat": 3}
    (folder / "runs" / claim_name(KEY)).parent.mkdir(exist_ok=True)
    (folder / "runs" / claim_name(KEY)).write_text(json.dumps(claim))
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
        opened = attempt(count, number, lambda: Store(folder / "runs"), (StoreError,))
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
    attempt(count, number, store.ls, named)
    problems = attempt(count, number, store.verify, named)
    attempt(count, number, lambda: Claims(store).claimed([KEY]), named)
    attempt(count, number, lambda: store.gc(damaged=True, failures=True, dry_run=True), named)
    got = {
        "results": attempt(count, number, lambda: codec.encode(store.get(KEY)), named) == codec.encode(value),
        "failures": attempt(count, number, lambda: store.failure(OTHER), named) is not None,
        "partial": attempt(count, number, lambda: store.load_partial(OTHER), named) is not None,
        "looks": bool(attempt(count, number, lambda: store.looks("question"), named)),
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
        attempt(count, number, lambda top=top: find_dataset(top), (ValueError, FileNotFoundError))  # type: ignore[misc]
        path.write_bytes(files[path])
        if number % 200 == 199:
            say(f"datasets: {number + 1} of {many}")
    return [count]
