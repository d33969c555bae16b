"""The differences of every pruned level, as sequences of tests take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winticket.judge.checks import CONTROLS, differences
from winticket.judge.frame import ACCURACIES, ByArm, Frame
from winticket.judge.sequences import Differences
from winticket.judge.statistics import Array


def gather(
    accuracies: Sequence[ByArm], *, step: float, frame: Frame = ACCURACIES, relative: bool = False
) -> Differences:
    """The differences of every pruned level, densest first; an arm that was not run becomes NaN. Values are framed."""
    n = len(accuracies[0]["ticket"])

    def stack(arm: str, *, worst: bool) -> Array:
        missing = np.full(n, np.nan)
        return np.stack(
            [
                differences(level["ticket"], level[arm], worst_for_ours=worst, frame=frame)
                if arm in level
                else missing
                for level in accuracies
            ]
        )

    def dense(lost: float) -> Array | None:
        return np.stack([frame.measured(x["dense"], lost) for x in accuracies]) if relative else None

    references = ("dense", *CONTROLS)
    return Differences(
        worst={arm: stack(arm, worst=True) for arm in references},
        best={arm: stack(arm, worst=False) for arm in references},
        step=step,
        dense_worst=dense(frame.perfect),
        dense_best=dense(frame.worst),
    )
