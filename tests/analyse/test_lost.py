"""Calibration, accuracy by class and examples that only tickets get wrong, against loops over examples."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from analysing import made_of
from winticket import analyse, data
from winticket.analyse import facts
from winticket.analyse.networks import outputs, parts
from winticket.experiment import Run


def test_calibration_error_is_the_weighted_gap_of_fifteen_bins() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 6, generator=generator)
    labels = torch.randint(6, (500,), generator=generator)
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        exponentials = [math.exp(float(v)) for v in row]
        confidence = max(exponentials) / sum(exponentials)
        number = next(n for n in range(15) if n / 15 < confidence <= (n + 1) / 15)
        bins[number].append((confidence, float(int(row.argmax()) == label)))
    expected = sum(
        len(one) / 500 * abs(sum(r for _, r in one) / len(one) - sum(c for c, _ in one) / len(one))
        for one in bins.values()
    )
    assert len(bins) > 8
    assert analyse.calibration_error(logits, labels) == pytest.approx(expected, abs=1e-7)


def test_calibration_error_at_its_ends() -> None:
    sure = torch.tensor([[50.0, 0.0], [50.0, 0.0]])
    assert analyse.calibration_error(sure, torch.tensor([1, 1])) == pytest.approx(1)
    assert analyse.calibration_error(sure, torch.tensor([0, 0])) == pytest.approx(0)
    even = torch.zeros(4, 2)  # confidence is exactly at a border of 2 bins, and belongs to the lower one
    more = torch.tensor([[0.6, 0.4]]).log().expand(4, 2)
    both, right = torch.cat([even, more]), torch.tensor([0, 1, 1, 1, 0, 0, 0, 0])
    assert analyse.calibration_error(both, right, bins=2) == pytest.approx((0.25 + 0.4) / 2)
    with pytest.raises(ValueError, match="without examples"):
        analyse.calibration_error(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))


def test_the_floor_of_one_bin_is_the_mean_deviation_of_a_binomial() -> None:
    logits = torch.tensor([[0.8, 0.2]]).log().expand(60, 2)
    binomial = stats.binom(60, 0.8)
    exact = sum(binomial.pmf(k) * abs(k / 60 - 0.8) for k in range(61))
    deviation = math.sqrt(0.8 * 0.2 / 60)
    assert abs(analyse.calibration_floor(logits, draws=4000) - exact) < 4 * deviation / math.sqrt(4000)
    assert analyse.calibration_floor(logits) == analyse.calibration_floor(logits)
    with pytest.raises(ValueError, match="without examples"):
        analyse.calibration_floor(logits[:0])


def test_predictions_at_every_character_count_as_examples() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(4, 5, 3, generator=generator), torch.randint(3, (4, 5), generator=generator)
    flat = analyse.calibration_error(logits.reshape(20, 3), labels.reshape(20))
    assert analyse.calibration_error(logits, labels) == flat


def test_accuracy_by_class_counts_examples_of_the_class_only() -> None:
    predicted, labels = torch.tensor([0, 0, 2, 2, 1]), torch.tensor([0, 1, 2, 2, 2])
    found = analyse.accuracy_by_class(predicted, labels, 4).tolist()
    assert found[:3] == [1.0, 0.0, 2 / 3]
    assert math.isnan(found[3])


def judged(dense: Tensor, tickets: Tensor, labels: Tensor, least: int) -> tuple[set[int], set[int]]:
    """(lost, exemplars) by loops over examples."""
    lost, exemplars = set(), set()
    for n, label in enumerate(labels.tolist()):
        sides = [[int(p) for p in side[:, n] if p >= 0] for side in (dense, tickets)]
        if min(map(len, sides)) < least:
            continue
        right = [sum(p == label for p in side) / len(side) for side in sides]
        if right[0] > 0.5 > right[1]:
            lost.add(n)
        most = [Counter(side).most_common() for side in sides]
        clear = all(len(one) == 1 or one[0][1] > one[1][1] for one in most)
        if clear and most[0][0][0] != most[1][0][0]:
            exemplars.add(n)
    return lost, exemplars


@pytest.mark.parametrize("least", [1, 3])
def test_lost_examples_and_exemplars_against_loops(least: int) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(3, (300,), generator=generator)
    dense, tickets = (torch.randint(-1, 3, (5, 300), generator=generator) for _ in range(2))
    lost, exemplars = judged(dense, tickets, labels, least)
    found = analyse.lost_examples(dense, tickets, labels, least=least)
    assert set(torch.nonzero(found).flatten().tolist()) == lost
    different = analyse.pruning_exemplars(dense, tickets, classes=3, least=least)
    assert set(torch.nonzero(different).flatten().tolist()) == exemplars
    assert lost
    assert exemplars - lost


def test_rows_of_a_test_split_are_those_that_load_draws() -> None:
    info = data.find_dataset("digits")
    whole: dict[int, list[int]] = {}
    for seed in (3, 4):
        loaded = data.load("digits", seed=seed, test=500)
        rows = data.rows_tested(info, seed=seed, test=500)
        assert len(rows) == 500
        pixels = (loaded.test.x + torch.tensor(loaded.mean).view(-1, 1, 1)) * loaded.scale
        for row, image in zip(rows.tolist(), pixels.round().to(torch.uint8).flatten(1).tolist(), strict=True):
            assert whole.setdefault(row, image) == image
    assert 500 < len(whole) < 1000  # some examples are in both
    assert len(set(map(tuple, whole.values()))) == len(whole)


def predicted_by(run: Run, arm: str, level: int, replicate: int) -> tuple[Tensor, Tensor]:
    """Logits and labels of a stored network on its replicate's test data."""
    training = run.training(arm, level=level, replicate=replicate)
    test = parts(run.plan.setup, replicate).test
    return outputs(run.plan.setup.module(), training.weights, training.end.buffers, test.x), test.y


