"""Disagreement and CKA: their definitions, invariances, and what independent inputs give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import winticket
from winticket.analyse import cka, disagreement
from winticket.analyse.agreement import TICKET_DENSE, TICKETS, _unseen, hidden_layer
from winticket.analyse.networks import outputs, parts
from winticket.experiment import Execution, Run


def test_disagreement_counts_other_answers() -> None:
    a = torch.eye(4)
    assert disagreement(a, a) == 0
    assert disagreement(a, a.roll(1, 0)) == 1
    with pytest.raises(ValueError, match="not of the same examples"):
        disagreement(a, a[:2])


def test_cka_is_its_definition() -> None:
    """HSIC by centred Gram matrices (Kornblith et al. 2019), and by sums over distinct indices (Song et al. 2012)."""
    generator = np.random.default_rng(0)
    n = 8
    x, y = generator.standard_normal((n, 3)), generator.standard_normal((n, 5)) + 0.3
    k, m = x @ x.T, y @ y.T
    h = np.eye(n) - 1 / n

    def biased(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ h @ b @ h)) / (n - 1) ** 2

    def unbiased(a: np.ndarray, b: np.ndarray) -> float:
        indices = range(n)
        two = np.mean([a[i, j] * b[i, j] for i in indices for j in indices if i != j])
        three = np.mean(
            [a[i, j] * b[i, q] for i in indices for j in indices for q in indices if len({i, j, q}) == 3]
        )
        four = np.mean(
            [
                a[i, j] * b[q, r]
                for i in indices for j in indices for q in indices for r in indices
                if len({i, j, q, r}) == 4
            ]
        )  # fmt: skip
        return float(two - 2 * three + four)

    tensors = torch.from_numpy(x), torch.from_numpy(y)
    for debiased, of in ((False, biased), (True, unbiased)):
        wanted = of(k, m) / np.sqrt(of(k, k) * of(m, m))
        assert cka(*tensors, debiased=debiased) == pytest.approx(wanted)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_knows_neither_rotation_nor_scale_nor_shift(debiased: bool) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6).double(), torch.randn(40, 9).double()
    turn = torch.linalg.qr(torch.randn(6, 6).double())[0]
    assert cka(x, x, debiased=debiased) == pytest.approx(1)
    assert cka(3 * x @ turn + 5, y, debiased=debiased) == pytest.approx(cka(x, y, debiased=debiased))


def test_independent_inputs_are_unlike_if_debiased() -> None:
    """Biased, they seem alike unless examples are many: about .2, .11, .056, .029 for 8 features."""
    generator = torch.Generator().manual_seed(0)
    biased, debiased = [], []
    for n in (32, 64, 128, 256):
        pairs = [
            (torch.randn(n, 8, generator=generator), torch.randn(n, 8, generator=generator))
            for _ in range(60)
        ]
        biased.append(np.mean([cka(x, y, debiased=False) for x, y in pairs]))
        debiased.append(np.mean([cka(x, y) for x, y in pairs]))
    assert biased == pytest.approx([0.198, 0.114, 0.056, 0.029], abs=0.02)
    assert debiased == pytest.approx([0] * 4, abs=0.02)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        cka(torch.randn(3, 2), torch.randn(3, 2))


def test_replicates_with_splits_of_their_own_are_compared_on_common_test_examples(run: Run) -> None:
    setup = run.plan.setup
    assert setup.own_split
    one, other, classes = _unseen(setup, 0, 1)
    first, second = parts(setup, 0), parts(setup, 1)
    assert 20 < len(one) == len(other) < len(first.test.x)
    raw = [x + torch.tensor(d.mean).view(-1, 1, 1) for x, d in ((one, first), (other, second))]
    torch.testing.assert_close(raw[0], raw[1])
    seen = {(x + torch.tensor(first.mean).view(-1, 1, 1)).round().numpy().tobytes() for x in first.train.x}
    assert sum(row.round().numpy().tobytes() in seen for row in raw[1]) <= 1  # two digits may be equal
    assert len(classes) == len(one)


def test_a_run_is_compared_with_its_dense_networks(run: Run) -> None:
    """By workers, as a user's analyses are computed."""
    (made,) = run.analyse("agreement", execution=Execution.local(run.store.path, workers=2))
    assert made.reason is None
    row = made.table.where(level=2, pair=TICKET_DENSE, replicate=1).rows()[0]
    ends = [run.training("ticket", level=2, replicate=0).end, run.training("dense", level=0, replicate=0).end]
    x = parts(run.plan.setup, 0).test.x
    a, b = (outputs(run.plan.setup.module(), end.weights, end.buffers, x) for end in ends)
    assert row["disagreement"] == disagreement(a, b)
    assert hidden_layer(run.plan.setup.module()) == "fc3"
    assert len(made.table.where(level=1, pair=TICKETS)) == 3
    assert all(-0.5 < value <= 1 for value in made.table.numbers("cka"))


def test_every_answer_of_an_example_counts(tmp_path: Path) -> None:
    """Text: a window has as many answers as letters, and each network differs in none of them from itself."""
    (tmp_path / "letters.txt").write_text("abcabcabdabc" * 400)
    options: dict[str, Any] = {
        "model": "chargpt-1-16-8",
        "steps": 12,
        "levels": 1,
        "replicates": 2,
        "workers": 0,
    }
    winticket.find(
        tmp_path / "letters.txt", store=tmp_path / "store", out=tmp_path / "out", gate=False, **options
    )
    run = winticket.open(tmp_path / "out")
    (made,) = run.analyse("agreement")
    assert made.reason is None
    rows = made.table.where(pair="ticket and dense")
    assert len(rows) == 2
    data = run.plan.setup.dataset(torch.device("cpu"), 0).test
    nets = [run.training(arm, level=level, replicate=0) for arm, level in (("ticket", 1), ("dense", 0))]
    module = run.plan.setup.module()
    one, two = (
        torch.func.functional_call(module, {**net.end.weights, **net.end.buffers}, (data.x,)).argmax(-1)
        for net in nets
    )
    assert rows.numbers("disagreement")[0] == pytest.approx(float((one != two).double().mean()))
