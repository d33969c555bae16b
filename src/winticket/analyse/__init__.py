"""Analyse: why a ticket wins. Stored trainings of a run -> tables, each with a figure and sentences.

>>> from winticket.analyse import ANALYSES
>>> ANALYSES["overlap"].title
'Do two searches find the same ticket?'

An analysis plans tasks, so its parts are computed in parallel, stored and never computed twice. The functions behind
the analyses take one's own masks, models and data: `jaccard`, `chance`, ...
"""

from __future__ import annotations

from winticket.analyse.activity import activity_of_stack, rectified
from winticket.analyse.agreement import agreement_of_stacks, cka, disagreement
from winticket.analyse.barriers import barriers_of_stacks
from winticket.analyse.calibration import calibration_error, calibration_floor
from winticket.analyse.curvature import Hessian, curvature_of_stack, hessian
from winticket.analyse.exemplars import exemplars_of_level, lost_examples, pruning_exemplars
from winticket.analyse.facts import (
    ANALYSES,
    REVISION,
    Analysis,
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    analysis_named,
    joined,
)
from winticket.analyse.information import (
    Bounds,
    Information,
    binned,
    discrete_information,
    entropy,
    fixed_bins,
    kde_bounds,
    quantile_bins,
)
from winticket.analyse.instability import child, instability_of_stacks
from winticket.analyse.learning import learning_of_stacks
from winticket.analyse.learning_gradients import gradient_norm, gradients_of_stack
from winticket.analyse.line import Barrier, barrier
from winticket.analyse.locality import locality_of_stack
from winticket.analyse.locality_pixels import pixels_of_level
from winticket.analyse.lost_calibration import calibration_of_stack
from winticket.analyse.lost_classes import accuracy_by_class, classes_of_stack
from winticket.analyse.movement import displacement, sign_agreement
from winticket.analyse.overlap import chance, jaccard, matched, overlap_of_stacks
from winticket.analyse.pace import judged_pace, reached_of_stacks, steps_to_share
from winticket.analyse.paths import paths_of_stack
from winticket.analyse.plane import plane_of_stack
from winticket.analyse.positions import centrality, displacements, neighbours
from winticket.analyse.predicted import predictions
from winticket.analyse.reach import effective_density, on_paths
from winticket.analyse.shape import degrees, gini, layers_of_stack, units_of_stack
from winticket.analyse.summary import said, summarised

__all__ = [
    "ANALYSES",
    "REVISION",
    "Analysis",
    "Barrier",
    "Bounds",
    "Cells",
    "Hessian",
    "Information",
    "Lines",
    "NothingToAnalyseError",
    "accuracy_by_class",
    "activity_of_stack",
    "agreement_of_stacks",
    "analysis",
    "analysis_named",
    "barrier",
    "barriers_of_stacks",
    "binned",
    "calibration_error",
    "calibration_floor",
    "calibration_of_stack",
    "centrality",
    "chance",
    "child",
    "cka",
    "classes_of_stack",
    "curvature_of_stack",
    "degrees",
    "disagreement",
    "discrete_information",
    "displacement",
    "displacements",
    "effective_density",
    "entropy",
    "exemplars_of_level",
    "fixed_bins",
    "gini",
    "gradient_norm",
    "gradients_of_stack",
    "hessian",
    "instability_of_stacks",
    "jaccard",
    "joined",
    "judged_pace",
    "kde_bounds",
    "layers_of_stack",
    "learning_of_stacks",
    "locality_of_stack",
    "lost_examples",
    "matched",
    "neighbours",
    "on_paths",
    "overlap_of_stacks",
    "paths_of_stack",
    "pixels_of_level",
    "plane_of_stack",
    "predictions",
    "pruning_exemplars",
    "quantile_bins",
    "reached_of_stacks",
    "rectified",
    "said",
    "sign_agreement",
    "steps_to_share",
    "summarised",
    "units_of_stack",
]
