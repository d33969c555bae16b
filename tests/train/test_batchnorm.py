"""BatchNorm in a stack, under masks, through rewinds and on the sparse kernels: ResNet-8 on tiny images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from winticket import data, models
from winticket.rewind import learning_rate, to_init, to_step, to_step_with_optimizer
from winticket.sparse import missing
from winticket.ticket import Mask, Seeds, State, Ticket, Trajectory, same_bits
from winticket.train import Recipe, train
from winticket.train.feed import Data

STEPS, K = 8, 3


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """One object for all tests, so that it is traced once per shape."""
    return models.build("resnet-8-4", input_shape=(3, 8, 8), classes=3, generator_seed=0)


def ticket(replicate: int, density: float = 1.0, *, emptied: int = 0) -> Ticket:
    """ResNet-8 freshly drawn and pruned at random; the last filters of every block's first layer lead nowhere."""
    module = models.build("resnet-8-4", input_shape=(3, 8, 8), classes=3, generator_seed=replicate)
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    noise = torch.Generator().manual_seed(replicate)
    keep = {n: torch.rand(weights[n].shape, generator=noise) < density for n in models.eligible(module)}
    for name in keep:
        if emptied and name.endswith("conv2.weight"):
            keep[name][:, -emptied:] = False
    return Ticket(Mask(keep), State(weights, buffers, {}, 0), "ticket", Seeds(1, replicate))


def paths(module: nn.Module, images: Data, tickets: list[Ticket], **choices: Any) -> list[Trajectory]:
    engine = choices.pop("engine", "dense")
    usual: dict[str, Any] = {"steps": STEPS, "batch": 10, "evaluate_every": 4, "optimizer": "sgd"}
    recipe = Recipe(**{**usual, "lr": 0.02, "momentum": 0.9, **choices})
    start = tickets[0].start.step
    save = [K] if start < K < recipe.steps else []
    results = train(module, images, data, tickets, recipe, engine=engine, save=save)
    assert all(isinstance(r, Trajectory) for r in results)
    return [r for r in results if isinstance(r, Trajectory)]


def same_state(a: State, b: State, *parts: str) -> bool:
    return all(same_bits(getattr(a, part), getattr(b, part)) for part in parts or ("weights", "buffers"))


def agree(one: Trajectory, two: Trajectory) -> None:
    """Eight steps of float32 whose sums run in another order, 1e-7 each, through eight layers and momentum .9."""
    for part in ("weights", "buffers"):
        for name, value in getattr(one.saved[STEPS], part).items():
            other = getattr(two.saved[STEPS], part)[name]
            assert torch.allclose(other, value, rtol=2e-3, atol=2e-4), name
    torch.testing.assert_close(one.curve.validation_loss, two.curve.validation_loss, rtol=1e-3, atol=1e-3)


def test_a_stack_is_its_members_alone(resnet: nn.Module, images: Data) -> None:
    tickets = [ticket(r, 0.5) for r in range(3)]
    together = paths(resnet, images, tickets, stacking="stacked")
    in_turn = paths(resnet, images, tickets, stacking="one by one")
    assert [run[0].about["stacked"] for run in (together, in_turn)] == [True, False]
    for r, each in enumerate(tickets):
        (alone,) = paths(resnet, images, [each], stacking="one by one")
        agree(in_turn[r], alone)
        agree(together[r], alone)
        # The members' statistics are their own.
        assert not torch.equal(
            together[r].saved[STEPS].buffers["bn.running_mean"],
            together[r - 1].saved[STEPS].buffers["bn.running_mean"],
        )


@pytest.mark.parametrize("stacking", ["stacked", "one by one"])
def test_running_statistics_are_those_of_plain_pytorch(
    stacking: str, resnet: nn.Module, images: Data
) -> None:
    """Of one step at a learning rate too small to matter: a forward pass in training mode over the same batch."""
    tickets = [ticket(r, 0.5) for r in range(2)]
    found = paths(resnet, images, tickets, stacking=stacking, steps=1, lr=1e-12, evaluate_every=1)
    for each, path in zip(tickets, found, strict=True):
        alone = models.build("resnet-8-4", input_shape=(3, 8, 8), classes=3, generator_seed=0)
        each.load_into(alone)
        rows = data.permutation(len(images.train.y), seed=each.seeds.derive("order"), epoch=0)[:10]
        alone.train()(images.train.x[rows])
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(path.saved[1].buffers[name], buffer, rtol=1e-4, atol=1e-5)
        assert int(path.saved[1].buffers["bn.num_batches_tracked"]) == 1


