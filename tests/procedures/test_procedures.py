"""Procedures and stages: what they plan, and what their small steps give."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from winticket import allocate, controls, criteria, rewind
from winticket.data import find_source
from winticket.experiment import Experiment, plan
from winticket.procedures import Setup, imp, one_shot
from winticket.procedures.stages import control_ticket, dense_ticket, prunable, prune, train_stack
from winticket.run import Task, stored_needs
from winticket.ticket import Curve, Failed, Seeds, State, Ticket, Trajectory, same_bits
from winticket.train import Recipe


@pytest.fixture(scope="module")
def setup() -> Setup:
    source = find_source("digits")
    return Setup(
        "digits",
        source.fingerprint,
        source.input_shape,
        source.classes,
        "lenet-12-8",
        "glorot-normal",
        Recipe(steps=6),
    )


def finished(ticket: Ticket, weights: dict[str, torch.Tensor]) -> Trajectory:
    """A trajectory that ended with these weights."""
    nothing = torch.empty(0, dtype=torch.float64)
    curve = Curve(torch.empty(0, dtype=torch.int64), *[nothing] * 5)
    return Trajectory(ticket, {6: State(weights, {}, {}, 6)}, curve)


def test_imp_is_a_chain_and_one_shot_a_fan(setup: Setup) -> None:
    def needed(ticket: Task) -> Task:
        (training,) = stored_needs(ticket)
        return training

    chain = [needed(t) for t in imp(setup, [0.8, 0.64, 0.5], (0, 1))]
    assert [(t.label["arm"], t.label["level"]) for t in chain] == [("dense", 0), ("ticket", 1), ("ticket", 2)]
    assert [t.weight for t in chain] == [12.0] * 3
    assert stored_needs(chain[0]) == ()
    assert [stored_needs(t) for t in chain[1:]] == [(t,) for t in chain[:-1]]
    fan = [needed(t) for t in one_shot(setup, [0.8, 0.64, 0.5], (0, 1))]
    assert set(fan) == {chain[0]}


def test_a_level_more_or_another_stack_changes_no_key(setup: Setup) -> None:
    short, long = ([t.key for t in imp(setup, d, (0, 1))] for d in ([0.8, 0.64], [0.8, 0.64, 0.5]))
    assert long[:2] == short
    assert not set(long) & {t.key for t in imp(setup, [0.8, 0.64, 0.5], (2, 3))}


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": Recipe(steps=7)},
        {"recipe": Recipe(steps=6, lr=1e-3)},
        {"seed": 1},
        {"model": "lenet-12-9"},
        {"init": "orthogonal"},
        {"fingerprint": "0" * 64},
        {"validation": 100},
        {"test": 100},
        {"own_split": True},
        {"exclude": ("fc3.weight",)},
    ],
    ids=str,
)
def test_every_part_of_a_setup_is_part_of_the_key(setup: Setup, change: dict[str, object]) -> None:
    def first(at: Setup) -> str:
        return next(imp(at, [0.8], (0,))).key

    assert first(replace(setup, **change)) != first(setup)  # type: ignore[arg-type]
    assert first(replace(setup, data="elsewhere")) == first(setup)  # a name is no content


def test_prune_keeps_the_largest_and_rewinds_to_the_very_start(setup: Setup) -> None:
    ticket = dense_ticket(setup, 0)
    weights = {name: w.clone() for name, w in ticket.start.weights.items()}
    weights["fc3.weight"] = torch.arange(80.0).view(10, 8) - 39.5  # |w| from .5 to 39.5, each twice
    pruned = prune(
        finished(ticket, weights),
        density={"*": 0.5, "output": 0.25},
        criterion=criteria.magnitude,
        allocate=allocate.layerwise,
        rewind=rewind.to_init,
    )
    kept = pruned.mask.keep["fc3.weight"].flatten().nonzero().flatten().tolist()
    assert kept == [*range(10), *range(70, 80)]
    assert pruned.mask.layers() == {"fc1.weight": (384, 768), "fc2.weight": (48, 96), "fc3.weight": (20, 80)}
    assert pruned.start is ticket.start
    assert (pruned.origin, pruned.seeds) == ("ticket", ticket.seeds)


def test_prune_scores_the_last_state_and_a_random_criterion_draws_its_own(setup: Setup) -> None:
    def pruned(replicate: int) -> Ticket:
        ticket = dense_ticket(setup, replicate)
        return prune(
            finished(ticket, dict(ticket.start.weights)),
            density=0.5,
            criterion=criteria.random,
            allocate=allocate.global_top,
            rewind=rewind.to_init,
        )

    assert same_bits(pruned(0).mask.keep, pruned(0).mask.keep)
    assert not same_bits(pruned(0).mask.keep, pruned(1).mask.keep)


def test_dense_tickets_differ_by_replicate_and_by_seed(setup: Setup) -> None:
    starts = [dense_ticket(s, r).start.weights for s in (setup, replace(setup, seed=1)) for r in range(2)]
    assert same_bits(starts[0], dense_ticket(setup, 0).start.weights)
    assert not any(same_bits(a, b) for i, a in enumerate(starts) for b in starts[:i])
    assert dense_ticket(setup, 0).mask.density() == 1


def test_controls_keep_seeds_and_layer_counts_and_differ(setup: Setup) -> None:
    whole = dense_ticket(setup, 3)
    density = {"*": 0.3, "output": 0.5}
    ticket = replace(whole, mask=allocate.layerwise(whole.start.weights, whole.mask, density=density))
    reinit = control_ticket(setup, ticket, control=controls.reinit)
    shuffled = control_ticket(setup, ticket, control=controls.random_mask)
    for rival in (reinit, shuffled):
        assert rival.seeds == ticket.seeds
        assert rival.mask.layers() == ticket.mask.layers()
        assert same_bits(control_ticket(setup, ticket, control=getattr(controls, CONTROLS[rival.origin])).start.weights,
                         rival.start.weights)  # fmt: skip
    assert same_bits(reinit.mask.keep, ticket.mask.keep)
    assert not same_bits(reinit.start.weights, ticket.mask.apply(ticket.start.weights))
    assert not same_bits(shuffled.mask.keep, ticket.mask.keep)
    # A smaller ticket of the same replicate is re-drawn anew.
    smaller = replace(ticket, mask=allocate.layerwise(whole.start.weights, ticket.mask, density=0.2))
    again = control_ticket(setup, smaller, control=controls.reinit)
    kept = smaller.mask.keep["fc1.weight"]
    assert not torch.equal(again.start.weights["fc1.weight"][kept], reinit.start.weights["fc1.weight"][kept])


CONTROLS = {"reinit": "reinit", "random": "random_mask"}


def test_excluded_weights_stay_out_of_every_mask(setup: Setup) -> None:
    assert prunable(replace(setup, exclude=("fc3.*",))) == ("fc1.weight", "fc2.weight")
    assert list(dense_ticket(replace(setup, exclude=("fc3.*",)), 0).mask.keep) == ["fc1.weight", "fc2.weight"]
    planned = plan(Experiment.of("digits", model="lenet-12-8", levels=2, steps=5, exclude=("fc3.*",)))
    assert planned.counts[0] == 64 * 12 + 12 * 8
    # fc2 is the last that is pruned, but no output layer: it has the whole rate.
    assert planned.counts[1] == math.floor(768 * 0.8 + 0.5) + math.floor(96 * 0.8 + 0.5)
    with pytest.raises(
        ValueError, match=r"output_rate is 0\.1, but the output layer fc3\.weight is excluded"
    ):
        plan(Experiment.of("digits", model="lenet-12-8", output_rate=0.1, exclude=("fc3.*",)))


def test_failed_replicates_pass_through_training(setup: Setup) -> None:
    failed = Failed("lost", 3, Seeds(0, 0))
    assert train_stack(setup, [failed, failed]) == (failed, failed)
    first, second = train_stack(setup, [failed, dense_ticket(setup, 1)])
    assert first is failed
    assert isinstance(second, Trajectory)


def test_data_that_changed_since_the_plan_are_refused(setup: Setup) -> None:
    with pytest.raises(ValueError, match="digits has changed since the plan was made"):
        replace(setup, fingerprint="0" * 64).dataset(torch.device("cpu"))


def test_the_recipe_of_every_arm_is_the_same(tmp_path: Path) -> None:
    planned = plan(Experiment.of("digits", model="lenet-12-8", levels=2, steps=5, replicates=3, stack=2))
    recipes = {
        (place[1], getattr(value, "recipe", None))
        for place, t in planned.tasks.items()
        for value in t.inputs
        if isinstance(value, Setup)
    }
    assert {recipe for arm, recipe in recipes if arm != "dense doubled"} == {planned.setup.recipe}
    assert {recipe.steps for arm, recipe in recipes if arm == "dense doubled" and recipe} == {10}
