"""Levels: iterative pruning around a loop of one's own, held against the procedure written out."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.optim.swa_utils import AveragedModel, update_bn

import winticket
from winticket import allocate, criteria, rewind
from winticket.criteria.evidence import usual_allocate
from winticket.loops import Level, Levels
from winticket.ticket import Mask, Scores, Seeds, State, Ticket, same_bits
from winticket.train.slots import load_slots, slots_of

DENSITIES = (0.5, 0.25, 0.1)
STEPS = 12


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(32, 8, generator=generator), torch.randint(0, 4, (32,), generator=generator)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)


def train(model: nn.Module, optimizer: Any, first: int = 0, last: int = STEPS) -> None:
    model.train()
    for step in range(first, last):
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def by_hand(back_to: int) -> list[dict[str, Tensor]]:
    """Frankle & Carbin 2019, §2, layerwise by magnitude, rewound to a step: what is trained at the end of each level.

    The masked weights are multiplied by 0 after every step, and nothing of the library is used.
    """
    model = network()
    keep = {n: torch.ones_like(p) for n, p in model.named_parameters() if p.ndim == 2}
    theta, ends = tensors(model), []
    for density in (1.0, *DENSITIES):
        if density < 1:
            for name, before in keep.items():
                count = round(density * before.numel())
                score = torch.where(before > 0, model.get_parameter(name).detach().abs(), -1.0)
                cut = score.flatten().sort(descending=True).values[count - 1]
                keep[name] = (score >= cut).float()  # no ties among floats that training gave
            model.load_state_dict(theta)
        with torch.no_grad():
            for name, mask in keep.items():
                model.get_parameter(name).mul_(mask)
        optimizer = adam(model)
        for step in range(0 if density == 1 else back_to, STEPS):
            if density == 1 and step == back_to:
                theta = tensors(model)
            train(model, optimizer, step, step + 1)
            with torch.no_grad():
                for name, mask in keep.items():
                    model.get_parameter(name).mul_(mask)
        ends.append(tensors(model))
    return ends


@pytest.mark.parametrize("back_to", [0, 5])
def test_it_is_the_procedure_written_out(back_to: int) -> None:
    model, ends = network(), []
    how: Any = {"rewind": rewind.to_step, "rewind_step": back_to} if back_to else {}
    for level in Levels(model, DENSITIES, **how):
        with level as inside:
            assert inside is level
            train(model, adam(model), level.ticket.start.step)
        ends.append(tensors(model))
    for ours, theirs in zip(ends, by_hand(back_to), strict=True):
        for name, value in theirs.items():
            # Equal as numbers: theirs has -0 where a negative weight was multiplied.
            assert torch.equal(ours[name], value), name


def test_counts_masks_and_what_a_level_says(tmp_path: Path) -> None:
    model = network()
    levels = Levels(model, DENSITIES)
    assert len(levels) == 4
    seen: list[Level] = []
    for level in levels:
        assert level.ticket.mask.count() == round((1.0, *DENSITIES)[level.number] * 192)
        if seen:
            assert level.ticket.mask.within(seen[-1].ticket.mask)
        with level:
            assert level.step == 0
            train(model, adam(model))
            assert level.step == STEPS
        seen.append(level)
        assert level.trained is not None
        assert level.trained.step == STEPS
        assert same_bits(level.trained.weights, {n: p.detach() for n, p in model.named_parameters()})
        end = level.trained_ticket()
        assert (end.origin, end.start) == ("trained", level.trained)
        assert end.mask is level.ticket.mask
        again = network()
        end.load_into(again)
        assert same_bits(dict(again.state_dict()), dict(model.state_dict()))
    with pytest.raises(RuntimeError, match="level 0 was not trained"):
        levels.first().trained_ticket()
    assert [s.ticket.origin for s in seen] == ["dense", "ticket", "ticket", "ticket"]
    assert [round(s.density, 4) for s in seen] == [
        1.0,
        0.5,
        0.25,
        0.099,
    ]  # 19 of 192: round(12.8) + round(6.4)
    assert seen[-1].ticket.about == {
        "level": 3,
        "criterion": "magnitude",
        "allocate": "layerwise",
        "rewind": "to_init",
        "rewind_step": 0,
    }
    seen[-1].ticket.save(tmp_path / "t.safetensors")
    assert winticket.Ticket.load(tmp_path / "t.safetensors").mask.within(seen[-1].ticket.mask)


def test_weights_and_buffers_are_back_bit_for_bit_and_nothing_is_resurrected() -> None:
    model = network()
    start = tensors(model)
    for level in Levels(model, DENSITIES):
        with level:
            now, mask = tensors(model), level.ticket.mask
            expected = mask.apply(start)
            assert same_bits(now, expected)  # at entry, weights and BatchNorm's statistics
            train(model, adam(model))
            assert not same_bits({"b": tensors(model)["1.running_mean"]}, {"b": start["1.running_mean"]})
        assert all(not tensors(model)[n][~k].any() for n, k in mask.keep.items())


def test_rewinding_to_a_step_with_the_optimiser_is_the_dense_run_where_nothing_is_pruned() -> None:
    plain = network()
    train(plain, adam(plain))

    def all_kept(scores: Scores, mask: Mask, *, density: float) -> Mask:
        # All but a weight that is 0 from the start and stays there, since densities have to fall.
        keep = {name: k.clone() for name, k in mask.keep.items()}
        keep["0.weight"][0, 0] = False
        return Mask(keep)

    model = network()
    for m in (model, plain := network()):
        with torch.no_grad():
            m.get_parameter("0.weight")[0, 0] = 0.0
        watch: Callable[..., Any] = m.get_parameter("0.weight").register_hook
        watch(lambda g: g * (torch.arange(128).view(16, 8) > 0))
    train(plain, adam(plain))
    optimizer = adam(model)
    how: Any = {"rewind": rewind.to_step_with_optimizer, "rewind_step": 5}
    for level in Levels(model, [0.99], allocate=all_kept, **how):
        with level:
            level.reset(optimizer)
            train(model, optimizer, level.ticket.start.step)
        assert level.step == STEPS
        assert same_bits(tensors(model), tensors(plain))


def test_an_optimiser_to_be_put_back_is_asked_for_before_its_first_step() -> None:
    model = network()
    how: Any = {"rewind": rewind.to_step_with_optimizer, "rewind_step": 5}
    levels = Levels(model, [0.5], **how)
    with (level := levels.first()):
        train(model, adam(model))
    second = levels.after(level)
    assert {key.split("/")[0] for key in second.ticket.start.optimizer} == {"step", "exp_avg", "exp_avg_sq"}
    other = network()
    with second:
        train(other, adam(other), 0, 1)  # another model's optimiser is not meant, nor counted
        assert second.step == 5
        with pytest.raises(RuntimeError, match=re.escape("state of step 5; call level.reset(optimizer)")):
            train(model, adam(model), 5)


def test_reset_makes_an_optimiser_that_is_kept_as_good_as_new() -> None:
    ends = []
    for kept in (True, False):
        model = network()
        optimizer = adam(model)
        for level in Levels(model, [0.5]):
            with level:
                if kept:
                    level.reset(optimizer)
                train(model, optimizer if kept else adam(model))
        ends.append(tensors(model))
    assert same_bits(*ends)


def test_learning_rate_rewinding_keeps_the_trained_weights() -> None:
    model = network()
    how: Any = {"rewind": rewind.learning_rate, "rewind_step": 3}
    before: dict[str, Tensor] = {}
    for level in Levels(model, [0.5, 0.25], **how):
        with level:
            if before:
                assert level.ticket.start.step == 3
                assert same_bits(tensors(model), level.ticket.mask.apply(before))
            train(model, adam(model), level.ticket.start.step)
        assert level.step == STEPS
        before = tensors(model)


class Plain:
    """No torch.optim.Optimizer: nothing counts its steps."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for p in self.parameters:
            assert p.grad is not None
            p.sub_(p.grad, alpha=0.1)


