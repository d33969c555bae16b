"""Procedures and stages: what they plan, and what their small steps give."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket import allocate, controls, criteria, data, rewind
from winticket.criteria.evidence import is_layer_by_layer
from winticket.data import find_dataset
from winticket.experiment import Experiment, Plan, conduct, offered, plan
from winticket.experiment.runs import trajectory
from winticket.procedures import Setup, at_init, imp, one_shot
from winticket.run import Store, Task, stored_needs
from winticket.stages import (
    SCORED_PER_CLASS,
    control_ticket,
    dense_ticket,
    evidence,
    prunable,
    prune,
    prune_untrained,
    scored,
    sparse_start,
    states,
    train_stack,
    with_states,
)
from winticket.ticket import Curve, Failed, Mask, Scores, Seeds, State, Ticket, Trajectory, same_bits
from winticket.train import Recipe
from winticket.train.feed import Feed


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
        Recipe(steps=6),
    )


def finished(ticket: Ticket, weights: dict[str, torch.Tensor]) -> Trajectory:
    """A trajectory that ended with these weights."""
    nothing = torch.empty(0, dtype=torch.float64)
    curve = Curve(torch.empty(0, dtype=torch.int64), *[nothing] * 6)
    return Trajectory(ticket, {6: State(weights, {}, {}, 6)}, curve)


def test_imp_is_a_chain_and_one_shot_a_fan(setup: Setup) -> None:
    def needed(ticket: Task) -> Task:
        (training,) = stored_needs(ticket)
        return training

    chain = [needed(found.ticket) for found in imp(setup, [0.8, 0.64, 0.5], (0, 1))]
    assert [(t.label["arm"], t.label["level"]) for t in chain] == [("dense", 0), ("ticket", 1), ("ticket", 2)]
    assert [t.weight for t in chain] == [12.0] * 3
    assert stored_needs(chain[0]) == ()
    assert [stored_needs(t) for t in chain[1:]] == [(t,) for t in chain[:-1]]
    fan = [needed(found.ticket) for found in one_shot(setup, [0.8, 0.64, 0.5], (0, 1))]
    assert set(fan) == {chain[0]}


def test_a_level_more_or_another_stack_changes_no_key(setup: Setup) -> None:
    short, long = (
        [found.ticket.key for found in imp(setup, d, (0, 1))] for d in ([0.8, 0.64], [0.8, 0.64, 0.5])
    )
    assert long[:2] == short
    assert not set(long) & {found.ticket.key for found in imp(setup, [0.8, 0.64, 0.5], (2, 3))}


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
        return next(imp(at, [0.8], (0,))).ticket.key

    assert first(replace(setup, **change)) != first(setup)  # type: ignore[arg-type]
    assert first(replace(setup, data="elsewhere")) == first(setup)  # a name is no content


def test_prune_keeps_the_largest_and_rewinds_to_the_very_start(setup: Setup) -> None:
    ticket = dense_ticket(setup, 0)
    weights = {name: w.clone() for name, w in ticket.start.weights.items()}
    weights["fc3.weight"] = torch.arange(80.0).view(10, 8) - 39.5  # |w| from .5 to 39.5, each twice
    pruned = prune(
        setup,
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
            setup,
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


def test_pruning_at_initialisation_waits_for_no_training(setup: Setup) -> None:
    tickets = list(at_init(setup, [0.5, 0.2], (0, 1), criterion=criteria.snip))
    assert [stored_needs(found.ticket) for found in tickets] == [(), ()]
    assert tickets[0].ticket.key != tickets[1].ticket.key


def test_one_round_at_initialisation_is_the_best_by_score(setup: Setup) -> None:
    ticket = dense_ticket(setup, 0)
    found = prune_untrained(
        setup,
        ticket,
        density=0.3,
        criterion=criteria.snip,
        allocate=allocate.global_top,
        rewind=rewind.to_init,
    )
    scores = criteria.snip(evidence(setup, ticket, ticket.start, criteria.snip))
    wanted = allocate.global_top(scores, ticket.mask, density=0.3)
    assert same_bits(found.mask.keep, wanted.keep)
    assert same_bits(found.start.weights, ticket.start.weights)
    assert found.origin == "ticket"


def test_synflow_prunes_in_a_hundred_rounds_and_empties_no_layer_where_one_round_does(setup: Setup) -> None:
    """What the rounds are for (Tanaka et al. 2020): scored once, a whole layer goes; so the density is heavy."""
    asked: list[float] = []

    def watched(scores: Scores, mask: Mask, *, density: float) -> Mask:
        asked.append(density)
        return allocate.global_top(scores, mask, density=density)

    ticket = dense_ticket(setup, 1)
    options: dict[str, Any] = {"density": 0.02, "allocate": watched, "rewind": rewind.to_init}
    found = prune_untrained(setup, ticket, criterion=criteria.synflow, **options)
    assert len(asked) == 100
    assert asked == pytest.approx([0.02 ** (k / 100) for k in range(1, 101)])
    assert found.mask.count() == round(0.02 * ticket.mask.total())
    assert not found.mask.emptied()
    once = prune_untrained(setup, ticket, criterion=criteria.snip, **options)
    assert once.mask.count() == found.mask.count()


def test_the_examples_that_criteria_see_are_few_of_each_class_and_the_replicates_own(setup: Setup) -> None:
    one, again, two = (scored(setup, Seeds(0, r)) for r in (0, 0, 1))
    y = torch.cat([y for _, y in one])
    assert torch.bincount(y).tolist() == [SCORED_PER_CLASS] * 10
    assert [len(y) for _, y in one] == [50, 50]  # equal ones, no larger than the 60 of training
    assert len(torch.unique(one[0][1])) > 3  # mixed
    assert all(torch.equal(a, b) for a, b in zip(one[0], again[0], strict=True))
    assert not torch.equal(one[0][0], two[0][0])


def drawn_by_purpose(setup: Setup, ticket: Ticket) -> dict[str, Any]:
    """One thing for every purpose that chance has: what is drawn for it."""
    smaller = replace(ticket, mask=allocate.layerwise(ticket.start.weights, ticket.mask, density=0.5))
    options: dict[str, Any] = {"density": 0.3, "allocate": allocate.layerwise, "rewind": rewind.to_init}
    ended = finished(smaller, dict(ticket.start.weights))
    part = setup.dataset(torch.device("cpu"), 0).train
    feed = Feed(part, data, [ticket], setup.recipe)
    rows, augmented = feed.stretch(0, 3)
    return {
        "init": dense_ticket(setup, 0).start.weights["fc1.weight"],
        "split": setup.split_seed(0),
        "order": rows,
        "augment": torch.cat([torch.cat([a.flatten() for a in pair if a is not None]) for pair in augmented]),
        "dropout": feed.noise,
        "criterion": prune(setup, ended, criterion=criteria.random, **options).mask.keep["fc1.weight"],
        "scored": scored(setup, ticket.seeds)[0][0],
        "control": control_ticket(setup, smaller, control=controls.random_mask).mask.keep["fc1.weight"],
        "sparse start": sparse_start(ticket, density=0.3, allocate=allocate.layerwise).mask.keep[
            "fc1.weight"
        ],
    }


@pytest.mark.parametrize(
    "purpose",
    ["init", "split", "order", "augment", "dropout", "criterion", "scored", "control", "sparse start"],
)
def test_every_purpose_draws_from_a_stream_of_its_own(
    setup: Setup, purpose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed for one of them moves that one alone, so a new consumer of chance moves nobody's numbers."""
    setup = replace(setup, recipe=Recipe(steps=6, flip=True, crop=1))
    ticket = dense_ticket(setup, 0)
    before, derive = drawn_by_purpose(setup, ticket), Seeds.derive
    given = setup.dataset(torch.device("cpu"), 0)

    def other(seeds: Seeds, *what: str | int) -> int:
        return derive(seeds, *what) ^ (what[0] == purpose)

    monkeypatch.setattr(Seeds, "derive", other)
    monkeypatch.setattr(Setup, "dataset", lambda *_: given)  # another split moves what is in it
    after = drawn_by_purpose(setup, ticket)
    assert set(before) >= {purpose}
    moved = {p for p in before if not torch.equal(torch.as_tensor(before[p]), torch.as_tensor(after[p]))}
    assert moved == {purpose}


