"""Which axis of a weight is what, against what the layers compute: which output a weight is in, by which input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from winticket import models
from winticket.units import Layout, layout_of, layouts

X: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(4, 6), (4,)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), (4, 7)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, (1, 3)), (4, 5, 5)),
    "Conv2d in groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3), (3, 5, 5)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 3, 3, 3)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3), (4, 7)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5)),
    "ConvTranspose2d in groups": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 5, 5)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 3, 3, 3)),
    "weight normed": (lambda: parametrizations.weight_norm(nn.ConvTranspose2d(4, 6, 3)), (4, 5, 5)),
}


def used(layer: nn.Module, size: tuple[int, ...]) -> Tensor:
    """For each weight, its output and input channel as the layer computes: [out, in, *shape] bool."""
    x = torch.rand(1, *size, dtype=torch.float64)
    layer = layer.double()
    weight = next(p for n, p in layer.named_parameters() if n.endswith(("weight", "original1")))
    with torch.no_grad():
        weight.abs_()
    found = []
    for channel in range(size[0]):
        only = torch.zeros_like(x)
        only[:, channel] = x[:, channel]
        out = layer(only)
        found.append(
            torch.stack([torch.autograd.grad(o.sum(), weight, retain_graph=True)[0] for o in out[0]]) != 0
        )
    return torch.stack(found, 1)


@pytest.mark.parametrize("kind", [k for k in X if k != "weight normed"])
def test_units_and_inputs_are_those_that_the_layer_computes(kind: str) -> None:
    make, size = X[kind]
    layer = make()
    uses = used(layer, size)
    outputs, inputs = uses.shape[:2]
    weight = layer.get_parameter("weight")
    layout = layouts(nn.Sequential(layer)).get("0.weight", Layout())
    units = torch.arange(outputs).view(-1, 1, 1)
    by_unit = layout.by_unit(weight)
    assert by_unit.shape[0] == outputs
    group = units // (outputs // layout.groups)
    reads = torch.arange(by_unit.shape[1]).view(1, -1, 1) + group * by_unit.shape[1]
    out = layout.from_units(units.expand(by_unit.shape), weight)
    into = layout.from_units(reads.expand(by_unit.shape), weight)
    for o in range(outputs):
        for i in range(inputs):
            assert torch.equal(uses[o, i], (out == o) & (into == i)), (o, i)


@pytest.mark.parametrize("kind", X)
def test_there_and_back(kind: str) -> None:
    module = X[kind][0]()
    known = layouts(module)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            layout = known.get(name, Layout())
            assert torch.equal(layout.from_units(layout.by_unit(weight), weight), weight)
            assert torch.equal(layout.from_rows(layout.rows(weight), weight), weight)


def test_embeddings_read_tokens_and_recurrent_layers_have_gates() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm, self.gru = nn.Embedding(5, 3), nn.LSTM(3, 2), nn.GRUCell(3, 2)

    module = Text()
    known = layouts(module)
    # A token's row is what it adds to every unit.
    assert known["embed.weight"] == Layout(
        inputs_first=True, structure="embed.tokens", parts=5, by_inputs=True, members=1
    )
    assert known["embed.weight"].by_unit(module.embed.weight).shape == (3, 5, 1)
    assert known["lstm.weight_ih_l0"] == known["lstm.weight_hh_l0"] == Layout(gates=4)
    assert known["gru.weight_ih"] == Layout(gates=3)
    # Unit 1's weights are rows 1, 3, 5 and 7 of the four gates of two units; every row is a sum of its own.
    rows = torch.arange(8.0).view(8, 1).expand(8, 3)
    assert Layout(gates=4).by_unit(rows)[1].tolist() == [[1, 3, 5, 7]] * 3
    assert Layout(gates=4).rows(rows).shape == (8, 3)
    assert torch.equal(Layout(gates=4).from_units(Layout(gates=4).by_unit(rows), rows), rows)


def test_a_weight_that_is_tied_is_the_linear_layers() -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    module[1].weight = module[0].weight
    assert layouts(module) == {}


def test_the_conv1d_of_transformers() -> None:
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    assert layout_of(conv1d(6, 4)) == Layout(inputs_first=True)  # nf is out; [in, out]


@pytest.mark.parametrize("scheme", ["kaiming-normal", "signed-constant"])
def test_a_transposed_convolution_is_drawn_by_its_inputs(scheme: str) -> None:
    layer = nn.ConvTranspose2d(200, 2, 3)
    models.initialise(layer, scheme=scheme, generator=torch.Generator().manual_seed(0))
    # fan-in 200 · 9: √(2 / 1800) = .0333; by its outputs it would be √(2 / 18) = .333.
    assert layer.weight.std().item() == pytest.approx((2 / 1800) ** 0.5, rel=0.05)
