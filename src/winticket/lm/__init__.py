"""Language models: pruned block by block, and their perplexity. Loading them needs the extra `lm`."""

from __future__ import annotations

from winticket.lm.adapter import prepare_adapter, write_adapter
from winticket.lm.compact import CompactModelError, pack, unpack
from winticket.lm.files import read_masks
from winticket.lm.matrices import Pattern, Target, magnitude, sparsegpt, wanda
from winticket.lm.owl import densities, outlier_share
from winticket.lm.perplexity import estimate, losses, ratio
from winticket.lm.pruning import prune
from winticket.lm.record import Pruned
from winticket.lm.request import Prepared, Request, prepare
from winticket.lm.tuning import tune
from winticket.lm.tuning_request import PreparedTuning, Tuning, prepare_tuning

__all__ = [
    "CompactModelError",
    "Pattern",
    "Prepared",
    "PreparedTuning",
    "Pruned",
    "Request",
    "Target",
    "Tuning",
    "densities",
    "estimate",
    "losses",
    "magnitude",
    "outlier_share",
    "pack",
    "prepare",
    "prepare_adapter",
    "prepare_tuning",
    "prune",
    "ratio",
    "read_masks",
    "sparsegpt",
    "tune",
    "unpack",
    "wanda",
    "write_adapter",
]
