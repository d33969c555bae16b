"""Procedures whose masks come from a training of their own: SET, RigL, gradual pruning, supermasks, Early-Bird."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from winticket import allocate, criteria, report
from winticket.data import find_dataset
from winticket.experiment import Experiment, Result, conduct, offered, plan
from winticket.experiment.runs import trajectory
from winticket.procedures import Setup, early_bird, force, gradual, rigl
from winticket.run import Store, stored_needs
from winticket.stages import (
    dense_ticket,
    distance,
    emerged,
    evidence,
    looks,
    sparse_start,
    train_regrowing,
    train_thinning,
)
from winticket.ticket import Failed, Mask, State, Ticket, Trajectory, no_curve, same_bits
from winticket.train import Recipe
from winticket.train.rules import DROPPED, UNTIL, Regrowing, Score, Thinning, at_random, by_gradient
from winticket.units import dead_parameters, effective_count, zeroed


@pytest.fixture(autouse=True)
def few_iterations(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[force.__module__], "ITERATIONS", 10)  # 300 take seconds


@pytest.fixture(scope="module")
def setup() -> Setup:
    source = find_dataset("digits")
    return Setup(
        "digits",
        source.fingerprint,
        source.input_shape,
        source.classes,
        "lenet-12-8",
        "glorot-normal",
        Recipe(steps=40, evaluate_every=10),
    )


def by_magnitude(setup: Setup) -> Score:
    return lambda ticket, now: criteria.magnitude(evidence(setup, ticket, now, criteria.magnitude))


def at(setup: Setup, step: int, weights: Mapping[str, Tensor]) -> State:
    return State({**dense_ticket(setup, 0).start.weights, **weights}, {}, {}, step)


def test_rigl_drops_the_smallest_and_grows_the_largest_gradient_by_hand(setup: Setup) -> None:
    """Evci et al. 2020, algorithm 1: 8 of 80 weights; at step 10 of 30, .3/2 (1 + cos(π/3)) = .225 of them go."""
    ticket = dense_ticket(setup, 0)
    keep = {n: torch.zeros_like(k) for n, k in ticket.mask.keep.items()}
    keep["fc3.weight"].view(-1)[:8] = True
    ticket = replace(ticket, mask=Mask(keep))
    weights = torch.zeros(10, 8)
    weights.view(-1)[:8] = torch.tensor([0.5, -0.1, 0.4, 0.05, -0.9, 0.3, 0.2, -0.6])
    gradient = torch.zeros(10, 8)
    # Of the free places 20 and 40 have the largest |gradient|; that of place 0, which stays, does not count.
    gradient.view(-1)[[0, 20, 40, 60]] = torch.tensor([9.0, -5.0, 4.0, 3.0])
    rule = Regrowing(40, by_gradient, by_magnitude(setup), every=2)
    share = DROPPED / 2 * (1 + math.cos(math.pi * 10 / (UNTIL * 40)))
    assert share == pytest.approx(0.225)
    # int(.225 · 8) = 1 goes: place 3, of the smallest |w|; place 20 comes.
    found = rule.change(ticket, at(setup, 10, {"fc3.weight": weights}), lambda: _all(keep, gradient))
    assert found.keep["fc3.weight"].view(-1).nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6, 7, 20]
    # At step 2 the share is .297: int(2.37) = 2 go, and what has just gone may come back.
    gradient.view(-1)[1] = 7.0
    found = rule.change(ticket, at(setup, 2, {"fc3.weight": weights}), lambda: _all(keep, gradient))
    assert found.keep["fc3.weight"].view(-1).nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6, 7, 20]


def _all(keep: Mapping[str, Tensor], last: Tensor) -> dict[str, Tensor]:
    return {n: last if n == "fc3.weight" else torch.zeros(k.shape) for n, k in keep.items()}


@pytest.mark.parametrize("grow", [at_random, by_gradient])
def test_every_layer_keeps_its_count_at_every_change(
    setup: Setup, grow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, dict[str, tuple[int, int]], int]] = []
    change = Regrowing.change

    def watched(self: Regrowing, ticket: Ticket, now: State, gradient: Any) -> Mask:
        mask = change(self, ticket, now, gradient)
        alive = sum(int((now.weights[n] != 0).sum()) for n in mask.keep)
        assert alive <= ticket.mask.count()  # no step before revived a weight
        new = sum(int((mask.keep[n] & ~ticket.mask.keep[n]).sum()) for n in mask.keep)
        seen.append((now.step, mask.layers(), new))
        return mask

    monkeypatch.setattr(Regrowing, "change", watched)
    ticket = sparse_start(dense_ticket(setup, 0), density=0.3, allocate=allocate.erk)
    (path,) = train_regrowing(setup, [ticket], grow=grow, criterion=criteria.magnitude, every=4)
    assert isinstance(path, Trajectory)
    assert [step for step, _, _ in seen] == [4, 8, 12, 16, 20, 24, 28]  # to three quarters of 40
    assert all(layers == ticket.mask.layers() for _, layers, _ in seen)
    assert sum(new for _, _, new in seen) > 0
    assert path.ticket.mask.layers() == ticket.mask.layers()
    assert not same_bits(path.ticket.mask.keep, ticket.mask.keep)
    for name, keep in path.ticket.mask.keep.items():
        assert not bool(path.saved[40].weights[name][~keep].any())


@pytest.mark.parametrize("method", ["set", "rigl", "gradual"])
def test_weights_that_diverge_in_the_update_before_a_change_fail_alone(method: str, setup: Setup) -> None:
    # Every loss so far is finite when the mask is to change.
    setup = replace(setup, recipe=replace(setup.recipe, optimizer="sgd", lr=1e300))
    dense = dense_ticket(setup, 0)
    options: dict[str, Any] = {"criterion": criteria.magnitude, "every": 1}
    if method == "gradual":
        (path,) = train_thinning(setup, [dense], density=0.3, allocate=allocate.layerwise, **options)
    else:
        ticket = sparse_start(dense, density=0.3, allocate=allocate.erk)
        grow = at_random if method == "set" else by_gradient
        (path,) = train_regrowing(setup, [ticket], grow=grow, **options)
    assert isinstance(path, Failed)
    assert path.reason == "the loss stopped being finite at step 2"


def test_scores_that_are_not_finite_are_refused(setup: Setup) -> None:
    ticket = sparse_start(dense_ticket(setup, 0), density=0.3, allocate=allocate.layerwise)
    rule = Regrowing(40, at_random, by_magnitude(setup), every=4)
    weights = torch.zeros(10, 8)
    weights[3, 3] = torch.nan
    with pytest.raises(
        ValueError, match=r"scores of layer 'fc3.weight' are not all finite.*has not diverged"
    ):
        rule.change(ticket, at(setup, 4, {"fc3.weight": weights}), dict)


def test_set_draws_anew_each_time_and_the_same_for_the_same_step(setup: Setup) -> None:
    ticket = sparse_start(dense_ticket(setup, 0), density=0.3, allocate=allocate.layerwise)
    rule = Regrowing(40, at_random, by_magnitude(setup), every=4)
    now = at(setup, 4, {})
    nothing: Any = dict
    one, again = (rule.change(ticket, now, nothing) for _ in range(2))
    later = rule.change(ticket, replace(now, step=8), nothing)
    assert same_bits(one.keep, again.keep)
    assert not same_bits(one.keep, later.keep)


def test_gradual_pruning_follows_the_cubic_and_ends_at_the_density(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zhu & Gupta 2017, eq. 1, from 1 to .2 in 30 of 40 steps: .2 + .8 (1 - t/30)³."""
    seen: list[tuple[int, Mask, Mask]] = []
    change = Thinning.change

    def watched(self: Thinning, ticket: Ticket, now: State, gradient: Any) -> Mask:
        mask = change(self, ticket, now, gradient)
        seen.append((now.step, ticket.mask, mask))
        return mask

    monkeypatch.setattr(Thinning, "change", watched)
    (path,) = train_thinning(
        setup,
        [dense_ticket(setup, 0)],
        density=0.2,
        criterion=criteria.magnitude,
        allocate=allocate.global_top,
        every=10,
    )
    assert isinstance(path, Trajectory)
    total = path.ticket.mask.total()
    wanted = {10: 0.2 + 0.8 * (2 / 3) ** 3, 20: 0.2 + 0.8 * (1 / 3) ** 3, 30: 0.2}
    assert {step: mask.count() for step, _, mask in seen} == {
        step: math.floor(d * total + 0.5) for step, d in wanted.items()
    }
    assert all(mask.within(before) for _, before, mask in seen)
    assert path.ticket.mask.count() == math.floor(0.2 * total + 0.5)


