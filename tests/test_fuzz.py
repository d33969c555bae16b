"""Changed files of every kind end in the right value or in a named error: a few hundred here, ten thousand as evidence.

The same mutations as `python -m chaos --only files`, where each is described.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from chaos import files, networks
from chaos.counts import Count
from chaos.networks import small_network
from chaos.reading import isolated

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
        (networks.networks, 400),
        (files.results, 60),
        (files.stores, 200),
        (files.datasets, 60),
    ],
    ids=["tickets", "networks", "results", "stores", "datasets"],
)
def test_changed_files_end_in_the_right_value_or_a_named_error(part: Part, many: int, tmp_path: Path) -> None:
    with isolated(tmp_path):
        _sound(part(tmp_path, Random(1), many, lambda _: None), many)


@pytest.mark.evidence
def test_ten_thousand_changed_files(tmp_path: Path) -> None:
    _sound(files.run(tmp_path, 1, 10_000, lambda _: None), 10_000)


@pytest.mark.evidence
def test_ten_thousand_changed_compact_files(tmp_path: Path) -> None:
    _sound(networks.run(tmp_path, 1, 10_000, lambda _: None), 10_000)


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


def test_a_reader_of_compact_files_that_takes_anything_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "load", lambda path: small_network())
    monkeypatch.setattr(networks, "same_network", lambda *_: False)
    damaged, _, configs = networks.networks(tmp_path, Random(1), 20, lambda _: None)
    assert damaged.silent == damaged.tried > 0
    assert configs.silent == configs.tried == 2
    monkeypatch.setattr(networks, "load", lambda path: path.read_bytes()[10**9])
    raw = networks.networks(tmp_path, Random(1), 20, lambda _: None)
    assert sum(count.raw for count in raw) == sum(count.tried for count in raw) == 20
