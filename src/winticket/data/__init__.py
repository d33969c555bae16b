"""Datasets as tensors: found by name or path, decoded once, split by seed, normalised, augmented."""

from __future__ import annotations

from winticket.data.batches import augment, augmentation, permutation
from winticket.data.content import Split, Target
from winticket.data.objects import Data, as_path
from winticket.data.reading import Reading
from winticket.data.sources import DatasetInfo, find_dataset, like_a_path, names
from winticket.data.splits import Dataset, load, rows_tested

REVISION = 1
"""Raised whenever the numbers that `load` returns, their order or their augmentation change."""

__all__ = [
    "REVISION",
    "Data",
    "Dataset",
    "DatasetInfo",
    "Reading",
    "Split",
    "Target",
    "as_path",
    "augment",
    "augmentation",
    "find_dataset",
    "like_a_path",
    "load",
    "names",
    "permutation",
    "rows_tested",
]
