"""What criteria see: the mode they compute in, how batches count, whose weights, which losses, what is refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import winticket
from winticket import allocate, criteria, rewind
from winticket.criteria import Criterion, Evidence
from winticket.criteria.applied import mask_of, scores_of
from winticket.criteria.batches import Batch
from winticket.criteria.evidence import DATA, NETWORK, mode_of, needed, needs
from winticket.ticket import Mask, Scores, State, same_bits

PUBLIC = {name: cast(Criterion, getattr(criteria, name)) for name in criteria.__all__ if name[0].islower()}
# head_importance needs attention heads: see tests/units/test_structures.py
WITH_DATA = [
    name for name, criterion in PUBLIC.items() if DATA in needed(criterion) and name != "head_importance"
]
BY_GRADIENT = [name for name in WITH_DATA if name != "wanda"]


def given_for(
    module: nn.Module,
    batches: list[Batch],
    *,
    names: list[str] | None = None,
    density: float = 1.0,
    **options: Any,
) -> Evidence:
    """The module as it is, with a random mask over the named weights (all Linear and Conv2d ones)."""
    weights = {n: p.detach().clone() for n, p in module.named_parameters()}
    layers = (nn.Linear, nn.Conv2d)
    known = {f"{n}.weight" for n, layer in module.named_modules() if isinstance(layer, layers)} & set(weights)
    torch.manual_seed(7)
    keep = {n: torch.rand(w.shape) < density for n, w in weights.items() if n in (names or known)}
    state = State(weights, {n: b.detach().clone() for n, b in module.named_buffers()}, {}, 0)
    generator = torch.Generator().manual_seed(4)
    example = batches[0][0][:1] if batches else None
    whole: dict[str, Any] = {"network": module, "example": example, "batches": batches, **options}
    return Evidence(state, state, Mask(keep), generator, **whole)


def agree(scores: Scores, wanted: dict[str, Tensor], *, rtol: float = 1e-9) -> None:
    assert list(scores) == list(wanted)
    for name, score in scores.items():
        torch.testing.assert_close(
            score, wanted[name].double(), rtol=rtol, atol=rtol * float(wanted[name].abs().max())
        )


# ------------------------------------------------------------------------------------------------- training mode


def normalised() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Softplus(),  # smooth, for differences
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8),
        nn.Softplus(),
        nn.Linear(8, 3),
    )


def images(count: int, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 6, 6, generator=generator), torch.randint(3, (count,), generator=generator)


def by_torch(
    e: Evidence, *, training: bool, along: dict[str, Tensor] | None = None, by: float = 1.0
) -> list[dict[str, Tensor]]:
    """Each batch's gradient of mean cross-entropy, of a float64 copy of the module with the mask in its weights.

    `along` moves the weights that the gradient is taken at; `by` divides logits. No code of the library is used.
    """
    assert e.network is not None
    twin = copy.deepcopy(e.network).double()
    found = []
    for x, y in e.batches:
        twin.load_state_dict({**e.now.weights, **e.now.buffers})
        twin.train(training)
        with torch.no_grad():
            for name, keep in e.mask.keep.items():
                twin.get_parameter(name).mul_(keep)
                twin.get_parameter(name).add_(along[name] if along else 0)
        twin.zero_grad()
        torch.autograd.backward(F.cross_entropy(twin(x.double()) / by, y))
        found.append({name: cast(Tensor, twin.get_parameter(name).grad).clone() for name in e.mask.keep})
    return found


def masked(e: Evidence) -> dict[str, Tensor]:
    return {name: w.double() for name, w in e.mask.apply(e.now.weights).items() if name in e.mask.keep}


def test_every_criterion_has_its_authors_mode() -> None:
    """As in their code: GraSP.py and Taylor's main.py leave a network in training mode; snip/prune.py of SNIP says
    is_train: False; SynFlow's prune.py and Wanda's main.py call eval(). One example, as in Fisher, has no statistics.
    """
    modes = {name: mode_of(criterion) for name, criterion in PUBLIC.items() if NETWORK in needed(criterion)}
    assert modes == {
        "batchnorm_scale": "evaluation",
        "fisher": "evaluation",
        "grasp": "training",
        "head_importance": "evaluation",
        "snip": "evaluation",
        "synflow": "evaluation",
        "taylor": "training",
        "wanda": "evaluation",
    }


def test_grasp_has_the_statistics_of_each_batch() -> None:
    """w · H g by central differences of the gradient along g, in training mode, over batches of 30 and 10."""
    e = given_for(normalised(), [images(30), images(10, seed=2)], density=0.7)
    weights = masked(e)

    def gradient(along: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        parts = by_torch(e, training=True, along=along, by=200.0)
        return {name: 0.75 * parts[0][name] + 0.25 * parts[1][name] for name in weights}

    g, step = gradient(), 1e-2
    up = gradient({name: step * g[name] for name in g})
    down = gradient({name: -step * g[name] for name in g})
    wanted = {name: weights[name] * (up[name] - down[name]) / (2 * step) for name in weights}
    agree(criteria.grasp(e), wanted, rtol=1e-5)


def test_taylor_has_the_statistics_of_each_batch() -> None:
    e = given_for(normalised(), [images(70)], density=0.7)
    (x, y), weights = e.batches[0], masked(e)
    one, two = by_torch(replace(e, batches=[(x[:35], y[:35]), (x[35:], y[35:])]), training=True)
    wanted = {n: w**2 * (one[n] ** 2 + two[n] ** 2) / 2 for n, w in weights.items()}
    agree(criteria.taylor(e), wanted)
    evaluated = by_torch(e, training=False)[0]
    assert not torch.allclose(
        criteria.taylor(e)["0.weight"], (weights["0.weight"] * evaluated["0.weight"]) ** 2
    )


def test_snip_has_the_statistics_of_the_network() -> None:
    e = given_for(normalised(), [images(30), images(10, seed=2)], density=0.7)
    one, two = by_torch(e, training=False)
    agree(criteria.snip(e), {n: (w * (0.75 * one[n] + 0.25 * two[n])).abs() for n, w in masked(e).items()})


def test_a_criterion_of_ones_own_has_the_mode_that_it_asks_for() -> None:
    seen: list[bool] = []

    def score(e: Evidence) -> Scores:
        seen.append(e.module().training)
        return {name: e.now.weights[name].abs() for name in e.mask.keep}

    e = given_for(normalised().eval(), [images(4)])
    scores_of(needs(NETWORK, mode="training")(score), e)
    scores_of(needs(NETWORK)(score), e)
    assert seen == [True, False]
    assert not any(m.training for m in e.module().modules())


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.drop = nn.Linear(6, 40), nn.Linear(40, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.drop(torch.tanh(self.up(x))))
        return out


@pytest.mark.parametrize("name", ["grasp", "taylor"])
def test_dropout_is_drawn_by_the_evidences_generator_alone(name: str) -> None:
    e = given_for(Dropping(), [(torch.randn(20, 6), torch.randint(3, (20,)))])
    before = torch.get_rng_state()
    first = PUBLIC[name](e)
    torch.manual_seed(99)
    assert same_bits(first, PUBLIC[name](e))
    assert not same_bits(first, PUBLIC[name](replace(e, generator=torch.Generator().manual_seed(5))))
    torch.set_rng_state(before)
    PUBLIC[name](e)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["grasp", "taylor"])
def test_one_example_has_no_statistics(name: str) -> None:
    e = given_for(normalised(), [images(1)])
    with pytest.raises(
        ValueError, match=r"in training mode: ValueError: .*; a batch of one example has no statistics"
    ):
        PUBLIC[name](e)


# ------------------------------------------------------------------------------------------ how batches count


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


class Reader(nn.Module):
    """An answer at every one of any number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.mix, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.mix(self.embed(x).cumsum(1))))
        return out