# These need BatchNorm and attention heads, which this network lacks.
PLAIN = [name for name in offered()["criterion"] if name not in ("batchnorm_scale", "head_importance")]


@pytest.mark.parametrize("method", ["trained", "untrained"])
@pytest.mark.parametrize("name", PLAIN)
def test_every_criterion_prunes_a_network(setup: Setup, name: str, method: str) -> None:
    ticket = dense_ticket(setup, 0)
    criterion = offered()["criterion"][name]
    options: dict[str, Any] = {
        "density": 0.5,
        "criterion": criterion,
        "allocate": allocate.layerwise if is_layer_by_layer(criterion) else allocate.global_top,
        "rewind": rewind.to_init,
    }
    moved = {k: w + 0.05 * torch.randn_like(w) for k, w in ticket.start.weights.items()}
    if method == "trained":
        found = prune(setup, finished(ticket, moved), **options)
    else:
        found = prune_untrained(setup, ticket, **options)
    assert found.mask.count() == ticket.mask.total() // 2
    assert found.mask.within(ticket.mask)


@pytest.mark.parametrize("name", [name for name in offered()["allocate"] if name != "structures"])
def test_every_allocation_plans(name: str) -> None:
    """Patterns that do not divide a layer say which; the network is one that all of them fit without its classes."""
    choices = {"model": "lenet-16-8", "levels": 1, "rate": 0.5, "exclude": ("fc3.weight",), "gate": False}
    planned = plan(Experiment.of("digits", allocate=name, steps=5, **choices))
    assert planned.counts[1] == pytest.approx(planned.counts[0] / 2, rel=0.06)


