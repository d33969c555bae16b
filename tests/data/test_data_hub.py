"""Names on the Hub: the real `datasets` on local files, with only the download replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from winticket.data import find_dataset, load
from winticket.data.sources import decoded

Pictures = Callable[..., list[bytes]]
Write = Callable[..., Path]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[tuple[Any, ...]]]:
    real = datasets.load_dataset

    def serve(files: dict[str, Path] | None = None, error: Exception | None = None) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def load_dataset(*arguments: Any) -> Any:
            calls.append(arguments)
            logging.getLogger("huggingface_hub").warning("Retrying in 1s")
            if error is not None:
                raise error
            assert files is not None
            named = {split: str(file) for split, file in files.items()}
            return real("parquet", data_files=named, cache_dir=str(tmp_path / "datasets"))

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return serve


@pytest.fixture
def small_files(small: Path) -> dict[str, Path]:
    return {"train": small / "train-00000-of-00001.parquet", "test": small / "test-00000-of-00001.parquet"}


def test_the_hub_gives_what_the_files_give(
    served: Any, small: Path, small_files: dict[str, Path], capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "huggingface_hub")
    wanted = find_dataset(small)
    calls = served(small_files)
    found = find_dataset("mnist")
    assert calls == [("ylecun/mnist", None)]
    assert found.fingerprint == wanted.fingerprint
    assert (found.name, found.class_names, found.label_column) == ("mnist", ("no", "yes"), "label")
    assert (found.train, found.validation, found.test) == (36, 4, 10)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fashion_mnist", ("zalando-datasets/fashion_mnist", None)),
        ("cifar10", ("uoft-cs/cifar10", None)),
        ("cifar100", ("uoft-cs/cifar100", None)),
        ("someone/things", ("someone/things", None)),
        ("someone/things.v2:large", ("someone/things.v2", "large")),
    ],
)
def test_names_and_where_they_are(
    served: Any, small_files: dict[str, Path], name: str, arguments: tuple[str, str | None]
) -> None:
    calls = served(small_files)
    assert find_dataset(name).train == 36
    assert calls == [arguments]


def test_fetched_once(
    served: Any, small_files: dict[str, Path], forget: Callable[[], None], own_cache: Path
) -> None:
    calls = served(small_files)
    find_dataset("someone/things")
    forget()
    assert load("someone/things").test.y.tolist() == [0, 1] * 5
    assert len(calls) == 1
    assert next(own_cache.iterdir()).name.startswith("someone-things-")


def test_a_single_split_of_any_name_trains(served: Any, small_files: dict[str, Path]) -> None:
    served({"everything": small_files["train"]})
    assert find_dataset("someone/things").stored_train == 40


def test_other_splits_are_left_alone(served: Any, small_files: dict[str, Path]) -> None:
    served({**small_files, "extra": small_files["test"]})
    found = find_dataset("someone/things")
    assert (found.stored_train, found.stored_validation, found.stored_test) == (40, 0, 10)


def test_no_training_split(served: Any, small_files: dict[str, Path]) -> None:
    served({"test": small_files["test"], "extra": small_files["train"]})
    with pytest.raises(ValueError, match="someone/things has no training split; it has test, extra"):
        find_dataset("someone/things")


def test_images_of_a_folder_on_the_hub(
    served: Any, tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row, data in enumerate(pictures(8)):
        file = tmp_path / "photos" / "train" / ("cat", "dog")[row % 2] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    built = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "photos"), cache_dir=str(tmp_path / "datasets")
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: built)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = find_dataset("someone/photos")
    assert found.class_names == ("cat", "dog")
    here = decoded("someone/photos").splits["train"].x
    assert here.shape == (8, 1, 4, 5)
    wanted = [np.asarray(row["image"]).tolist() for row in built["train"]]
    assert here[:, 0].tolist() == wanted


def test_settings_of_datasets_are_given_back(
    served: Any, small_files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    served(small_files)
    caplog.set_level(logging.INFO, "huggingface_hub")
    assert not datasets.are_progress_bars_disabled()
    find_dataset("mnist")
    assert logging.getLogger("huggingface_hub").level == logging.INFO
    assert not datasets.are_progress_bars_disabled()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            ConnectionError("Couldn't reach 'ylecun/mnist' on the Hub"),
            FileNotFoundError,
            "could not be fetched from the Hub .*without a network, give a local folder or parquet file",
        ),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub"),
            FileNotFoundError,
            "the Hub has no public dataset 'ylecun/mnist' .*check the name",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among ['a', 'b']"),
            ValueError,
            r"Config name is missing. Please pick one among .*write ylecun/mnist:configuration",
        ),
        (RuntimeError("Dataset scripts are no longer supported"), ValueError, "scripts are no longer"),
    ],
)
def test_what_the_hub_refuses(
    served: Any, own_cache: Path, error: Exception, kind: type[Exception], message: str
) -> None:
    served(error=error)
    with pytest.raises(kind, match=message):
        find_dataset("mnist")
    assert not own_cache.exists()
