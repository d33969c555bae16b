"""Analyses in this process, for tests."""

from __future__ import annotations

from typing import Any

from winticket.experiment import Execution, Run
from winticket.experiment.analysing import Analysed, analyse


def made_of(run: Run, name: str, **options: Any) -> Analysed:
    """One analysis of a run, computed here and not by workers, whose start takes longer than what they compute."""
    execution = Execution.local(run.store.path, workers=0)
    (made,) = analyse(run, [name], options={name: options} if options else None, execution=execution)
    return made