def test_an_optimiser_of_another_make_says_where_it_is() -> None:
    how: Any = {"rewind": rewind.to_step, "rewind_step": 4}
    ends = []
    for told in (True, False):
        model = network()
        for level in Levels(model, [0.5], **how):
            with level:
                sgd: Any = Plain(model) if told else torch.optim.SGD(model.parameters(), lr=0.1)
                for step in range(level.ticket.start.step, STEPS):
                    train(model, sgd, step, step + 1)
                    if told:
                        level.at(step + 1)
        assert level.ticket.start.step == 4
        ends.append(level.ticket.start.weights)
    assert same_bits(*ends)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ((), "no state was saved at step 4"),
        ((4,), "the model changed after step 4, to which it is rewound, but no later step was counted"),
    ],
)
def test_a_step_that_was_never_seen_is_an_error_with_advice(told: tuple[int, ...], words: str) -> None:
    model = network()
    levels = Levels(model, [0.5], rewind=rewind.to_step, rewind_step=4)
    with (level := levels.first()):
        for step in range(STEPS):
            train(model, Plain(model), step, step + 1)
            if step + 1 in told:
                level.at(step + 1)
    with pytest.raises((ValueError, RuntimeError), match=words) as caught:
        levels.after(level)
    assert "level.at(step)" in str(caught.value) + " ".join(getattr(caught.value, "__notes__", ()))