def test_rounds_that_a_pattern_does_not_take_are_told_while_planning() -> None:
    asked = Experiment.of(
        "digits", method="at-init", criterion="synflow", allocate="n_of_m", density=(0.5,), steps=5
    )
    with pytest.raises(
        ValueError, match=r"synflow prunes at initialisation in 100 rounds .* does not take: density"
    ):
        plan(asked)


def test_classes_are_not_pruned_away() -> None:
    with pytest.raises(ValueError, match=r"those of the output layer are the classes; exclude fc3\.weight"):
        plan(Experiment.of("digits", allocate="units", exclude=(), steps=5))


def test_what_a_criterion_cannot_have_is_told_while_planning() -> None:
    with pytest.raises(
        ValueError, match="batchnorm_scale needs a BatchNorm with weights right after each layer"
    ):
        plan(Experiment.of("digits", criterion="batchnorm_scale", steps=5))


@pytest.mark.parametrize("model", ["lenet-12-8", "mlp1d"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_nothing_pruned_and_rewound_with_its_optimiser_is_the_first_training(
    setup: Setup, model: str, optimizer: str
) -> None:
    momentum = {"momentum": 0.9, "lr": 0.05} if optimizer == "sgd" else {}
    recipe = Recipe(steps=9, optimizer=optimizer, schedule="cosine", evaluate_every=3, **momentum)  # type: ignore[arg-type]
    given = replace(setup, recipe=recipe, model=model)
    dense, how = [dense_ticket(given, 0)], {"engine": "dense"}
    (path,) = train_stack(given, dense, context=how)
    assert isinstance(path, Trajectory)
    (saved,) = states(given, dense, [path], steps=(4,), context=how)
    assert isinstance(saved, dict)
    path = with_states(path, saved)
    options: dict[str, Any] = {
        "criterion": criteria.magnitude,
        "allocate": allocate.global_top,
        "rewind_step": 4,
    }
    again = prune(given, path, density=1.0, rewind=rewind.to_step_with_optimizer, **options)
    (repeated,) = train_stack(given, [again], context=how)
    assert isinstance(repeated, Trajectory)
    assert same_bits(repeated.saved[9].weights, path.saved[9].weights)
    afresh = prune(given, path, density=1.0, rewind=rewind.to_step, **options)
    (other,) = train_stack(given, [afresh], context=how)
    assert isinstance(other, Trajectory)
    assert not same_bits(other.saved[9].weights, path.saved[9].weights)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", offered()["rewind"])
def test_every_rewind_runs_level_by_level(tmp_path: Path, name: str) -> None:
    step = {"rewind_step": 4} if name != "to_init" else {}
    asked = Experiment.of(
        "digits", model="lenet-12-8", steps=8, levels=2, replicates=2, gate=False, rewind=name, **step
    )
    result = conduct(asked, store=tmp_path / "store", out=tmp_path / "out", workers=0)
    assert [len(level["arms"]) for level in result.document["levels"]] == [1, 3, 3]
    planned, store = plan(asked), Store(tmp_path / "store")
    starts = {
        arm: trajectory(planned, store, level=2, arm=arm, replicate=0).ticket.start.step
        for arm in ("ticket", "reinit", "random")
    }
    later = 0 if name == "to_init" else 4
    assert starts == {"ticket": later, "reinit": 0, "random": later}
    assert planned.steps(list(planned.tasks)) == 2 * 8 + 2 * 2 * (8 + 2 * (8 - later))


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"rewind_step": 4}, "rewind to_init takes no step; with rewind_step 4 choose to_step"),
        ({"rewind": "to_step", "rewind_step": 800}, "rewind_step is 800, but training has 800 steps"),
        ({"rewind": "to_step", "rewind_step": -1}, "rewind_step is -1; at least 0 is needed"),
        ({"rewind": "learning_rate", "method": "at-init"}, "there is no later step to rewind to"),
    ],
)
def test_a_rewind_that_cannot_be_is_told(choices: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Experiment.of("digits", **choices)


def rates(planned: Plan) -> dict[tuple[int, str], set[float]]:
    """The learning rates that each arm's training uses from step 4 on, by level."""
    recipes = {
        place[:2]: next(v.recipe for v in t.inputs if isinstance(v, Setup))
        for place, t in planned.tasks.items()
    }
    return {at: {recipe.rate(step) for step in range(4, 8)} for at, recipe in recipes.items()}


@pytest.mark.parametrize("method", ["imp", "one-shot"])
def test_fine_tuning_holds_the_last_rate_but_for_what_starts_anew(method: str) -> None:
    choices: dict[str, Any] = {"model": "lenet-12-8", "steps": 8, "levels": 2, "gate": False, "replicates": 2}
    choices |= {"method": method, "schedule": "step", "milestones": (0.25, 0.75), "lr": 1.0, "rewind_step": 4}
    tuned = plan(Experiment.of("digits", **choices, rewind="fine_tune"))
    for (_, arm), found in rates(tuned).items():
        wanted = [0.01] if arm in ("ticket", "random") else [0.01, 0.1]
        assert sorted(found) == pytest.approx(wanted), arm
    # What level 2 is found from is level 1's training, which fine-tunes too: no other task.
    needed = {t.key for t in stored_needs(tuned.tasks[2, "ticket", 0])}
    assert needed == {tuned.tasks[(1, "ticket", 0) if method == "imp" else (0, "dense", 0)].key}


@pytest.mark.usefixtures("undrawn")
def test_at_a_constant_rate_fine_tuning_is_learning_rate_rewinding(tmp_path: Path) -> None:
    found = []
    for name in ("fine_tune", "learning_rate"):
        asked = Experiment.of(
            "digits", model="lenet-12-8", steps=8, levels=2, replicates=2, gate=False, rewind=name, rewind_step=4,
            schedule="constant",
        )  # fmt: skip
        result = conduct(asked, store=tmp_path / "store", out=tmp_path / name, workers=0)
        found.append(result.document["levels"])
    assert found[0] == found[1]


def test_fine_tuning_at_nothing_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"the cosine schedule ends at 4\.6e-09; choose schedule step or constant"
    ):
        plan(Experiment.of("digits", rewind="fine_tune"))


