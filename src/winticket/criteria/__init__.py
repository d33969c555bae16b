"""Criteria: evidence -> scores, one pure function each; larger means keep.

Every public function here is a criterion. It takes an `Evidence` and returns one finite score per eligible weight,
under the weights' names and in their shapes. Weights that are already pruned are scored too; the allocation ignores
them. A criterion declares what it needs besides weights and mask (`criteria.evidence.needs`).
"""

from __future__ import annotations

from winticket.criteria.activations import wanda
from winticket.criteria.evidence import Criterion, Evidence
from winticket.criteria.gradients import fisher, grasp, snip, synflow, taylor
from winticket.criteria.magnitudes import (
    lamp,
    large_final_diff_sign,
    large_final_same_sign,
    large_init,
    large_init_large_final,
    magnitude,
    magnitude_increase,
    magnitude_increase_diff_sign,
    magnitude_increase_same_sign,
    movement,
    random,
    small_final,
    small_init,
    small_init_small_final,
)
from winticket.criteria.structured import (
    batchnorm_scale,
    geometric_median,
    head_importance,
    l1_units,
    l2_units,
)

__all__ = [
    "Criterion",
    "Evidence",
    "batchnorm_scale",
    "fisher",
    "geometric_median",
    "grasp",
    "head_importance",
    "l1_units",
    "l2_units",
    "lamp",
    "large_final_diff_sign",
    "large_final_same_sign",
    "large_init",
    "large_init_large_final",
    "magnitude",
    "magnitude_increase",
    "magnitude_increase_diff_sign",
    "magnitude_increase_same_sign",
    "movement",
    "random",
    "small_final",
    "small_init",
    "small_init_small_final",
    "snip",
    "synflow",
    "taylor",
    "wanda",
]