def test_early_bird_takes_the_first_mask_that_has_settled_by_hand(setup: Setup) -> None:
    """Ten units, five kept; the mask of a look differs from those before until five looks in a row are one."""
    setup = replace(setup, model="lenet-10", exclude=("fc2.weight",), recipe=Recipe(steps=400, batch=60))
    ticket = dense_ticket(setup, 0)
    steps = looks(setup)
    assert steps[:3] == (20, 40, 60)  # an epoch of 1197 examples, 60 at a time
    assert steps[-1] <= 200
    best = [{0, 1, 2, 3, 4}, {0, 1, 2, 3, 5}, {5, 6, 7, 8, 9}, *[{0, 1, 2, 3, 9}] * 8]
    saved = {}
    for step, kept in zip(steps, best, strict=False):
        size = torch.tensor([2.0 if unit in kept else 1.0 for unit in range(10)])
        weights = {**ticket.start.weights, "fc1.weight": size[:, None].expand(10, 64).clone()}
        saved[step] = State(weights, {}, {}, step)
    saved[400] = State(dict(ticket.start.weights), {}, {}, 400)
    path = Trajectory(ticket, saved, no_curve())
    options: dict[str, Any] = {"density": 0.5, "criterion": criteria.l1_units, "allocate": allocate.units}
    found = emerged(setup, path, **options)
    # Looks 4 to 8 are one: the eighth settles it.
    assert found.about["searched_steps"] == steps[7]
    assert found.about["settled"] is True
    assert found.mask.keep["fc1.weight"].any(1).nonzero().flatten().tolist() == [0, 1, 2, 3, 9]
    assert found.start.step == 0
    # The weights of that moment, with what goes with the units that went.
    wanted = zeroed(saved[steps[7]].weights, dead_parameters(setup.module(), found.mask))
    assert same_bits(found.start.weights, wanted)
    assert not found.start.weights["fc1.bias"][4:9].any()
    restless = {
        s: replace(state, weights=saved[steps[n % 3]].weights)
        for n, (s, state) in enumerate(saved.items())
        if s != 400
    }
    never = emerged(setup, Trajectory(ticket, {**restless, 400: saved[400]}, no_curve()), **options)
    assert never.about["settled"] is False
    assert never.about["searched_steps"] == max(restless)


