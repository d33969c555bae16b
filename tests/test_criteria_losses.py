"""Criteria under a loss of the user's, on tuples and mappings, held against autograd in float64 written out here."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import winticket
from winticket import allocate, criteria
from winticket.criteria import Criterion, Evidence
from winticket.criteria.batches import Batch, checked, cut, equal_parts
from winticket.criteria.gradients import foresight
from winticket.stages import dense_ticket
from winticket.stages.pruning import evidence
from winticket.ticket import Mask, same_bits

NAMES = ["price.weight", "hidden.weight"]
COUNTS = (5, 3)
BY_GRADIENT: dict[str, Criterion] = {
    "snip": criteria.snip,
    "foresight": foresight,
    "grasp": criteria.grasp,
    "taylor": criteria.taylor,
    "fisher": criteria.fisher,
}


class House(nn.Module):
    """A price [B, 1] from features [B, 4] and the whole number of a town [B]: a regression with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.town, self.hidden, self.price = nn.Embedding(3, 2), nn.Linear(6, 5), nn.Linear(5, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, features: Tensor, town: Tensor) -> Tensor:
        self.seen += [features.dtype, town.dtype]
        out: Tensor = self.price(torch.tanh(self.hidden(torch.cat([features, self.town(town)], 1))))
        return out


class OwnLoss(House):
    """The same, returning its loss as the models of Transformers do."""

    def forward(self, features: Tensor, town: Tensor, labels: Tensor | None = None) -> Any:
        out = super().forward(features, town)
        return {"logits": out} if labels is None else {"loss": F.mse_loss(out, labels), "logits": out}


def rows(count: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "features": torch.randn(count, 4, generator=g),
        "town": torch.randint(3, (count,), generator=g),
        "labels": torch.randn(count, 1, generator=g),
        "id": torch.arange(count),  # nothing that forward takes
    }


MAPPINGS = [rows(count, seed) for seed, count in enumerate(COUNTS)]
TUPLES = [(b["features"], b["town"], b["labels"]) for b in MAPPINGS]


