"""What an unfinished run has so far: never a verdict, since part of the trainings decides nothing."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from winticket.results.document import Data, Metric
from winticket.results.levels import Measured
from winticket.results.masks import Network
from winticket.results.measures import Fraction
from winticket.results.question import Question


class ArmSoFar(Measured):
    """An arm of which some replicates have finished."""

    planned: int
    """Replicates that were planned."""
    finished: int
    """Replicates that have finished or failed."""


class LevelSoFar(TypedDict):
    """One density, as far as it goes."""

    density: Fraction
    """Share of the eligible weights kept."""
    arms: dict[str, ArmSoFar]
    """Every planned arm."""


class Unfinished(TypedDict):
    """An unfinished run, as `winticket show --json` prints it."""

    winticket: str
    """Version of winticket that wrote it."""
    schema: int
    """Version of this schema."""
    experiment: Question
    """The question."""
    data: Data
    """The data."""
    metric: NotRequired[Metric]
    """The metric that judges. Absent if it is accuracy."""
    network: Network
    """The network's size."""
    store: str
    """The store that has the trainings; passwords in URLs are hidden."""
    folder: str
    """The run's folder."""
    planned: int
    """Trainings that were planned, those beside the arms included."""
    finished: int
    """Trainings that have finished or failed."""
    last: str | None
    """When the last of them finished; null if none has."""
    levels: list[LevelSoFar]
    """Every density, from the densest down."""
    missing: list[str]
    """What is missing, in words."""
