"""How far the confidence of predictions is from their accuracy, and how far it would be by chance alone."""

from __future__ import annotations

import torch
from torch import Tensor

from winticket.analyse.predicted import predicted_from

REVISION = 1
BINS, DRAWS = 15, 50


def calibration_error(logits: Tensor, labels: Tensor, *, bins: int = BINS) -> float:
    """Expected calibration error (ECE), in 0..1: how far confidence is from accuracy, on average over predictions.

    logits: [..., classes]; labels: int64 [...]. Confidence is the probability of the predicted class. Predictions are
    sorted by it into `bins` bins of equal width, (0, 1/bins], (1/bins, 2/bins], ...; the error is the mean of
    |accuracy - mean confidence| over bins, weighted by their numbers of predictions. Guo et al. 2017 (On Calibration of
    Modern Neural Networks), eq. 3, with their 15 bins. With few examples the error is too large, because chance alone
    moves a bin's accuracy; see `calibration_floor`. ValueError without examples.

    >>> logits = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]).log()
    >>> calibration_error(logits, torch.tensor([0, 0, 0, 1])), calibration_error(logits, torch.tensor([0, 0, 1, 1]))
    (0.0, 0.25)
    """
    found = predicted_from(logits, labels)
    return error_of(found["confidence"], found["predicted"] == found["label"], bins=bins)


def calibration_floor(logits: Tensor, *, bins: int = BINS, draws: int = DRAWS, seed: int = 0) -> float:
    """The calibration error to expect of a network with these confidences if they were exactly right.

    The mean of `calibration_error` over `draws` draws, in each of which a prediction is right with the probability that
    its confidence states: consistency resampling (Bröcker & Smith 2007, Increasing the Reliability of Reliability
    Diagrams). It is above 0 because chance moves the accuracy of a bin, and more so with fewer examples. ValueError
    without examples.

    >>> logits = torch.tensor([[0.75, 0.25]]).log().expand(100, 2)
    >>> calibration_floor(logits) > calibration_floor(logits.repeat(100, 1))
    True
    """
    labels = torch.zeros(logits.shape[:-1], dtype=torch.int64)  # confidences do not depend on them
    return floor_of(predicted_from(logits, labels)["confidence"], bins, draws, seed)


def floor_of(confidence: Tensor, bins: int = BINS, draws: int = DRAWS, seed: int = 0) -> float:
    """The calibration error to expect if these confidences [N] were exactly right."""
    generator = torch.Generator().manual_seed(seed)
    errors = [
        error_of(confidence, torch.rand(len(confidence), generator=generator) < confidence, bins=bins)
        for _ in range(draws)
    ]
    return sum(errors) / draws


def error_of(confidence: Tensor, right: Tensor, *, bins: int = BINS) -> float:
    """The calibration error of confidences [N] in predictions that are right or not, bool [N]."""
    if not len(confidence):
        raise ValueError("without examples there is no calibration error")
    number = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    zeros = torch.zeros(bins, dtype=torch.float64)
    gaps = zeros.index_add(0, number, right.double() - confidence.double())
    return float(gaps.abs().sum()) / len(confidence)