def of_labels(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return F.mse_loss(output, batch["labels"])


def of_own(output: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
    return F.mse_loss(output["logits"], batch["labels"])


WAYS: dict[str, tuple[type[nn.Module], list[Any], Any]] = {
    "several inputs": (House, TUPLES, F.mse_loss),
    "lists": (House, [list(b) for b in TUPLES], nn.MSELoss()),
    "mappings": (House, MAPPINGS, of_labels),
    "the model's own loss": (OwnLoss, MAPPINGS, None),
    "a loss of mine rather than the model's": (OwnLoss, MAPPINGS, of_own),
}


def given(network: nn.Module, batches: list[Any], loss: Any, *, density: float = 1.0) -> Evidence:
    weights = {n: p.detach().clone() for n, p in network.named_parameters()}
    keep = {n: torch.ones_like(weights[n], dtype=torch.bool) for n in NAMES}
    e = Evidence.of(weights, keep=keep, network=network, batches=batches, loss=loss)
    smaller = allocate.layerwise(criteria.magnitude(e), e.mask, density=density) if density < 1 else e.mask
    return replace(e, mask=smaller)


def loss_at(weights: dict[str, Tensor], of: dict[str, Tensor]) -> Tensor:
    """The mean squared error, written out."""
    x = torch.cat([of["features"].double(), weights["town.weight"][of["town"]]], 1)
    hidden = torch.tanh(x @ weights["hidden.weight"].T + weights["hidden.bias"])
    out = hidden @ weights["price.weight"].T + weights["price.bias"]
    return ((out - of["labels"].double()) ** 2).mean()


def by_hand(name: str, e: Evidence) -> dict[str, Tensor]:
    weights = {n: w.double() for n, w in e.mask.apply(e.now.weights).items()}
    leaves = [weights[n].requires_grad_() for n in e.mask.keep]
    whole = {n: torch.cat([b[n] for b in MAPPINGS]) for n in MAPPINGS[0]}
    gradients = torch.autograd.grad(loss_at(weights, whole), leaves, create_graph=True)
    if name == "grasp":
        # A product with the Hessian by a row of it at a time.
        flat = torch.cat([g.flatten() for g in gradients])
        hessian = [torch.autograd.grad(g, leaves, retain_graph=True) for g in flat]
        product = torch.stack([torch.cat([p.flatten() for p in row]) for row in hessian]) @ flat
        parts = torch.split(product, [w.numel() for w in leaves])
        made = [w * p.view(w.shape) for w, p in zip(leaves, parts, strict=True)]
    elif name == "fisher":
        count = len(whole["town"])
        each = [{n: part[i : i + 1] for n, part in whole.items()} for i in range(count)]
        slopes = [torch.autograd.grad(loss_at(weights, one), leaves) for one in each]
        made = [0.5 * w**2 * sum(g**2 for g in gs) / count for w, *gs in zip(leaves, *slopes, strict=True)]
    elif name == "taylor":
        made = [(w * g) ** 2 for w, g in zip(leaves, gradients, strict=True)]  # 8 examples make one part
    elif name == "foresight":
        made = [(e.now.weights[n].double() * g).abs() for n, g in zip(e.mask.keep, gradients, strict=True)]
    else:
        made = [(w * g).abs() for w, g in zip(leaves, gradients, strict=True)]
    return {n: m.detach() for n, m in zip(e.mask.keep, made, strict=True)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BY_GRADIENT)
@pytest.mark.parametrize("density", [1.0, 0.6])
def test_scores_of_a_regression_are_those_by_hand(name: str, way: str, density: float) -> None:
    make, batches, loss = WAYS[way]
    network = cast(House, make())
    e = given(network, batches, loss, density=density)
    scores, wanted = BY_GRADIENT[name](e), by_hand(name, e)
    for layer in NAMES:
        torch.testing.assert_close(scores[layer], wanted[layer], rtol=1e-10, atol=1e-14)
    assert float(max(w.abs().max() for w in wanted.values())) > 1e-4
    assert set(network.seen) == {torch.float64, torch.int64}  # towns stay whole numbers


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_how_examples_are_cut_up_makes_no_difference(name: str) -> None:
    whole = {n: torch.cat([b[n] for b in MAPPINGS]) for n in MAPPINGS[0]}
    one = BY_GRADIENT[name](given(House(), [whole], of_labels))
    several = BY_GRADIENT[name](given(House(), MAPPINGS, of_labels))
    for layer in NAMES:
        torch.testing.assert_close(several[layer], one[layer], rtol=1e-10, atol=1e-14)


def test_wanda_reads_mappings_and_needs_no_loss() -> None:
    without = [{n: part for n, part in b.items() if n != "labels"} for b in MAPPINGS]
    network = OwnLoss()
    scores = criteria.wanda(given(network, without, None))
    x = torch.cat(
        [torch.cat([b["features"], network.town.weight[b["town"]].detach()], 1) for b in without]
    ).double()
    wanted = network.hidden.weight.detach().double().abs() * x.pow(2).sum(0).sqrt()
    torch.testing.assert_close(scores["hidden.weight"], wanted)
    assert same_bits(
        criteria.wanda(given(House(), MAPPINGS, None)), criteria.wanda(given(House(), TUPLES, None))
    )


class Gated(nn.Module):
    """y = v · (W x) for the tokens that a mask admits, with truth values for the rest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor, admitted: Tensor, hidden: Tensor, labels: Tensor | None = None) -> Any:
        assert labels is None or int(labels.max()) == 5  # labels keep their values
        x = x * admitted[:, None].to(x.dtype)
        x = x.masked_fill(hidden[:, None], 0)
        return {"logits": self.two(self.one(x))}


def test_synflow_of_several_inputs_takes_ones_for_all_but_labels_and_truth_values() -> None:
    network, no = Gated(), torch.zeros(1, dtype=torch.bool)
    batch = {
        "x": torch.randn(1, 3),
        "admitted": torch.zeros(1).long(),
        "hidden": no,
        "labels": torch.tensor([5]),
    }
    weights = {n: p.detach() for n, p in network.named_parameters()}
    scores = criteria.synflow(Evidence.of(weights, network=network, batches=[batch]))
    one, two = (weights[n].double().abs() for n in ("one.weight", "two.weight"))
    torch.testing.assert_close(scores["one.weight"], one * two.sum(0)[:, None])
    torch.testing.assert_close(scores["two.weight"], two * one.sum(1))
    example = (batch["x"], batch["admitted"], no)
    mask = winticket.prune(network, 0.5, criterion=criteria.synflow, example=example).mask
    assert same_bits(
        mask.keep, winticket.prune(network, 0.5, criterion=criteria.synflow, batches=[batch]).mask.keep
    )


# ------------------------------------------------------------------------------ which loss, and in which type


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def of_classifier(loss: Any, *, y: Tensor | None = None) -> Evidence:
    g = torch.Generator().manual_seed(2)
    batch = torch.randn(20, 6, generator=g), torch.randint(3, (20,), generator=g) if y is None else y
    network = classifier()
    weights = {n: p.detach() for n, p in network.named_parameters()}
    return Evidence.of(weights, network=network, batches=[batch], loss=loss)


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_cross_entropy_as_a_loss_is_the_default(name: str) -> None:
    """GraSP's temperature is part of the default alone."""

    def divided(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z / 200 if name == "grasp" else z, y)

    wanted = BY_GRADIENT[name](of_classifier(None))
    scores = BY_GRADIENT[name](of_classifier(divided))
    for layer in wanted:
        torch.testing.assert_close(scores[layer], wanted[layer], rtol=1e-9, atol=1e-18)


def test_several_labels_by_a_loss_with_weights_of_its_own_are_scored_in_float64() -> None:
    """The float32 weights within the module are copied to float64; those of the user's module stay."""
    y, heavy = (
        torch.randint(2, (20, 3)).float(),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 5.0])),
    )
    e = of_classifier(heavy, y=y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = criteria.snip(e)
    assert heavy.pos_weight is not None
    assert heavy.pos_weight.dtype == torch.float32
    twin = classifier().double()
    z, w = twin(e.batches[0][0].double()), heavy.pos_weight.double()
    torch.autograd.backward((-(w * y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z))).mean())
    for layer, score in scores.items():
        weight = twin.get_parameter(layer)
        torch.testing.assert_close(score, (weight * cast(Tensor, weight.grad)).detach().abs())