def cut(batch: Batch, *sizes: int) -> list[Batch]:
    return list(zip(torch.split(batch[0], list(sizes)), torch.split(batch[1], list(sizes)), strict=True))


@pytest.mark.parametrize("sizes", [(99, 1), (1, 99), (50, 50), (30, 30, 30, 10)])
@pytest.mark.parametrize("make", [plain, Reader])
@pytest.mark.parametrize("name", WITH_DATA)
def test_how_examples_are_cut_up_makes_no_difference(name: str, make: Any, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    whole = (
        (torch.randn(100, 6), torch.randint(3, (100,)))
        if make is plain
        else (torch.randint(11, (100, 4)), torch.randint(5, (100, 4)))
    )
    together = PUBLIC[name](given_for(make(), [whole], density=0.7))
    agree(PUBLIC[name](given_for(make(), cut(whole, *sizes), density=0.7)), dict(together), rtol=1e-9)


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_texts_count_by_their_answers(name: str) -> None:
    """Three texts of 7 tokens and three of 2, one of whose answers does not count: 21 and 5 answers."""
    torch.manual_seed(3)
    long = torch.randint(11, (3, 7)), torch.randint(5, (3, 7))
    short = torch.randint(11, (3, 2)), torch.randint(5, (3, 2))
    short[1][1, 1] = -100
    e = given_for(Reader(), [long, short], density=0.7)
    twin = Reader().double()
    with torch.no_grad():
        for n, keep in e.mask.keep.items():
            twin.get_parameter(n).mul_(keep)

    def total(by: float) -> Tensor:
        parts = [F.cross_entropy((twin(x) / by).mT, y, reduction="sum") for x, y in (long, short)]
        return torch.stack(parts).sum() / 26

    leaves = [twin.get_parameter(n) for n in e.mask.keep]
    g = torch.autograd.grad(total(200.0 if name == "grasp" else 1.0), leaves, create_graph=True)
    if name == "snip":
        wanted = [(w * d).abs() for w, d in zip(leaves, g, strict=True)]
    else:
        along = torch.stack([(d.detach() * d).sum() for d in g]).sum()
        wanted = [w * h for w, h in zip(leaves, torch.autograd.grad(along, leaves), strict=True)]
    agree(PUBLIC[name](e), {n: w.detach() for n, w in zip(e.mask.keep, wanted, strict=True)})


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_a_batch_of_which_nothing_counts_changes_nothing(name: str) -> None:
    torch.manual_seed(3)
    batch = torch.randint(11, (6, 4)), torch.randint(5, (6, 4))
    nothing = torch.randint(11, (6, 3)), torch.full((6, 3), -100)
    wanted = PUBLIC[name](given_for(Reader(), [batch]))
    agree(PUBLIC[name](given_for(Reader(), [batch, nothing])), dict(wanted))
    with pytest.raises(ValueError, match="none of the batches' answers counts"):
        PUBLIC[name](given_for(Reader(), [nothing]))


def test_a_users_loader_counts_by_examples_and_is_read_once() -> None:
    torch.manual_seed(3)
    whole = torch.randn(100, 6), torch.randint(3, (100,))

    def loader() -> Iterator[Batch]:
        yield from cut(whole, 99, 1)

    options: dict[str, Any] = {"criterion": criteria.snip, "allocate": allocate.global_top}
    one = winticket.prune(plain(), 0.2, batches=[whole], **options)
    two = winticket.prune(plain(), 0.2, batches=loader(), **options)  # type: ignore[arg-type]
    assert same_bits(one.mask.keep, two.mask.keep)


@pytest.mark.parametrize("batches", [[{"x": 1}], [(torch.zeros(2),)], [torch.zeros(2)], [(1, 2, 3)], [{}]])
def test_batches_without_tensors_or_targets_are_refused(batches: Any) -> None:
    with pytest.raises(
        ValueError, match=r"a batch is a .*; batches are tuples whose last part is the target"
    ):
        winticket.prune(plain(), 0.5, criterion=criteria.snip, batches=batches)


# ------------------------------------------------------------------------------------ w₀, and layer by layer


def starts(rewinding: Any, **options: Any) -> list[State]:
    """Where the evidence of each level says that it began."""
    found: list[State] = []

    def watching(e: Evidence) -> Scores:
        found.append(e.start)
        return criteria.movement(e)

    model = plain()
    for level in winticket.Levels(model, [0.5, 0.3, 0.2], criterion=watching, rewind=rewinding, **options):
        with level:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            for _ in range(3):
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(model(torch.randn(8, 6)), torch.randint(3, (8,))))
                optimizer.step()
    return found


