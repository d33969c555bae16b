"""Information: exact for known channels, bounds that bracket closed forms, and a plane with ceilings and baselines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special

from analysing import made_of
from winticket.analyse import (
    binned,
    discrete_information,
    entropy,
    fixed_bins,
    kde_bounds,
    quantile_bins,
)
from winticket.analyse.information import numbered, rounded, squared_distances
from winticket.analyse.information_layers import (
    UNITS,
    Network,
    Scale,
    chosen_layers,
    estimates,
    flat,
)
from winticket.analyse.information_said import plane_says
from winticket.analyse.plane import OVER_TRAINING, PLANE
from winticket.experiment import Run
from winticket.report.analysis_figure import drawn
from winticket.table import Table, Value


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
    x, y = np.linspace(0, 1, 64)[:, None], np.arange(64) % 4
    for codes in (fixed_bins, quantile_bins):
        assert binned(x, y, codes, 64) == pytest.approx((6, 2))
    assert entropy(x**3) == 6
    bounds = kde_bounds(1e6 * x, y, noise=1.0)
    assert [*bounds.x, *bounds.y, *bounds.plotted_y] == pytest.approx([6, 6, 2, 2, 2, 2])


@pytest.mark.parametrize("variances", [(1.0,), (4.0, 0.5), (2.0, 1.0, 0.1)])
@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_pairwise_bounds_bracket_the_linear_gaussian_channel(
    variances: tuple[float, ...], noise: float
) -> None:
    """Of normal values of covariance S with noise s added, I = 1/2 log2 det(I + S/s)."""
    generator = np.random.default_rng(0)
    turn = np.linalg.qr(generator.standard_normal((len(variances), len(variances))))[0]
    t = generator.standard_normal((1500, len(variances))) * np.sqrt(variances) @ turn
    covariance = turn.T @ np.diag(variances) @ turn
    closed = 0.5 * math.log2(np.linalg.det(np.eye(len(variances)) + covariance / noise))
    bounds = kde_bounds(t, np.zeros(1500), noise=noise)
    assert bounds.x[0] < closed < bounds.x[1]
    assert bounds.x[1] - bounds.x[0] < 1.2 * len(variances)
    assert [*bounds.y, *bounds.plotted_y] == pytest.approx([0] * 4)  # one class: nothing to know


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_pairwise_bounds_bracket_a_mixture_that_is_integrated(noise: float) -> None:
    """Four values in two classes: entropies of the two mixtures by quadrature."""
    t, y = np.array([-2.0, -1.0, 0.5, 3.0]), np.array([0, 1, 0, 1])

    def mixture_entropy(centres: np.ndarray) -> float:
        def part(v: float) -> float:
            density = np.exp(-((v - centres) ** 2) / (2 * noise)).mean() / math.sqrt(2 * math.pi * noise)
            return float(special.entr(density)) / math.log(2)

        return float(integrate.quad(part, -25, 25, limit=400)[0])

    i_x = mixture_entropy(t) - 0.5 * math.log2(2 * math.pi * math.e * noise)
    i_y = mixture_entropy(t) - (mixture_entropy(t[y == 0]) + mixture_entropy(t[y == 1])) / 2
    bounds = kde_bounds(t[:, None], y, noise=noise)
    assert bounds.x[0] < i_x < bounds.x[1]
    assert bounds.y[0] <= i_y <= bounds.y[1]
    assert all(bounds.y[0] - 1e-9 <= plotted <= bounds.y[1] + 1e-9 for plotted in bounds.plotted_y)


@pytest.mark.parametrize("noise", [0.3, 2.0, 8.0])  # at 8, the upper bound of I(T;Y) is below H(Y)
def test_pairwise_bounds_are_their_formula_in_double_precision(noise: float) -> None:
    generator = np.random.default_rng(3)
    t, y = 100 + generator.standard_normal((80, 5)), generator.integers(0, 3, 80)
    distances = ((t[:, None] - t[None]) ** 2).sum(-1)
    assert squared_distances(t) == pytest.approx(distances, abs=1e-9)

    def mean_of(rows: np.ndarray, scale: float) -> float:
        part = special.logsumexp(-distances[np.ix_(rows, rows)] / (scale * noise), axis=1)
        return float((math.log2(rows.sum()) - part / math.log(2)).mean())

    bounds = kde_bounds(torch.from_numpy(t).requires_grad_(), torch.from_numpy(y), noise=noise)
    whole = [mean_of(y >= 0, scale) for scale in (8.0, 2.0)]
    within = [sum((y == c).mean() * mean_of(y == c, scale) for c in range(3)) for scale in (8.0, 2.0)]
    assert bounds.x == pytest.approx(tuple(whole), abs=1e-5)
    assert bounds.plotted_y == pytest.approx((whole[0] - within[0], whole[1] - within[1]), abs=1e-5)
    wanted = max(0, whole[0] - within[1]), min(entropy(y), whole[1] - within[0])
    assert bounds.y == pytest.approx(wanted, abs=1e-5)
    apart = kde_bounds(np.stack([t[:, 0], 40 * y], 1), y, noise=0.3)  # classes far apart: both bounds count
    assert apart.y == pytest.approx((entropy(y), entropy(y)), abs=0.9)
    assert 0 < apart.y[0] < apart.y[1] == pytest.approx(entropy(y))


def test_quantiles_hold_equally_many_and_fixed_bins_are_equally_wide() -> None:
    t = np.random.default_rng(1).exponential(size=(1000, 1))
    assert np.bincount(quantile_bins(t, 4).ravel()).tolist() == [250] * 4
    width = t.max() - t.min()
    edges = [t[fixed_bins(t, 4) == n].max() for n in range(3)]
    assert all(edge <= t.min() + width * (n + 1) / 4 for n, edge in enumerate(edges))
    assert set(fixed_bins(np.ones((5, 2)), 4).ravel()) == {0}
    assert fixed_bins([[-1.0], [0.2], [0.6], [9.0]], 4, ends=(0, 1)).ravel().tolist() == [0, 0, 2, 3]


def test_independent_classes_have_what_shuffled_ones_have() -> None:
    generator = np.random.default_rng(2)
    t, y = generator.standard_normal((400, 1)), generator.integers(0, 4, 400)
    shuffled = generator.permutation(y)
    made, baseline = (binned(t, classes, quantile_bins, 8).y for classes in (y, shuffled))
    assert made == pytest.approx(baseline, abs=0.03)
    assert made < 0.1
    many = generator.standard_normal((400, 50))  # every example has a code of its own, whatever the classes
    assert binned(many, y, quantile_bins, 8).y == pytest.approx(entropy(y))


def test_all_estimates_are_those_of_the_single_functions() -> None:
    generator = np.random.default_rng(4)
    t, y = np.maximum(generator.standard_normal((60, 3)), 0), generator.integers(0, 3, 60)
    scale, other = Scale((0.0, 2.0), 1.5), y[::-1]
    made = estimates(t, fixed_bins(t, 16), (numbered(y), numbered(other)), scale)
    for bins in (2, 8, 32):
        wide, equal = made[f"{bins} bins"], made[f"{bins} quantiles"]
        codes = fixed_bins(t, bins, ends=scale.ends)
        assert wide.x == pytest.approx(entropy(codes))
        assert (wide.y, wide.shuffled) == pytest.approx(
            tuple(discrete_information(codes, classes) for classes in (y, other))
        )
        assert (equal.x, equal.y) == pytest.approx(binned(t, y, quantile_bins, bins))
    bounds = kde_bounds(t, y, noise=0.05 * 1.5)
    for end, name in enumerate(("lower bound at 5 % noise", "upper bound at 5 % noise")):
        assert (made[name].x, made[name].y) == pytest.approx((bounds.x[end], bounds.plotted_y[end]))
        assert made[name].bounds == pytest.approx(bounds.y)
        assert made[name].noise == pytest.approx(0.075)
    assert made["lower bound at 5 % scaled noise"].noise == pytest.approx(0.05 * t.var(0).sum())
    assert made["as computed"].x == pytest.approx(entropy(t))


def test_values_that_do_not_differ_have_no_information() -> None:
    same, y = np.ones((10, 3)), np.arange(10) % 2
    made = estimates(same, numbered(same), (y, y), Scale((1.0, 1.0), 0.0))
    assert {(one.x, one.y, one.shuffled) for one in made.values()} == {(0, 0, 0)}


def test_rounding_goes_to_the_middle_of_a_step() -> None:
    assert rounded(np.array([-5.0, 0.1, 0.99, 9.0]), (0.0, 1.0), 4).tolist() == [0.125, 0.125, 0.875, 0.875]
    assert rounded(np.array([2.0, 2.0]), (2.0, 2.0), 4).tolist() == [2.0, 2.0]


def test_zeros_of_both_signs_are_one_value() -> None:
    assert entropy(np.array([0.0, -0.0])) == 0


def test_wide_layers_are_thinned_evenly_and_texts_read_at_their_last_position() -> None:
    wide = torch.arange(3 * UNITS, dtype=torch.float32).expand(2, -1)
    assert flat(wide, tokens=False)[0].tolist() == [3.0 * n for n in range(UNITS)]
    text = torch.arange(12.0).view(1, 4, 3)
    assert flat(text, tokens=True).tolist() == [[9, 10, 11]]


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="bins is 1"):
        fixed_bins([[0.0]], 1)
    with pytest.raises(ValueError, match="noise is 0"):
        kde_bounds([[0.0]], [0], noise=0)
    with pytest.raises(ValueError, match="infinite or nan"):
        quantile_bins([[math.nan]], 2)
    with pytest.raises(ValueError, match="2 and 3 rows"):
        discrete_information([0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match="shape"):
        entropy(np.zeros((0, 3)))


def test_the_rounded_network_is_the_network_with_rounded_values(run: Run) -> None:
    """By hand for two hidden layers: round, multiply, rectify, round."""
    training, setup = run.training("ticket", level=2, replicate=0), run.plan.setup
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names = chosen_layers(setup.module(), 4)
    made = Network.of(setup, training.trajectory, training.end, x, names)
    weights = {name: w.double() for name, w in training.weights.items()}

    def layer(values: torch.Tensor, name: str) -> torch.Tensor:
        return torch.relu(values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    first, second = made.values["fc2"], made.values["fc3"]
    assert first == pytest.approx(layer(x.double().flatten(1), "fc1").numpy(), abs=1e-5)
    ends = [(float(values.min()), float(values.max())) for values in (first, second)]
    assert made.codes["fc2"].tolist() == fixed_bins(first, 16, ends=ends[0]).tolist()
    by_hand = layer(torch.from_numpy(rounded(first, ends[0], 16)), "fc2").numpy()
    other = made.codes["fc3"] != fixed_bins(by_hand, 16, ends=ends[1])
    assert other.mean() < 0.002  # single precision at an edge
    assert (made.codes["fc3"] != fixed_bins(second, 16, ends=ends[1])).mean() > 0.002


def test_a_run_has_a_plane_with_ceilings_and_baselines(run: Run) -> None:
    made = made_of(run, "information", shares="0.5", levels="1", examples="60")
    assert made.reason is None
    table = made.table
    assert len(set(table.column("estimator"))) == 16
    assert set(table.column("layer")) == {"fc2", "fc3", "class probabilities"}
    assert set(table.where(last_hidden=True).column("layer")) == {"fc3"}
    assert set(table.column("arm")) == {"dense", "ticket", "reinit", "random"}
    assert table.numbers("most_x") == pytest.approx(math.log2(60))
    assert (table.numbers("i_x") <= table.numbers("most_x") + 1e-5).all()
    assert (table.where(estimator="as computed", layer="fc3").numbers("i_x") > 5.9).all()
    bounds = table.where(estimator="lower bound at 5 % noise")
    assert (bounds.numbers("low_y") <= bounds.numbers("high_y")).all()
    assert (bounds.numbers("i_x") <= table.where(estimator="upper bound at 5 % noise").numbers("i_x")).all()
    ends = table.where(at_end=True)  # where noise that follows the layer's variance is the fixed noise
    fixed, scaled = (ends.where(estimator=f"upper bound at 5 % {kind}") for kind in ("noise", "scaled noise"))
    assert fixed.numbers("i_x") == pytest.approx(scaled.numbers("i_x"))
    for arm in ("dense", "ticket", "reinit", "random"):
        path = table.where(arm=arm, followed=True, replicate=1, layer="fc3", estimator="8 bins")
        assert path.column("step") == [0, 30, 60]
    figure = drawn(made.analysis, table, number=1)
    assert len(figure.axes) == len(OVER_TRAINING) == 8
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert figure.axes[0].get_ylim()[1] < 2 * table.numbers("most_y").max()
    dotted = [
        line
        for line in figure.axes[1].get_lines()
        if line.get_linestyle() == ":" and np.size(line.get_xdata())
    ]
    assert len(dotted) == 4  # every arm with shuffled classes


def planted(falls: dict[str, float], *, random: dict[str, float]) -> Table:
    """A table in which I(X;T) falls by so many bits by each estimator, and by as many in random masks."""
    rows: list[dict[str, Value]] = []
    for arm, by_arm in (("dense", falls), ("ticket", falls), ("random", random)):
        for replicate in range(1, 6):
            for estimator, fall in by_arm.items():
                for share in (0.0, 0.5, 1.0):
                    noisy = 5 + 0.01 * replicate * (1 + share) + (fall if share < 1 else 0.0)
                    row: dict[str, Value] = dict.fromkeys(PLANE, None)
                    row |= {
                        "level": 3, "density": 0.1, "arm": arm, "replicate": replicate, "share": share,
                        "at_end": share == 1, "followed": True, "layer": "fc3", "last_hidden": True,
                        "estimator": estimator, "i_x": 8.0 if estimator == "as computed" else noisy, "i_y": 2.0,
                        "i_y_shuffled": 2.0 if estimator == "8 bins" else 1.0, "most_x": 8.0, "most_y": 3.0,
                    }  # fmt: skip
                    rows.append(row)
    return Table.from_rows(rows, columns=tuple(PLANE))


def test_a_planted_fall_is_compression_and_one_within_the_noise_is_none() -> None:
    falls = {"as computed": 0.0, "8 bins": 0.5, "2 quantiles": 1e-6, "upper bound at 5 % noise": 0.5}
    text = " ".join(plane_says(planted(falls, random=falls | {"8 bins": 0.0})))
    assert "2 of 4 for the dense network (8 bins, upper bound at 5 % noise)" in text
    assert "than random masks of the same layer densities by 1 of 4 (8 bins)." in text
    assert "I(X;T) = H(X) = 8 bits at every step and density" in text
    assert "1 of 4 estimators give 99 % or more" in text
    assert "whether the networks compress depends on the estimator" in text


def test_estimators_that_rise_and_fall_contradict_each_other() -> None:
    both = {"as computed": 0.0, "2 bins": -1.0, "upper bound at 5 % scaled noise": 1.0}
    text = " ".join(plane_says(planted(both, random=both)))
    assert "It ends above its start by others: 1 for the dense network and 1 for tickets." in text
    assert "contradict" in text


def test_no_fall_is_no_compression() -> None:
    none = {"as computed": 0.0, "8 bins": 0.0}
    text = " ".join(plane_says(planted(none, random=none)))
    assert "0 of 2 for the dense network" in text
    assert "no estimator shows compression" in text