def test_several_optimisers_per_update_are_set_right_by_the_loop() -> None:
    how: Any = {"rewind": rewind.to_step, "rewind_step": 4}
    ends = []
    for split in (True, False):
        model = network()
        for level in Levels(model, [0.5], **how):
            with level:
                parts = [list(model[0].parameters()), list(model[1:].parameters())]
                groups = parts if split else [parts[0] + parts[1]]
                optimizers = [torch.optim.SGD(g, lr=0.1) for g in groups]
                for step in range(level.ticket.start.step, STEPS):
                    x, y = batch(step)
                    model.zero_grad()
                    F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
                    for optimizer in optimizers:
                        optimizer.step()
                    if split:
                        level.at(step + 1)
            assert level.step == STEPS
        ends.append(tensors(model))
    assert same_bits(*ends)


class Wrapping(torch.optim.Optimizer):
    """A torch optimiser that drives another within its step."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})
        self.inner = torch.optim.SGD(self.param_groups, lr=0.1)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            closure()
        self.inner.step()


def test_a_step_within_another_optimisers_step_is_part_of_it() -> None:
    how: Any = {"rewind": rewind.to_step, "rewind_step": 4}
    ends = []
    for wrapped in (True, False):
        model = network()
        for level in Levels(model, [0.5], **how):
            with level:
                kind: Any = Wrapping if wrapped else partial(torch.optim.SGD, lr=0.1)
                optimizer = kind(model.parameters())
                if wrapped:
                    with pytest.raises(ZeroDivisionError):
                        optimizer.step(lambda: 1 / 0)
                train(model, optimizer, level.ticket.start.step)
            assert level.step == STEPS
        ends.append(tensors(model))
    assert same_bits(*ends)


def test_steps_that_a_fused_optimiser_leaves_out_are_not_counted() -> None:
    model = network()
    level = Levels(model, [0.5]).first()
    with level:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(6):
            before = tensors(model)["0.weight"]
            optimizer.zero_grad()
            loss = model(batch(step)[0]).square().mean() * (torch.inf if step < 2 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            assert torch.equal(before, tensors(model)["0.weight"]) is (step < 2)
    assert level.step == 4


# head_importance needs attention heads, which this network lacks.
EVERY = [getattr(criteria, n) for n in criteria.__all__ if n[0].islower() and n != "head_importance"]


@pytest.mark.filterwarnings("ignore:.*output unit:RuntimeWarning")
@pytest.mark.parametrize("criterion", EVERY, ids=lambda c: str(c.__name__))
def test_every_criterion_and_the_model_left_as_it_was(criterion: criteria.Criterion) -> None:
    model = network()
    exclude = ["3.weight"] if criterion is criteria.batchnorm_scale else []
    levels = Levels(model, [0.5, 0.3], criterion=criterion, batches=[batch(100), batch(101)], exclude=exclude)
    for level in levels:
        with level:
            train(model, adam(model), 0, 3)
            model[1].eval()
            after = tensors(model)
            modes = [m.training for m in model.modules()]
            noise = torch.get_rng_state()
        if level.number < 2:
            levels.after(level)  # scoring alone
            assert same_bits(tensors(model), after)
            assert [m.training for m in model.modules()] == modes
            assert torch.equal(torch.get_rng_state(), noise)
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    total = level.ticket.mask.total()
    # 16 units of 8 weights and 4 of 16: each layer's own count, the network's, the same in every unit; of whole units
    # those of the first layer alone.
    wanted = {"layerwise": 38 + 19, "global_top": 58, "constant_fan_in": 16 * 2 + 4 * 5, "units": 5 * 8}
    usual = usual_allocate(criterion)
    assert level.ticket.mask.count() == (5 * 8 if exclude else wanted[usual])
    assert total == (128 if exclude or usual == "units" else 192)
    assert level.ticket.about["allocate"] == usual


ALLOCATIONS: dict[str, Callable[..., Mask]] = {
    "layerwise": allocate.layerwise,
    "global_top": allocate.global_top,
    "uniform": allocate.uniform,
    "erk": allocate.erk,
    "constant_fan_in": allocate.constant_fan_in,
    "n_of_m": allocate.n_of_m,
    "blocks": allocate.blocks,
    "units": allocate.units,
}


@pytest.mark.parametrize("name", sorted({n for n in allocate.__all__ if n[0].islower()} - {"structures"}))
def test_every_allocation(name: str) -> None:
    model = network()
    masks = []
    for level in Levels(model, [0.5, 0.25], allocate=ALLOCATIONS[name]):
        with level:
            train(model, adam(model), 0, 3)
        masks.append(level.ticket.mask)
    # Whole units are taken of the first layer alone.
    assert [m.count() for m in masks] == ([128, 64, 32] if name == "units" else [192, 96, 48])
    assert masks[2].within(masks[1])


def test_random_draws_from_the_seeds_alone() -> None:
    def found(seeds: Seeds) -> Mask:
        model = network()
        for level in Levels(model, [0.5], criterion=criteria.random, seeds=seeds):
            with level:
                pass  # a loop that does nothing is a training as well
        return level.ticket.mask

    assert same_bits(found(Seeds(1, 0)).keep, found(Seeds(1, 0)).keep)
    assert not same_bits(found(Seeds(1, 0)).keep, found(Seeds(1, 1)).keep)


def test_going_on_from_a_ticket_is_the_search_not_interrupted() -> None:
    model = network()
    for level in Levels(model, DENSITIES):
        with level:
            train(model, adam(model))
        if level.number == 2:
            kept = level.ticket
    other = nn.Sequential(*copy.deepcopy(list(network())))
    for again in Levels(other, DENSITIES[2:], ticket=kept):
        with again:
            train(other, adam(other))
    assert same_bits(again.ticket.mask.keep, level.ticket.mask.keep)
    assert same_bits(tensors(other), tensors(model))


def test_a_mask_made_by_hand_has_the_axes_of_the_models_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 3))
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    ticket = Ticket(
        Mask({"0.weight": torch.ones(4, 6, 3, 3, dtype=torch.bool)}),
        State(weights, {}, {}, 0),
        "mine",
        Seeds(0, 0),
    )
    levels = Levels(model, [0.5], allocate=allocate.units, ticket=ticket)
    with levels.first() as level:
        torch.optim.SGD(model.parameters()).step()
    kept = levels.after(level).ticket.mask.keep["0.weight"].sum((0, 2, 3))  # of each output channel
    assert kept.sort().values.tolist() == [0, 0, 0, 36, 36, 36]


def test_compiled_models_too() -> None:
    torch.compiler.reset()
    ends = []
    for compiled in (True, False):
        model: Any = network()
        used: Any = torch.compile(model, backend="eager") if compiled else model
        for level in Levels(used, [0.5]):
            with level:
                train(used, adam(used))
        assert all(not tensors(model)[n][~k].any() for n, k in level.ticket.mask.keep.items())
        ends.append(level.ticket.mask.keep)
    assert same_bits(*ends)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, compiling steps
def test_a_step_that_is_compiled_is_not_compiled_for_every_count() -> None:
    torch.compiler.reset()
    model, counter = network(), CompileCounter()
    for level in Levels(model, [0.5]):
        with level:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            step = torch.compile(optimizer.step, backend=counter)
            for _ in range(10):
                optimizer.zero_grad()
                model(batch(0)[0]).square().mean().backward()
                step()
        assert level.step == 10
    assert counter.frame_count < 10


def test_a_level_is_trained_once_and_before_the_next() -> None:
    model = network()
    levels = Levels(model, [0.5])
    with pytest.raises(RuntimeError, match="level 0 was not trained; train it within its block"):
        list(levels)
    level = levels.first()
    with pytest.raises(RuntimeError, match="level 0 is not being trained"):
        level.at(3)
    with pytest.raises(ZeroDivisionError), level:  # noqa: PT012
        train(model, adam(model), 0, 1)
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="level 0 was not trained"):
        levels.after(level)
    with pytest.raises(RuntimeError, match="level 0 was entered before"), level:
        pass
    for last in levels:  # anew, from the start
        with last:
            assert last.number or same_bits(tensors(model), tensors(network()))
    with pytest.raises(IndexError, match="level 1 is the last of 2"):
        levels.after(last)


def test_an_emptied_layer_is_told() -> None:
    model = network()

    def last_goes(scores: Scores, mask: Mask, *, density: float) -> Mask:
        return Mask({**mask.keep, "3.weight": torch.zeros(4, 16, dtype=torch.bool)})

    levels = Levels(model, [0.5], allocate=last_goes)
    with (level := levels.first()):
        pass
    with pytest.warns(RuntimeWarning, match=r"level 1 keeps no weight in 3.weight"):
        levels.after(level)


def a_ticket() -> Ticket:
    model = network()
    state = State({n: p.detach() for n, p in model.named_parameters()}, dict(model.named_buffers()), {}, 0)
    return Ticket(Mask.full({"0.weight": state.weights["0.weight"]}), state, "dense", Seeds(0, 0))


@pytest.mark.parametrize(
    ("densities", "how", "words"),
    [
        ([], {}, "densities is empty"),
        ([0.5, 0.7], {}, "keeps 90 of 128 weights, but only 64 are alive"),
        ([0.5, 0.5], {}, "density 0.5 keeps 96 weights after 96"),
        ([0.5], {"rewind_step": 3}, "to_init takes no step; to use rewind_step=3, pass"),
        ([0.5], {"rewind": rewind.to_step}, "to_step needs a step"),
        ([1.0], {}, "density is 1.0; give the share"),
        ([0.3], {"allocate": allocate.n_of_m}, "density 0.3 does not give a pattern of 4"),
        ([0.5], {"exclude": ["9.*"]}, "exclude '9.*' fits no eligible weight; there are 0.weight, 3.weight"),
        ([0.5], {"exclude": ["*"]}, "the model has no weight to prune"),
        ([0.5], {"criterion": criteria.snip}, "snip needs training examples; pass some as batches="),
        ([0.5], {"criterion": criteria.synflow}, "synflow needs the shape of an input"),
        ([0.5], {"rewind_step": -1}, "rewind_step -1 is negative"),
        ([0.5], {"ticket": a_ticket(), "exclude": ["0.*"]}, "a ticket already has a mask and seeds"),
    ],
)
def test_mistakes_are_told_before_any_training(densities: Any, how: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Levels(network(), densities, **how)


@pytest.mark.parametrize(
    ("densities", "how", "words"),
    [
        (0.5, {}, "densities is 0.5; give falling densities, one for each level, as [0.5, 0.25]"),
        (
            [0.5],
            {"criterion": "snip"},
            "criterion is 'snip'; pass the function itself, winticket.criteria.snip",
        ),
        ([0.5], {"allocate": "erk"}, "allocate is 'erk'; pass the function itself, winticket.allocate.erk"),
        (
            [0.5],
            {"rewind": "to_step"},
            "rewind is 'to_step'; pass the function itself, winticket.rewind.to_step",
        ),
        ([0.5], {"criterion": None}, "one of winticket.criteria, or one of your own"),
    ],
)
def test_names_in_the_place_of_functions_are_told(densities: Any, how: Any, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        Levels(network(), densities, **how)


def test_one_pattern_may_be_said_without_a_list() -> None:
    assert list(Levels(network(), [0.5], exclude="3.*").first().ticket.mask.keep) == ["0.weight"]


def test_functions_with_options_of_their_own_keep_their_names_in_the_ticket() -> None:
    model = network()
    for level in Levels(model, [0.5], allocate=partial(allocate.n_of_m, m=2)):
        with level:
            pass
    assert level.ticket.about["allocate"] == "n_of_m(m=2)"


@pytest.mark.filterwarnings("ignore:.*output unit:RuntimeWarning")  # of networks of a few units
@pytest.mark.parametrize("part", [False, True])
def test_an_average_kept_over_levels_begins_anew_where_it_is_reset(part: bool) -> None:
    """By hand: the mean of the last level's weights after each step; of the whole model, or of a part of it."""
    model = network()
    averaged = model[3] if part else model
    average, states = AveragedModel(averaged, use_buffers=True), list[dict[str, Tensor]]()
    for level in Levels(model, DENSITIES):
        with level:
            level.reset(average)
            assert same_bits(dict(average.module.state_dict()), dict(averaged.state_dict()))
            optimizer, states = adam(model), []
            for step in range(STEPS):
                train(model, optimizer, step, step + 1)
                average.update_parameters(averaged)
                states.append(tensors(averaged))
            averaged.load_state_dict(
                average.module.state_dict()
            )  # without a warning, which would be an error
    for name in states[0]:
        if states[0][name].is_floating_point():
            mean = torch.stack([state[name] for state in states]).mean(0)
            assert torch.allclose(model.state_dict()[f"3.{name}" if part else name], mean, atol=1e-6)
    assert all(not tensors(model)[n][~k].any() for n, k in level.ticket.mask.keep.items())
    assert level.trained is not None
    assert same_bits(level.trained.weights, {n: p.detach() for n, p in model.named_parameters()})


