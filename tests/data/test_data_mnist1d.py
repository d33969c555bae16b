"""MNIST-1D against the authors' frozen file."""

from __future__ import annotations

import numpy as np
import pytest

from winticket.data import load
from winticket.data.mnist1d import generate, templates


def test_templates_start_at_zero_and_have_the_published_spread() -> None:
    drawn = templates()
    assert drawn.shape == (10, 12)
    assert (drawn[:, 0] == 0).all()
    np.testing.assert_allclose(drawn.std(axis=1) * 6, 1.0, rtol=1e-12)


def test_signals_are_those_of_the_published_file() -> None:
    # Read from mnist1d_data.pkl of github.com/greydanus/mnist1d; all 200 000 values agreed to 2e-14.
    x, y = generate()
    assert x.shape == (5000, 40)
    published_first = [
        -0.3320056673693902,
        -0.4719103656557236,
        -0.778697076293495,
        -1.0097408265367047,
        -0.8823525654053074,
        0.10393481264623418,
    ]
    published_last = [0.4472328851428726, 0.6598756470890784, 0.8777343497528006, 1.193151836835276]
    np.testing.assert_allclose(x[0, :6], published_first, rtol=1e-10)
    np.testing.assert_allclose(x[4999, -4:], published_last, rtol=1e-10)
    assert y[:12].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1, 6, 9]
    np.testing.assert_allclose(x[:4000].sum(), -51.78746787509559, rtol=1e-9)
    np.testing.assert_allclose((x[:4000] ** 2).sum(), 159248.2538653486, rtol=1e-12)
    assert x[:8].argmax(axis=1).tolist() == [7, 1, 25, 14, 32, 0, 37, 28]
    assert np.bincount(y).tolist() == [500] * 10


def test_other_seeds_give_fresh_signals_and_any_multiple_of_ten() -> None:
    x, y = generate(seed=1, signals=30)
    again, _ = generate(seed=2, signals=30)
    assert x.shape == (30, 40)
    assert np.bincount(y).tolist() == [3] * 10
    assert not np.isclose(x, again).any(axis=1).all()


@pytest.mark.parametrize("signals", [0, -10, 25])
def test_signals_that_cannot_be_shared_among_digits(signals: int) -> None:
    with pytest.raises(ValueError, match=f"{signals} signals .* positive multiple of 10"):
        generate(signals=signals)


def test_loaded_as_published_and_not_normalised_again() -> None:
    data = load("mnist1d")
    x, y = generate()
    assert data.input_shape == (1, 40)
    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (3600, 400, 1000)
    assert (data.mean, data.std) == ((0.0,), (1.0,))
    assert data.test.x[:, 0].numpy().tolist() == x[4000:].astype("float32").tolist()
    assert data.test.y.tolist() == y[4000:].tolist()