def test_every_control_trains_beside_the_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winticket.report.draw_all", lambda *_, **__: [])
    names = tuple(offered()["control"])
    asked = Experiment.of(
        "digits", model="lenet-12-8", steps=6, levels=1, replicates=2, gate=False, controls=names
    )
    result = conduct(asked, store=tmp_path / "store", out=tmp_path / "out", workers=0)
    found = result.document["levels"][1]["arms"]
    assert set(found) == {"ticket", *names}
    assert all(len(found[name]["accuracies"]) == 2 and not found[name]["failed"] for name in names)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "signs alone" in page


@pytest.mark.parametrize("name", ["to_init", "to_step", "learning_rate"])
def test_initial_weights_are_the_replicates_at_every_level_and_under_every_rewind(
    setup: Setup, name: str
) -> None:
    """Movement at the second level, whose ticket began with other weights, by hand: |w - w₀|."""
    dense = dense_ticket(setup, 0)
    moved = {n: w + 0.05 * torch.randn_like(w) for n, w in dense.start.weights.items()}
    options: dict[str, Any] = {"criterion": criteria.movement, "allocate": allocate.layerwise}
    options |= {"rewind": getattr(rewind, name), "rewind_step": 0 if name == "to_init" else 3}
    path = finished(dense, moved)
    warm = State({n: w - 0.1 for n, w in moved.items()}, {}, {}, 3)
    second = prune(setup, replace(path, saved={3: warm, **path.saved}), density=0.6, **options)
    again = {n: w + 0.05 * torch.randn_like(w) for n, w in moved.items()}
    third = prune(setup, finished(second, again), density=0.3, **options)
    wanted = allocate.layerwise(
        {n: (again[n] - dense.start.weights[n]).abs() for n in second.mask.keep}, second.mask, density=0.3
    )
    assert same_bits(third.mask.keep, wanted.keep)
