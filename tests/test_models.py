"""The networks: shapes and counts of the papers, initialisations by formula, eligibility, refusals."""

from __future__ import annotations

import math
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from winticket import models
from winticket.cli.options import OPTIONS

CIFAR = (3, 32, 32)


def build(name: str, shape: tuple[int, ...] = (1, 28, 28), **options: Any) -> nn.Module:
    return models.build(
        name, input_shape=shape, **{"classes": 10, "generator_seed": 0, "trust": True, **options}
    )


def small(name: str) -> str:
    """The same network, narrow if the width can be chosen: VGG-19 has 20 million weights."""
    return f"{name}-4" if name.startswith(("vgg", "resnet")) else name


def fitting(name: str, channels: int = 3) -> dict[str, Any]:
    """The smallest usual input of a built-in network."""
    if name == "chargpt":
        return {"shape": (7,), "tokens": True}
    if name.startswith("fcn"):
        return {"shape": (channels, 8, 8), "target": "positions"}
    side = 16 if "vgg" in name else 8
    if name.startswith("conv1d"):
        return {"shape": (channels, side)}
    return {"shape": (40,) if name == "mlp1d" else (channels, side, side)}


def bits(module: nn.Module) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def distinct(values: Tensor) -> int:
    return len(set(values.flatten().tolist()))


# Shapes


def test_lenet_300_100() -> None:
    assert shapes(build("lenet-300-100")) == {
        "fc1.weight": (300, 784),
        "fc1.bias": (300,),
        "fc2.weight": (100, 300),
        "fc2.bias": (100,),
        "fc3.weight": (10, 100),
        "fc3.bias": (10,),
    }


def test_lenet_of_any_widths_and_input() -> None:
    module = build("lenet-7", (2, 3), classes=4)
    assert shapes(module) == {
        "fc1.weight": (7, 6),
        "fc1.bias": (7,),
        "fc2.weight": (4, 7),
        "fc2.bias": (4,),
    }
    assert module(torch.zeros(5, 2, 3)).shape == (5, 4)


@pytest.mark.parametrize(
    ("name", "convolutions", "weights"),
    [
        # Frankle & Carbin 2019, figure 2, gives 38K of 4.3M and 260K of 2.4M; the sums here are by hand.
        ("conv-2", 1728 + 36864, 38592 + 16384 * 256 + 256 * 256 + 2560),
        ("conv-4", 38592 + 73728 + 147456, 259776 + 8192 * 256 + 256 * 256 + 2560),
        ("conv-6", 259776 + 294912 + 589824, 1144512 + 4096 * 256 + 256 * 256 + 2560),
    ],
)
def test_conv_sizes(name: str, convolutions: int, weights: int) -> None:
    module = build(name, CIFAR)
    sizes = {weight: module.get_parameter(weight).numel() for weight in models.eligible(module)}
    assert sum(size for weight, size in sizes.items() if weight.startswith("conv")) == convolutions
    assert sum(sizes.values()) == weights
    assert len(sizes) == int(name[-1]) + 3
    assert module(torch.zeros(2, *CIFAR)).shape == (2, 10)


def test_conv_takes_grey_and_odd_images() -> None:
    assert build("conv-6", (1, 9, 15), classes=3)(torch.zeros(2, 1, 9, 15)).shape == (2, 3)