def test_calibration_of_a_run_is_that_of_its_networks(run: Run) -> None:
    made = made_of(run, "calibration")
    assert made.reason is None
    losses, beyond = {}, {}
    for arm, level in (("dense", 0), ("ticket", 2)):
        logits, labels = predicted_by(run, arm, level, 1)
        (row,) = made.table.where(arm=arm, level=level, replicate=2).rows()
        losses[arm] = float(torch.nn.functional.cross_entropy(logits.double(), labels))
        assert row["loss"] == pytest.approx(losses[arm], rel=1e-6)
        assert row["error"] == pytest.approx(analyse.calibration_error(logits, labels), abs=1e-6)
        accuracy = run.training(arm, level=level, replicate=1).curve.last()["test_accuracy"]
        assert row["accuracy"] == pytest.approx(accuracy, abs=1e-9)
        assert row["floor"] == pytest.approx(analyse.calibration_floor(logits), abs=1e-6)
        assert row["beyond"] == pytest.approx(float(str(row["error"])) - float(str(row["floor"])))
        beyond[arm] = float(str(row["beyond"]))
        assert row["loss_change"] == pytest.approx(losses[arm] - losses["dense"], rel=1e-5)
        assert row["beyond_change"] == pytest.approx(beyond[arm] - beyond["dense"])
    assert set(made.table.column("arm")) == {"dense", "ticket", "reinit", "random"}


def test_classes_of_a_run_are_paired_by_replicate(run: Run) -> None:
    made = made_of(run, "classes")
    assert made.reason is None
    shares = []
    for arm, level in (("dense", 0), ("ticket", 2)):
        logits, labels = predicted_by(run, arm, level, 2)
        right = logits.argmax(-1) == labels
        shares.append(
            [*(float(right[labels == c].double().mean()) for c in range(10)), float(right.double().mean())]
        )
    at = made.table.where(level=2, replicate=3)
    assert at.column("class") == list(range(10))
    assert at.numbers("dense").tolist() == pytest.approx(shares[0][:10])
    assert at.numbers("ticket").tolist() == pytest.approx(shares[1][:10])
    change = [b - a for a, b in zip(*shares, strict=True)]
    assert at.numbers("difference").tolist() == pytest.approx(change[:10])
    assert at.numbers("beyond").tolist() == pytest.approx([c - change[10] for c in change[:10]])
    assert sum(int(str(n)) for n in at.column("examples")) == 450