def test_how_far_masks_are_apart_says_something_however_few_units_are_kept() -> None:
    """You et al. 2020 compare the share itself with .1, at 30 to 70 % of the channels: as it is there.

    Of 20 units each keeps one: two masks with nothing in common differ in 2 of 20 units, .1 and no more, which is the
    largest there is, as far apart as two that keep 6 of 20 each and share none (.6).
    """

    def units(*kept: int, of: int = 20) -> list[torch.Tensor]:
        return [torch.tensor([unit in kept for unit in range(of)])]

    assert distance(units(0, 1, 2, 3, 4, 5), units(0, 1, 2, 3, 4, 6)) == pytest.approx(
        0.1
    )  # 2 of 20, as they say
    assert distance(units(*range(10)), units(*range(1, 11))) == pytest.approx(0.1)
    assert distance(units(*range(14)), units(*range(1, 15))) == pytest.approx(0.1)
    assert distance(units(0), units(1)) == pytest.approx(0.6)
    assert distance(units(0), units(0)) == 0
    assert distance(units(*range(19)), units(*range(1, 20))) == pytest.approx(
        0.6
    )  # nor is it vacuous above .95
    both = [*units(0), *units(*range(20))]  # a layer that is kept whole says nothing
    assert distance(both, [*units(1), *units(*range(20))]) == pytest.approx(0.6)
    assert distance(units(*range(20)), units(*range(20))) == 0


def test_early_bird_does_not_settle_while_masks_have_nothing_in_common(setup: Setup) -> None:
    """One of 12 units, another at every look, and one of 8 and of 10: never do more than 2 of 30 differ, .067."""
    ticket, steps = dense_ticket(setup, 0), looks(setup)
    saved = {}
    for number, step in enumerate(steps):
        size = torch.tensor([2.0 if unit == number % 12 else 1.0 for unit in range(12)])
        weights = {**ticket.start.weights, "fc1.weight": size[:, None].expand(12, 64).clone()}
        saved[step] = State(weights, {}, {}, step)
    saved[400] = State(dict(ticket.start.weights), {}, {}, 400)
    options: dict[str, Any] = {"density": 0.05, "criterion": criteria.l1_units, "allocate": allocate.units}
    assert emerged(setup, Trajectory(ticket, saved, no_curve()), **options).about["settled"] is False