@pytest.mark.filterwarnings("ignore:.*output unit:RuntimeWarning")  # of networks of a few units
@pytest.mark.parametrize("rewinding", [rewind.to_init, rewind.to_step, rewind.learning_rate])
def test_initial_weights_are_those_that_the_levels_began_with(rewinding: Any) -> None:
    options = {} if rewinding is rewind.to_init else {"rewind_step": 1}
    initial = {n: p.detach() for n, p in plain().named_parameters()}
    found = starts(rewinding, **options)
    assert len(found) == 4  # tried before training, then once per level
    assert all(same_bits(state.weights, initial) for state in found)


def two_layers() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(2)
    x = torch.randn(30, 6) * torch.tensor([9.0, 3.0, 1.0, 1.0, 0.5, 0.1])
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 10)), x


def test_wanda_prunes_each_layer_by_what_it_reads_behind_pruned_ones() -> None:
    """The authors' loop by hand: score a layer, prune its rows, compute on, score the next."""
    model, x = two_layers()
    first, second = (
        model.get_parameter("0.weight").detach().double(),
        model.get_parameter("2.weight").detach().double(),
    )
    bias = model.get_parameter("0.bias").detach().double()

    def best_half(score: Tensor) -> Tensor:
        order = score.argsort(1, descending=True)[:, : score.shape[1] // 2]
        return torch.zeros(score.shape, dtype=torch.bool).scatter_(1, order, value=True)

    one = best_half(first.abs() * x.double().norm(dim=0))
    behind = {
        "pruned": torch.relu(x.double() @ (first * one).T + bias),
        "whole": torch.relu(x.double() @ first.T + bias),
    }
    two = {which: best_half(second.abs() * hidden.norm(dim=0)) for which, hidden in behind.items()}
    assert not torch.equal(two["pruned"], two["whole"])  # or the case would tell nothing
    options: dict[str, Any] = {
        "criterion": criteria.wanda,
        "batches": [(x, torch.zeros(30, dtype=torch.int64))],
    }
    found = winticket.prune(model, 0.5, allocate=allocate.constant_fan_in, **options)
    assert torch.equal(found.mask.keep["0.weight"], one)
    assert torch.equal(found.mask.keep["2.weight"], two["pruned"])
    with pytest.raises(
        ValueError, match=r"wanda scores layer by layer.* but global_top decides over several layers"
    ):
        winticket.prune(model, 0.5, allocate=allocate.global_top, **options)


def test_layers_are_pruned_in_the_order_in_which_they_compute() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.last, self.first = nn.Linear(24, 10), nn.Linear(6, 24)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(torch.relu(self.first(x)))
            return out

    model, (_, x) = Backwards(), two_layers()
    e = given_for(model, [(x, torch.zeros(30, dtype=torch.int64))])
    assert list(e.mask.keep) == ["last.weight", "first.weight"]
    found = mask_of(criteria.wanda, e, allocate=allocate.layerwise, density=0.4)
    behind = replace(e, mask=Mask({**e.mask.keep, "first.weight": found.keep["first.weight"]}))
    wanted = allocate.layerwise(criteria.wanda(behind), e.mask, density=0.4)
    at_once = allocate.layerwise(criteria.wanda(e), e.mask, density=0.4)
    assert torch.equal(found.keep["last.weight"], wanted.keep["last.weight"])
    assert not torch.equal(found.keep["last.weight"], at_once.keep["last.weight"])
    assert torch.equal(found.keep["first.weight"], at_once.keep["first.weight"])


class Bag(nn.Module):
    """Sums the embeddings of three tokens, and of their places where it has such."""

    def __init__(self, places: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.one, self.two = nn.Embedding(11, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        self.place = nn.Embedding(places, 5) if places else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        if self.place is not None:
            h = h + self.place(torch.arange(x.shape[1]))
        out: Tensor = self.two(self.one(h.sum(1)))
        return out


@pytest.mark.parametrize("places", [0, 3])
def test_synflow_of_a_text_begins_with_ones_for_tokens(places: int) -> None:
    """h = 3 · 1 over three tokens, whatever they are, and the sizes of the places; out = |W2| |W1| h + biases."""
    e = replace(given_for(Bag(places), []), example=torch.zeros(1, 3, dtype=torch.int64))
    one, two = (e.now.weights[f"{name}.weight"].double().abs() for name in ("one", "two"))
    begun = 3 + (e.now.weights["place.weight"].double().abs().sum(0) if places else torch.zeros(5))
    reached = one @ begun.double() + e.now.weights["one.bias"].double().abs()
    agree(criteria.synflow(e), {"one.weight": one * begun * two.sum(0)[:, None], "two.weight": two * reached})


def test_synflow_of_an_embedding_that_is_pruned() -> None:
    """It gives what all its tokens at once would: the sum of its rows."""
    e = replace(given_for(Bag(), [], names=["embed.weight"]), example=torch.zeros(1, 3, dtype=torch.int64))
    one, two, embed = (e.now.weights[f"{name}.weight"].double().abs() for name in ("one", "two", "embed"))
    agree(criteria.synflow(e), {"embed.weight": 3 * embed * (two @ one).sum(0)})


def test_synflow_refuses_tokens_that_no_embedding_reads() -> None:
    class OneHot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(11, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(F.one_hot(x, 11).sum(1).to(self.head.weight.dtype))
            return out

    with pytest.raises(ValueError, match="whole numbers, but none of its Embedding layers reads them"):
        winticket.prune(
            OneHot(), 0.5, criterion=criteria.synflow, example=torch.zeros(1, 3, dtype=torch.int64)
        )


# ------------------------------------------------------------------------------------- weights nothing reaches


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))
        return out


class Direct(nn.Module):
    """Uses the weight of `middle` without calling it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(F.linear(self.first(x), self.middle.weight, self.middle.bias)))
        return out


class Twice(Direct):
    """Calls `middle`, and uses its weight otherwise as well."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(F.linear(self.middle(self.first(x)), self.middle.weight.mT)))
        return out


@pytest.mark.filterwarnings("ignore:only .* of the model's weights are in Linear and Conv:RuntimeWarning")
@pytest.mark.parametrize(
    ("make", "weight", "shape"), [(Attending, "attention.out_proj", (5, 8)), (Direct, "middle", (6,))]
)
def test_a_weight_whose_layer_is_not_called(
    make: type[nn.Module], weight: str, shape: tuple[int, ...]
) -> None:
    batch = torch.randn(20, *shape), torch.randint(3, (20,))
    e = given_for(make(), [batch])
    (gradient,) = by_torch(e, training=False)
    agree(criteria.snip(e), {n: (w * gradient[n]).abs() for n, w in masked(e).items()}, rtol=1e-7)
    assert float(criteria.snip(e)[f"{weight}.weight"].min()) > 0
    message = (
        r"wanda needs the input of each layer, which it sees when the layer is called, "
        rf"but the layer of {re.escape(weight)}.weight is never called"
    )
    with pytest.raises(ValueError, match=message):
        criteria.wanda(e)
    with pytest.raises(
        ValueError, match=f"the layer of {re.escape(weight)}.weight is never called"
    ):  # before any training
        winticket.Levels(
            make(), [0.5], criterion=criteria.wanda, allocate=allocate.constant_fan_in, batches=[batch]
        )


def test_a_weight_that_is_called_and_used_otherwise() -> None:
    e = given_for(Twice(), [(torch.randn(20, 6), torch.randint(3, (20,)))])
    with pytest.raises(ValueError, match=r"but middle\.weight is also used without calling its layer"):
        criteria.wanda(e)


def test_a_tied_weight_reads_what_all_its_layers_do() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[2].weight = model[0].weight
    x = torch.randn(20, 6)
    e = given_for(model, [(x, torch.randint(3, (20,)))])
    assert list(e.mask.keep) == ["0.weight", "4.weight"]
    with torch.no_grad():
        hidden = torch.tanh(copy.deepcopy(model[0]).double()(x.double()))
    norms = (x.double().square().sum(0) + hidden.square().sum(0)).sqrt()
    wanted = model.get_parameter("0.weight").detach().double().abs() * norms
    torch.testing.assert_close(criteria.wanda(e)["0.weight"], wanted, rtol=1e-12, atol=0)


class Experts(nn.Module):
    """Routes examples by the sign of their first number; `how` says what becomes of an expert without any."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.head = how, nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            here = (x[:, 0] > 0) == bool(number)
            if self.how == "weighed":
                out = out + here[:, None] * expert(x)
            elif self.how == "empty" or bool(here.any()):
                out = out.index_add(0, here.nonzero().squeeze(1), expert(x[here]))
        logits: Tensor = self.head(torch.tanh(out))
        return logits


@pytest.mark.parametrize("how", ["left out", "empty", "weighed"])
@pytest.mark.parametrize("name", [*BY_GRADIENT, "wanda"])
def test_an_expert_that_no_example_reaches_is_refused_by_name(name: str, how: str) -> None:
    x = torch.randn(20, 6)
    one_sided = x.clone()
    one_sided[:, 0].abs_()
    y = torch.randint(3, (20,))
    reached = PUBLIC[name](given_for(Experts(how), [(x, y)]))
    assert all(bool(score.any()) for score in reached.values())
    if name == "wanda" and how == "weighed":
        return  # it does read every example
    with pytest.raises(ValueError, match=r"experts\.0\.weight"):
        PUBLIC[name](given_for(Experts(how), [(one_sided, y)]))
    with pytest.raises(ValueError, match=r"experts\.0\.weight.*exclude it"):
        winticket.prune(Experts(how), 0.5, criterion=PUBLIC[name], batches=[(one_sided, y)])


class Stacked(nn.Module):
    """Experts in one tensor, chosen by the first token; the row for padding is never trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.head = nn.Embedding(6, 4, padding_idx=0), nn.Linear(4, 3)
        self.experts, self.scale = nn.Parameter(torch.randn(3, 4, 4)), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        read = self.scale * self.tokens(x).mean(1, keepdim=True)
        logits: Tensor = self.head(torch.tanh(torch.bmm(read, self.experts[x[:, 0] % 3]).squeeze(1)))
        return logits


@pytest.mark.parametrize("name", BY_GRADIENT)
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[0, 5], [2, 4], [3, 5]], r"experts \(rows 1 of 3\)|tokens.weight \(rows 1 of 6\)"),
        ([[0, 5], [1, 4], [3, 5], [4, 1], [5, 5]], r"reaches tokens\.weight \(rows 2 of 6\): .*exclude it"),
        ([[3, 1], [0, 4], [3, 5], [0, 2], [2, 5]], r"reaches experts \(rows 1 of 3\): .*exclude it"),
    ],
)
def test_rows_that_no_example_chooses_are_refused_by_name(name: str, tokens: Any, message: str) -> None:
    include = ["tokens.weight", "experts"]
    part, every = torch.tensor(tokens), torch.cartesian_prod(torch.arange(6), torch.arange(6))
    for x in (part, every):
        torch.manual_seed(1)
        batch = x, torch.randint(3, (len(x),))
        if x is every:
            found = winticket.prune(Stacked(), 0.5, criterion=PUBLIC[name], batches=[batch], include=include)
            assert found.mask.count() == 42
        else:
            with pytest.raises(ValueError, match=message):
                winticket.prune(Stacked(), 0.5, criterion=PUBLIC[name], batches=[batch], include=include)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", [*BY_GRADIENT, "synflow", "wanda"])
