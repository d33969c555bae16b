"""What the golden tests compare: keys of whole plans, and a handful of numbers for every REVISION."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from winticket import align, allocate, controls, criteria, data, models, rewind, schedules, units
from winticket.criteria import Criterion, Evidence
from winticket.data import find_dataset
from winticket.experiment import Experiment, plan
from winticket.experiment.names import methods
from winticket.pairing import usual
from winticket.stages import (
    Setup,
    carried,
    control_ticket,
    dense_ticket,
    emerged,
    last_mask,
    looks,
    needs_end,
    needs_neighbour,
    needs_symmetry,
    neighbour_ticket,
    prune,
    prune_untrained,
    prune_with_foresight,
    sparse_start,
    states,
    train_mask,
    train_regrowing,
    train_stack,
    train_thinning,
    trained_control_ticket,
    widened,
    with_states,
)
from winticket.ticket import Failed, Mask, Seeds, Ticket, Trajectory
from winticket.train import Recipe, rules

FILE = Path(__file__).with_name("golden.json")
STEPS = 24
_SMALL = {"model": "lenet-12-8", "steps": STEPS, "replicates": 2, "gate": False}
PLANS: dict[str, dict[str, Any]] = {
    "imp": {"density": (0.5, 0.2)},
    "imp, all controls": {
        "density": (0.5,),
        "controls": ("reinit", "random", "other", "other-aligned", "signs"),
    },
    "imp, rewound to a step": {"density": (0.5,), "rewind": "to_step", "rewind_step": 4},
    "one-shot, snip": {"method": "one-shot", "criterion": "snip", "density": (0.5, 0.2)},
    "at-init, synflow": {"method": "at-init", "criterion": "synflow", "density": (0.2,)},
    "early-bird": {"method": "early-bird", "density": (0.5,)},
    "gradual": {"method": "gradual", "density": (0.2,)},
    "rigl": {"method": "rigl", "density": (0.2,)},
    "edge-popup": {"method": "edge-popup", "density": (0.5,)},
    "force": {"method": "force", "density": (0.5, 0.2)},
    "iter-snip": {"method": "iter-snip", "density": (0.2,)},
}


def made() -> dict[str, Any]:
    """Every golden entry: name -> its value and the revisions that it depends on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: {"value": value, "revisions": revisions(*rooms)} for name, value, rooms in _entries()}
    finally:
        torch.set_num_threads(threads)


