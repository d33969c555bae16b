"""The documents that runs write, as types: experiments write them, report and command read them.

They are plain dictionaries; mypy holds who writes and who reads to the same keys, and msgspec checks a file against
them. docs/result.md lists every key.
"""

from __future__ import annotations

from winticket.results.checks import Check, CheckName, Checks, PaceCheck, Relative, TimeDetail
from winticket.results.document import (
    Build,
    Comparison,
    Data,
    Document,
    Judged,
    Metric,
    PrecisionEffect,
    Row,
    SavedTicket,
)
from winticket.results.levels import (
    INTERVALS,
    AccuracyName,
    Arm,
    Cost,
    Failure,
    LearningCurve,
    Level,
    MeanName,
    Measured,
    Spent,
    StepsTo,
)
from winticket.results.masks import InputPlane, Layer, MaskLevel, Masks, Network
from winticket.results.measures import Scalar
from winticket.results.progress import ArmSoFar, LevelSoFar, Unfinished
from winticket.results.question import Question
from winticket.results.schema import SCHEMA, OtherSchemaError, Written, require_schema
from winticket.results.shipment import Bytes, Claims, Memory, NarrowLayer, Origin, ReadBack, Removed, Shipment
from winticket.results.verdict import (
    Collapsed,
    Learned,
    Look,
    Looks,
    MarginAtLevel,
    MarginOutcome,
    Margins,
    Outcome,
    TrainedEnough,
    Verdict,
)

__all__ = [
    "INTERVALS",
    "SCHEMA",
    "AccuracyName",
    "Arm",
    "ArmSoFar",
    "Build",
    "Bytes",
    "Check",
    "CheckName",
    "Checks",
    "Claims",
    "Collapsed",
    "Comparison",
    "Cost",
    "Data",
    "Document",
    "Failure",
    "InputPlane",
    "Judged",
    "Layer",
    "Learned",
    "LearningCurve",
    "Level",
    "LevelSoFar",
    "Look",
    "Looks",
    "MarginAtLevel",
    "MarginOutcome",
    "Margins",
    "MaskLevel",
    "Masks",
    "MeanName",
    "Measured",
    "Memory",
    "Metric",
    "NarrowLayer",
    "Network",
    "Origin",
    "OtherSchemaError",
    "Outcome",
    "PaceCheck",
    "PrecisionEffect",
    "Question",
    "ReadBack",
    "Relative",
    "Removed",
    "Row",
    "SavedTicket",
    "Scalar",
    "Shipment",
    "Spent",
    "StepsTo",
    "TimeDetail",
    "TrainedEnough",
    "Unfinished",
    "Verdict",
    "Written",
    "require_schema",
]