def test_mlp1d_is_residual() -> None:
    module = build("mlp1d", (40,))
    assert [module.get_parameter(name).shape for name in models.eligible(module)] == [
        (500, 40),
        (500, 500),
        (10, 500),
    ]
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    p = dict(module.named_parameters())
    h = (x @ p["fc1.weight"].T + p["fc1.bias"]).clamp(min=0)
    h = h + (h @ p["fc2.weight"].T + p["fc2.bias"]).clamp(min=0)
    # Another order of summation in float32: sums of 500 terms of size 1.
    torch.testing.assert_close(module(x), h @ p["fc3.weight"].T + p["fc3.bias"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "published", "all_parameters"),
    [
        # He et al. 2016, table 6 (.27M, .46M, .85M), to which two 1x1 shortcuts with BatchNorm add 2752.
        ("resnet-20", 0.27e6, 269_722 + 2752),
        ("resnet-32", 0.46e6, 464_154 + 2752),
        ("resnet-56", 0.85e6, 853_018 + 2752),
        # Liu et al. 2019, table 1, and their configurations: 9.2M, 14.7M, 20.0M, summed by hand below.
        ("vgg-11", 9.2e6, 9_231_114 - 2752),
        ("vgg-16", 14.7e6, 14_728_266 - 4224),
        ("vgg-19", 20.0e6, 20_040_522 - 5504),
    ],
)
def test_deep_networks_have_the_published_sizes(name: str, published: float, all_parameters: int) -> None:
    """Of VGG, the sums of implementations with a bias in each convolution, less those biases."""
    module = build(name, CIFAR)
    count = sum(p.numel() for p in module.parameters())
    assert count == all_parameters
    assert count == pytest.approx(published, rel=0.02)
    layers = [name for name in models.eligible(module) if "shortcut" not in name]
    assert len(layers) == int(name.partition("-")[2]) - (2 if "vgg" in name else 0)
    assert models.output_layer(module) == "fc.weight"
    assert module(torch.zeros(2, *CIFAR)).shape == (2, 10)