def test_an_average_that_began_before_the_level_is_masked_and_reported() -> None:
    model = network()
    average, levels = AveragedModel(model), Levels(model, [0.5])
    with (first := levels.first()):
        train(model, adam(model))
        average.update_parameters(model)
    second = levels.after(first)
    said = r"no optimiser had moved them.* level.reset\(average\)"
    with pytest.warns(RuntimeWarning, match=said) as caught, second:  # noqa: PT031
        train(model, adam(model))
        average.update_parameters(model)
        model.load_state_dict(average.module.state_dict())
    assert caught[0].filename == __file__
    assert all(not tensors(model)[n][~k].any() for n, k in second.ticket.mask.keep.items())


def test_batchnorm_statistics_of_an_average_are_those_of_its_masked_weights() -> None:
    model = network()
    for level in Levels(model, [0.25]):
        with level:
            train(model, adam(model))
            average = AveragedModel(model)
            average.update_parameters(model)
    update_bn((batch(step) for step in range(4)), average)
    keep = level.ticket.mask.keep["0.weight"]
    weight, bias = (average.module.get_parameter(n).detach() for n in ("0.weight", "0.bias"))
    means = torch.stack([F.linear(batch(step)[0], weight * keep, bias).mean(0) for step in range(4)])
    assert torch.allclose(average.module.get_buffer("1.running_mean"), means.mean(0), atol=1e-6)
    assert not weight[~keep].any()


