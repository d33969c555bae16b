"""Text from end to end, and users' networks of other layers: embeddings, recurrent cells, attention, tied weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket.criteria.evidence import DATA, NETWORK, needed
from winticket.experiment import Execution, Experiment, Result, conduct, cost, parameters, plan, transferred
from winticket.stages import control_ticket, dense_ticket, evidence, examples, prunable

Search = Callable[..., Result]
SHARED = Path(__file__).parents[3] / "shared" / "data" / "tinyshakespeare"

SMALL: dict[str, Any] = {
    "model": "chargpt-1-16",
    "steps": 12,
    "evaluate_every": 6,
    "batch": 8,
    "levels": 2,
    "replicates": 2,
    "stack": 2,
    "validation": None,
    "test": None,
}

NETS = """
import torch
from torch import nn

class Recurrent(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.embed = nn.Embedding(classes, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, classes)
        self.out.weight = self.embed.weight

    def forward(self, x):
        h = self.lstm(self.embed(x))[0]
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.out(h + self.attend(h, h, h, attn_mask=later, need_weights=False)[0])

def build(input_shape, classes):
    return Recurrent(classes)

def whole(input_shape, classes):
    return nn.Sequential(nn.Embedding(classes, 4), nn.Flatten(), nn.Linear(4 * input_shape[0], classes))
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Five thousand characters of five kinds, some more likely after others."""
    noise = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 3, (5000,), generator=noise).cumsum(0) % 5
    file = tmp_path / "book.txt"
    file.write_text("".join("abcde"[n] for n in numbers.tolist()))
    return file


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "wt_text_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "wt_text_nets"
    sys.modules.pop("wt_text_nets", None)


def test_text_comes_with_a_network_and_a_recipe(text: Path) -> None:
    experiment = Experiment.of(text)
    assert (experiment.model, experiment.recipe.optimizer, experiment.recipe.batch) == (
        "chargpt",
        "adamw",
        32,
    )
    setup = experiment.setup()
    assert setup.tokens
    assert not setup.own_split
    assert setup.blank(3).dtype == torch.int64
    with pytest.raises(
        ValueError, match="lenet-300-100 gives one answer per example, but text needs one per char"
    ):
        Experiment.of(text, model="lenet-300-100")
    with pytest.raises(ValueError, match="chargpt reads text"):
        Experiment.of("digits", model="chargpt")
    with pytest.raises(ValueError, match=r"flip is for images, .* shape \(64,\)"):
        plan(Experiment.of(text, **SMALL, flip=True))


def test_a_search_on_text_from_end_to_end(text: Path, search: Search) -> None:
    planned = plan(Experiment.of(text, **SMALL))
    price = cost(planned, Execution.local("memory://prices-of-text", workers=0))
    assert price.seconds is not None
    found = search(str(text), **SMALL)
    document = found.document
    assert not document["failures"]
    assert document["data"]["train"] == 62
    dense = document["levels"][0]["arms"]["dense"]
    assert dense["accuracy"] is not None
    assert 0 < dense["accuracy"] < 1
    assert dense["stacked"] is True
    assert found.ticket is not None
    assert found.ticket.mask.density() < 1
    again = search(str(text), **SMALL)
    assert again.document["levels"] == document["levels"]


def test_a_model_with_another_context_reads_other_windows(text: Path, search: Search, tmp_path: Path) -> None:
    usual = Experiment.of(text, **SMALL).setup()
    choices = {**SMALL, "model": "chargpt-1-16-24", "levels": 1}
    setup = Experiment.of(text, **choices).setup()
    assert (usual.input_shape, setup.input_shape) == ((64,), (24,))
    assert usual.fingerprint != setup.fingerprint
    # 5000 characters, 4000 of them for training: 166 windows of 24, and 62 of 64.
    assert (setup.train_examples(), usual.train_examples()) == (166, 62)
    assert setup.dataset(torch.device("cpu")).train.x.shape == (166, 24)
    found = search(str(text), **choices)
    assert not found.document["failures"]
    assert found.document["data"]["input_shape"] == [24]
    assert found.document["data"]["tokens"] is True
    assert found.document["data"]["train"] == 166
    assert found.ticket is not None
    assert found.ticket.start.weights["place.weight"].shape == (24, 16)
    assert (
        cost(
            plan(Experiment.of(text, **choices)), Execution.local("memory://prices-of-text", workers=0)
        ).seconds
        is not None
    )
    other = tmp_path / "other.txt"
    other.write_text(text.read_text()[::-1])
    carried = conduct(
        transferred(Experiment.of(text, **choices), str(other), replicates=2, gate=False),
        store=tmp_path / "runs",
        out=tmp_path / "out",
        workers=0,
    )
    assert carried.document["data"]["input_shape"] == [24]
    with pytest.raises(ValueError, match="needs at least 8010, since its parts are cut into windows of 800"):
        Experiment.of(text, model="chargpt-1-16-800")
    with pytest.raises(ValueError, match="digits is not text, and only text is cut into windows"):
        Experiment.of("digits", model="chargpt-1-16-24")


@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow", "taylor", "fisher", "wanda"])
def test_criteria_see_tokens(criterion: str, text: Path) -> None:
    allocation = "layerwise" if criterion == "wanda" else "global_top"  # which scores layer by layer
    experiment = Experiment.of(text, **SMALL, method="at-init", allocate=allocation, criterion=criterion)

    setup, function = experiment.setup(), experiment.functions()["criterion"]
    ticket = dense_ticket(setup, 0)
    given = evidence(setup, ticket, ticket.start, function)
    example = given.one()
    assert isinstance(example, torch.Tensor)
    assert example.dtype == torch.int64
    if DATA in needed(function):
        # Five kinds of characters, ten answers each: fifty, and a window has sixty-four.
        assert [(x.shape, y.shape) for x, y in given.batches] == [((1, 64), (1, 64))]
    assert NETWORK in needed(function)
    scores = function(given)
    assert all(bool(s.any()) for s in scores.values())
    assert plan(experiment).counts[0] > 0


def test_replicates_may_draw_their_own_windows(text: Path, search: Search) -> None:
    choices = {**SMALL, "split": "own", "validation": 4, "test": 5, "levels": 1}
    setup = Experiment.of(text, **choices).setup()
    all_three = examples(setup, [dense_ticket(setup, r) for r in range(3)], torch.device("cpu"))
    assert all_three.validation.y.shape == (3, 4, 64)
    assert len({str(part.tolist()) for part in (*all_three.validation.x, *all_three.test.x)}) > 3
    assert not search(str(text), **choices).document["failures"]


def test_what_is_pruned_is_shown_and_chosen_by_name(text: Path, nets: str) -> None:
    model = f"{nets}:build"
    shown = {row["name"]: row for row in parameters(plan(Experiment.of(text, **{**SMALL, "model": model})))}
    assert [name for name, row in shown.items() if row["spared"] is None] == ["attend.out_proj.weight"]
    assert shown["embed.weight"]["spared"] == "shared by out and Embedding, which is no Linear or Conv layer"
    assert shown["embed.weight"]["shape"] == [5, 8]
    assert "out.weight" not in shown  # tied: one parameter
    chosen = Experiment.of(
        text, **{**SMALL, "model": model}, include=("lstm.weight_*", "embed.*"), exclude=("*out_proj*",)
    )
    planned = plan(chosen)
    assert prunable(planned.setup) == ("embed.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0")
    reasons = {row["name"]: row["spared"] for row in parameters(planned)}
    assert reasons["attend.out_proj.weight"] == "excluded"
    assert planned.counts[0] == 5 * 8 + 2 * 32 * 8
    with pytest.raises(
        ValueError,
        match=r"include 'gru.*' fits no parameter .* could be included; there are embed.weight, lstm.weight_ih_l0",
    ):
        plan(chosen.but(include=("gru.*",)))


def test_a_network_of_other_layers_is_searched_one_by_one(text: Path, nets: str, search: Search) -> None:
    include = ("embed.weight", "lstm.weight_*", "attend.in_proj_weight")
    choices = {
        **SMALL,
        "model": f"{nets}:build",
        "levels": 1,
        "steps": 6,
    }  # a step takes as long as there is text
    found = search(str(text), **choices, include=include, controls=("reinit",), gate=False, engine="dense")
    document = found.document
    assert not document["failures"]
    for level in document["levels"]:
        for arm in level["arms"].values():
            assert arm["stacked"] is False
            assert arm["stacking_reason"]
    assert found.ticket is not None
    mask = found.ticket.mask
    assert list(mask.keep) == [
        *include[:1],
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        include[2],
        "attend.out_proj.weight",
    ]
    total = 5 * 8 + 32 * 8 + 32 * 8 + 24 * 8 + 8 * 8
    assert mask.total() == total
    number = [round(row["density"] * total) for row in document["levels"]].index(mask.count())
    assert number > 0
    # The table is pruned once, and what is read of it and what gives the logits are the same numbers.
    setup = Experiment.of(text, **{**SMALL, "model": f"{nets}:build"}, include=include).setup()
    module = setup.module()
    found.ticket.load_into(module)
    assert module.get_parameter("embed.weight") is module.get_submodule("out").weight
    assert "out.weight" not in found.ticket.start.weights


def test_controls_draw_included_weights_too(text: Path, nets: str) -> None:
    from winticket.experiment.names import ARMS

    setup = Experiment.of(text, **{**SMALL, "model": f"{nets}:build"}, include=("*",)).setup()
    ticket = dense_ticket(setup, 0)
    drawn = control_ticket(setup, ticket, control=ARMS["reinit"])
    for name in ticket.mask.keep:
        assert not torch.equal(drawn.start.weights[name], ticket.start.weights[name])


def test_one_answer_for_a_whole_text_is_refused(text: Path, nets: str) -> None:
    with pytest.raises(ValueError, match=r"should give logits \[N, 64, 5\], but for N = 2 gives \(2, 5\)"):
        plan(Experiment.of(text, **{**SMALL, "model": f"{nets}:whole"}))


@pytest.mark.evidence
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no tinyshakespeare at {SHARED}")
def test_chargpt_reads_more_than_pairs_of_letters(tmp_path: Path) -> None:
    """Always the commonest character: 14.9 %; the commonest after the one before: 26.5 %, of the test part."""
    experiment = Experiment.of(
        SHARED, steps=300, evaluate_every=100, levels=1, rate=0.5, replicates=2, gate=False
    )
    result = conduct(experiment, store=tmp_path / "store", out=tmp_path / "out")
    for level, arm in ((0, "dense"), (1, "ticket")):
        accuracies = result.document["levels"][level]["arms"][arm]["accuracies"]
        assert min(accuracy or 0 for accuracy in accuracies) > 0.3
