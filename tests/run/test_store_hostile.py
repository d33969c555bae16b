"""A store touches what is its own, follows no link, notices what was put in another's place, and may vanish."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from run import jobs
from winticket.run import Damaged, Event, Missing, RunError, Store, StoreError, local, run, task

KEY, OTHER = "ab" + "0" * 62, "ab" + "1" * 62


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs")
    made.put(KEY, 1, {})
    return made


def test_a_folder_with_somebodys_tmp_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is not empty and not a store"):
        Store(tmp_path)
    assert (tmp_path / "tmp" / "thesis.tex").read_text() == "precious"


def test_files_that_a_store_does_not_write_are_named_and_left(store: Store, tmp_path: Path) -> None:
    foreign = (
        "tmp/notes.txt",
        "results/ab/notes.safetensors",
        f"results/cd/{KEY}.safetensors",
        "failures/x.json",
    )
    for name in foreign:
        path = tmp_path / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    assert [row.key for row in store.ls()] == [KEY]
    assert sorted(p.name for p in store.verify() if p.kind == "foreign") == sorted(foreign)
    store.gc(keep=set(), failures=True, damaged=True)
    assert not store.has(KEY)
    assert all((tmp_path / "runs" / name).read_text() == "precious" for name in foreign)


@pytest.mark.parametrize("folder", ["results", "failures", "partial", "tmp", "claims", "looks"])
def test_a_folder_that_is_a_link_is_refused_and_nothing_behind_it_moves(tmp_path: Path, folder: str) -> None:
    outside = tmp_path / "outside"
    (outside / "ab").mkdir(parents=True)
    name = f"{KEY}.json" if folder == "failures" else f"{KEY}.safetensors"
    (outside / "ab" / name).write_text("precious")
    store = Store(tmp_path / "runs")
    store.check_writable()
    shutil.rmtree(tmp_path / "runs" / folder, ignore_errors=True)
    (tmp_path / "runs" / folder).symlink_to(outside)
    with pytest.raises(StoreError, match=r"is a link to .*links inside a store are not followed"):
        store.gc(keep=set(), failures=True, damaged=True) if folder not in (
            "claims",
            "looks",
        ) else store.verify()
    assert (outside / "ab" / name).read_text() == "precious"
    assert [p.name for p in outside.iterdir()] == ["ab"]


def test_a_result_that_is_a_link_is_neither_read_nor_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("precious")
    file = tmp_path / "runs" / "results" / "ab" / f"{OTHER}.safetensors"
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="not followed"):
        store.get(OTHER)
    with pytest.raises(StoreError, match="not followed"):
        store.put(OTHER, 2, {})
    assert [p.kind for p in store.verify()] == ["foreign"]
    assert (tmp_path / "secret").read_text() == "precious"


def test_a_file_in_another_keys_place_is_noticed(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "results" / "ab"
    shutil.copy(folder / f"{KEY}.safetensors", folder / f"{OTHER}.safetensors")
    with pytest.raises(Damaged, match="it is the file of task ab0000000000, not of this task"):
        store.get(OTHER)
    assert [p.name for p in store.verify()] == [f"results/ab/{OTHER}.safetensors"]


@pytest.mark.parametrize("entry", ["traceback", "meta", "key", "digest"])
def test_a_failure_that_was_changed_is_noticed(store: Store, tmp_path: Path, entry: str) -> None:
    store.put_failure(OTHER, "Traceback: no", {"fn": "m:f"})
    file = tmp_path / "runs" / "failures" / "ab" / f"{OTHER}.json"
    told = json.loads(file.read_text())
    told[entry] = {"fn": "m:g"} if entry == "meta" else told[entry][:-1]
    file.write_text(json.dumps(told))
    with pytest.raises(Damaged):
        store.failure(OTHER)
    assert [p.kind for p in store.verify()] == ["damaged"]


def test_half_a_surrogate_pair_in_a_reason_or_a_value_is_kept(store: Store) -> None:
    store.put_failure(OTHER, "cannot read caf\udce9", {})
    failure = store.failure(OTHER)
    assert failure is not None
    assert failure.traceback == r"cannot read caf\udce9"
    store.put(OTHER, ["caf\udce9"], {})
    assert store.get(OTHER) == ["caf\udce9"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_vanishes_in_mid_run_is_told_and_can_be_used_again(tmp_path: Path, workers: int) -> None:
    place = tmp_path / "runs"
    chain = task(jobs.grow, task(jobs.grow, task(jobs.plant, seed=0)))
    removed: list[str] = []

    def remove(event: Event) -> None:
        if event.kind == "finished" and not removed:
            removed.append(event.task.key)
            shutil.rmtree(place)

    with pytest.raises((StoreError, RunError), match=r"gone|has no|cannot be"):
        run([chain], place, crew=local(workers), on_event=remove)
    assert run([chain], place, crew=local(workers)).ok(chain)
    assert Store(place).verify() == []


def test_results_that_others_removed_are_no_failed_trainings(store: Store) -> None:
    done = task(jobs.plant, seed=1)
    outcomes = run([done], store)
    outcomes.require()
    store.gc(keep=set())
    with pytest.raises(StoreError, match="a result of this run is gone from store"):
        outcomes.require()
    with pytest.raises(Missing):
        store.get(done.key)


def test_a_password_in_a_stores_url_is_in_no_message(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as told:
        Store("nosuch://me:secret@bucket/runs?token=hidden")
    assert "secret" not in str(told.value)
    assert "hidden" not in str(told.value)
    assert "secret" not in repr(Store("memory://me:secret@bucket/runs"))
