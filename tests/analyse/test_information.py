"""Information: exact for known channels, bounds around a Gaussian's closed form, and a plane with its baselines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from winticket.analyse import (
    binned,
    discrete_information,
    entropy,
    fixed_bins,
    kde_bounds,
    quantile_bins,
)
from winticket.analyse.information import quantised
from winticket.analyse.plane import EXACT
from winticket.experiment import Run


@pytest.mark.parametrize("errors", [0, 1, 3, 8])
def test_a_binary_symmetric_channel_is_exact(errors: int) -> None:
    """1 - H(p): of 16 bits sent for each input, `errors` arrive flipped."""
    sent = np.repeat([0, 1], 16)
    arrived = sent.copy()
    for first in (0, 16):
        arrived[first : first + errors] ^= 1
    p = errors / 16
    wanted = 1 - (0 if p in (0, 1) else -p * math.log2(p) - (1 - p) * math.log2(1 - p))
    assert discrete_information(sent, arrived) == pytest.approx(wanted)


def test_a_channel_of_a_known_table_is_exact() -> None:
    counts = np.array([[4, 2, 0], [1, 5, 8]])
    joint = counts / counts.sum()
    a, b = np.meshgrid([0, 1], [0, 1, 2], indexing="ij")
    sent, arrived = np.repeat(a.ravel(), counts.ravel()), np.repeat(b.ravel(), counts.ravel())
    outer = joint.sum(1, keepdims=True) * joint.sum(0)
    wanted = sum(j * math.log2(j / o) for j, o in zip(joint.ravel(), outer.ravel(), strict=True) if j)
    assert discrete_information(np.stack([sent, sent], 1), arrived) == pytest.approx(wanted)
    assert entropy(arrived) == pytest.approx(-(joint.sum(0) * np.log2(joint.sum(0))).sum())


def test_an_injective_map_is_pinned_at_log_n() -> None:
    x = np.linspace(0, 1, 64)[:, None]
    for codes in (fixed_bins, quantile_bins):
        assert binned(x, np.arange(64) % 4, codes, 64).x == pytest.approx(6)
    low, high = kde_bounds(1e6 * x, np.arange(64) % 4, noise=1.0)
    assert low.x == pytest.approx(6)
    assert high.x == pytest.approx(6)


@pytest.mark.parametrize(("dimensions", "noise"), [(1, 0.1), (1, 1.0), (2, 0.5)])
def test_pairwise_bounds_bracket_the_gaussian_channel(dimensions: int, noise: float) -> None:
    """T standard normal, noise added: I = D/2 log2(1 + 1/noise)."""
    t = np.random.default_rng(0).standard_normal((1500, dimensions))
    low, high = kde_bounds(t, np.zeros(1500), noise=noise)
    closed = dimensions / 2 * math.log2(1 + 1 / noise)
    assert low.x < closed < high.x
    assert high.x - low.x < 1.2 * dimensions
    assert low.y == high.y == 0  # one class: nothing to know


def test_quantiles_hold_equally_many_and_fixed_bins_are_equally_wide() -> None:
    t = np.random.default_rng(1).exponential(size=(1000, 1))
    assert np.bincount(quantile_bins(t, 4).ravel()).tolist() == [250] * 4
    width = t.max() - t.min()
    edges = [t[fixed_bins(t, 4) == n].max() for n in range(3)]
    assert all(edge <= t.min() + width * (n + 1) / 4 for n, edge in enumerate(edges))
    assert set(fixed_bins(np.ones((5, 2)), 4).ravel()) == {0}


def test_independent_classes_have_what_shuffled_ones_have() -> None:
    generator = np.random.default_rng(2)
    t, y = generator.standard_normal((400, 1)), generator.integers(0, 4, 400)
    shuffled = generator.permutation(y)
    made, baseline = (binned(t, classes, quantile_bins, 8).y for classes in (y, shuffled))
    assert made == pytest.approx(baseline, abs=0.03)
    assert made < 0.1


def test_rounding_goes_to_the_middle_of_a_step() -> None:
    assert quantised(np.array([-5.0, 0.1, 0.99, 9.0]), 0.0, 1.0, 4).tolist() == [0.125, 0.125, 0.875, 0.875]
    assert quantised(np.array([2.0, 2.0]), 2.0, 2.0, 4).tolist() == [2.0, 2.0]


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="bins is 1"):
        fixed_bins([[0.0]], 1)
    with pytest.raises(ValueError, match="noise is 0"):
        kde_bounds([[0.0]], [0], noise=0)


def test_a_run_has_a_plane_with_ceilings_and_baselines(run: Run) -> None:
    (made,) = run.analyse(
        "information", options={"information": {"shares": "0.5", "levels": "1", "examples": "60"}}
    )
    assert made.reason is None
    table = made.table
    assert len(set(table.column("estimator"))) == 9
    assert set(table.column("layer")) == {"fc2", "fc3", "output"}
    assert set(table.column("arm")) == {"dense", "ticket", "reinit", "random"}
    assert table.numbers("most_x")[0] == pytest.approx(math.log2(60))
    assert (table.numbers("i_x") <= table.numbers("most_x") + 1e-9).all()
    discrete = [row for row in table.rows() if "pairwise" not in str(row["estimator"])]
    assert all(0 <= float(str(row["i_y"])) <= float(str(row["most_y"])) + 1e-9 for row in discrete)
    assert set(table.where(arm="dense", replicate=1, layer="fc3", estimator=EXACT).column("share")) == {
        0,
        0.5,
        1,
    }
    low, high = (table.where(estimator=f"pairwise, {end}").numbers("i_x") for end in ("lower", "upper"))
    assert (low <= high + 1e-9).all()
    assert any("estimators" in sentence for sentence in made.sentences)
