"""The `experiment` of a result document: the question as it was asked, every choice under its own name."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from winticket.results.measures import Fraction, Points, Probability, Step


class Question(TypedDict, total=False):
    """Every choice of an experiment and of its recipe, with defaults filled in. An experiment writes all of them."""

    data: str
    """Name or path of the data."""
    model: str
    """Name of the network, or `package.module:function` of a user's own."""
    init: str | None
    """Name of the initialisation; null for a user's own network, which initialises itself."""
    method: str
    """How tickets are searched for."""
    criterion: str | None
    """How weights are scored; null if the method takes no criterion."""
    allocate: str
    """How one density is divided among the layers."""
    rewind: str | None
    """What tickets start from; null if the method takes no rewind."""
    rewind_step: Step
    """The step that tickets are rewound to; 0 for the initialisation."""
    every: Step | None
    """Steps between changes of the mask, in methods that change it while they train; null for the default."""
    search_lr: float | None
    """Learning rate of a search that learns a mask; null for the default."""
    controls: list[str]
    """Names of the controls, each of which is an arm."""
    levels: int
    """Number of pruned levels."""
    rate: Fraction | None
    """Share of the remaining weights pruned per level; null if densities are given instead."""
    pruning: str
    """Schedule of densities towards `final_density`."""
    final_density: Fraction | None
    """Density to end at; null if it follows from `rate` or `density`."""
    density: list[Fraction]
    """Densities of the levels if they are listed; else empty."""
    output_rate: Fraction | None
    """Share pruned per level in the output layer; null for the default."""
    conv_rate: Fraction | None
    """Share pruned per level in convolutions; null for the default."""
    include: list[str]
    """Weights that may be pruned beyond the default."""
    exclude: list[str]
    """Weights that are not pruned."""
    replicates: int
    """Number of independent repetitions, each with its own seed and mask search."""
    stack: int
    """Replicates that train together, at most."""
    start: str
    """File or folder of the pretrained weights that every replicate starts from. Only if there are some."""
    redraw: str
    """What the re-initialised control starts from, if it is not `fresh`: `shuffled` pretrained weights."""
    loss: str
    """Name of the loss, or `package.module:function`. Only if it is not the task's usual one."""
    metric: str
    """Name of the metric, or `package.module:function`. Only if it is not the task's usual one."""
    class_weights: str
    """How classes are weighed. Only if they are."""
    unit: str
    """Unit of the numbers to predict. Only if one was given."""
    margin_pp: Points
    """Loss of accuracy up to which a ticket still matches the dense network; of another metric, in the unit of its
    differences."""
    relative_margin: bool
    """Whether the margin is in percent of the dense network's value. Only if it is."""
    alpha: Probability
    """Error rate of the verdict over all densities and all looks."""
    gate: bool
    """Whether the dense network is also trained twice as long."""
    precision_check: NotRequired[bool]
    """Whether a dense network of another precision is also trained in float32. Absent in older documents."""
    seed: int
    """Root of all random seeds."""
    validation: int | None
    """Validation examples; null for the default."""
    test: int | None
    """Test examples; null for the default."""
    split: str
    """Whether replicates share one split of the data: `auto`, `shared` or `own`."""
    steps: Step
    """Length of one training."""
    batch: int
    """Examples per step."""
    optimizer: str
    """`sgd`, `adam` or `adamw`."""
    lr: float
    """Learning rate."""
    momentum: float
    """Momentum of sgd."""
    nesterov: bool
    """Whether the momentum is Nesterov's."""
    weight_decay: float
    """Weight decay."""
    schedule: str
    """Schedule of the learning rate: `constant`, `step` or `cosine`."""
    milestones: list[Fraction]
    """Shares of the training after which the step schedule lowers the learning rate."""
    gamma: float
    """Factor by which the step schedule lowers the learning rate."""
    warmup: Step
    """Length of the linear warm-up of the learning rate."""
    evaluate_every: Step
    """Distance of the regular points of the learning curves."""
    early_points: bool
    """Whether curves have more points early in training."""
    clip_norm: float | None
    """Largest norm of a step's gradient; null: no limit."""
    flip: bool
    """Whether images are flipped at random."""
    crop: int
    """Padding of random crops in pixels; 0 for no crops."""
    stacking: str
    """How a stack trains: `auto`, `stacked` or `one by one`."""
    precision: str
    """Precision of a step's forward and backward pass."""
    reading: NotRequired[dict[str, str | int | list[str]]]
    """How the data are read (label, ignore, missing, task, group, time, size, rows); only what is not the default."""
    arms: list[str]
    """Names of all arms."""
    carried: list[int]
    """Levels of `source` whose tickets are trained. Only in a transfer."""
    source: Question
    """The experiment that found the tickets. Only in a transfer."""