class Changing(nn.Module):
    """Buffers that training changes: a queue that grows, a range set at first use, a cache made at first use, a type,
    and one that goes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("queue", torch.zeros(1, 8))
        self.register_buffer("least", torch.tensor([]), persistent=False)
        self.register_buffer("largest", None)
        self.register_buffer("once", torch.ones(3), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int32))
        self.queue: Tensor
        self.count: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.queue = torch.cat([self.queue, x[:1]])
            self.least, self.largest = x.amin(0), x.amax(0)
            self.count = self.count.to(torch.int64) + 1
            if "once" in self._buffers:
                del self.once
            if not hasattr(self, "cache"):
                self.register_buffer("cache", x.mean(0), persistent=False)
        logits: Tensor = self.two(self.one(x).relu())
        return logits


def layout(model: nn.Module) -> dict[str, Any]:
    """Names, None or not, types, shapes and values of a module's buffers, and which of them a state dict has."""
    values = {n: None if b is None else (b.dtype, b.shape, b.tolist()) for n, b in model._buffers.items()}
    return {"values": values, "not persistent": set(model._non_persistent_buffers_set)}


@pytest.mark.parametrize("back_to", [0, 3])
def test_buffers_that_training_changes_adds_or_removes_are_rewound(back_to: int) -> None:
    model, layouts = Changing(), list[dict[str, Any]]()
    how: Any = {"rewind": rewind.to_step, "rewind_step": back_to} if back_to else {}
    starts = []
    for level in Levels(model, [0.5, 0.25], **how):
        with level:
            starts.append(layout(model))
            optimizer = adam(model)
            for step in range(level.ticket.start.step, STEPS):
                train(model, optimizer, step, step + 1)
                if level.number == 0:
                    layouts.append(layout(model))
        assert layout(model) == layouts[-1]  # the same batches, from the same queue
    fresh = layout(Changing())
    assert starts[0] == fresh
    for start in starts[1:]:
        assert start == (layouts[back_to - 1] if back_to else fresh)