def test_exemplars_of_a_run_are_found_by_what_the_images_show(run: Run) -> None:
    """Replicates have test sets of their own, so an example is known by its pixels here, not by its number."""
    made = made_of(run, "exemplars", least=2)
    assert made.reason is None
    assert run.plan.setup.own_split
    seen: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    labelled = {}
    for replicate in range(3):
        dataset = parts(run.plan.setup, replicate)
        pixels = ((dataset.test.x + torch.tensor(dataset.mean).view(-1, 1, 1)) * dataset.scale).round()
        chosen = [
            predicted_by(run, arm, level, replicate)[0].argmax(-1)
            for arm, level in (("dense", 0), ("ticket", 2))
        ]
        for image, label, *pair in zip(pixels.to(torch.uint8), dataset.test.y, *chosen, strict=True):
            key = image.numpy().tobytes()
            labelled[key] = int(label)
            seen[key].append((int(pair[0]), int(pair[1])))
    enough = {key: pairs for key, pairs in seen.items() if len(pairs) >= 2}

    def most(pairs: list[tuple[int, int]], side: int, label: int) -> bool:
        return sum(pair[side] == label for pair in pairs) / len(pairs) > 0.5

    def few(pairs: list[tuple[int, int]], side: int, label: int) -> bool:
        return sum(pair[side] == label for pair in pairs) / len(pairs) < 0.5

    lost = {k for k, p in enough.items() if most(p, 0, labelled[k]) and few(p, 1, labelled[k])}
    gained = {k for k, p in enough.items() if most(p, 1, labelled[k]) and few(p, 0, labelled[k])}
    rows = {str(row["kind"]): row for row in made.table.where(level=2).rows()}
    first, second = rows["only most tickets wrong"], rows["only most dense networks wrong"]
    assert first["examples"] == len(enough)
    assert (first["count"], second["count"]) == (len(lost), len(gained))
    assert len(lost) + len(gained) > 0
    raw = (data.find_dataset("digits"), run.plan.setup)
    numbers = {}
    for replicate in range(3):
        dataset = parts(raw[1], replicate)
        pixels = ((dataset.test.x + torch.tensor(dataset.mean).view(-1, 1, 1)) * dataset.scale).round()
        tested = data.rows_tested(raw[0], seed=raw[1].split_seed(replicate), test=raw[1].test)
        for image, row in zip(pixels.to(torch.uint8), tested.tolist(), strict=True):
            numbers[image.numpy().tobytes()] = row
    for row, keys in ((first, lost), (second, gained)):
        assert sorted(map(int, str(row["which"]).split())) == sorted(numbers[key] for key in keys)


def test_an_example_that_too_few_networks_saw_is_not_judged(run: Run) -> None:
    made = made_of(run, "exemplars", least=4)
    assert set(made.table.column("examples")) == {0}
    assert made.table.column("share") == [None] * 6
    assert made.sentences == (
        "No test example was seen by enough replicates of both; run more replicates, or lower least.",
    )


@pytest.mark.parametrize("name", ["calibration", "classes", "exemplars"])
def test_without_dense_networks_nothing_is_compared(run: Run, name: str) -> None:
    cells = run.cells()
    tickets: dict[Any, Any] = {cell: stacks for cell, stacks in cells.trainings.items() if cell[1] != "dense"}
    with pytest.raises(
        facts.NothingToAnalyseError, match="no dense networks and tickets of the same replicates"
    ):
        analyse.ANALYSES[name].plan(replace(cells, trainings=tickets))
