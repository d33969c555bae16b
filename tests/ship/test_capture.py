"""Modules as networks: every image classifier of ours and a user's; what cannot be shipped is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import winticket
from networks import attention, recurrent
from winticket import Mask, models
from winticket.ship import Network, NetworkError, Preprocessing, capture, run


def trained(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """The model with other statistics and biases than fresh ones, as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            assert tensor.ndim != 1 or name
    return model


def half(model: nn.Module) -> Mask:
    """A mask that keeps about half of every eligible weight, at random."""
    generator = torch.Generator().manual_seed(1)
    weights = dict(model.named_parameters())
    return Mask({n: torch.rand(weights[n].shape, generator=generator) < 0.5 for n in models.eligible(model)})


def agree(network: Network, model: nn.Module, mask: Mask, shape: tuple[int, ...]) -> None:
    """The network computes what the model computes with its pruned weights at 0, and keeps what the mask keeps."""
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    weights = mask.apply(dict(model.named_parameters()))
    with torch.no_grad():
        expected = torch.func.functional_call(model.eval(), weights, (x,)).numpy()
    # Float32 sums in another order, in up to some twenty layers.
    np.testing.assert_allclose(run(network, x.numpy()), expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    kept = {name: weight.keep() for name, weight in network.weights().items() if len(weight.shape) > 1}
    assert kept.keys() == mask.keep.keys()
    assert all(np.array_equal(kept[name], keep.numpy()) for name, keep in mask.keep.items())
    assert all(not w.dense()[~w.keep()].any() for w in network.weights().values())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet-30-20", (1, 8, 8)),
        ("mlp1d", (40,)),
        ("conv-2", (3, 16, 16)),
        ("conv-4", (1, 12, 12)),
        ("conv-6", (1, 8, 8)),
        ("vgg-11-8", (3, 16, 16)),
        ("resnet-8-4", (3, 12, 12)),
        ("resnet-20", (3, 8, 8)),
    ],
)
def test_every_image_classifier_of_ours_is_captured(name: str, shape: tuple[int, ...]) -> None:
    model = trained(models.build(name, input_shape=shape, classes=7, generator_seed=0), shape)
    mask = half(model)
    network = capture(model, mask, example=torch.zeros(1, *shape))
    agree(network, model, mask, shape)
    kinds = [operation.kind for operation in network.operations]
    assert "scale_shift" not in kinds  # every BatchNorm of these is folded
    assert network.shapes[network.output] == (7,)


