"""Changed files of every kind end in the right value or in a named error: some hundreds here, ten thousand as evidence.

The same mutations as `python -m chaos --only files`, `documents`, `networks` and `caches`, where each is described.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from chaos import caches, documents, files, networks
from chaos.counts import Count
from chaos.greedy import greedy_network
from chaos.networks import small_network
from chaos.reading import MEMORY, isolated

from winticket.outside import Unreadable
from winticket.ship.compact_read import decode
from winticket.ship.compact_write import encode
from winticket.ticket import Ticket

Part = Callable[[Path, Random, int, Callable[[str], None]], list[Count]]


def _sound(counts: list[Count], many: int) -> None:
    notes = [note for count in counts for note in count.notes]
    assert not notes, "\n".join(notes)
    assert all(count.sound() for count in counts)
    assert sum(count.tried for count in counts) == many


@pytest.mark.parametrize(
    ("part", "many"),
    [
        (files.tickets, 300),
        (networks.compact_files, 300),
        (networks.folders, 80),
        (networks.pages, 120),
        (networks.maps, 150),
        (documents.documents, 90),
        (files.stores, 200),
        (files.datasets, 60),
        (caches.data, 150),
        (caches.measurements, 150),
        (caches.requests, 200),
    ],
    ids=[
        "tickets",
        "compact",
        "folders",
        "pages",
        "maps",
        "documents",
        "stores",
        "datasets",
        "data",
        "measurements",
        "requests",
    ],
)
def test_changed_files_end_in_the_right_value_or_a_named_error(part: Part, many: int, tmp_path: Path) -> None:
    with isolated(tmp_path):
        _sound(part(tmp_path, Random(1), many, lambda _: None), many)


@pytest.mark.evidence
def test_ten_thousand_changed_files_of_each_kind(tmp_path: Path) -> None:
    _sound(files.run(tmp_path, 1, 30_000, lambda _: None), 30_000)


@pytest.mark.evidence
def test_ten_thousand_changed_documents_of_each_kind(tmp_path: Path) -> None:
    _sound(documents.run(tmp_path, 1, 30_000, lambda _: None), 30_000)


@pytest.mark.evidence
def test_ten_thousand_changed_caches_and_requests_of_each_kind(tmp_path: Path) -> None:
    _sound(caches.run(tmp_path, 1, 30_000, lambda _: None), 30_000)


@pytest.mark.evidence
def test_ten_thousand_changed_networks_of_each_kind(tmp_path: Path) -> None:
    _sound(networks.run(tmp_path, 1, 40_000, lambda _: None), 40_000)


def test_what_slips_through_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counting itself: a reader that takes anything is caught, and so is one that raises what it likes."""
    monkeypatch.setattr(Ticket, "load", lambda path: path.read_bytes()[10**9])
    raw = files.tickets(tmp_path, Random(1), 20, lambda _: None)
    assert sum(count.raw for count in raw) == sum(count.tried for count in raw)
    monkeypatch.setattr(files, "_same", lambda *_: False)
    (tmp_path / "again").mkdir()
    monkeypatch.setattr(Ticket, "load", lambda path: path)
    damaged, _ = files.tickets(tmp_path / "again", Random(1), 20, lambda _: None)
    assert damaged.silent == damaged.tried > 0


def test_readers_of_networks_that_take_anything_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = (networks.compact_files, networks.folders, networks.pages)
    monkeypatch.setattr(networks, "load", lambda path: small_network())
    monkeypatch.setattr(networks, "network_of", lambda page: small_network())
    monkeypatch.setattr(networks, "same_network", lambda *_: False)
    for part in parts:
        first, *others = part(tmp_path, Random(1), 20, lambda _: None)
        assert first.silent == first.tried > 0
        assert not any(count.silent for count in others)  # what is changed under a right checksum may be read
    monkeypatch.setattr(networks, "load", lambda path: path.read_bytes()[10**9])
    for part in parts[:1]:
        raw = part(tmp_path, Random(1), 20, lambda _: None)
        assert sum(count.raw for count in raw) == sum(count.tried for count in raw) == 20


def test_a_reader_that_takes_gigabytes_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "load", lambda path: np.zeros(2 * MEMORY, np.uint8))
    with isolated(tmp_path):
        counts = networks.compact_files(tmp_path, Random(1), 10, lambda _: None)
    assert sum(count.raw for count in counts) == 10
    assert "MemoryError" in counts[0].notes[0]


def test_most_damaged_networks_get_beyond_the_checksum_and_many_are_read() -> None:
    """Else they would all test the same line."""
    content = encode(small_network())[0]
    for change, least in (
        (networks.damaged_network, 0.15),
        (networks.forged_network, 0.02),
        (greedy_network, 0.2),
    ):
        rng, outcomes = Random(1), []
        for _ in range(200):
            try:
                outcomes.append(str(type(decode(change(content, rng)))))
            except Unreadable as error:
                outcomes.append(str(error))
        assert sum("checksum" in one for one in outcomes) < 20, change
        assert sum("Network" in one for one in outcomes) >= 200 * least, change