def test_a_loss_that_float64_breaks_is_computed_in_the_networks_type() -> None:
    weight, dtypes = torch.tensor([1.0, 2.0, 5.0]), list[torch.dtype]()

    def weighted(z: Tensor, y: Tensor) -> Tensor:
        dtypes.append(z.dtype)
        return F.cross_entropy(z, y, weight=weight)  # refuses to mix types

    with pytest.warns(
        RuntimeWarning, match=r"the loss of Sequential does not compute in float64 .*own torch.float32"
    ) as said:
        scores = criteria.snip(of_classifier(weighted))
    assert len(said) == 1
    assert dtypes == [torch.float64, torch.float32, torch.float32]  # two tries, and the score
    model, e = classifier(), of_classifier(None)
    torch.autograd.backward(weighted(model(e.batches[0][0]), e.batches[0][1]))
    for layer, score in scores.items():
        p = model.get_parameter(layer)
        torch.testing.assert_close(
            score, (p * cast(Tensor, p.grad)).detach().abs().double(), rtol=1e-5, atol=1e-8
        )


def test_a_loss_that_draws_repeats_itself_and_leaves_torchs_generator_alone() -> None:
    def noisy(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z + torch.randn_like(z), y)

    e = of_classifier(noisy)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = criteria.snip(e)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same_bits(criteria.snip(e), one)
    assert not same_bits(criteria.snip(of_classifier(None)), one)


