"""MNIST-1D: ten hand-drawn one-dimensional digits, padded, stretched, shifted, sheared and buried in noise.

Greydanus & Kobak 2024, "Scaling Down Deep Learning with MNIST-1D" (ICML), section 2 and appendix A. Nothing
is downloaded: 5000 signals are generated from seed 42 with the published constants. Every random number is
drawn in the published order, so the signals are those of the authors' frozen file, to rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGNALS = 5000
TRAIN = 4000
LENGTH = 40
SEED = 42

_PAD = (36, 60)  # zeros appended to the 12 points of a template: least and most, both included
_WIDTH = 12 + _PAD[1]  # every padded template is stretched to this many points
_SCALE = 0.4
_SHIFTS = 48
_SMOOTH_NOISE = 0.25  # used only at points with a signal of 0
_WHITE_NOISE = 0.02
_SHEAR = 0.75
_LIFT = 1e-8  # distinguishes a template's zeros from the padding's

_DRAWN = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)

Signals = NDArray[np.float64]


def templates() -> Signals:
    """The ten drawn digits, [10, 12]: each scaled to unit variance, shifted to start at 0, then divided by 6."""
    drawn = np.asarray(_DRAWN, dtype=np.float64)
    drawn = (drawn - drawn.mean(axis=1, keepdims=True)) / drawn.std(axis=1, keepdims=True)
    raised: Signals = (drawn - drawn[:, :1]) / 6.0
    return raised


def generate(*, seed: int = SEED, signals: int = SIGNALS) -> tuple[Signals, NDArray[np.int64]]:
    """Signals [signals, 40], float64, and their digits; the first four fifths are the training split.

    The whole set is centred and scaled to unit variance, test signals included, as published.
    Raises ValueError unless `signals` is a positive multiple of ten, since all digits are equally frequent.
    """
    if signals <= 0 or signals % 10:
        raise ValueError(
            f"{signals} signals cannot be divided among 10 digits; give a positive multiple of 10"
        )
    # The published file was drawn from NumPy's legacy stream, which NumPy keeps frozen.
    stream = np.random.RandomState(seed)
    y = np.repeat(np.arange(10, dtype=np.int64), signals // 10)
    pads, scales, shifts, shears = (np.empty(signals) for _ in range(4))
    noise = np.empty((signals, 2, _WIDTH))
    for row in range(signals):
        pads[row] = stream.rand()
        scales[row] = stream.rand()
        shifts[row] = stream.randint(0, _SHIFTS)
        noise[row] = stream.randn(2, _WIDTH)
        shears[row] = stream.rand()
    order = stream.permutation(signals)
    x = _signals(templates()[y] + _LIFT, pads=pads, scales=scales, shifts=shifts, shears=shears, noise=noise)
    x = x[order]
    return (x - x.mean()) / x.std(), y[order]


def _signals(
    drawn: Signals, *, pads: Signals, scales: Signals, shifts: Signals, shears: Signals, noise: Signals
) -> Signals:
    """Templates [N, 12] and N random numbers of each kind -> signals [N, 40]."""
    from scipy.ndimage import gaussian_filter1d

    count = len(drawn)
    lengths = 12 + _PAD[0] + (pads * (_PAD[1] - _PAD[0] + 1)).astype(np.int64)
    x = np.zeros((count, _WIDTH))
    x[:, :12] = drawn
    # Stretch: resample each padded signal, whose length differs from row to row, on an even grid of 72 points.
    x = _resample(x, np.linspace(0.0, 1.0, _WIDTH) * (lengths[:, None] - 1))
    x *= 1.0 + _SCALE * (scales[:, None] - 0.5)
    moved = (np.arange(_WIDTH) - shifts.astype(np.int64)[:, None]) % _WIDTH
    x = np.take_along_axis(x, moved, axis=1)
    smooth = gaussian_filter1d(_SMOOTH_NOISE * noise[:, 0], 2.0, axis=1)
    x = np.where(x != 0.0, x, smooth) + _WHITE_NOISE * noise[:, 1]
    x -= _SHEAR * (shears[:, None] - 0.5) * np.linspace(-0.5, 0.5, _WIDTH)
    return _resample(x, np.broadcast_to(np.linspace(0.0, 1.0, LENGTH) * (_WIDTH - 1), (count, LENGTH)))


def _resample(x: Signals, at: Signals) -> Signals:
    """Linear interpolation of each row of x [N, L] at the positions in its row of `at` [N, M], in points of x."""
    left = np.minimum(at.astype(np.int64), x.shape[1] - 2)
    low, high = np.take_along_axis(x, left, axis=1), np.take_along_axis(x, left + 1, axis=1)
    between: Signals = low + (high - low) * (at - left)
    return between
