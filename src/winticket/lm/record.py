"""What `winticket lm` writes and prints as JSON."""

from __future__ import annotations

from typing import TypedDict

from winticket.lm.perplexity import Estimate


class LayerCount(TypedDict):
    """A pruned linear layer."""

    name: str
    """Name of its weight in the model."""
    kept: int
    """Weights kept."""
    total: int
    """Weights in all."""


class BlockRecord(TypedDict):
    """A pruned block."""

    name: str
    """Its name in the model."""
    density: float
    """The density that it was to have."""
    seconds: float
    """How long it took."""
    layers: list[LayerCount]
    """Its linear layers."""


class Perplexity(TypedDict):
    """Perplexity on held-out text."""

    windows: int
    """Windows, which do not overlap."""
    documents: int
    """Documents that they are from."""
    length: int
    """Tokens of each."""
    tokens: int
    """Tokens that were predicted."""
    perplexity: Estimate
    """exp of the mean loss in nats, with a 95 % interval over documents; over windows if there is one document."""


class Comparison(TypedDict):
    """Perplexity before and after pruning, on the same windows."""

    before: Perplexity
    """Of the model as it was."""
    after: Perplexity
    """Of the pruned model, as its files have it."""
    ratio: Estimate
    """After / before, with a 95 % interval over the differences of the same documents or windows."""


class Outliers(TypedDict):
    """The parameters of OWL."""

    threshold: float
    """M: scores above M times the mean are outliers."""
    range: float
    """Lambda: densities differ by at most 2 lambda."""


class Pruned(TypedDict):
    """One pruned language model."""

    winticket: str
    """Version of winticket."""
    model: str
    """Name of the model: the last part of its path."""
    model_type: str
    """What Transformers calls its architecture."""
    method: str
    """`magnitude`, `wanda` or `sparsegpt`."""
    density: float
    """Share of the weights of linear layers in blocks that was to be kept."""
    pattern: str | None
    """n:m, or null."""
    allocation: str
    """`uniform` or `owl`."""
    owl: Outliers | None
    """Parameters of OWL; null for uniform."""
    samples: int | None
    """Windows of calibration text; null if none was needed."""
    length: int
    """Tokens of a window."""
    seed: int
    """Seed of the windows."""
    blocksize: int | None
    """Of SparseGPT; null for other methods."""
    percdamp: float | None
    """Of SparseGPT; null for other methods."""
    kept: int
    """Weights kept in linear layers of blocks."""
    total: int
    """Weights in linear layers of blocks."""
    parameters: int
    """Parameters of the model, embeddings included."""
    blocks: list[BlockRecord]
    """The blocks, first to last."""
    perplexity: Comparison | None
    """On held-out text; null if it was not evaluated."""
    resumed: int
    """Blocks that an earlier, interrupted run had finished."""
    seconds: float
    """How long this run took, evaluation included."""
    peak_bytes: int | None
    """Most memory of the process; null if the system does not tell."""


class Adapted(TypedDict):
    """What Lottery Ticket Adaptation trained."""

    density: float | None
    """Share of the linear layers' weights; null if a rank was given."""
    rank: int | None
    """r, if r · (inputs + outputs) weights of each layer were trained; else null."""
    calibration_steps: int
    """Steps of the full tuning that chose them."""
    unchanged: int
    """All other numbers of the model, counted: bit for bit what they were."""


class Tuned(TypedDict):
    """result.json of a tuned model."""

    winticket: str
    """Version of winticket that wrote it."""
    model: str
    """Name of the model that was tuned."""
    how: str
    """What was trained, in words."""
    lora: int | None
    """Rank of the updates; null if there are none."""
    lota: Adapted | None
    """Lottery Ticket Adaptation; null if it was not used."""
    pruned: bool
    """Whether the model has a mask; if not, `kept` is `total`."""
    steps: int
    """Optimiser steps."""
    batch: int
    """Windows per step."""
    length: int
    """Tokens of a window."""
    lr: float
    """Learning rate at the first step."""
    seed: int
    """Seed of windows and updates."""
    trained: int
    """How many numbers were trained."""
    kept: int
    """Weights of the pruned layers that are kept."""
    zeros: int
    """Weights of the pruned layers that are pruned, counted in the result: all are exactly 0."""
    total: int
    """Weights of the pruned layers."""
    perplexity: Comparison
    """On held-out text, before and after."""
    resumed: int
    """Steps, of calibration too, that earlier, interrupted commands had taken."""
    seconds: float
    """How long it took, all commands together."""
    peak_bytes: int | None
    """Most memory of the process; null where the system does not tell."""


class Adapter(TypedDict):
    """An adapter of PEFT that was written."""

    winticket: str
    """Version of winticket."""
    base: str
    """Path or name of the model before tuning."""
    tuned: str
    """Name of the tuned model."""
    rank: int
    """r: every adapted layer has r · (inputs + outputs) values."""
    layers: int
    """Adapted layers."""
    changed: int
    """Numbers that differ between the two models."""
    values: int
    """Values of the adapter, those of 0 included."""
    parameters: int
    """Parameters of the model."""
    bytes: int
    """Size of its files."""
    seconds: float
    """How long it took."""
    peak_bytes: int | None
    """Most memory of the process; null if the system does not tell."""