def test_gradients_may_be_off_where_one_prunes(name: str, off: Callable[[], Any]) -> None:
    batch = torch.randn(20, 6), torch.randint(3, (20,))

    def pruned() -> Mask:
        return winticket.prune(plain(), 0.5, criterion=PUBLIC[name], batches=[batch]).mask

    wanted = pruned()
    with off():
        found = pruned()
    assert same_bits(found.keep, wanted.keep)


@pytest.mark.parametrize("name", BY_GRADIENT)
@pytest.mark.parametrize(("inputs", "classes"), [(20, 10), (10, 20)])
def test_batches_with_more_inputs_than_classes_are_refused(name: str, inputs: int, classes: int) -> None:
    batch = torch.randn(inputs, 6), torch.randint(3, (classes,))
    with pytest.raises(ValueError, match=r"do not fit|a batch has \d+ inputs but classes of \d+"):
        winticket.prune(plain(), 0.5, criterion=PUBLIC[name], batches=[batch])


def test_an_expert_that_only_a_later_batch_reaches_is_scored() -> None:
    x, y = torch.randn(20, 6), torch.randint(3, (20,))
    right = x[:, 0] > 0
    apart: list[Batch] = [(x[right], y[right]), (x[~right], y[~right])]
    agree(
        criteria.wanda(given_for(Experts("left out"), apart)),
        dict(criteria.wanda(given_for(Experts("left out"), [(x, y)]))),
    )