def revisions(*rooms: str) -> dict[str, int]:
    """The REVISION of each module of winticket."""
    return {room: importlib.import_module(f"winticket.{room}").REVISION for room in rooms}


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def write(entries: dict[str, Any]) -> None:
    lines = [f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


_Entry = tuple[str, Any, tuple[str, ...]]
_TRAINED = ("data", "models", "ticket", "train", "units", "stages.tickets", "stages.training")


def _entries() -> Iterator[_Entry]:
    for name, choices in PLANS.items():
        tasks = plan(Experiment.of("digits", **{**_SMALL, **choices})).tasks
        keys = {"/".join(map(str, where)): task.key for where, task in tasks.items()}
        # A key holds the revisions of all that it is made of, so that none needs to be named beside it.
        yield f"keys: {name}", keys, ()
    setup = _setup("lenet-12-8")
    yield from _ground(setup)
    dense, pair = _trained(setup, [dense_ticket(setup, 0), dense_ticket(setup, 1)])
    yield "trained: dense", _curve(dense), _TRAINED
    pruned = prune(
        setup,
        dense,
        density=0.2,
        criterion=criteria.magnitude,
        allocate=allocate.layerwise,
        rewind=rewind.to_init,
    )
    (ticket_run,) = _trained(setup, [pruned])
    yield "trained: ticket at 0.2", _curve(ticket_run), _TRAINED
    yield from _pruned(setup, dense)
    yield from _searches(setup, dense)
    yield from _controls(setup, [dense, pair], pruned)
    yield from _carried(setup, pruned)


def _setup(model: str, **more: Any) -> Setup:
    source = find_dataset("digits")
    recipe = Recipe(steps=STEPS, evaluate_every=8)
    words = (source.fingerprint, source.input_shape, source.classes, model, "glorot-normal", recipe)
    return Setup("digits", *words, **more)


def _trained(setup: Setup, tickets: list[Ticket]) -> list[Trajectory]:
    return _with_states(setup, tickets, (4,))


def _with_states(setup: Setup, tickets: list[Ticket], steps: tuple[int, ...]) -> list[Trajectory]:
    runs = train_stack(setup, tickets)
    saved = states(setup, tickets, runs, steps=steps)
    pairs = zip(runs, saved, strict=True)
    return [with_states(run, s) for run, s in pairs if isinstance(run, Trajectory) and isinstance(s, dict)]


def _ground(setup: Setup) -> Iterator[_Entry]:
    seeds = Seeds(0, 1)
    yield "seeds", [seeds.derive("init"), seeds.derive("control", "random_mask", 7)], ("ticket",)
    order = data.permutation(1000, seed=3, epoch=1)[:12].tolist()
    loaded = data.load("digits", seed=5)
    split = {
        "order": order,
        "labels": loaded.train.y[:24].tolist(),
        "sizes": [len(loaded.train.y), len(loaded.test.y)],
    }
    yield "data", split, ("data",)
    for model in ("lenet-12-8", "conv-2", "resnet-20-4"):
        shape = (3, 32, 32) if model == "conv-2" else setup.input_shape
        init = models.default_init(model)
        module = models.build(model, input_shape=shape, classes=10, generator_seed=1, init=init)
        sums = {n: _rounded(p.double().abs().sum()) for n, p in list(module.named_parameters())[:6]}
        yield f"initialised: {model}", sums, ("models",)
    for name, schedule in methods(schedules).items():
        yield f"schedule: {name}", [_rounded(d) for d in schedule(0.05, 4)], ("schedules",)
    mask = Mask.full({"fc1.weight": torch.ones(4, 3), "fc2.weight": torch.ones(2, 4)}, layout=_plain(setup))
    gradient = {n: torch.arange(k.numel()).reshape(k.shape) - 5.0 for n, k in mask.keep.items()}
    for name, grow in (("at_random", rules.at_random), ("by_gradient", rules.by_gradient)):
        came = grow(mask, lambda: gradient, torch.Generator().manual_seed(4))
        places = {n: [_rounded(v) for v in scores.flatten()] for n, scores in came.items()}
        yield f"grown: {name}", places, ("train.rules",)


def _plain(setup: Setup) -> dict[str, Any]:
    return {
        n: layout for n, layout in units.layouts(setup.module()).items() if n in ("fc1.weight", "fc2.weight")
    }


def _pruned(setup: Setup, dense: Trajectory) -> Iterator[_Entry]:
    """A mask of each criterion with its usual allocation, of each allocation, and a start of each rewind."""
    deep = _setup("resnet-20-4", exclude=("fc.weight",))
    deep_run = _scaled(_trained(deep, [dense_ticket(deep, 0)])[0])
    yield from _structures()
    for name, criterion in methods(criteria).items():
        if name == "head_importance":
            continue
        where, run = (deep, deep_run) if name == "batchnorm_scale" else (setup, dense)
        found = _mask(where, run, criterion=criterion, allocate=usual(criterion))
        yield f"criterion: {name}", found, _rooms(criterion)
    for name, allocation in methods(allocate).items():
        # Blocks do not divide a layer of ten classes, and LeNet has no structures.
        if name not in ("blocks", "structures"):
            found = _mask(setup, dense, criterion=criteria.magnitude, allocate=allocation)
            yield f"allocation: {name}", found, ("allocate", *_rooms(criteria.magnitude))
    for name, way in methods(rewind).items():
        step = 4 if "step" in name or name == "learning_rate" else 0
        ticket = prune(
            setup,
            dense,
            density=0.5,
            criterion=criteria.magnitude,
            allocate=allocate.layerwise,
            rewind=way,
            rewind_step=step,
        )
        start = ticket.start
        told = {
            "step": start.step,
            "sum": _rounded(sum(w.double().abs().sum() for w in start.weights.values())),
        }
        yield f"rewind: {name}", {**told, "state": len(start.optimizer)}, ("rewind", *_TRAINED)
    for name in ("snip", "synflow"):
        sparse = prune_untrained(
            setup,
            dense.ticket,
            density=0.2,
            criterion=getattr(criteria, name),
            allocate=allocate.global_top,
            rewind=rewind.to_init,
        )
        yield f"at initialisation: {name}", _bits(sparse.mask), _rooms(getattr(criteria, name))
    for name, revive in (("force", True), ("iter-snip", False)):
        sparse = prune_with_foresight(
            setup, dense.ticket, density=0.2, allocate=allocate.global_top, iterations=8, revive=revive
        )
        yield f"at initialisation: {name}", _bits(sparse.mask), ("stages.foresight", *_rooms(criteria.snip))


def _structures() -> Iterator[_Entry]:
    """What is pruned by head, of a small transformer: by the heads' importance, and by magnitude."""
    network = models.build("chargpt-1-48", input_shape=(6,), classes=7, generator_seed=3, tokens=True)
    weights = {name: p.detach() for name, p in network.named_parameters()}
    names = [name for name in models.eligible(network) if name != "head.weight"]
    mask = Mask.full({n: weights[n] for n in names}, layout=units.layouts(network))
    tokens = torch.arange(24).view(4, 6) % 7
    seen = Evidence.of(weights, network=network, batches=[(tokens, (tokens + 2) % 7)])
    for name, criterion in (("head_importance", criteria.head_importance), ("magnitude", criteria.magnitude)):
        scores = criterion(replace(seen, mask=mask))
        found = allocate.structures(scores, mask, density=0.6)
        entry = "allocation: structures" if name == "magnitude" else f"criterion: {name}"
        yield entry, _bits(found), ("models", *_rooms(criterion))


def _scaled(run: Trajectory) -> Trajectory:
    """With BatchNorm scales that are far apart: after so few steps all are nearly 1, and rounding would choose."""
    last = run.saved[STEPS]
    weights = {n: w * torch.linspace(0.5, 2.0, len(w)) if w.ndim == 1 else w for n, w in last.weights.items()}
    return replace(run, saved={**run.saved, STEPS: replace(last, weights=weights)})


def _rooms(criterion: Criterion) -> tuple[str, ...]:
    return (
        *_TRAINED,
        "allocate",
        "stages.pruning",
        "criteria.evidence",
        criterion.__module__.removeprefix("winticket."),
    )


def _mask(
    setup: Setup, run: Trajectory, *, criterion: Criterion, allocate: Callable[..., Mask]
) -> dict[str, str]:
    found = prune(setup, run, density=0.5, criterion=criterion, allocate=allocate, rewind=rewind.to_init)
    return _bits(found.mask)


def _searches(setup: Setup, dense: Trajectory) -> Iterator[_Entry]:
    sparse = sparse_start(dense.ticket, density=0.2, allocate=allocate.erk)
    yield "sparse start", _bits(sparse.mask), ("ticket", "allocate", "stages.changing")
    rooms = (*_TRAINED, "stages.changing", "train.rules")
    for name, grow in (("set", rules.at_random), ("rigl", rules.by_gradient)):
        (run,) = train_regrowing(setup, [sparse], grow=grow, criterion=criteria.magnitude, every=5)
        assert isinstance(run, Trajectory), run
        yield f"search: {name}", {**_curve(run), "mask": _bits(last_mask(run).mask)}, rooms
    thinning = {"criterion": criteria.magnitude, "allocate": allocate.layerwise, "every": 5}
    (run,) = train_thinning(setup, [dense.ticket], density=0.2, **thinning)  # type: ignore[arg-type]
    assert isinstance(run, Trajectory), run
    yield "search: gradual", {**_curve(run), "mask": _bits(last_mask(run).mask)}, rooms
    for kind in ("top", "sampled"):
        (run,) = train_mask(setup, [sparse], kind=kind)
        assert isinstance(run, Trajectory), run
        yield f"search: {kind} mask", {"mask": _bits(last_mask(run).mask)}, (*_TRAINED, "stages.learning")
    (often,) = _with_states(setup, [dense.ticket], looks(setup))
    bird = emerged(setup, often, density=0.5, criterion=criteria.l1_units, allocate=allocate.units)
    told = {"after": bird.about["searched_steps"], "settled": bird.about["settled"], "mask": _bits(bird.mask)}
    yield "search: early-bird", told, (*_rooms(criteria.l1_units), "stages.settling")


def _controls(setup: Setup, runs: list[Trajectory], ticket: Ticket) -> Iterator[_Entry]:
    rooms = ("controls", "stages.controlling", "align", *_TRAINED)
    second = replace(ticket, seeds=Seeds(ticket.seeds.root, 1), mask=ticket.mask)
    other = control_ticket(setup, second, control=controls.random_mask)
    for name, control in methods(controls).items():
        if needs_neighbour(control):
            stacks: list[list[Ticket | Trajectory | Failed]] = (
                [[ticket, other], [*runs]] if needs_symmetry(control) else [[ticket, other]]
            )
            made_of = neighbour_ticket(setup, ticket, (0, 1), stacks, control=control)
            assert isinstance(made_of, Ticket), made_of
        elif needs_end(control):
            made_of = trained_control_ticket(setup, ticket, runs[0], control=control)
        else:
            made_of = control_ticket(setup, ticket, control=control)
        start = {n: _rounded(w.double().abs().sum()) for n, w in made_of.start.weights.items()}
        yield f"control: {name}", {"mask": _bits(made_of.mask), "start": start}, rooms


def _carried(setup: Setup, ticket: Ticket) -> Iterator[_Entry]:
    rooms = ("stages.carrying", "align", "models", "ticket")
    there = replace(setup, seed=3)
    yield "carried", _bits(carried(there, ticket).mask), rooms
    wide = _setup("lenet-24-8")
    yield "widened", _bits(widened(wide, setup, ticket).mask), rooms
    assert align.REVISION  # what its functions give is seen in the two above and in other_aligned


def _curve(run: Trajectory) -> dict[str, Any]:
    """Losses over the grid, and a sum over the last weights."""
    losses = [_rounded(v) for v in run.curve.validation_loss]
    last = run.saved[max(run.saved)].weights
    return {"losses": losses, "weights": _rounded(sum(w.double().abs().sum() for w in last.values()))}


def _bits(mask: Mask) -> dict[str, str]:
    """Each layer's kept places, as hexadecimal digits of four."""
    found = {}
    for name, keep in mask.keep.items():
        flags = "".join("1" if k else "0" for k in keep.flatten().tolist())
        flags = flags.ljust(-(-len(flags) // 4) * 4, "0")
        found[name] = "".join(f"{int(flags[i : i + 4], 2):x}" for i in range(0, len(flags), 4))
    return found


def _rounded(value: Any) -> float:
    return float(f"{float(value.detach() if isinstance(value, torch.Tensor) else value):.7g}")
