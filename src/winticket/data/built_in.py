"""The datasets that need no download: scikit-learn's digits and the generated MNIST-1D."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from winticket.data.content import Decoded, Split

_TEN = tuple("0123456789")


def _digits() -> Decoded:
    """scikit-learn's 1797 handwritten digits: 8x8 counts 0..16, without a validation or test split.

    They are centred but not scaled. Under Adam, a unit of the first layer moves by about lr · ‖x‖₁ per step. The
    recipe's learning rate is meant for MNIST's 784 pixels, and 64 pixels of unit variance would move a unit by a tenth
    of that; counts move it about as far. (At unit variance, 800 steps leave sparse networks half trained: docs/LOG.md.)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype("uint8")).unsqueeze(1)
    y = torch.from_numpy(bunch.target.astype("int64"))
    return Decoded({"train": Split(x, y)}, _TEN, 1.0, validation=150, test=450, divide=False)


def _mnist1d() -> Decoded:
    """MNIST-1D as published: 4000 signals for training and 1000 for testing, standardised together."""
    from winticket.data.mnist1d import TRAIN, generate

    signals, digits = generate()
    x, y = torch.from_numpy(signals.astype("float32")).unsqueeze(1), torch.from_numpy(digits)
    splits = {
        "train": Split(x[:TRAIN].clone(), y[:TRAIN].clone()),
        "test": Split(x[TRAIN:].clone(), y[TRAIN:].clone()),
    }
    return Decoded(splits, _TEN, 1.0)


BUILT_IN: Mapping[str, Callable[[], Decoded]] = {"digits": _digits, "mnist1d": _mnist1d}
