"""Planning: what makes a key, what is refused while planning, and the shape of the graph."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch

from winticket.run import Task, derive, key, names, resolve, stored_needs, task, walk
from winticket.run.keys import identity, name_of
from winticket.run.task import pack

from . import jobs


@pytest.fixture
def ours() -> Iterator[Any]:
    """A module inside winticket, made for the test, so that its key holds no path or source of this file."""
    module = types.ModuleType("winticket._golden")
    sys.modules[module.__name__] = module
    module.REVISION = 0  # type: ignore[attr-defined]
    exec("def prune(path, *, density, rounds=3): pass\ndef nameless(): pass", vars(module))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast("dict[str, str]", names.HOMES), "golden_prune", "_golden:prune")
        patch.setitem(names._NAMES, "winticket._golden:prune", "winticket/golden_prune")
        yield module
    del sys.modules[module.__name__]


def test_golden_key(ours: Any) -> None:
    # The text that is hashed, written out by hand: whoever changes it makes every stored result unreachable.
    text = (
        '{"call":{"fn":"winticket/golden_prune","revision":0},"inputs":["digits"],"kind":"task",'
        '"options":{"density":0.2,"rounds":{"tuple":[1,null,{"float":"inf"}]}},"scheme":2}'
    )
    planned = task(ours.prune, "digits", density=0.2, rounds=(1, None, float("inf")))
    assert planned.key == hashlib.sha256(text.encode()).hexdigest()
    assert planned.key[:12] == "39665dbd8eb7"


def test_a_function_of_ours_without_a_stored_name_is_in_no_key(ours: Any) -> None:
    with pytest.raises(
        TypeError, match=r"winticket\._golden:nameless has no line in winticket/run/names\.py"
    ):
        task(ours.nameless)


def test_every_stored_name_leads_to_a_thing_that_knows_it() -> None:
    """Both ways; and whatever may be in a key has a REVISION beside it."""
    rooms = {room: importlib.import_module(f"winticket.{room}") for room in names.ROOMS}
    listed = {tuple(f"winticket.{line}".split(":")) for line in names.HOMES.values()}
    chosen = {
        f"winticket/{room}/{name}"
        for room, module in rooms.items()
        for name in module.__all__
        if inspect.isfunction(function := getattr(module, name))
        and (function.__module__, name) not in listed  # a stage with a line in the table has that name alone
        and (room != "stages" or hasattr(sys.modules[function.__module__], "REVISION"))
    }
    stored = {f"winticket/{name}" for name in names.HOMES} | chosen
    assert len(stored) == len(names.HOMES) + len(chosen) > 60
    for name in stored:
        thing: Any = resolve(name)
        assert name_of(thing, "thing") == name
        if inspect.isfunction(thing):
            assert identity(thing, name)["fn"] == name


def test_defaults_are_part_of_the_key(ours: Any) -> None:
    assert task(ours.prune, "d", density=0.2) == task(ours.prune, "d", density=0.2, rounds=3)
    assert task(ours.prune, "d", density=0.2) != task(ours.prune, "d", density=0.2, rounds=4)
    assert dict(task(ours.prune, "d", density=0.2).options) == {"density": 0.2, "rounds": 3}


def test_revision_changes_the_key(ours: Any) -> None:
    before = task(ours.prune, "d", density=0.2)
    ours.REVISION = 1
    after = task(ours.prune, "d", density=0.2)
    assert before != after
    assert task(jobs.grow, before) != task(jobs.grow, after)


def test_revision_of_a_function_among_the_options_changes_the_key(ours: Any) -> None:
    before = task(jobs.apply, 1.0, fn=ours.prune)
    ours.REVISION = 2
    assert task(jobs.apply, 1.0, fn=ours.prune) != before
    ours.REVISION = "2"
    with pytest.raises(TypeError, match="REVISION is '2'; it must be an int"):
        task(jobs.apply, 1.0, fn=ours.prune)


def test_source_of_foreign_functions_changes_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = []
    for number in (1, 2):
        (tmp_path / f"mylab{number}.py").write_text(f"def fisher(x):\n    return x * {number}\n")
        module: Any = resolve(f"mylab{number}:fisher")
        module.__module__ = "mylab"
        monkeypatch.setitem(sys.modules, "mylab", sys.modules[f"mylab{number}"])
        keys.append(task(module, 1).key)
    assert keys[0] != keys[1]


def test_label_and_weight_are_not_part_of_the_key() -> None:
    plain = task(jobs.plant, seed=1)
    assert plain == task(jobs.plant, seed=1, label={"level": 3}, weight=9.0)
    assert plain.key == key(jobs.plant, (), {"seed": 1})
    assert plain.key != key(jobs.plant, (), {"seed": 1}, stored=False)


def test_equal_looking_values_have_different_keys() -> None:
    values: list[object] = [1, 1.0, True, "1", (1,), [1], None, -0.0, 0.0, 0, False, {"a": 1}, {"a": (1,)}]
    values += [jobs.double, functools.partial(jobs.triple, by=2.0), jobs.Plain(), jobs.Plain(rate=0.25)]
    values += [{"tuple": [1]}, {"float": "inf"}, float("inf"), -float("inf"), "inf", {"dict": {"a": 1}}]
    assert len({task(jobs.add, value, 0).key for value in values}) == len(values)


def test_dict_order_does_not_matter() -> None:
    assert task(jobs.add, {"a": 1, "b": 2}, 0) == task(jobs.add, {"b": 2, "a": 1}, 0)


def test_key_fields_keep_a_path_out_of_the_key() -> None:
    assert task(jobs.add, jobs.Setup(3, "here"), 0) == task(jobs.add, jobs.Setup(3, "there"), 0)
    assert task(jobs.add, jobs.Setup(3), 0) != task(jobs.add, jobs.Setup(4), 0)


def test_partial_as_function_is_the_call_it_stands_for() -> None:
    assert task(functools.partial(jobs.scale, by=2.0), 1) == task(jobs.scale, 1, by=2.0)
    assert task(
        "run.jobs:scale" if jobs.__name__ == "run.jobs" else f"{jobs.__name__}:scale", 1, by=2.0
    ) == task(jobs.scale, 1, by=2.0)


def test_adding_tasks_changes_no_other_key() -> None:
    def plan(levels: int, arms: int) -> dict[tuple[int, int], str]:
        made = {}
        for arm in range(arms):
            at = task(jobs.plant, seed=arm)
            for level in range(levels):
                at = task(jobs.grow, derive(jobs.scale, at, by=0.5), rate=0.1 * (level + 1))
                made[arm, level] = at.key
        return made

    small, large = plan(2, 2), plan(3, 3)
    assert small.items() <= large.items()
    assert len(set(large.values())) == 9


def test_later_change_of_a_given_list_does_not_reach_the_task() -> None:
    numbers = [1.0, 2.0]
    planned = task(jobs.table, {"a": numbers})
    numbers.append(3.0)
    assert planned.inputs == ({"a": [1.0, 2.0]},)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: task(jobs.plant, sed=1),
            r"plant: no option 'sed'; .*options: seed, size=50 .did you mean 'seed'",
        ),
        (lambda: task(jobs.plant), r"missing a required.*'seed'.*options: seed, size=50"),
        (lambda: task(jobs.plant, 1, 2, seed=1), r"too many positional arguments; given 2 inputs for \(\)"),
        (lambda: task(jobs.count_up, "p", steps=1, report=1), "report is supplied by the worker"),
        (
            lambda: derive(jobs.count_up, "p", steps=1),
            "takes checkpoint and report, so its result must be stored",
        ),
        (lambda: task(lambda: 1), "is a lambda or a local function"),
        (lambda: task(jobs.apply, 1.0, fn=lambda x: x), "option 'fn'.* is a lambda or a local function"),
        (lambda: task(jobs.plant, seed=float("nan")), "option 'seed' is nan"),
        (
            lambda: task(jobs.plant, seed=torch.ones(1)),
            "option 'seed' is a torch.Tensor, which cannot be part",
        ),
        (lambda: task(jobs.add, 1, [{"x": {1, 2}}]), r"input 2\[0\]\['x'\] is a builtins.set"),
        (lambda: task(jobs.add, 1, {2: 3}), "input 2 has the dict key 2; only str"),
        (lambda: task(jobs.add, 1, jobs.Melting()), "input 2: dataclass Melting is not frozen"),
        (lambda: task(jobs.plant, seed=task(jobs.plant, seed=1)), "option 'seed' is a task; tasks go among"),
        (lambda: task(jobs.plant, seed=1, label={"a": float("nan")}), "label .* is not plain JSON"),
        (lambda: task(3), "3 is not a function"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_told_while_planning(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_mistaken_paths_and_weights() -> None:
    with pytest.raises(ValueError, match=r"has no 'plnt' .did you mean 'plant'"):
        task(f"{jobs.__name__}:plnt", seed=1)
    with pytest.raises(ValueError, match=r"write package\.module:name"):
        task("plant", seed=1)
    with pytest.raises(
        ValueError, match=r"cannot be imported .ModuleNotFoundError: No module named 'nowhere'"
    ):
        task("nowhere:plant", seed=1)
    with pytest.raises(ValueError, match="weight -1"):
        task(jobs.plant, seed=1, weight=-1)


def test_walk_gives_inputs_first_and_each_key_once() -> None:
    root = task(jobs.plant, seed=0)
    left, right = task(jobs.grow, root), task(jobs.grow, task(jobs.plant, seed=0), rate=0.3)
    order = walk([task(jobs.total, left, right), right])
    assert [t.fn.partition(":")[2] for t in order] == ["plant", "grow", "grow", "total"]
    place = {t.key: i for i, t in enumerate(order)}
    assert all(place[need.key] < place[t.key] for t in order for need in t.inputs if isinstance(need, Task))


def test_stored_needs_look_through_steps() -> None:
    a, b = task(jobs.plant, seed=0), task(jobs.plant, seed=1)
    through = derive(jobs.add, derive(jobs.scale, a, by=2.0), derive(jobs.add, b, a))
    top = task(jobs.table, {"x": [through]})
    assert stored_needs(top) == (a, b)
    assert stored_needs(task(jobs.grow, top)) == (top,)
    assert stored_needs(a) == ()


def test_a_chain_of_thousands_travels_and_ships_only_what_is_needed() -> None:
    at = task(jobs.plant, seed=0)
    for _ in range(3000):
        at = task(jobs.grow, derive(jobs.scale, at, by=0.5))
    again = pickle.loads(pickle.dumps(at))
    assert again == at
    assert [t.key for t in walk([again])] == [t.key for t in walk([at])]
    assert [node.key for node in pack(at)] == [at.inputs[0].key, at.key]  # type: ignore[attr-defined]
    assert len(pickle.dumps(pack(at))) < 1000
