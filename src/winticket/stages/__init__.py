"""The stages of a procedure: each applies one room's function to a setup.

Stages that train a stack are expensive, and their results are stored. The others work on one replicate, are cheap, and
are evaluated inside each task that needs them. Plans hold the stored name of a stage (`winticket.run.names`), so its
file may move.
"""

from __future__ import annotations

from winticket.stages.carrying import carried, kept_here, widened
from winticket.stages.changing import last_mask, sparse_start, train_regrowing, train_thinning
from winticket.stages.controlling import (
    control_ticket,
    needs_end,
    needs_neighbour,
    needs_symmetry,
    neighbour_ticket,
    neighbours,
    trained_control_ticket,
)
from winticket.stages.foresight import prune_with_foresight
from winticket.stages.learning import train_mask
from winticket.stages.pruning import (
    SCORED_PER_CLASS,
    evidence,
    prune,
    prune_untrained,
    retraining,
    saved_for,
    scored,
)
from winticket.stages.settling import distance, emerged, looks
from winticket.stages.setup import Setup, functions_source, model_source, require_unedited
from winticket.stages.starting import Pretrained
from winticket.stages.tickets import Density, PlannedLevel, dense_ticket, prunable, spared, whole_mask
from winticket.stages.training import (
    Context,
    Examples,
    at_steps,
    device,
    engine_of,
    examples,
    states,
    train_stack,
    trained,
    with_states,
)
from winticket.stages.trial import trial

__all__ = [
    "SCORED_PER_CLASS",
    "Context",
    "Density",
    "Examples",
    "PlannedLevel",
    "Pretrained",
    "Setup",
    "at_steps",
    "carried",
    "control_ticket",
    "dense_ticket",
    "device",
    "distance",
    "emerged",
    "engine_of",
    "evidence",
    "examples",
    "functions_source",
    "kept_here",
    "last_mask",
    "looks",
    "model_source",
    "needs_end",
    "needs_neighbour",
    "needs_symmetry",
    "neighbour_ticket",
    "neighbours",
    "prunable",
    "prune",
    "prune_untrained",
    "prune_with_foresight",
    "require_unedited",
    "retraining",
    "saved_for",
    "scored",
    "spared",
    "sparse_start",
    "states",
    "train_mask",
    "train_regrowing",
    "train_stack",
    "train_thinning",
    "trained",
    "trained_control_ticket",
    "trial",
    "whole_mask",
    "widened",
    "with_states",
]