def test_what_a_loss_writes_into_the_target_changes_nothing() -> None:
    def writes(z: Tensor, y: Tensor) -> Tensor:
        y += 1
        return F.cross_entropy(z, y % 3)

    e = of_classifier(writes)
    before = e.batches[0][1].clone()
    one = criteria.snip(e)
    assert torch.equal(e.batches[0][1], before)
    assert same_bits(criteria.snip(e), one)


# ---------------------------------------------------------------------------------- in every method that scores


@pytest.mark.parametrize("way", WAYS)
def test_prune_and_levels_take_them(way: str) -> None:
    make, batches, loss = WAYS[way]
    options: dict[str, Any] = {"criterion": criteria.snip, "batches": batches, "loss": loss}
    found = winticket.prune(make(), 0.4, **options)
    e = given(make(), batches, loss)
    assert same_bits(
        found.mask.keep,
        allocate.global_top(
            criteria.snip(e), Mask(dict(reversed(list(e.mask.keep.items())))), density=0.4
        ).keep,
    )
    levels = winticket.Levels(make(), [0.4], **options)
    with (level := levels.first()):
        pass
    assert same_bits(levels.after(level).ticket.mask.keep, found.mask.keep)


@pytest.mark.parametrize("block", [winticket.rigl, winticket.set_, winticket.gradual])
def test_changing_masks_take_them(block: Callable[..., Any]) -> None:
    model = House()
    how = {"criterion": criteria.taylor, "batches": MAPPINGS, "loss": of_labels}
    with block(model, 0.5, steps=20, every=2, **how) as sparse:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for step in range(20):
            batch = MAPPINGS[step % 2]
            optimizer.zero_grad()
            torch.autograd.backward(of_labels(model(batch["features"], batch["town"]), batch))
            optimizer.step()
    assert sparse.mask.count() == 18


def test_the_evidence_of_a_stored_experiment_has_the_loss_that_it_trains_by() -> None:
    from winticket.experiment import Experiment

    setup = Experiment.of("digits", model="lenet-12", steps=20, class_weights="balanced").setup()
    ticket = dense_ticket(setup, 0)
    e = evidence(setup, ticket, ticket.start, criteria.snip)
    scores = criteria.snip(e)
    twin = setup.module().double()
    twin.load_state_dict({**ticket.start.weights, **ticket.start.buffers})
    twin.eval()
    counts = torch.bincount(setup.dataset(torch.device("cpu")).train.y, minlength=10).double()
    weights = counts.sum() / (10 * counts)

    def balanced(z: Tensor, y: Tensor) -> Tensor:
        return (F.cross_entropy(z, y, reduction="none") * weights[y]).mean()

    x, y = (torch.cat([b[i] for b in e.batches]) for i in (0, 1))
    torch.autograd.backward(balanced(twin(x.double()), y))
    for layer, score in scores.items():
        p = twin.get_parameter(layer)
        torch.testing.assert_close(
            score, (p * cast(Tensor, p.grad)).detach().abs(), rtol=1e-5, atol=1e-10
        )  # weights of classes are float32


# ----------------------------------------------------------------------------------------------- what is refused


def failing(z: Tensor, y: Tensor) -> Tensor:
    raise ZeroDivisionError("of mine")