def test_what_each_procedure_waits_for(setup: Setup) -> None:
    (found,) = rigl(setup, [0.5], (0, 1))
    assert found.search is not None
    assert stored_needs(found.ticket) == (found.search,)
    assert (found.search.label["arm"], found.search.label["level"]) == ("search", 1)
    one, two = gradual(setup, [0.5, 0.2], (0, 1))
    assert one.search != two.search
    a, b = early_bird(setup, [0.5, 0.2], (0, 1))
    assert a.search is None
    assert stored_needs(a.ticket) == stored_needs(b.ticket)  # the dense network's training, once


SMALL: dict[str, Any] = {
    "steps": 24,
    "early_points": False,
    "evaluate_every": 8,
    "batch": 40,
    "density": (0.5,),
    "replicates": 2,
    "stack": 2,
    "validation": 150,
    "test": 200,
    "gate": False,
    "init": None,
}
NETWORKS = ("lenet-20-10", "networks:convolutional", "networks:attention")
# Gradual pruning changes the mask twice here: each change is traced anew, and how often is proved elsewhere.
SELDOM: Mapping[str, dict[str, int]] = {"gradual": {"every": 8}}


def searched(tmp_path: Path, method: str, model: str, **choices: Any) -> tuple[Result, Experiment]:
    experiment = Experiment.of("digits", method=method, model=model, **{**SMALL, **choices})
    return conduct(experiment, store=tmp_path / "store", out=tmp_path / "out", workers=0), experiment


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("method", offered()["method"])
def test_every_method_finds_a_ticket_in_every_kind_of_network(
    tmp_path: Path, method: str, model: str
) -> None:
    result, experiment = searched(tmp_path, method, model, **SELDOM.get(method, {}))
    assert not result.document["failures"]
    level = result.document["levels"][1]
    planned = plan(experiment)
    assert level["density"] == pytest.approx(0.5, rel=0.05)
    assert result.ticket is not None
    assert result.ticket.mask.count() == planned.counts[1]
    assert {"ticket", "reinit", "random"} <= set(level["arms"])
    place = Store(tmp_path / "store")
    if (1, "search", 0) not in planned.tasks:
        return
    assert level["arms"]["search"]["failed"] == 0
    for replicate in (0, 1):
        path = trajectory(planned, place, level=1, arm="search", replicate=replicate)
        ticket = trajectory(planned, place, level=1, arm="ticket", replicate=replicate).ticket
        assert same_bits(ticket.mask.keep, path.ticket.mask.keep)
        for name, keep in path.ticket.mask.keep.items():
            assert not bool(path.saved[24].weights[name][~keep].any())
            if method in ("edge-popup", "supermask"):
                start = dense_ticket(planned.setup, replicate).start.weights[name]
                assert torch.equal(path.saved[24].weights[name][keep], start[keep])


@pytest.mark.parametrize("method", offered()["method"])
def test_every_method_finds_a_ticket_where_all_weights_are_included(tmp_path: Path, method: str) -> None:
    choices = {"include": ("gru.weight_*",), **SELDOM.get(method, {})}
    result, experiment = searched(tmp_path, method, "networks:recurrent", **choices)
    assert not result.document["failures"]
    assert result.ticket is not None
    names = ["gru.weight_ih_l0", "gru.weight_hh_l0"]
    assert list(result.ticket.mask.keep) == names
    assert result.ticket.mask.count() == plan(experiment).counts[1]
    assert result.document["levels"][1]["density"] == pytest.approx(0.5, rel=0.05)


def test_a_network_without_linear_and_conv_layers_names_what_can_be_included() -> None:
    included = ("gru.weight_*",)
    said = "no Linear or Conv layer, .* could be included: gru.weight_ih_l0, gru.weight_hh_l0"
    with pytest.raises(ValueError, match=said):
        plan(Experiment.of("digits", model="networks:recurrent", **SMALL))
    with pytest.raises(
        ValueError, match="no Linear or Conv layer that could be its output layer; leave output_rate out"
    ):
        plan(
            Experiment.of(
                "digits",
                model="networks:recurrent",
                include=included,
                output_rate=0.1,
                **{**SMALL, "density": ()},
            )
        )


