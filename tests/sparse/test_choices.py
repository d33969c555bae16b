"""Choices by measurement: the kernels' table of instruction sets, and the blocks that structures are built with."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from starting import Started
from winticket.sparse import Shape, Structure, Tuning, convert, instruction_sets, products, structure, windows
from winticket.sparse.choices import EDGES, PROBES, Choice
from winticket.sparse.measuring import confirmed, fastest
from winticket.sparse.native import kernels
from winticket.sparse.structure import rule
from winticket.sparse.timing import Seconds, Work, clock_for, race
from winticket.sparse.windows import Window
from winticket.sparse.workload import Layer
from winticket.train import Recipe, engine

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")

# Every test that writes to the table has shapes of its own, since the table lasts as long as the process.
LAYER = Shape(rows=31, columns=47, stack=2, batch=40, threads=1)
WINDOW = Window(5, (3, 3), (2, 1), (1, 1))
PICTURES = Shape(rows=6, columns=45, stack=1, batch=7, threads=1, window=WINDOW, size=(9, 8))


@pytest.fixture(autouse=True)
def _unforced() -> Iterator[None]:
    before, threads = kernels.forced(), torch.get_num_threads()
    kernels.use("")
    torch.set_num_threads(1)
    yield
    kernels.use(before)
    torch.set_num_threads(threads)


def tuned(shape: Shape, *names: str, blocks: tuple[int, int] = (1, 1)) -> Tuning:
    """Set `names` for the probes, for every product."""
    choices = (
        Choice(d, dict.fromkeys(shape.products, n), blocks) for d, n in zip(PROBES, names, strict=True)
    )
    return Tuning(shape, 1.0, tuple(choices))


def results(shape: Shape, kept: Structure) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    dense = draw(kept.index.shape[0], *kept.shape)
    if shape.window:
        x, values = draw(shape.batch, shape.window.channels, *shape.size), kept.pack(dense)[0]
        rows = (kept.start[0], kept.place[0])
        columns = [t[0] for t in (kept.by_column, kept.row_of, kept.order, kept.column_of)]
        y = windows.conv2d(x, values, None, *rows, window=shape.window)
        back = windows.conv2d_backward(y, x, values, rows, columns, window=shape.window)
        return {"convolution": y, "convolution_back": torch.cat([t.flatten() for t in back])}
    x, grad = (draw(shape.stack, shape.batch, n) for n in (shape.columns, shape.rows))
    values = kept.pack(dense)
    by_input = products.linear_grad_input(grad, values, kept.by_column, kept.row_of, kept.order)
    return {
        "forward": products.linear(x, values, None, kept.start, kept.place),
        "by_weight": kept.unpack(products.linear_grad_weight(grad, x, kept.start, kept.place)),
        "by_input": by_input,
    }


def masked(shape: Shape, density: float) -> Structure:
    """A structure of random masks with exactly this density."""
    chance = torch.rand(shape.stack, shape.rows * shape.columns, generator=torch.Generator().manual_seed(1))
    keep = chance.argsort(1).argsort(1) < round(density * chance.shape[1])
    keep = keep.view(shape.stack, shape.rows, shape.columns)
    if shape.window:
        keep = keep.view(-1, shape.rows, shape.window.channels, *shape.window.kernel)
    return structure(keep, columns_in=shape.window.numbered() if shape.window else None)


def by_set(shape: Shape, kept: Structure) -> dict[str, dict[str, Tensor]]:
    """The results of each instruction set, forced."""
    made = {}
    for name in instruction_sets():
        kernels.use(name)
        made[name] = results(shape, kept)
    kernels.use("")
    return made


# On both sides of the densities that lie between the probes, .1 and .316.
@pytest.mark.parametrize(
    ("density", "probe"), [(0.05, 0), (0.08, 0), (0.13, 1), (0.28, 1), (0.36, 2), (0.9, 2)]
)
@pytest.mark.parametrize("shape", [LAYER, PICTURES], ids=["Linear", "Conv2d"])
def test_sets_are_chosen_by_density_and_differ_in_last_bits_alone(
    shape: Shape, density: float, probe: int
) -> None:
    sets = instruction_sets()
    names = [sets[-1], sets[0], sets[len(sets) // 2]]
    tuned(shape, *names).register()
    kept = masked(shape, density)
    forced, taken = by_set(shape, kept), results(shape, kept)
    for product, value in taken.items():
        assert torch.equal(value, forced[names[probe]][product])
        for other in forced.values():
            torch.testing.assert_close(value, other[product], rtol=1e-4, atol=1e-4)
        assert kernels.preferred(product, shape.numbers(product), kept.capacity) == names[probe]


def test_a_test_of_sets_would_notice_another_set() -> None:
    if len(instruction_sets()) == 1:
        pytest.skip("this processor has one instruction set")
    for shape in (LAYER, PICTURES):
        forced = by_set(shape, masked(shape, 0.5))
        first, last = forced[instruction_sets()[0]], forced[instruction_sets()[-1]]
        assert all(not torch.equal(first[product], last[product]) for product in first)


def test_a_forced_set_wins_and_other_shapes_are_left_alone() -> None:
    shape = Shape(rows=33, columns=21, stack=1, batch=40, threads=1)
    usual, last = instruction_sets()[0], instruction_sets()[-1]
    tuned(shape, last, last, last).register()
    numbers = shape.numbers("forward")
    assert kernels.preferred("forward", numbers, 10) == last
    for position in range(len(numbers)):
        others = [n + (i == position) for i, n in enumerate(numbers)]
        assert kernels.preferred("forward", others, 10) == usual
    kernels.use(usual)
    assert (kernels.preferred("forward", numbers, 10), kernels.forced()) == (usual, usual)
    kernels.use("")
    assert (kernels.preferred("forward", numbers, 10), kernels.chosen()) == (last, usual)


def test_a_measuring_thread_leaves_others_alone() -> None:
    shape = Shape(rows=35, columns=21, stack=1, batch=40, threads=1)
    usual, last = instruction_sets()[0], instruction_sets()[-1]
    numbers, elsewhere = shape.numbers("by_weight"), []
    kernels.attempt(last)
    try:
        here = kernels.preferred("by_weight", numbers, 10)
        thread = threading.Thread(
            target=lambda: elsewhere.append(kernels.preferred("by_weight", numbers, 10))
        )
        thread.start()
        thread.join()
    finally:
        kernels.attempt("")
    assert (here, elsewhere, kernels.chosen()) == (last, [usual], usual)


def test_unknown_names_and_numbers_are_refused() -> None:
    for product, numbers, ladder, words in (
        ("backward", [1] * 5, [(1, "plain")], "no product is called 'backward'"),
        ("forward", [1] * 4, [(1, "plain")], "'forward' is known by 5 numbers, not 4"),
        ("convolution", [1] * 5, [(1, "plain")], "'convolution' is known by 17 numbers, not 5"),
        ("forward", [1] * 5, [(1, "sse9")], "this processor does not run 'sse9'"),
        ("forward", [1] * 5, [], "there is no instruction set to prefer"),
    ):
        with pytest.raises(ValueError, match=words):
            kernels.prefer(product, numbers, ladder)
    for call in (kernels.use, kernels.attempt):
        with pytest.raises(ValueError, match="this processor does not run 'sse9'"):
            call("sse9")
    assert (kernels.forced(), kernels.chosen()) == ("", instruction_sets()[0])


def test_the_table_is_read_and_written_by_threads_at_once() -> None:
    shape = Shape(rows=64, columns=64, stack=1, batch=16, threads=1)
    kept, names = masked(shape, 0.3), (instruction_sets()[0], instruction_sets()[-1])
    allowed = by_set(shape, kept)
    stop, wrong = threading.Event(), []

    def compute() -> None:
        while not stop.is_set():
            taken = results(shape, kept)["by_weight"]
            if not any(torch.equal(taken, allowed[name]["by_weight"]) for name in names):
                wrong.append(taken)

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(2000):
        name = names[turn % 2]
        kernels.prefer("by_weight", shape.numbers("by_weight"), [(4096, name)])
        kernels.prefer("by_weight", [1, 1, 100 + turn, 3, 3], [(4096, name)])  # the table grows meanwhile
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


PREFERENCES = """
import torch
from winticket.sparse import Shape, tuning
from winticket.sparse.native import kernels
torch.set_num_threads(1)
shape = Shape(rows=12, columns=40, stack=2, batch=24, threads=1)
tuning(shape)
for product in shape.products:
    print([kernels.preferred(product, shape.numbers(product), entries) for entries in (20, 100, 300)])