@pytest.mark.parametrize("name", [*BY_GRADIENT, "synflow"])
def test_what_the_mask_cuts_off_has_no_influence_and_is_not_refused(name: str) -> None:
    e = given_for(plain(), [(torch.randn(20, 6), torch.randint(3, (20,)))])
    cut_off = Mask({**e.mask.keep, "2.weight": torch.zeros(3, 8, dtype=torch.bool)})
    scores = PUBLIC[name](replace(e, mask=cut_off))
    assert bool(scores["0.weight"].any()) == (name == "grasp")  # a Hessian reaches beyond


@pytest.mark.parametrize("name", [*BY_GRADIENT, "synflow"])
def test_a_weight_that_the_network_does_not_use_is_refused_by_name(name: str) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = plain(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    batch = torch.randn(20, 6), torch.randint(3, (20,))
    with pytest.raises(ValueError, match=r"no input reaches idle\.weight: the network computes without it"):
        winticket.prune(Half(), 0.5, criterion=PUBLIC[name], batches=[batch])
    assert (
        winticket.prune(Half(), 0.5, criterion=PUBLIC[name], batches=[batch], exclude=["idle.*"]).mask.count()
        == 36
    )


# ------------------------------------------------------------------------------ whose types, and which losses


class Recurrent(nn.Module):
    """A GRU whose first state is float32, whatever the weights are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cell(x, torch.zeros(1, len(x), 8))[0][:, -1])
        return out


@pytest.mark.parametrize("name", [*BY_GRADIENT, "synflow", "wanda"])
def test_a_network_that_float64_breaks_is_scored_in_its_own_type(name: str) -> None:
    batch = torch.randn(20, 4, 6), torch.randint(3, (20,))
    with pytest.warns(
        RuntimeWarning, match=r"Recurrent does not compute in float64 .* scored in its own torch.float32"
    ):
        found = PUBLIC[name](given_for(Recurrent(), [batch]))
    model = Recurrent()
    if name == "snip":
        torch.autograd.backward(F.cross_entropy(model(batch[0]), batch[1]))
        weight = model.head.weight
        torch.testing.assert_close(
            found["head.weight"],
            (weight * cast(Tensor, weight.grad)).detach().abs().double(),
            rtol=1e-5,
            atol=1e-8,
        )
    assert found["head.weight"].dtype == torch.float64


def test_recurrent_weights_are_scored_as_they_are_in_the_evidence() -> None:
    """Of nn.GRU, that keeps a list of its weights beside them: those of the evidence count, not the module's."""
    model, batch = nn.GRU(6, 8, batch_first=True), (torch.randn(20, 4, 6), torch.randint(8, (20, 4)))

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = model

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.cell(x)[0]
            return out

    names = ["cell.weight_ih_l0", "cell.weight_hh_l0"]
    e = given_for(Logits(), [batch], names=names)
    moved = {n: w + 0.1 for n, w in e.now.weights.items()}
    e = replace(e, now=replace(e.now, weights=moved))
    twin = copy.deepcopy(model).double()
    with torch.no_grad():
        for n, p in twin.named_parameters():
            p.copy_(moved[f"cell.{n}"])
    torch.autograd.backward(F.cross_entropy(twin(batch[0].double())[0].flatten(0, 1), batch[1].flatten()))
    wanted = {n: (w := twin.get_parameter(n[5:])).detach() * cast(Tensor, w.grad) for n in names}
    agree(criteria.snip(e), {n: w.abs() for n, w in wanted.items()})


class Segmenting(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(torch.tanh(self.one(x)))
        return out


@pytest.mark.parametrize("size", [(6, 4), (4, 6), (6, 6)])
def test_classes_in_dimension_1_are_read_there(size: tuple[int, int]) -> None:
    """Segmentation of [B, 4, H, W], also where the width is the number of classes."""
    batch = torch.randn(3, 2, *size), torch.randint(4, (3, *size))
    e = given_for(Segmenting(), [batch], density=0.7)
    (gradient,) = by_torch(e, training=False)
    agree(criteria.snip(e), {n: (w * gradient[n]).abs() for n, w in masked(e).items()})


def test_shapes_that_can_be_read_in_two_ways() -> None:
    batch = torch.randint(11, (3, 5)), torch.randint(5, (3, 5))  # as many tokens as classes
    with pytest.raises(ValueError, match=r"logits \[3, 5, 5\] and classes \[3, 5\] can be read in two ways"):
        winticket.prune(Reader(), 0.5, criterion=criteria.snip, batches=[batch])
    e = given_for(Reader(), [batch], classes_last=True)
    twin = Reader().double()
    torch.autograd.backward(F.cross_entropy(twin(batch[0]).flatten(0, 1), batch[1].flatten()))
    weight = twin.head.weight
    torch.testing.assert_close(
        criteria.snip(e)["head.weight"],
        (weight * cast(Tensor, weight.grad)).detach().abs(),
        rtol=1e-9,
        atol=1e-12,
    )


class Giving(nn.Module):
    """What `give` makes of the logits."""

    def __init__(self, give: Callable[[Tensor], Any], classes: int = 3) -> None:
        super().__init__()
        self.body, self.give = nn.Linear(6, classes), give

    def forward(self, x: Tensor) -> Any:
        return self.give(self.body(x))


CLASSES = torch.randint(3, (8,))
REFUSED: dict[str, tuple[nn.Module, Tensor, str]] = {
    "dict": (
        Giving(lambda z: {"scores": z}),
        CLASSES,
        r"Giving returns a dict with 'scores', .*wrap it in a module",
    ),
    "tuple": (Giving(lambda z: (z, z)), CLASSES, r"Giving returns a tuple of 2, "),
    "whole numbers": (Giving(lambda z: z.long()), CLASSES, r"torch.int64 values, which are not logits"),
    "regression": (
        Giving(lambda z: z),
        torch.randn(8, 3),
        r"targets are torch.float32 of shape \[8, 3\], as in regre",
    ),
    "one number": (
        Giving(lambda z: z.squeeze(1), 1),
        torch.randn(8),
        r"targets are torch.float32 of shape \[8\]",
    ),
    "several labels": (
        Giving(lambda z: z),
        torch.rand(8, 3) > 0.5,
        r"torch.bool of shape \[8, 3\], one value per class",
    ),
    "one-hot": (Giving(lambda z: z), torch.eye(3).long()[CLASSES], r"one-hot classes give y.argmax\(-1\)"),
    "a column": (Giving(lambda z: z), CLASSES[:, None], r"do not fit; drop y's last dimension"),
    "too few": (
        Giving(lambda z: z),
        CLASSES[:5],
        r"the network's output \[8, 3\] and classes of shape \[5\] do not fit",
    ),
    "one logit": (Giving(lambda z: z, 1), CLASSES % 1, r"gives one logit per answer \(\[8, 1\]\)"),
    "out of range": (
        Giving(lambda z: z),
        CLASSES + 1,
        r"classes run from \d to 3, but the network gives 3 logits",
    ),
    "a crash": (
        Giving(lambda z: z @ z),
        CLASSES,
        r"Giving does not compute on inputs \[1, 6\] .*: RuntimeError",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_classification_is_refused_in_a_sentence(case: str) -> None:
    torch.manual_seed(0)
    model, y, words = REFUSED[case]
    options: dict[str, Any] = {"criterion": criteria.snip, "batches": [(torch.randn(8, 6), y)]}
    if case == "out of range":
        options["batches"][0][1][0] = 3
    for use in (winticket.prune, lambda m, d, **o: winticket.Levels(m, [d], **o)):
        with pytest.raises(ValueError, match=words):
            use(model, 0.5, **options)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_classes_may_be_any_whole_numbers(dtype: torch.dtype) -> None:
    x = torch.randn(8, 6)
    wanted = criteria.snip(given_for(plain(), [(x, CLASSES)]))
    assert same_bits(criteria.snip(given_for(plain(), [(x, CLASSES.to(dtype))])), wanted)