def test_costs_count_the_search(tmp_path: Path) -> None:
    """Steps of all trainings that a mask needed: imp's grow with the level, at-init's and RigL's do not."""
    densities = (0.5, 0.25)

    def steps(method: str, arm: str = "ticket", **choices: Any) -> list[Any]:
        folder = tmp_path / method
        result, _ = searched(folder, method, "lenet-20-10", density=densities, **choices)
        return [row["steps"] for row in result.document["costs"] if row["arm"] == arm]

    assert steps("imp") == [48, 72]
    assert steps("one-shot") == [48, 48]
    assert steps("at-init") == [24, 24]
    assert steps("rigl") == [48, 48]
    assert steps("rigl", "search") == [24, 24]
    # What was trained before the masks were drawn, and a whole training. Looks are 15 steps apart here, five at least.
    early = steps("early-bird", steps=240, evaluate_every=80, batch=10)
    assert all(240 + 5 * 15 <= total <= 240 + 120 for total in early)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (
            {"method": "edge-popup", "criterion": "snip"},
            "method edge-popup takes no criterion.*that takes it: imp",
        ),
        ({"method": "rigl", "rewind": "to_step", "rewind_step": 5}, "method rigl takes no rewind"),
        ({"method": "imp", "every": 10}, "method imp takes no every.*gradual, set, rigl"),
        ({"method": "imp", "search_lr": 0.1}, "method imp takes no search_lr.*edge-popup, supermask"),
        (
            {"method": "set", "allocate": "n_of_m"},
            "keeps the number of weights of every layer.*possible: layerwise, uniform, erk",
        ),
        ({"method": "edge-popup", "search_lr": -1.0}, "search_lr is -1.0; a learning rate is positive"),
        ({"method": "rigl", "every": 0}, "every is 0; at least 1"),
        ({"method": "set", "every": 31, "steps": 40}, "every is 31, .* in the first 0.75 of the 40 steps"),
        ({"method": "rigl", "steps": 1}, "every is 1, .* of the 1 steps"),
        (
            {"method": "gradual", "every": 30, "steps": 40},
            "every is 30, .* would prune once, at step 30; give",
        ),
        (
            {"method": "gradual", "steps": 2},
            "every is 1, .* of the 2 steps .* would prune once, at step 1; give",
        ),
        ({"method": "gradual", "steps": 1}, "prunes while it trains, and training has 1 steps"),
    ],
)
def test_what_a_method_has_no_use_for_is_told(choices: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Experiment.of("digits", **choices)


def test_gradual_pruning_within_its_part_of_the_training_is_taken() -> None:
    for steps, every in ((40, 29), (3, None), (2000, 100)):
        asked = Experiment.of("digits", method="gradual", steps=steps, every=every)
        assert (asked.recipe.steps, asked.every) == (steps, every)


def test_a_pattern_that_gradual_pruning_cannot_pass_through_is_told_while_planning() -> None:
    asked = Experiment.of(
        "digits", method="gradual", allocate="n_of_m", density=(0.5,), steps=20, exclude=("fc3.weight",)
    )
    with pytest.raises(ValueError, match=r"prunes a little at a time, which allocate n_of_m does not take"):
        plan(asked)


@pytest.mark.parametrize(
    ("method", "given", "rate"),
    [("edge-popup", None, 0.002), ("supermask", None, 0.2), ("supermask", 0.5, 0.5)],
)
def test_the_rate_that_scores_are_trained_at(
    setup: Setup, method: str, given: float | None, rate: float
) -> None:
    own = replace(setup, recipe=replace(setup.recipe, lr=0.002))
    (found,) = offered()["method"][method](own, [0.5], (0,), search_lr=given)
    (searching,) = stored_needs(found.ticket)
    used = searching.inputs[0]
    assert isinstance(used, Setup)
    assert used.recipe.lr == pytest.approx(rate)


def test_the_screen_says_what_the_search_itself_left(tmp_path: Path) -> None:
    result, _ = searched(tmp_path, "set", "lenet-20-10")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.final_screen(result.document))
    accuracy = result.document["levels"][1]["arms"]["search"]["accuracy"]
    assert accuracy is not None
    assert f"As its search left it: {100 * accuracy:.2f}" in console.export_text()