print([tuning(shape).blocks(d) for d in (0.02, 0.2, 0.9)], tuning(shape).break_even)
"""


def test_preferences_survive_a_second_process(tmp_path: Path) -> None:
    def process() -> str:
        done = Started(folder=tmp_path, program=PREFERENCES, environment={"WINTICKET_CACHE": str(tmp_path)})
        said, errors = done.communicate(timeout=120)
        assert done.returncode == 0, errors
        return said

    first = process()
    (file,) = (tmp_path / "break-even").iterdir()
    assert process() == first
    # As no measurement would have it: what the third process says comes from the file alone.
    content, last = json.loads(file.read_text()), instruction_sets()[-1]
    for choice in content["choices"]:
        choice |= {"sets": dict.fromkeys(choice["sets"], last), "blocks": [4, 3]}
    file.write_text(json.dumps({**content, "break_even": 0.45}))
    assert process().splitlines() == [str([last] * 3)] * 3 + ["[(4, 3), (4, 3), (4, 3)] 0.45"]


def test_blocks_follow_the_choices_and_grow_as_the_rule_has_them() -> None:
    shape = Shape(rows=300, columns=784, stack=5, batch=64, threads=1)
    usual = [rule(300, 784, 64, d) for d in PROBES]
    assert usual == [(2, 2), (6, 2), (6, 2)]
    assert Tuning(shape, 0.5).blocks(0.1) == rule(300, 784, 64, 0.1) == (4, 2)
    sets = dict.fromkeys(shape.products, "plain")
    chosen = [Choice(d, sets, b) for d, b in zip(PROBES, [(1, 2), (3, 4), (12, 1)], strict=True)]
    measured = Tuning(shape, 0.5, tuple(chosen))
    assert [measured.blocks(d) for d in PROBES] == [(1, 2), (3, 4), (12, 1)]
    assert measured.blocks(0.02) == (1, rule(300, 784, 64, 0.02)[1])
    assert measured.blocks(EDGES[1]) == (3, 4)
    assert measured.blocks(1.0) == (12, 1)
    assert measured.blocks(0.12) == (round(rule(300, 784, 64, 0.12)[0] / 2), 4)


def test_converted_layers_have_the_blocks_that_were_measured() -> None:
    module = nn.Sequential(nn.Linear(200, 90), nn.ReLU(), nn.Linear(90, 3))
    keep = {n: torch.rand(2, *p.shape) < 0.3 for n, p in module.named_parameters() if p.ndim > 1}
    shape = Shape(rows=90, columns=200, stack=2, batch=20, threads=1)
    assert rule(90, 200, 20, 0.3) == (1, 1)
    converted = convert(module, keep, keep, tunings={"0.weight": tuned(shape, *["plain"] * 3, blocks=(3, 2))})
    first, second = (converted.structures[f"{layer}.weight"] for layer in (0, 2))
    assert (first.start.shape, first.by_column.shape) == ((2, 3, 91), (2, 2, 201))
    assert (second.start.shape[1], second.by_column.shape[1]) == (1, 1)
    dense = torch.randn(2, 90, 200) * keep["0.weight"]
    assert torch.equal(first.unpack(first.pack(dense)), dense)


@pytest.mark.parametrize("name", ["auto", "sparse"])
def test_every_engine_trains_with_what_was_measured(
    name: engine.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 3))
    keep = {n: torch.rand(2, *p.shape) < 0.3 for n, p in module.named_parameters() if p.ndim > 1}
    shapes: list[Shape] = []

    def tuning(shape: Shape) -> Tuning:
        shapes.append(shape)
        return tuned(shape, *["plain"] * 3, blocks=(2, 3))

    monkeypatch.setattr(engine, "tuning", tuning)
    converted = engine.convert(
        module, keep, Recipe(steps=1, batch=20), engine=name, stacked=True, example=torch.zeros(2, 50)
    )
    assert [(s.rows, s.columns, s.stack, s.batch) for s in shapes] == [(40, 50, 2, 20), (3, 40, 2, 20)]
    assert {s.start.shape[1] for s in converted.structures.values()} == {2}
    assert {s.by_column.shape[1] for s in converted.structures.values()} == {3}


# Times of two products by (blocks, set). The usual way is (2, "a").
def test_another_way_must_be_clearly_faster() -> None:
    def times(**by_way: float) -> dict[tuple[int, str], Seconds]:
        return {(int(way[1:]), way[0]): Seconds(t, t) for way, t in by_way.items()}

    usual = (2, "a")
    alike = times(a1=0.98, a2=1.0, b2=0.98)
    assert fastest({"one": alike}, usual) == (2, {"one": "a"})
    assert fastest({"one": times(a1=1.2, a2=1.0, b1=0.9, b2=0.95)}, usual) == (1, {"one": "b"})
    # Sets are chosen product by product, blocks for all of them together.
    one, two = times(a1=0.5, a2=1.0), times(a1=1.6, a2=1.2, b2=1.0)
    assert fastest({"one": one, "two": two}, usual) == (2, {"one": "a", "two": "b"})
    # At other blocks a set that lost at the usual ones was not tried.
    assert fastest({"one": times(a2=2.0, b1=0.8, b2=1.0)}, usual) == (1, {"one": "b"})


@pytest.mark.parametrize(("seconds", "blocks"), [(0.9, (4, 2)), (0.98, (1, 1)), (1.5, (1, 1))])
def test_a_way_is_taken_only_if_a_whole_step_gains(seconds: float, blocks: tuple[int, int]) -> None:
    now = 0.0

    def step(choice: Choice) -> Work:
        def work() -> None:
            nonlocal now
            now += seconds if choice.blocks == (4, 2) else 1.0

        return work

    layer = Layer(lambda _: (1, 1), lambda _: {}, step, [])
    usual, choice = (Choice(0.2, dict.fromkeys(LAYER.products, "plain"), b) for b in ((1, 1), (4, 2)))
    assert confirmed(layer, choice, usual, lambda: now).blocks == blocks
    assert confirmed(layer, usual, usual, lambda: now) is usual


def test_hopeless_ways_get_one_turn() -> None:
    calls = {"fast": 0, "slow": 0}

    def way(name: str, count: int) -> None:
        calls[name] += 1
        sum(range(count))

    times = race({"fast": lambda: way("fast", 60_000), "slow": lambda: way("slow", 600_000)}, clock_for(1))
    assert times["slow"].median > 1.3 * times["fast"].median
    assert (calls["fast"] >= 6, calls["slow"]) == (True, 2)


def test_parts_of_large_layers_are_measured_under_the_numbers_of_the_whole() -> None:
    assert LAYER.numbers("forward") == [1, 2, 31, 47, 40]
    assert LAYER.numbers("by_input") == [1, 2, 47, 31, 40]
    assert PICTURES.numbers("convolution")[:7] == [1, 1, 7, 6, 5, 9, 8]