REFUSED: dict[str, tuple[nn.Module, Any, Any, str]] = {
    "no loss at all": (
        House(),
        MAPPINGS,
        None,
        r"House returns a Tensor without a loss for a batch of 'features', ",
    ),
    "no mean": (
        House(),
        TUPLES,
        nn.MSELoss(reduction="none"),
        r"loss MSELoss has shape \[5, 1\]; it must be one number, the mean",
    ),
    "no tensor": (
        House(),
        TUPLES,
        lambda z, y: float((z - y).detach().mean()),
        r"loss <lambda> is a float; it must be a fl",
    ),
    "no gradient": (
        House(),
        TUPLES,
        lambda z, y: F.mse_loss(z.detach(), y),
        r"loss <lambda> has no gradient, although the output has one",
    ),
    "not finite": (
        House(),
        TUPLES,
        lambda z, y: F.mse_loss(z, y) * torch.inf,
        r"loss <lambda> is inf for a batch of \[5, 4\] of torch.float64, \[5\] of torch.int64",
    ),
    "an error": (
        House(),
        TUPLES,
        failing,
        r"loss failing raises ZeroDivisionError: of mine; it gets the output of House and the last part",
    ),
    "other names": (
        House(),
        [{"a": torch.ones(2, 4), "b": torch.ones(2)}],
        of_labels,
        r"a batch has 'a', 'b', but House\.forward takes 'features', 'town'; rename",
    ),
    "a name that is missing": (
        House(),
        [{"features": torch.ones(2, 4)}],
        of_labels,
        r"House does not compute on inputs features \[1, 4\] of torch.float32 .*missing 1 required .* 'town'",
    ),
    "a target that is no tensor": (
        House(),
        [(*TUPLES[0][:2], {"price": TUPLES[0][2]})],
        None,
        r"the target of a batch is a dict with 'price', not a tensor of classes; without loss=",
    ),
    "no example": (
        House(),
        [{"features": torch.ones(0, 4), "town": torch.ones(0).long()}],
        of_labels,
        "none of the",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_loss_is_refused_in_a_sentence(case: str) -> None:
    model, batches, loss, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        winticket.prune(model, 0.5, criterion=criteria.snip, batches=batches, loss=loss)


def test_a_loss_that_is_no_function_is_refused() -> None:
    with pytest.raises(
        TypeError, match="loss is 'mse'; pass a function of the network's output and the target"
    ):
        winticket.prune(House(), 0.5, criterion=criteria.snip, batches=TUPLES, loss=cast(Any, "mse"))


@pytest.mark.parametrize("name", ["taylor", "fisher"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (torch.tensor(3.0), "has a tensor that is a single number, so it cannot be cut into examples"),
        (torch.ones(7), "the tensors of a batch have 5 and 7 rows, so it cannot be cut into examples"),
        ([torch.ones(5)], "a batch of 5 examples has a list of 1, so it cannot be cut into examples"),
        ("text", "a batch of 5 examples has a str, so it cannot be cut into examples"),
    ],
)
def test_batches_that_cannot_be_cut_are_refused_where_they_must_be(name: str, more: Any, words: str) -> None:
    batches = [{**MAPPINGS[0], "more": more}]
    with pytest.raises(ValueError, match=words):
        BY_GRADIENT[name](given(House(), batches, of_labels))
    criteria.snip(given(House(), batches, of_labels))  # which takes batches whole


def test_equal_parts_have_the_sizes_of_tensor_split_and_mix_no_shapes() -> None:
    x = torch.arange(24.0).view(12, 2)
    batches: list[Batch] = [(x[:5], {"name": list("abcde")}), (x[5:], {"name": list("fghijkl")})]
    parts = equal_parts([*batches, (torch.ones(2, 3), {"name": ["m", "n"]})], 5)
    assert [len(part[0]) for part in parts] == [4, 4, 4, 2]
    assert torch.equal(torch.cat([part[0] for part in parts[:3]]), x)
    assert [part[1]["name"] for part in parts] == [list("abcd"), list("efgh"), list("ijkl"), ["m", "n"]]
    assert [len(part[0]) for part in equal_parts([(x[:7], x[:7])], 3)] == [
        len(p) for p in x[:7].tensor_split(3)
    ]


def test_cutting_reads_lists_of_tuples_and_leaves_none() -> None:
    batch = checked([torch.arange(3), (torch.arange(3, 6), None)])
    (x, (y, none)) = cut(batch, 2, 3)
    assert (x.tolist(), y.tolist(), none) == ([2], [5], None)


def test_users_models_and_batches_are_left_alone() -> None:
    model, batches = OwnLoss().train(), copy.deepcopy(MAPPINGS)
    before = copy.deepcopy(model.state_dict())
    winticket.prune(model, 0.5, criterion=criteria.grasp, batches=batches)
    assert same_bits(before, model.state_dict())
    assert model.training
    assert all(same_bits(one, other) for one, other in zip(batches, MAPPINGS, strict=True))
