"""The documents that commands write: result.json of a search or transfer, compare.json of a comparison."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from winticket.results.levels import Cost, Failure, Level, Measured
from winticket.results.masks import Network
from winticket.results.measures import Difference, Fraction, MeanStep, Operations, Scalar, Seconds, Step
from winticket.results.question import Question
from winticket.results.verdict import Verdict


class Data(TypedDict):
    """What was trained and tested on."""

    fingerprint: str
    """Hash of the decoded examples."""
    input_shape: list[int]
    """Shape of one example."""
    classes: int
    """Number of classes; 0 if the answers are no classes."""
    split: str
    """Whether replicates share one split (`shared`) or each has its own (`own`)."""
    tokens: NotRequired[bool]
    """Whether examples are tokens of a text. Absent in older documents."""
    target: NotRequired[str]
    """What an example is answered by, if not by one class: `numbers`, `labels` or `positions`. `classes` is then the
    number of outputs."""
    train: int
    """Training examples."""
    validation: int
    """Validation examples."""
    test: int
    """Test examples."""


class Metric(TypedDict):
    """The metric that networks were judged by. Its values stand under `accuracy` and its relatives in this package."""

    name: str
    """What sentences and figures call it: accuracy, RMSE, R²."""
    better: Literal["higher", "lower"]
    """Which direction is good."""
    unit: str
    """The unit of its values; `%` for fractions that are written as percentages, empty for plain numbers."""
    low: float | None
    """The least possible value; null if there is none."""
    high: float | None
    """The largest possible value; null if there is none."""
    constant: NotRequired[float | None]
    """The value that the best constant answer reaches on the test data; null if it is not known."""


class Build(TypedDict):
    """What `winticket.models.build` takes to make a network that the ticket fits."""

    name: str
    """Name of the network."""
    input_shape: list[int]
    """Shape of one example."""
    classes: int
    """Number of classes."""
    generator_seed: int
    """Seed of the initialisation."""
    init: str | None
    """Name of the initialisation."""
    tokens: bool
    """Whether examples are tokens of a text."""
    target: NotRequired[str]
    """What an example is answered by, if not by one class: `numbers`, `labels` or `positions`."""


class SavedTicket(TypedDict):
    """Whose ticket is saved, and its own accuracies beside the mean."""

    density: Fraction
    """Density of its level."""
    level: int
    """Number of its level."""
    replicate: int
    """Its replicate, from 0."""
    replicates: int
    """Replicates that finished, among which it was chosen."""
    chosen: str
    """How it was chosen among them."""
    validation_accuracy: Fraction
    """Its validation accuracy after the last step."""
    test_accuracy: Fraction
    """Its test accuracy after the last step."""
    mean_test_accuracy: Fraction
    """Mean test accuracy of all of them."""
    build: Build
    """The network that it fits."""


class PrecisionEffect(TypedDict):
    """What a precision other than float32 changed: the dense network beside the same one trained in float32."""

    precision: str
    """The precision of the experiment."""
    float32: Measured
    """The dense network trained in float32, from the same weights with the same batches."""
    difference: Difference | None
    """Mean test accuracy after the last step, less that in float32; null if no pair finished."""
    difference_ci: list[Difference] | None
    """Its 95 % interval, paired by replicate: low, high; null for a single replicate."""
    differences: list[Difference | None]
    """By replicate; null if one of the two failed."""


class Judged(TypedDict):
    """What was asked, measured and judged, whatever machine and folder it was done in."""

    experiment: Question
    """The question."""
    data: Data
    """The data."""
    metric: NotRequired[Metric]
    """The metric. Absent in older documents, whose networks were judged by accuracy."""
    verdict: Verdict
    """The answer."""
    levels: list[Level]
    """Every density, from the densest down."""
    dense_doubled: Measured | None
    """The dense network trained twice as long; null without the gate."""
    precision_effect: NotRequired[PrecisionEffect | None]
    """What the precision changed; null in float32 and without the precision check. Absent in older documents."""
    network: NotRequired[Network]
    """The network's size. Absent in older documents."""
    costs: list[Cost]
    """What each arm took at each density; arms of which no replicate finished are absent."""
    failures: list[Failure]
    """Every replicate that failed."""


