"""Datasets on the Hugging Face Hub, fetched and read by `datasets`."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from winticket.data.content import Unread
from winticket.data.reading import Reading
from winticket.data.tables import split_called, unread

# Short names and where the Hub keeps them.
NAMED: Mapping[str, str] = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}


def read(name: str, reading: Reading | None = None) -> Unread:
    """Fetch "user/name" or "user/name:configuration" and open it, through the cache of `datasets`.

    Raises FileNotFoundError if the Hub has no such dataset or cannot be reached. Raises ValueError if the dataset
    cannot be used: no configuration chosen among several, no training split, no image or label column.
    """
    fetched = _fetch(name)
    tables = {}
    for split_name, rows in fetched.items():
        split = split_called(str(split_name)) or ("train" if len(fetched) == 1 else None)
        if split is not None:
            tables[split] = rows
    if "train" not in tables:
        raise ValueError(
            f"{name} has no training split; it has {', '.join(map(str, fetched)) or 'no splits'}; choose another "
            "dataset, or save the split that you want as train.parquet and give that file"
        )

    def reader(rows: Any) -> Callable[[list[str]], Any]:
        return lambda names: rows.select_columns(names).with_format("arrow")[:]

    read_by_split = {split: reader(rows) for split, rows in tables.items()}
    import datasets

    # The folders to which `datasets` downloads.
    hub: Any = importlib.import_module("huggingface_hub.constants")
    folders = [Path(datasets.config.HF_DATASETS_CACHE), Path(hub.HF_HUB_CACHE), Path(hub.HF_HOME)]
    schema = tables["train"].features.arrow_schema
    # Downloaded files do not change, so the cache may keep the decoded images even if the table only points to them.
    label = () if reading is None else reading.label
    return replace(unread(schema, read_by_split, origin=name, folders=folders, label=label), points=False)


def _fetch(name: str) -> Mapping[Any, Any]:
    import datasets

    repository, _, configuration = name.partition(":")
    if Path(repository).exists():  # `datasets` would read it instead of the Hub's
        raise ValueError(
            f"there is a folder {repository} here, and {repository!r} is also a dataset on the Hub; for the folder, "
            f"write ./{repository}; for the Hub's dataset, change to another folder"
        )
    try:
        with _quietly():
            fetched: Mapping[Any, Any] = datasets.load_dataset(repository, configuration or None)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"the Hub has no public dataset {repository!r} ({_line(error)}); check the name at "
            "https://huggingface.co/datasets, or give a local folder or parquet file"
        ) from error
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise FileNotFoundError(
            f"{repository!r} could not be fetched from the Hub ({_line(error)}); without a network, give a "
            "local folder or parquet file with the same data, or use digits or mnist1d, which need no download"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name!r} cannot be loaded from the Hub ({_line(error)}); to choose a configuration, write "
            f"{repository}:configuration"
        ) from error
    return fetched


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars or retry notices on stderr; the caller's settings are restored afterwards."""
    import datasets

    hub: Any = importlib.import_module("huggingface_hub.utils")  # its stubs do not export the switches

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled(), hub.are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
        hub.disable_progress_bars()
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars[0]:
            datasets.enable_progress_bars()
        if not bars[1]:
            hub.enable_progress_bars()
