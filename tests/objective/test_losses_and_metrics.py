"""Losses and metrics against scikit-learn, closed forms and counting."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn import metrics as sk

from winticket.objective import Objective, Scale, constant_outputs, functions, losses, metrics
from winticket.objective.question import check_functions, noise_targets

GENERATOR = torch.Generator().manual_seed(0)
NUMBERS = torch.randn(40, 3, generator=GENERATOR)
GUESSES = NUMBERS + torch.randn(40, 3, generator=GENERATOR)
CLASSES = torch.arange(60) % 4
LOGITS = torch.randn(60, 4, generator=GENERATOR)
LABELS = (torch.rand(50, 5, generator=GENERATOR) < 0.3).float()
SCORES = torch.randn(50, 5, generator=GENERATOR) + LABELS
MAPS = torch.randint(3, (6, 8, 8), generator=GENERATOR)
MAP_LOGITS = torch.randn(6, 3, 8, 8, generator=GENERATOR)


def test_metrics_of_numbers_are_scikit_learns() -> None:
    y, guess = NUMBERS.numpy(), GUESSES.numpy()
    assert metrics.rmse(GUESSES, NUMBERS) == pytest.approx(
        math.sqrt(sk.mean_squared_error(y, guess)), rel=1e-6
    )
    assert metrics.mae(GUESSES, NUMBERS) == pytest.approx(sk.mean_absolute_error(y, guess), rel=1e-6)
    assert metrics.r2(GUESSES, NUMBERS) == pytest.approx(sk.r2_score(y, guess), rel=1e-6)


def test_metrics_of_classes_are_scikit_learns() -> None:
    answers = LOGITS.argmax(1).numpy()
    assert metrics.accuracy(LOGITS, CLASSES) == sk.accuracy_score(CLASSES, answers)
    uneven = CLASSES.clone()
    uneven[:20] = 0
    expected = sk.balanced_accuracy_score(uneven, answers)
    assert metrics.balanced_accuracy(LOGITS, uneven) == pytest.approx(expected)
    loss = sk.log_loss(CLASSES, LOGITS.double().softmax(1), labels=[0, 1, 2, 3])
    assert metrics.perplexity(LOGITS, CLASSES) == pytest.approx(math.exp(loss), rel=1e-6)


def test_average_precision_leaves_out_labels_that_nobody_has() -> None:
    with_none = torch.cat([LABELS, torch.zeros(50, 1)], 1)
    scores = torch.cat([SCORES, torch.randn(50, 1)], 1)
    expected = sk.average_precision_score(LABELS.numpy(), SCORES.numpy(), average="macro")
    assert metrics.average_precision(scores, with_none) == pytest.approx(expected)
    assert math.isnan(metrics.average_precision(SCORES, torch.zeros(50, 5)))


def test_mean_iou_is_the_mean_of_the_classes_jaccard_indices() -> None:
    answers = MAP_LOGITS.argmax(1)
    expected = sk.jaccard_score(MAPS.flatten(), answers.flatten(), average="macro")
    assert metrics.mean_iou(MAP_LOGITS, MAPS) == pytest.approx(expected)
    assert metrics.position_accuracy(MAP_LOGITS, MAPS) == pytest.approx(
        float((answers == MAPS).double().mean())
    )


def test_a_class_that_neither_occurs_nor_is_answered_is_not_counted() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0] = 1
    assert metrics.mean_iou(logits, torch.zeros(1, 2, 2, dtype=torch.int64)) == 1.0


def test_r2_of_a_target_without_variance_counts_as_not_explained() -> None:
    y = torch.stack([torch.ones(5), torch.arange(5.0)], 1)
    assert metrics.r2(y, y) == 0.5
    assert math.isnan(metrics.r2(torch.ones(5, 1), torch.ones(5, 1)))


def test_balanced_weights_make_every_class_weigh_the_same() -> None:
    y = torch.tensor([0, 0, 0, 1])
    made = functions(Objective(class_weights="balanced"), y, outputs=2)
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    each = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    expected = (each[:3].mean() + each[3]) / 2
    torch.testing.assert_close(made.loss(logits, y), expected)


def test_balanced_labels_weigh_presence_by_absence() -> None:
    made = functions(Objective("multi-label", class_weights="balanced"), LABELS, outputs=5)
    absent = (1 - LABELS).sum(0) / LABELS.sum(0)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(SCORES, LABELS, pos_weight=absent)
    torch.testing.assert_close(made.loss(SCORES, LABELS), expected)


def test_numbers_are_trained_in_units_of_their_spread_and_scored_in_their_own() -> None:
    y = 1000 + 50 * NUMBERS[:, :1]
    made = functions(Objective("regression"), y, outputs=1)
    seen = made.trained(y)
    assert float(seen.mean()) == pytest.approx(0, abs=1e-4)
    assert float(seen.std(correction=0)) == pytest.approx(1, rel=1e-4)
    off = seen + 0.5
    assert made.score(off, seen) == pytest.approx(0.5 * float(y.std(correction=0)), rel=1e-4)


@pytest.mark.parametrize(
    ("task", "y", "outputs", "expected"),
    [
        ("regression", NUMBERS[:, :1], 1, float(NUMBERS[:, 0].std(correction=0))),
        ("multi-label", LABELS, 5, float(LABELS.mean())),
        ("classification", torch.tensor([0, 0, 0, 1]), 2, 0.5),
        ("segmentation", torch.tensor([[[0, 0], [0, 1]]]), 2, 0.75 / 2),
        (
            "next-token",
            torch.tensor([[0, 0], [0, 1]]),
            2,
            math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
        ),
    ],
)
def test_the_best_constant_answer(task: str, y: torch.Tensor, outputs: int, expected: float) -> None:
    metric = {"classification": "balanced-accuracy", "next-token": "perplexity"}.get(task)
    made = functions(Objective(task, metric=metric), y, outputs=outputs)
    assert made.constant(y, outputs=outputs) == pytest.approx(expected, rel=1e-5)
    assert constant_outputs(task, y, outputs).shape[0] == len(y)


@pytest.mark.parametrize("task", losses.BY_TASK)
def test_every_loss_and_metric_of_a_task_takes_its_outputs_and_targets(task: str) -> None:
    shape = (3, 8, 8)
    y = noise_targets(task, 12, 4, shape)
    outputs = {"segmentation": (4, 8, 8)}.get(task, (4,))
    for loss in losses.BY_TASK[task]:
        for metric in metrics.BY_TASK[task]:
            check_functions(functions(Objective(task, loss=loss, metric=metric), y, outputs=4), outputs, y, y)


def test_scales_say_how_good_is_meant() -> None:
    assert Objective("regression", unit="mm").scale() == Scale("RMSE", "lower", "mm", 0.0)
    assert Objective("regression", metric="r2", unit="mm").scale().unit == ""
    assert Objective("next-token", metric="perplexity").scale().better == "lower"


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"task": "regresion"}, "did you mean 'regression'"),
        ({"task": "regression", "metric": "accuracy"}, "possible: rmse, mae, r2"),
        ({"task": "classification", "loss": "huber"}, "possible: cross-entropy"),
        ({"task": "regression", "class_weights": "balanced"}, "leave it out"),
        ({"class_weights": "equal"}, "'balanced'"),
        ({"class_weights": "balanced", "loss": "mylab:loss"}, "leave it out"),
        ({"unit": "mm"}, "is for numbers"),
    ],
)
def test_what_does_not_go_together_is_refused(choices: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Objective(**choices)


@pytest.mark.parametrize("task", losses.BY_TASK)
def test_losses_compute_in_float64_as_criteria_ask_them_to(task: str) -> None:
    y = noise_targets(task, 12, 4, (3, 8, 8))
    shape = {"segmentation": (4, 8, 8)}.get(task, (4,))
    outputs = torch.randn(12, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name, loss in losses.BY_TASK[task].items():
        value = functions(Objective(task, loss=name), y, outputs=4).loss(outputs, y)
        assert value.dtype == torch.float64
        assert float(value) == pytest.approx(float(loss(outputs.float(), y)), rel=1e-4)


def test_a_network_that_is_sure_and_wrong_has_a_finite_perplexity() -> None:
    logits = torch.tensor([[0.0, 1e6]])
    assert math.isfinite(metrics.perplexity(logits, torch.tensor([0])))
    assert metrics.perplexity(logits, torch.tensor([0])) > 1e300