def signal() -> nn.Module:
    """A network for signals, as an engineer writes one: Conv1d, BatchNorm, pooling, dropout."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, padding="same"),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.1),
        nn.MaxPool1d(2, ceil_mode=True),
        nn.Dropout(0.3),
        nn.Conv1d(8, 8, 4, padding="same", groups=2),
        nn.GELU(),
        nn.AdaptiveAvgPool1d(3),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.LogSoftmax(1),
    )


class Functional(nn.Module):
    """Functions and methods for layers: sums, concatenation, reshaping by the size of the batch, values read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4)
        self.second, self.rest = nn.Conv2d(4, 4, 1), nn.Identity()
        self.before = nn.BatchNorm2d(2)
        self.fc = nn.Linear(8 + 4 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.first(self.before(x))  # read twice: its BatchNorm cannot be folded
        y = F.relu6(self.norm(raw)) + raw
        z = self.rest(torch.tanh(self.second(y)))
        z = torch.cat([F.avg_pool2d(z, 2), F.max_pool2d(z, 2)], dim=1)
        pooled = F.adaptive_avg_pool2d(z, 1).squeeze(-1).squeeze(-1)
        flat = F.silu(y).contiguous().view(y.size(0), -1)
        out: Tensor = self.fc(torch.cat((pooled, flat), -1)).clamp(-30, 30)
        return out


@pytest.mark.parametrize(("make", "shape"), [(signal, (3, 15)), (Functional, (2, 10, 10))])
def test_networks_that_winticket_does_not_ship_are_captured(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(3)
    model = trained(make(), shape)
    mask = half(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    network = capture(model, mask, example=torch.randn(6, *shape))
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    agree(network, model, mask, shape)


def test_batchnorm_is_folded_only_if_nothing_else_reads_its_layer() -> None:
    torch.manual_seed(3)
    network = capture(trained(Functional(), (2, 10, 10)), example=torch.randn(2, 2, 10, 10))
    assert [o.kind for o in network.operations].count("scale_shift") == 2
    assert {"norm.scale", "norm.shift", "before.scale", "before.shift"} <= network.weights().keys()
    folded = capture(trained(signal(), (3, 15)), example=torch.randn(2, 3, 15))
    assert "scale_shift" not in [o.kind for o in folded.operations]


def test_a_mask_of_a_parametrized_weight_holds_for_the_computed_one() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2))
    keep = torch.tensor([[True, False, True, True, False, True]] * 4)
    mask = Mask({"0.parametrizations.weight.original1": keep})
    network = capture(model, mask, example=torch.randn(1, 6))
    first = next(iter(network.weights().values()))
    assert np.array_equal(first.keep(), keep.numpy())
    with winticket.masked(model, mask):
        x = torch.randn(3, 6)
        expected = model(x).detach().numpy()
        np.testing.assert_allclose(run(network, x.numpy()), expected, rtol=1e-5, atol=1e-6)
        within = capture(model, mask, example=x)
    np.testing.assert_array_equal(run(within, x.numpy()), run(network, x.numpy()))


def test_weights_are_the_models_and_only_the_mask_is_the_tickets() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    ticket = winticket.prune(model, 0.5)
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(2)
    weight = capture(model, ticket, example=torch.zeros(1, 6)).weights()["0.weight"]
    expected = 2 * ticket.start.weights["0.weight"] * ticket.mask.keep["0.weight"]
    np.testing.assert_array_equal(weight.dense(), expected.numpy())


def test_what_dead_units_leave_is_zero() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    keep = torch.tensor([[True], [False], [True], [False]]).expand(4, 6).clone()
    mask = Mask({"0.weight": keep})
    network = capture(model, mask, example=torch.zeros(1, 6))
    assert network.weights()["0.bias"].dense()[[1, 3]].tolist() == [0, 0]
    parts = dict(model.named_parameters())
    x = torch.randn(3, 6)
    hidden = F.relu(F.linear(x, parts["0.weight"][::2], parts["0.bias"][::2]))
    small = F.linear(hidden, parts["2.weight"][:, ::2], parts["2.bias"]).detach()
    np.testing.assert_allclose(run(network, x.numpy()), small.numpy(), rtol=1e-5, atol=1e-6)


def test_a_shared_layer_stays_one_tensor_and_one_that_is_folded_twice_becomes_two() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.one, self.two = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(torch.relu(self.fc(x)))
            return self.two(self.fc(torch.relu(self.one(self.fc(y)))))  # type: ignore[no-any-return]

    network = capture(trained(Shared(), (4,)), example=torch.randn(2, 4))
    assert list(network.weights()) == [
        "fc.weight",
        "fc.bias",
        *(f"fc.{w}#{n}" for n in (2, 3) for w in ("weight", "bias")),
    ]


def test_values_written_in_place_are_followed() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            z = F.relu(y, inplace=True)
            y += 1 * z  # not a value of its own: y and z are one tensor here
            return y

    with pytest.raises(ValueError, match=r"operation mul in the model's own forward cannot be shipped"):
        capture(InPlace(), example=torch.randn(2, 4))

    class Residual(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            F.relu(y, inplace=True)
            return y + x

    model = Residual()
    agree(capture(model, half(model), example=torch.randn(2, 4)), model, half(model), (4,))


def test_preprocessing_and_classes_travel_with_the_network() -> None:
    ready = Preprocessing(255.0, (0.1,), (0.3,))
    network = capture(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), example=torch.zeros(1, 1, 3, 3),
                      preprocessing=ready, classes=["cat", "dog"])  # fmt: skip
    assert (network.preprocessing, network.classes) == (ready, ("cat", "dog"))


class Forward(nn.Module):
    """A network whose forward is the function."""

    def __init__(self, forward: Callable[[nn.Linear, Tensor], object]) -> None:
        super().__init__()
        self.fc, self.compute = nn.Linear(4, 4), forward

    def forward(self, x: Tensor) -> object:
        return self.compute(self.fc, x)


CALLS = count(1)
REFUSED: list[tuple[Callable[[], nn.Module], tuple[int, ...], str]] = [
    (lambda: attention(input_shape=(1, 8, 8), classes=3), (1, 8, 8), "cannot be shipped"),
    (lambda: recurrent(input_shape=(1, 8, 8), classes=3), (1, 8, 8),
     r"operation gru in layer 'gru' .*supported are linear"),
    (lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (4,),
     "operation layer_norm in layer '1' cannot be shipped"),
    (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), (4,),
     "operation batch_norm in layer '1' cannot be shipped: it normalises by the statistics of the batch"),
    (lambda: Forward(lambda fc, x: fc(x) if x.sum() > 0 else x), (4,), "cannot be traced by torch.export"),
    (lambda: Forward(lambda fc, x: (fc(x), x)), (4,), "must return one tensor"),
    (lambda: Forward(lambda fc, x: {"logits": fc(x), "x": x}), (4,), "must return one tensor"),
    (lambda: Forward(lambda fc, x: x), (4,), "returns its input unchanged"),
    (lambda: Forward(lambda fc, x: fc(x) + 1), (4,), "only sums of two values"),
    (lambda: Forward(lambda fc, x: fc(x) + x.mean(1, keepdim=True)), (4,), "summands have different shapes"),
    (lambda: Forward(lambda fc, x: fc(x).mean(0, keepdim=True)), (4,), "mixes the examples of a batch"),
    (lambda: Forward(lambda fc, x: fc(x).view(-1)), (4,), "mixes examples|so it mixes"),
    (lambda: Forward(lambda fc, x: fc(x).softmax(0)), (4,), "mixes the examples of a batch"),
    (lambda: Forward(lambda fc, x: torch.cat([fc(x), fc.weight], 0)), (4,), "no constants"),
    (lambda: Forward(lambda fc, x: F.linear(x, x)), (4,), "its weight depends on the input"),
    (lambda: Forward(lambda fc, x: F.dropout(fc(x), 0.5)), (4,), "operation dropout .* it is random"),
    (lambda: Forward(lambda fc, x: F.avg_pool1d(fc(x)[:, None], 3, ceil_mode=True)), (4,), "cannot be shipped"),
    (lambda: Forward(lambda fc, x: fc(x) if next(CALLS) % 2 else F.relu(fc(x))), (4,),
     "differs from the model by up to"),
    (lambda: Forward(lambda fc, x: fc(x) if len(x) == 2 else fc(x)[:, :2]), (4,), "must treat every example alike"),
    (lambda: Forward(lambda fc, x: fc(x).log_softmax(1).exp().log()), (4,), "operation exp "),
    (lambda: nn.Sequential(nn.Linear(4, 4)).double(), (4,), "torch.float64"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_shipped_is_refused_by_name(
    make: Callable[[], nn.Module], shape: tuple[int, ...], message: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        capture(make(), example=torch.randn(3, *shape))


def test_text_and_masks_that_do_not_fit_are_refused() -> None:
    text = models.build("chargpt", input_shape=(64,), classes=30, generator_seed=0, tokens=True)
    with pytest.raises(ValueError, match=r"a network for text is shipped as a state dict \(--to torch\)"):
        capture(text, example=torch.zeros(1, 64, dtype=torch.int64))
    model = nn.Linear(4, 2)
    with pytest.raises(ValueError, match=r"'fc\.weight' that the model lacks"):
        capture(model, Mask({"fc.weight": torch.ones(2, 4, dtype=torch.bool)}), example=torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"must be \[N, \*input_shape\]"):
        capture(model, example=torch.zeros(4))


def test_weights_that_are_not_finite_are_refused() -> None:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with pytest.raises(NetworkError, match="tensor 'weight' has a value that is not finite"):
        capture(model, example=torch.zeros(1, 4))
