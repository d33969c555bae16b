"""Datasets as tensors: found by name or path, decoded once, split by seed, normalised, augmented."""

from winticket.data.batches import augment, augmentation, permutation
from winticket.data.cache import folder as cache_folder
from winticket.data.content import Split
from winticket.data.sources import Source, find_source, names
from winticket.data.splits import Dataset, load

__all__ = [
    "Dataset",
    "Source",
    "Split",
    "augment",
    "augmentation",
    "cache_folder",
    "find_source",
    "load",
    "names",
    "permutation",
]