def test_a_model_that_training_gave_another_shape_is_put_back_bit_for_bit_and_trains_as_before() -> None:
    model, plain = Changing(), Changing()
    for level in Levels(model, [0.5]):
        with level:
            train(model, adam(model))
    with winticket.masked(plain, level.ticket):
        train(plain, adam(plain))
    assert same_bits(dict(model.named_parameters()), dict(plain.named_parameters()))
    assert same_bits(dict(model.named_buffers()), dict(plain.named_buffers()))


def test_a_ticket_goes_into_a_model_whose_buffers_have_grown() -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(8, 4)
            self.register_buffer("queue", torch.zeros(1, 8))
            self.queue: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.queue = torch.cat([self.queue, x])
            logits: Tensor = self.one(x)
            return logits

    model = Grows()
    ticket = winticket.prune(model, 0.5)
    with winticket.masked(model, ticket):
        train(model, adam(model))
        assert len(model.queue) == 1 + 32 * STEPS
    with winticket.masked(model, ticket):
        assert torch.equal(model.queue, torch.zeros(1, 8))
    ticket.load_into(model)
    assert "queue" in model._buffers


@pytest.mark.parametrize("fused", [True, False])
def test_a_reset_optimiser_keeps_its_count_of_steps_where_torch_does(fused: bool) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = nn.Linear(3, 2, device=device)
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    model(torch.ones(1, 3, device=device)).sum().backward()
    optimizer.step()
    parameters = dict(model.named_parameters())
    before = slots_of(optimizer, parameters)
    devices = {name: slot.device.type for name, slot in before.items()}
    load_slots(optimizer, parameters, {name: slot.cpu() for name, slot in before.items()})
    after = slots_of(optimizer, parameters)
    assert same_bits(after, before)
    assert {name: slot.device.type for name, slot in after.items()} == devices
    with pytest.raises(
        ValueError, match="optimiser state 'exp_avg/other' belongs to no parameter; there are weight"
    ):
        load_slots(optimizer, parameters, {"exp_avg/other": torch.zeros(1)})