class Processes(TypedDict):
    """The processes of a run, and how busy they were."""

    count: int
    """How many there were."""
    busy: float
    """Share of their time that they were training, 0 to 1."""


class Document(Judged):
    """result.json, which `--json` prints and `Result.document` holds."""

    winticket: str
    """Version of winticket that wrote it."""
    schema: NotRequired[int]
    """Version of this schema. Absent in documents from before there was one, which are of schema 1."""
    store: str
    """The store that has the trainings; passwords in URLs are hidden."""
    engine: str
    """How pruned layers were computed: `auto`, `dense` or `sparse`. It changes no number beyond its last digits, but in
    bf16, in which layers on the sparse kernels compute in float32."""
    results: str
    """Path of this document."""
    report: str | None
    """Path of the page; null if it could not be written."""
    ticket: str | None
    """Path of the saved ticket; null if every ticket failed."""
    saved_ticket: SavedTicket | None
    """Whose ticket that is."""
    curves: str
    """Path of curves.json."""
    masks: NotRequired[str]
    """Path of masks.json. Absent in older documents."""
    environment: dict[str, Scalar]
    """Versions and hardware of the most recent training."""
    keys: list[str]
    """Keys of all stored results that this one was made from."""
    computed: int
    """Trainings that this run computed."""
    reused: int
    """Trainings that were in the store."""
    figures: list[str]
    """Paths of the figures and their tables."""
    seconds: Seconds
    """How long the run took."""
    processes: NotRequired[Processes]
    """The processes that trained. Absent in older documents, and if nothing was trained."""
    unwritten: NotRequired[dict[str, str]]
    """What could not be drawn or written, with the reason. Absent if all was."""


class Row(Measured):
    """One network of a comparison under one budget."""

    equal: Literal["density", "cost"]
    """What all networks have in common: equal steps per training (`density`) or equal total steps (`cost`)."""
    method: str
    """The method as it was asked for; `dense` for the dense network."""
    arm: str
    """`dense`, `ticket`, or `search` for a network as its search left it."""
    density: Fraction
    """Share of the eligible weights kept."""
    steps_each: Step
    """Length of each training."""
    steps: MeanStep | None
    """Steps of one replicate, its search included."""
    flops: Operations | None
    """Operations of one replicate, its search included."""
    seconds: Seconds | None
    """Time of one replicate, its search included."""
    to_dense: Difference | None
    """Mean difference to the dense network under the same budget, paired by replicate."""
    to_dense_ci: list[Difference] | None
    """Its 95 % interval: low, high; null for the dense network itself."""


class Comparison(TypedDict):
    """compare.json, which `winticket compare --json` prints."""

    winticket: str
    """Version of winticket that wrote it."""
    schema: NotRequired[int]
    """Version of this schema. Absent in documents from before there was one, which are of schema 1."""
    data: str
    """Name or path of the data."""
    model: str
    """Name of the network."""
    metric: NotRequired[Metric]
    """The metric that networks are compared by. Absent in older documents, which compare accuracies."""
    density: Fraction
    """Density that all methods end at."""
    budget_steps: MeanStep
    """Steps of the dearest method, which is the budget of the second table."""
    warnings: list[str]
    """Sentences that bear on the numbers."""
    replicates: int
    """Number of replicates."""
    comparison: dict[str, Any]
    """What it is known by: the choices that all methods share, the data's fingerprint, the density, the methods."""
    rows: list[Row]
    """The networks."""
    environment: dict[str, Scalar]
    """Versions and hardware."""
    store: str
    """The store that has the trainings; passwords in URLs are hidden."""
    engine: str
    """How pruned layers were computed: `auto`, `dense` or `sparse`. It changes no number beyond its last digits."""
    seconds: Seconds
    """How long the run took."""
    files: list[str]
    """Paths of the table and the figure."""
    unwritten: NotRequired[dict[str, str]]
    """What could not be drawn, with the reason. Absent if all was."""