def test_tickets_that_are_not_rewound_are_said_to_have_had_more_steps(tmp_path: Path) -> None:
    words = "tickets continue from the trained weights of the previous level"
    for rewind, warned in (("learning_rate", True), ("to_init", False)):
        result, _ = searched(tmp_path / rewind, "imp", NETWORKS[0], rewind=rewind)
        assert any(words in told for told in result.document["verdict"]["warnings"]) == warned


def test_early_bird_warns_that_its_tickets_have_had_more_steps(tmp_path: Path) -> None:
    result, _ = searched(tmp_path, "early-bird", "lenet-20-10", steps=80)
    assert any("have had more steps than the dense" in w for w in result.verdict["warnings"])


def test_early_bird_leaves_the_classes_alone() -> None:
    asked = Experiment.of("digits", method="early-bird")
    assert (asked.criterion, asked.allocate, asked.exclude) == ("l1_units", "units", ("fc3.weight",))
    assert asked.describe()["rewind"] is None


def warm_units(tmp_path: Path, method: str, model: str, **choices: Any) -> None:
    """A ticket of whole units with trained weights: what goes with dead units is 0 at the start and at the end."""
    usual = {
        "criterion": "l1_units",
        "allocate": "units",
        "density": (0.5, 0.3),
        "replicates": 2,
        "optimizer": "sgd",
    }
    result, experiment = searched(
        tmp_path, method, model, **{**usual, "lr": 0.05, "momentum": 0.9, **choices}
    )
    planned = plan(experiment)
    module = planned.setup.module()
    for level in (1, 2):
        for arm in ("ticket", "reinit"):
            for replicate in range(2):
                path = trajectory(
                    planned, Store(tmp_path / "store"), level=level, arm=arm, replicate=replicate
                )
                lost = dead_parameters(module, path.ticket.mask)
                assert any(name.endswith("bias") for name in lost)
                for state in (
                    (path.ticket.start, path.saved[max(path.saved)]) if arm == "ticket" else (path.saved[24],)
                ):
                    for name, dead in lost.items():
                        assert not bool(state.weights[name][dead].any()), name
        kept = result.document["levels"][level]
        path = trajectory(planned, Store(tmp_path / "store"), level=level, arm="ticket", replicate=0)
        count = effective_count(module, path.ticket.mask)
        assert kept["effective_density"]["ticket"] == pytest.approx(
            count / path.ticket.mask.total(), rel=1e-6
        )
        assert kept["effective_density"]["ticket"] < kept["density"]
        assert "random" not in kept["effective_density"]
    assert any(
        "without the weights that only read dead units" in w for w in result.document["verdict"]["warnings"]
    )


@pytest.mark.parametrize("model", ["lenet-20-10", "networks:convolutional"])
def test_tickets_of_whole_units_have_no_dead_units_that_live_on(tmp_path: Path, model: str) -> None:
    warm_units(tmp_path, "early-bird", model, steps=24)
    warm_units(tmp_path / "imp", "imp", model, rewind="fine_tune")
    warm_units(tmp_path / "one-shot", "one-shot", model)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (
            {"criterion": "l1_units", "allocate": "layerwise"},
            "allocate layerwise would choose among them by position",
        ),
        (
            {"criterion": "l2_units", "allocate": "global_top"},
            "allocate global_top would choose among them by position",
        ),
        (
            {"criterion": "geometric_median", "method": "set"},
            "method set exchanges weights singly, so position would decide",
        ),
        (
            {"criterion": "l1_units", "method": "rigl"},
            "method rigl exchanges weights singly, so position would decide",
        ),
        (
            {"criterion": "l1_units", "allocate": "units", "exclude": ()},
            "those of the output layer are the classes",
        ),
        ({"allocate": "units", "exclude": ("fc1.weight",)}, "those of the output layer are the classes"),
    ],
)
def test_what_would_prune_whole_classes_is_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(Experiment.of("digits", model="lenet-20-10", **{**SMALL, **choices}))


def test_units_leave_the_classes_alone_by_default() -> None:
    experiment = Experiment.of("digits", method="one-shot", criterion="l1_units")
    assert (experiment.allocate, experiment.exclude) == ("units", ("fc3.weight",))
