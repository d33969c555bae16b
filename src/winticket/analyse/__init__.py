"""Analyse: why a ticket wins. Stored trainings of a run -> tables, each with a figure and sentences.

>>> from winticket.analyse import ANALYSES
>>> ANALYSES["overlap"].title
'Do two searches find the same ticket?'

An analysis plans tasks, so its parts are computed in parallel, stored and never computed twice. The functions behind
the analyses take one's own masks, models and data: `jaccard`, `chance`, ...
"""

from __future__ import annotations

from winticket.analyse.agreement import agreement_of_stacks, cka, disagreement
from winticket.analyse.barriers import barriers_of_stacks
from winticket.analyse.curvature import Hessian, curvature_of_stack, hessian
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
from winticket.analyse.instability import child, instability_of_stacks
from winticket.analyse.learning import (
    displacement,
    gradient_norm,
    gradients_of_stack,
    learning_of_stacks,
    sign_agreement,
)
from winticket.analyse.line import Barrier, barrier
from winticket.analyse.overlap import chance, jaccard, matched, overlap_of_stacks
from winticket.analyse.pace import judged_pace, reached_of_stacks, steps_to_share
from winticket.analyse.summary import said, summarised

__all__ = [
    "ANALYSES",
    "REVISION",
    "Analysis",
    "Barrier",
    "Cells",
    "Hessian",
    "Lines",
    "NothingToAnalyseError",
    "agreement_of_stacks",
    "analysis",
    "analysis_named",
    "barrier",
    "barriers_of_stacks",
    "chance",
    "child",
    "cka",
    "curvature_of_stack",
    "disagreement",
    "displacement",
    "gradient_norm",
    "gradients_of_stack",
    "hessian",
    "instability_of_stacks",
    "jaccard",
    "joined",
    "judged_pace",
    "learning_of_stacks",
    "matched",
    "overlap_of_stacks",
    "reached_of_stacks",
    "said",
    "sign_agreement",
    "steps_to_share",
    "summarised",
]
