"""Controls that take another replicate's mask: whose, and what becomes of them where one failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket import allocate, controls
from winticket.align import permuted, symmetry
from winticket.experiment import Experiment, conduct, plan
from winticket.experiment.runs import trajectory
from winticket.procedures import Setup
from winticket.run import Store
from winticket.stages import dense_ticket, neighbour_ticket
from winticket.ticket import Failed, Mask, Seeds, State, Ticket, Trajectory, no_curve, same_bits
from winticket.train import train

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL: dict[str, Any] = {"model": "lenet-12-8", "steps": 6, "levels": 1, "gate": False, "evaluate_every": 3}


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Experiment.of("digits", **SMALL).setup()


@pytest.fixture(scope="module")
def tickets(setup: Setup) -> tuple[Ticket, ...]:
    found = []
    for replicate in range(3):
        whole = dense_ticket(setup, replicate)
        scores = {n: whole.start.weights[n].abs() for n in whole.mask.keep}
        found.append(
            replace(whole, mask=allocate.layerwise(scores, whole.mask, density=0.2), origin="ticket")
        )
    return tuple(found)


def test_each_replicate_takes_the_next_ones_mask_and_the_last_the_firsts(tmp_path: Path) -> None:
    asked = Experiment.of("digits", **SMALL, replicates=5, stack=3, controls=("other",))
    conduct(asked, store=tmp_path / "store", out=tmp_path / "out", workers=0)
    planned, store = plan(asked), Store(tmp_path / "store")
    found = {
        arm: [trajectory(planned, store, level=1, arm=arm, replicate=r).ticket for r in range(5)]
        for arm in ("ticket", "other")
    }
    # Stacks of three and two: 0 takes 1's, 1 takes 2's, 2 takes 0's; 3 and 4 each other's.
    for r, lender in enumerate((1, 2, 0, 4, 3)):
        own, lent, control = found["ticket"][r], found["ticket"][lender], found["other"][r]
        assert same_bits(control.mask.keep, lent.mask.keep)
        assert same_bits(control.start.weights, lent.mask.apply(own.start.weights))
        assert control.seeds == own.seeds == Seeds(0, r)


def test_alignment_matches_the_trained_dense_networks(setup: Setup, tickets: tuple[Ticket, ...]) -> None:
    """Replicate 1's end is replicate 0's with its units renumbered, so its mask comes back in 0's numbering."""
    groups = symmetry(setup.module(), setup.input_shape)
    orders = tuple(torch.randperm(g.size, generator=torch.Generator().manual_seed(1)) for g in groups)
    end = dict(dense_ticket(setup, 7).start.weights)
    ends = (end, permuted(end, groups, orders))
    paths = [
        Trajectory(t, {0: t.start, 6: State(w, {}, {}, 6)}, no_curve())
        for t, w in zip(tickets, ends, strict=False)
    ]
    lent = Ticket(
        Mask(permuted(tickets[2].mask.keep, groups, orders)), tickets[1].start, "ticket", tickets[1].seeds
    )
    control = neighbour_ticket(
        setup, tickets[0], (0, 1), [[tickets[0], lent], paths], control=controls.other_aligned
    )
    assert isinstance(control, Ticket)
    assert same_bits(control.mask.keep, tickets[2].mask.keep)
    assert (control.origin, control.seeds) == ("other_aligned", tickets[0].seeds)


@pytest.mark.parametrize("control", [controls.other, controls.other_aligned])
def test_a_failed_replicate_is_handed_on_as_failed(
    setup: Setup, tickets: tuple[Ticket, ...], control: Any
) -> None:
    lost = Failed("the loss stopped being finite at step 3", 3, Seeds(0, 1))
    given = neighbour_ticket(
        setup, tickets[0], (0, 1), [[tickets[0], lost], [tickets[0], lost]], control=control
    )
    told = "it takes the mask of another replicate, and replicate 1 failed: the loss stopped being finite at step 3"
    assert given == Failed(told, None, tickets[0].seeds)


def test_a_diverged_replicate_takes_its_borrower_with_it_and_nobody_else(tmp_path: Path) -> None:
    """Replicate 1 diverges in its dense training: it has no ticket, and 0 none to borrow; 2 borrows of 0."""

    def diverging(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            results = list(real(*args, **kwargs))
            return tuple(
                Failed("diverged", 2, r.ticket.seeds)
                if isinstance(r, Trajectory) and r.ticket.origin == "dense" and r.ticket.seeds.replicate == 1
                else r
                for r in results
            )

        return call

    asked = Experiment.of("digits", **SMALL, replicates=3, controls=("other", "other-aligned"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("winticket.stages.training.train", diverging(train))
        result = conduct(asked, store=tmp_path / "store", out=tmp_path / "out", workers=0)
    arms = result.document["levels"][1]["arms"]
    assert [a is None for a in arms["ticket"]["accuracies"]] == [False, True, False]
    for arm in ("other", "other-aligned"):
        assert [a is None for a in arms[arm]["accuracies"]] == [True, True, False]
        assert arms[arm]["failed"] == 2


def test_a_new_control_changes_no_other_key() -> None:
    def keys(**more: Any) -> dict[Any, str]:
        return {
            p: t.key for p, t in plan(Experiment.of("digits", **SMALL, replicates=3, **more)).tasks.items()
        }

    plain = keys()
    more = keys(controls=("reinit", "random", "other", "other-aligned"))
    assert {p: more[p] for p in plain} == plain
    assert len(set(more.values())) == len(plain) + 2


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"replicates": 6}, "with 6 replicates in stacks of 5 one replicate is alone"),
        ({"replicates": 1}, "with 1 replicates in stacks of 5 one replicate is alone"),
        ({"replicates": 4, "stack": 1}, "with 4 replicates in stacks of 1 one replicate is alone"),
    ],
)
def test_a_replicate_alone_in_its_stack_is_refused_while_planning(choices: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan(Experiment.of("digits", **SMALL, **choices, controls=("other",)))
    plan(Experiment.of("digits", **SMALL, **choices))


def test_a_network_whose_symmetry_is_not_known_is_refused_while_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "normed_by_layer.py").write_text(
        "from torch import nn\n\n\n"
        "def build(*, input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.LayerNorm(9), nn.Linear(9, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    choices = {**SMALL, "model": "normed_by_layer:build", "replicates": 2}
    told = r"control other-aligned: the hidden units .* 2 is a LayerNorm; .* control other takes the mask as it is"
    with pytest.raises(ValueError, match=told):
        plan(Experiment.of("digits", **choices, controls=("other-aligned",)))
    plan(Experiment.of("digits", **choices, controls=("other",)))