def test_resnet_forward_by_its_formula() -> None:
    """ResNet-8 from the paper's equation: y = relu(BN(conv(relu(BN(conv x)))) + shortcut)."""
    module = build("resnet-8-4", (2, 8, 8), classes=3).eval()
    noise = torch.Generator().manual_seed(1)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=noise) + 0.5)
    p: dict[str, Tensor] = dict(module.state_dict())

    def normal(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            p[f"{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    x = torch.randn(3, 2, 8, 8, generator=noise)
    h = normal(torch.conv2d(x, p["conv.weight"], padding=1), "bn").clamp(min=0)
    for block, stride in enumerate((1, 2, 2)):
        at = f"blocks.{block}"
        inner = normal(torch.conv2d(h, p[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn1")
        outer = normal(torch.conv2d(inner.clamp(min=0), p[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
        if stride == 2:
            h = normal(torch.conv2d(h, p[f"{at}.shortcut.conv.weight"], stride=2), f"{at}.shortcut.bn")
        h = (outer + h).clamp(min=0)
    assert h.shape == (3, 16, 2, 2)
    # Another order of summation in float32, through seven layers.
    torch.testing.assert_close(
        module(x), h.mean((2, 3)) @ p["fc.weight"].T + p["fc.bias"], atol=1e-4, rtol=1e-4
    )


def test_deep_networks_of_other_sizes() -> None:
    first = {"vgg-13-8": (8, 1, 3, 3), "resnet-8": (16, 1, 3, 3), "resnet-20-32": (32, 1, 3, 3)}
    for name, shape in first.items():
        module = build(name, (1, 17, 16), classes=3)
        assert next(module.parameters()).shape == shape
        assert module(torch.zeros(2, 1, 17, 16)).shape == (2, 3)
    wide, usual = (
        build(name, CIFAR).get_parameter("blocks.8.conv2.weight") for name in ("resnet-20-32", "resnet-20")
    )
    assert (wide.shape[0], usual.shape[0]) == (128, 64)


def test_chargpt_sees_no_later_character_and_every_earlier_one() -> None:
    module = build("chargpt", (9,), tokens=True)
    x = torch.arange(9).view(1, 9)
    before = module(x)
    assert before.shape == (1, 9, 10)
    for changed in range(9):
        other = x.clone()
        other[0, changed] = 9
        moved = (module(other) != before).any(-1)[0].tolist()
        assert moved == [position >= changed for position in range(9)]
    # 10 characters and 9 places of width 64; 2 layers of 12·64² weights, 9·64 biases and two LayerNorms; norm and head.
    count = sum(p.numel() for p in module.parameters())
    assert count == 19 * 64 + 2 * (12 * 64**2 + 9 * 64 + 4 * 64) + 2 * 64 + 64 * 10 + 10
    assert models.includable(module) == ("embed.weight", "place.weight")
    assert models.output_layer(module) == "head.weight"
    assert len(build("chargpt-3-32", (9,), tokens=True).get_submodule("layers").state_dict()) == 3 * 16


def test_chargpts_name_may_say_its_context() -> None:
    assert build("chargpt-1-16-9", (9,), tokens=True).get_parameter("place.weight").shape == (9, 16)
    named = ("chargpt-1-16-9", "chargpt-1-16", "chargpt", "lenet-300-100", "mylab.nets:build")
    assert [models.context(name) for name in named] == [9, None, None, None, None]
    with pytest.raises(
        ValueError, match=r"chargpt-1-16-9 reads windows of 9 characters, .* have 64; load the"
    ):
        models.check("chargpt-1-16-9", input_shape=(64,), classes=5, tokens=True)
    for name in ("chargpt-1-16-0", "chargpt-1-16-9-9", "chargpt-1-16-", "chargpt--9"):
        with pytest.raises(ValueError, match=f"no model '{name}'"):
            models.check(name, input_shape=(9,), classes=5, tokens=True)


def test_lenet_forward_by_hand() -> None:
    module = build("lenet-2", (1, 1, 2), classes=2)
    values = {
        "fc1.weight": [[1.0, 2.0], [-1.0, 0.0]],
        "fc1.bias": [1.0, 0.0],
        "fc2.weight": [[3.0, 5.0], [0.0, 7.0]],
        "fc2.bias": [0.0, -1.0],
    }
    module.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    # hidden = relu([1 + 2·2 + 1, -1]) = [6, 0]; logits = [18, -1]
    assert module(torch.tensor([[[[1.0, 2.0]]]])).tolist() == [[18.0, -1.0]]


@pytest.mark.parametrize("name", models.names())
def test_every_model_stacks_and_leaves_its_input_alone(name: str) -> None:
    given = fitting(name)
    alone = [build(small(name), **given, generator_seed=seed) for seed in (1, 2)]
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(4, *given["shape"], generator=noise)
    if "tokens" in given:
        x = torch.randint(10, x.shape, generator=noise)
    before = x.clone()
    parameters, buffers = stack_module_state(alone)

    def logits(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        result: Tensor = functional_call(alone[0], (parameters, buffers), (x,))
        return result

    stacked = vmap(logits)(parameters, buffers)
    # Batched kernels sum in another order: float32 tolerance, carried on by as many layers as there are.
    together = torch.stack([module(x) for module in alone])
    torch.testing.assert_close(
        stacked, together, atol=1e-5 * max(1, len(models.eligible(alone[0])) / 5), rtol=1e-4
    )
    assert torch.equal(x, before)


# Initialisation


@pytest.mark.parametrize("name", models.names())
def test_same_seed_same_bits_and_global_randomness_untouched(name: str) -> None:
    given = fitting(name, channels=1)
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    one, again, other = (bits(build(small(name), **given, generator_seed=seed)) for seed in (5, 5, 6))
    after = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    torch.manual_seed(99)
    module = build(small(name), **given, generator_seed=5)
    assert one == again == bits(module)
    drawn = [*models.eligible(module), *models.includable(module)]
    assert len(drawn) > 1
    assert all(one[weight] != other[weight] for weight in drawn)


# Each: a weight [400, 300] or [40, 25, 3, 3], so 120000 or 9000 draws; a standard deviation is estimated to
# about 1/sqrt(2n), at most .0075 relative; .03 is four of them, and the seed is fixed.
FANS = {(400, 300): (300, 400), (40, 25, 3, 3): (225, 360)}
STD: dict[str, Callable[[int, int], float]] = {
    "glorot-normal": lambda i, o: math.sqrt(2 / (i + o)),
    "glorot-uniform": lambda i, o: math.sqrt(2 / (i + o)),
    "kaiming-normal": lambda i, o: math.sqrt(2 / i),
    "kaiming-uniform": lambda i, o: math.sqrt(2 / i),
    "normal": lambda i, o: math.sqrt(1 / i),
    "uniform": lambda i, o: math.sqrt(1 / i),
    "signed-constant": lambda i, o: math.sqrt(2 / i),
    "default": lambda i, o: math.sqrt(1 / (3 * i)),
}


@pytest.mark.parametrize("shape", FANS)
@pytest.mark.parametrize("scheme", STD)
def test_standard_deviations(scheme: str, shape: tuple[int, ...]) -> None:
    expected = STD[scheme](*FANS[shape])
    weight = models.init_of(scheme, shape, torch.Generator().manual_seed(3)).double()
    assert weight.shape == shape
    assert weight.std().item() == pytest.approx(expected, rel=0.03)
    assert abs(weight.mean().item()) < 4 * expected / math.sqrt(weight.numel())
    largest = weight.abs().max().item() / expected
    if scheme.endswith("uniform") or scheme == "default":
        assert 1.7 < largest <= math.sqrt(3) * (1 + 1e-6)
    elif scheme.endswith("normal"):
        assert largest > 3  # not cut off
    else:
        assert distinct(weight.abs()) == 1
        assert largest == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("shape", "rows"), [((6, 20), 6), ((20, 6), 6), ((8, 3, 3, 3), 8)])
def test_orthogonal(shape: tuple[int, ...], rows: int) -> None:
    matrix = models.init_of("orthogonal", shape, torch.Generator().manual_seed(0)).flatten(1)
    gram = matrix @ matrix.T if matrix.shape[0] == rows else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(rows), atol=1e-5, rtol=0)  # float32 QR


def test_every_scheme_is_tested() -> None:
    assert set(models.SCHEMES) == {*STD, "orthogonal"}


@pytest.mark.parametrize("scheme", models.SCHEMES)
def test_init_of_resamples_one_layer_as_build_did(scheme: str) -> None:
    module = build("lenet-5", (4,), init=scheme, generator_seed=11)
    first = models.init_of(scheme, (5, 4), torch.Generator().manual_seed(11))
    assert torch.equal(module.get_parameter("fc1.weight"), first)


@pytest.mark.parametrize("scheme", models.SCHEMES)
def test_biases(scheme: str) -> None:
    module = build("lenet-300-100", init=scheme)
    biases = [module.get_parameter(f"fc{number}.bias") for number in (1, 2, 3)]
    if scheme != "default":
        assert all(not bias.any() for bias in biases)
        return
    for bias, fan_in in zip(biases, (784, 300, 100), strict=True):
        assert bias.abs().max() <= 1 / math.sqrt(fan_in)
        assert distinct(bias) > 5


def test_default_inits() -> None:
    assert {name: models.default_init(name) for name in models.names()} == {
        "lenet-300-100": "glorot-normal",
        "conv-2": "glorot-normal",
        "conv-4": "glorot-normal",
        "conv-6": "glorot-normal",
        "conv1d-32-64": "glorot-normal",
        "mlp1d": "default",
        **dict.fromkeys(["vgg-11", "vgg-16", "vgg-19"], "kaiming-normal"),
        **dict.fromkeys(["resnet-20", "resnet-32", "resnet-56"], "kaiming-normal"),
        "chargpt": "default",
        "fcn-32-32": "glorot-normal",
    }
    assert bits(build("lenet-5", (4,))) == bits(build("lenet-5", (4,), init="glorot-normal"))
    assert models.default_init("mine:build") is None


class Mixed(nn.Module):
    """One of everything that is or is not eligible; the output layer shares the hidden layer's weight."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 6)
        self.conv = nn.Conv1d(1, 2, 3, bias=False)
        self.bn = nn.BatchNorm1d(2)
        self.scale = nn.Parameter(torch.ones(1))
        self.hidden = nn.Linear(classes, classes)
        self.norm = nn.LayerNorm(classes)
        self.out = nn.Linear(classes, classes)
        self.out.weight = self.hidden.weight


def test_initialise_leaves_everything_else_alone() -> None:
    module = Mixed()
    with torch.no_grad():
        module.bn.weight.fill_(2)
    before = bits(module)
    models.initialise(module, scheme="kaiming-normal", generator=torch.Generator().manual_seed(0))
    changed = {name for name, value in bits(module).items() if value != before[name]}
    assert changed == {"conv.weight", "hidden.weight", "hidden.bias", "out.weight", "out.bias"}


@pytest.mark.parametrize(
    ("scheme", "shape", "message"),
    [
        ("kaiming", (2, 2), r"no initialisation 'kaiming' \(did you mean 'kaiming-"),
        ("zzz", (2, 2), r"no initialisation 'zzz'; possible are glorot-normal, "),
        ("normal", (2,), r"shape \(2,\) has no fan-in"),
    ],
)
def test_bad_initialisations(scheme: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.init_of(scheme, shape, torch.Generator())


def test_bad_init_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="no initialisation 'xavier'"):
        build("torch.nn:Linear", init="xavier")


# Eligibility


def test_eligible_and_excluded() -> None:
    module = Mixed()
    assert models.eligible(module) == ("conv.weight", "hidden.weight")
    assert models.excluded(module) == {
        "scale": "parameter of Mixed, which is no Linear or Conv layer",
        "table.weight": "parameter of Embedding, which is no Linear or Conv layer",
        "bn.weight": "normalisation parameter",
        "bn.bias": "normalisation parameter",
        "hidden.bias": "bias",
        "norm.weight": "normalisation parameter",
        "norm.bias": "normalisation parameter",
        "out.bias": "bias",
    }
    assert models.eligible(nn.Linear(2, 2)) == ("weight",)
    assert models.excluded(nn.Linear(2, 2)) == {"bias": "bias"}


def test_output_layer() -> None:
    assert models.output_layer(build("conv-2", CIFAR)) == "fc3.weight"
    assert models.output_layer(build("lenet-300-100-50")) == "fc4.weight"
    assert models.output_layer(nn.Embedding(2, 2)) is None


class Tied(nn.Module):
    """An embedding whose table is the output layer's weight, a recurrent layer, attention, a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4)
        self.place = nn.Parameter(torch.zeros(3, 4))
        self.lstm = nn.LSTM(4, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.out = nn.Linear(4, 6)
        self.out.weight = self.table.weight


def test_what_is_not_eligible_by_itself_can_be_included_by_name() -> None:
    module = Tied()
    assert models.eligible(module) == ("attention.out_proj.weight",)
    further = ("place", "table.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "attention.in_proj_weight")
    assert models.includable(module) == further
    assert models.eligible(module, ["lstm.weight_*", "place"]) == (
        "place",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "attention.out_proj.weight",
    )
    # Biases have one dimension and stay; a tied weight is one parameter.
    assert models.eligible(module, ["*"]) == (*further, "attention.out_proj.weight")
    reasons = models.excluded(module, ["lstm.*"])
    assert reasons == {
        "place": "parameter of Tied, which is no Linear or Conv layer",
        "table.weight": "shared by out and Embedding, which is no Linear or Conv layer",
        "lstm.bias_ih_l0": "bias",
        "lstm.bias_hh_l0": "bias",
        "attention.in_proj_weight": "parameter of MultiheadAttention, which is no Linear or Conv layer",
        "attention.in_proj_bias": "bias",
        "attention.out_proj.bias": "bias",
        "out.bias": "bias",
    }
    assert models.excluded(module, ["place"])["lstm.weight_hh_l0"].startswith("parameter of LSTM")


# Refusals


@pytest.mark.parametrize(
    ("name", "shape", "classes", "message"),
    [
        ("lenet-300-10O", (4,), 2, r"no model 'lenet-300-10O' \(did you mean 'lenet-300-100"),
        ("Conv2", (1, 8, 8), 2, r"\(did you mean 'conv-"),
        (
            "conv-8",
            (1, 8, 8),
            2,
            r"possible: lenet-300-100, conv-2, .*lenet-W1-W2-.*package\.module:build",
        ),
        ("lenet", (4,), 2, "no model 'lenet'"),
        ("lenet-0", (4,), 2, "no model 'lenet-0'"),
        ("lenet--5", (4,), 2, "no model 'lenet--5'"),
        ("resnet", (4,), 2, "no model 'resnet'"),
        ("lenet-5", (), 2, r"input shape \(\)"),
        ("lenet-5", (3, 0), 2, r"input shape \(3, 0\)"),
        ("lenet-5", (4,), 1, "1 classes"),
        ("conv-2", (40,), 2, r"conv-2 needs images .* shape \(40,\); lenet-300-100 takes any shape"),
        ("conv-6", (1, 8, 7), 2, "halves its images 3 times, so they must be at least 8x8; these are 8x7"),
        ("conv-2", (1, 1, 1), 2, "at least 2x2"),
        ("vgg-16", (3, 8, 32), 2, "vgg-16 halves its images 4 times, .* at least 16x16; these are 8x32"),
        ("resnet-20", (3, 3, 3), 2, "resnet-20 halves its images 2 times, .* at least 4x4"),
        ("resnet-20", (40,), 2, r"resnet-20 needs images .* shape \(40,\)"),
        ("resnet-21", (3, 8, 8), 2, r"no model 'resnet-21' \(did you mean 'resnet-"),
        ("resnet-1208", (3, 8, 8), 2, "no model 'resnet-1208'"),
        ("vgg-12", (3, 32, 32), 2, r"no model 'vgg-12' \(did you mean 'vgg-"),
        ("resnet-20-9999", (3, 8, 8), 2, "would have [0-9]+ weights on this data; give smaller widths"),
        ("chargpt", (3, 8, 8), 2, r"chargpt reads text, .* shape \(3, 8, 8\); possible are lenet-300-100"),
        ("chargpt-2", (7,), 2, r"no model 'chargpt-2' \(did you mean 'chargpt"),
        ("chargpt-2-20", (7,), 2, "give a width that is a multiple of 16"),
    ],
)
def test_bad_requests(name: str, shape: tuple[int, ...], classes: int, message: str) -> None:
    for ask in (models.check, lambda *a, **k: models.build(*a, **k, generator_seed=0, trust=True)):
        with pytest.raises(ValueError, match=message):
            ask(name, input_shape=shape, classes=classes)


def test_text_is_for_networks_that_answer_at_every_character() -> None:
    with pytest.raises(
        ValueError, match="resnet-20 gives one answer per example, but text needs one per character"
    ):
        models.check("resnet-20", input_shape=(64,), classes=65, tokens=True)
    models.check("chargpt", input_shape=(64,), classes=65, tokens=True)


# A user's own module

MINE = """
import torch
from torch import nn

class Net(nn.Sequential):
    pass

def build(*, input_shape, classes):
    hidden = [nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.Dropout(0.5)]
    return Net(nn.Flatten(), *hidden, nn.Linear(8, classes))

def lazy(*, input_shape, classes):
    return nn.LazyLinear(classes)

def narrow(input_shape, classes):
    return nn.Linear(input_shape[0], classes - 1)

def deaf(input_shape, classes):
    return nn.Linear(input_shape[0] + 1, classes)

def sizes(input_shape, classes):
    return input_shape, classes

def positional(shape):
    return nn.Linear(shape[0], 2)

number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "wt_mine").mkdir()
    (tmp_path / "wt_mine" / "__init__.py").write_text("")
    (tmp_path / "wt_mine" / "nets.py").write_text(MINE)
    (tmp_path / "wt_mine" / "broken.py").write_text("import wt_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "wt_mine.nets"
    for name in [name for name in sys.modules if name.startswith("wt_mine")]:
        del sys.modules[name]


def test_users_module_is_seeded_and_keeps_its_init(mine: str) -> None:
    state = torch.get_rng_state()
    one, again, other = (build(f"{mine}:build", (6,), generator_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert bits(one) == bits(again)
    assert bits(one)["1.weight"] != bits(other)["1.weight"]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = nn.Linear(6, 8)
    assert torch.equal(one.get_parameter("1.weight"), expected.weight)
    # The trial run moved no statistic and no mode.
    assert one.get_buffer("2.num_batches_tracked").item() == 0
    assert all(layer.training for layer in one.modules())


def test_users_module_with_a_named_init(mine: str) -> None:
    module = build(f"{mine}:build", (6,), init="signed-constant")
    assert distinct(module.get_parameter("1.weight").abs()) == 1
    assert not module.get_parameter("1.bias").any()
    assert module.get_parameter("2.weight").tolist() == [1.0] * 8


def test_users_lazy_module_is_made_whole(mine: str) -> None:
    assert shapes(build(f"{mine}:lazy", (6,), classes=3)) == {"weight": (3, 6), "bias": (3,)}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("{}:", ValueError, "should have the form package.module:build"),
        (":build", ValueError, "should have the form package.module:build"),
        ("wt_nowhere:build", ValueError, "'wt_nowhere:build' cannot be imported .ModuleNotFoundError"),
        ("wt_mine.broken:build", ValueError, "No module named 'wt_not_there'.; give package.module:name"),
        ("{}:biuld", ValueError, r"has no 'biuld' \(did you mean 'build"),
        ("{}:number", TypeError, "'number' is int, which cannot be called"),
        ("{}:sizes", TypeError, "returned tuple, not a torch.nn.Module"),
        ("{}:positional", ValueError, r"calling it with input_shape=\(6,\), classes=4 failed with TypeError"),
        ("{}:deaf", ValueError, r"does not take inputs \[N, 6\]: RuntimeError"),
        ("{}:narrow", ValueError, r"logits \[N, 4\], but for N = 2 gives \(2, 3\)"),
    ],
)
def test_users_mistakes(mine: str, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(name.format(mine), (6,), classes=4)


def test_the_help_of_find_names_every_initialisation() -> None:
    (said,) = (option.text for option in OPTIONS if option.name == "init")
    assert [scheme for scheme in models.SCHEMES if scheme not in said] == []


# Answers at each pixel, numbers and labels


def test_fcn_answers_at_each_pixel() -> None:
    module = build("fcn-8-4", (3, 6, 5), classes=2, target="positions")
    assert shapes(module) == {
        "conv1.weight": (8, 3, 3, 3),
        "conv1.bias": (8,),
        "conv2.weight": (4, 8, 3, 3),
        "conv2.bias": (4,),
        "head.weight": (2, 4, 1, 1),
        "head.bias": (2,),
    }
    assert module(torch.zeros(7, 3, 6, 5)).shape == (7, 2, 6, 5)


@pytest.mark.parametrize(
    ("name", "shape", "target", "words"),
    [
        ("fcn-8", (3, 8, 8), "classes", "an answer at each pixel, but these examples have one in all"),
        ("lenet-20", (3, 8, 8), "positions", "one answer per example, .* such as fcn-32-32"),
        ("fcn-8", (40,), "positions", r"needs images \[channels, height, width\]"),
        ("fcn-", (3, 8, 8), "positions", "no model 'fcn-'"),
    ],
)
def test_networks_and_targets_that_do_not_fit(
    name: str, shape: tuple[int, ...], target: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        models.check(name, input_shape=shape, classes=3, target=target)


def test_one_number_is_enough_to_predict() -> None:
    assert build("lenet-20", (5,), classes=1, target="numbers")(torch.zeros(2, 5)).shape == (2, 1)
    with pytest.raises(ValueError, match="at least 1"):
        models.check("lenet-20", input_shape=(5,), classes=0, target="numbers")