def test_rewinds_bring_statistics_back_bit_for_bit(resnet: nn.Module, images: Data) -> None:
    (dense,) = paths(resnet, images, [ticket(0)])
    start, middle, end = dense.ticket.start, dense.saved[K], dense.saved[STEPS]
    counted = {
        step: int(s.buffers["bn.num_batches_tracked"]) for step, s in ((0, start), (K, middle), (STEPS, end))
    }
    assert counted == {0: 0, K: K, STEPS: STEPS}
    assert not torch.equal(middle.buffers["bn.running_var"], end.buffers["bn.running_var"])
    mask = ticket(0, 0.5).mask
    for rewound, wanted in (
        (to_init(dense, mask), start),
        (to_step(dense, mask, step=K), middle),
        (to_step_with_optimizer(dense, mask, step=K), middle),
    ):
        assert same_bits(rewound.start.buffers, wanted.buffers)
    assert same_bits(learning_rate(dense, mask, step=K).start.buffers, end.buffers)
    # What a training starts from is left as it was.
    paths(resnet, images, [to_init(dense, mask)])
    assert same_bits(start.buffers, ticket(0).start.buffers)


@pytest.mark.parametrize("stacking", ["stacked", "one by one"])
@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_pruning_nothing_and_going_on_from_k_is_the_dense_run(
    kind: str, stacking: str, resnet: nn.Module, images: Data
) -> None:
    choices: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "momentum": 0.0} if kind == "adam" else {}
    dense = paths(resnet, images, [ticket(r) for r in range(2)], stacking=stacking, **choices)
    rewound = [to_step_with_optimizer(path, path.ticket.mask, step=K) for path in dense]
    on = paths(resnet, images, rewound, stacking=stacking, **choices)
    for whole, rest in zip(dense, on, strict=True):
        assert same_state(whole.saved[STEPS], rest.saved[STEPS])
        assert torch.equal(whole.curve.validation_loss[-1:], rest.curve.validation_loss[-1:])
    # With other statistics to start from it is another run: they are looked at.
    fresh = [replace(t, start=replace(t.start, buffers=ticket(0).start.buffers)) for t in rewound]
    other = paths(resnet, images, fresh, stacking=stacking, **choices)
    assert not same_state(dense[0].saved[STEPS], other[0].saved[STEPS], "buffers")


@pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
@pytest.mark.parametrize(("density", "emptied"), [(0.1, 0), (0.4, 2)])
def test_the_sparse_kernels_train_the_same(
    density: float, emptied: int, resnet: nn.Module, images: Data
) -> None:
    """Also the statistics of filters that no later filter reads.

    Dense replicates 1 and 2 come out elsewhere if their weights are moved by a rounding error; these do not.
    """
    tickets = [ticket(r, density, emptied=emptied) for r in (0, 3, 4)]
    sparse = paths(resnet, images, tickets, engine="sparse")
    for one, two in zip(sparse, paths(resnet, images, tickets), strict=True):
        assert one.about["sparse"] == sorted(models.eligible(resnet))
        agree(one, two)


def test_a_mean_over_all_batches_goes_one_by_one(vectors: Data) -> None:
    """Without momentum the running mean divides by the count of batches, a value: no trace may hold the first one."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 3))
    weights = {n: p.detach().clone() for n, p in module.named_parameters()}
    buffers = {n: b.detach().clone() for n, b in module.named_buffers()}
    keep = Mask.full({n: weights[n] for n in models.eligible(module)})
    tickets = [Ticket(keep, State(weights, buffers, {}, 0), "dense", Seeds(1, r)) for r in range(2)]
    for path in paths(module, vectors, tickets, lr=1e-12):
        assert path.about["stacked"] is False
        rows = data.permutation(45, seed=path.ticket.seeds.derive("order"), epoch=0)[:40]
        first = weights["0.weight"], weights["0.bias"]
        means = [nn.functional.linear(vectors.train.x[r], *first).mean(0) for r in torch.split(rows, 10)]
        (four,) = paths(module, vectors, [path.ticket], lr=1e-12, steps=4, evaluate_every=4)
        torch.testing.assert_close(
            four.saved[4].buffers["1.running_mean"], torch.stack(means).mean(0), rtol=1e-4, atol=1e-5
        )
        assert int(path.saved[STEPS].buffers["1.num_batches_tracked"]) == STEPS
