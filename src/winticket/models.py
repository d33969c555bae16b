"""The networks: built by name for the data's shape, or by a user's own function; which weights are eligible.

`build` and `initialise` draw from generators of their own and leave the global random state alone. Modules
take inputs [N, *input_shape] and give logits [N, classes]; none writes to its input, so that they stack
under `torch.func.functional_call` and `vmap`.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

SCHEMES = (
    "glorot-normal",
    "glorot-uniform",
    "kaiming-normal",
    "kaiming-uniform",
    "normal",
    "uniform",
    "orthogonal",
    "signed-constant",
    "default",
)
_CONV_WIDTHS = {"conv-2": (64,), "conv-4": (64, 128), "conv-6": (64, 128, 256)}
_NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


REVISION = 1
"""Raised whenever a model or its initial weights change."""


def names() -> list[str]:
    """The built-in names. Any widths work as well (`lenet-W1-W2-...`), and so does `package.module:build`."""
    return ["lenet-300-100", *_CONV_WIDTHS, "mlp1d"]


def default_init(name: str) -> str | None:
    """The scheme that `build` uses where none is named; None for a user's module, which keeps its own."""
    if ":" in name:
        return None
    return "default" if name == "mlp1d" else "glorot-normal"


MOST_PARAMETERS = 2**31
"""Weights of a built-in network beyond which it is refused: more than any machine here holds several times over."""


def check(name: str, *, input_shape: Sequence[int], classes: int) -> None:
    """Raise ValueError, with the reason, unless `build` can make this model for such data.

    `input_shape` is that of one example: [channels, height, width] for images. For a user's
    `package.module:build` this imports the module, but builds nothing; TypeError where that is no function.
    """
    if not input_shape or any(size < 1 for size in input_shape):
        raise ValueError(f"input shape {tuple(input_shape)}: every size must be at least 1")
    if classes < 2:
        raise ValueError(f"{classes} classes: classification needs at least 2")
    if ":" in name:
        _imported(name)
    elif name in _CONV_WIDTHS:
        _check_poolable(name, input_shape)
    elif name != "mlp1d":
        widths = [math.prod(input_shape), *_lenet_widths(name), classes]
        if (count := sum(a * b for a, b in itertools.pairwise(widths))) > MOST_PARAMETERS:
            raise ValueError(f"{name} would have {count} weights on this data; give smaller widths")


def build(
    name: str,
    *,
    input_shape: Sequence[int],
    classes: int,
    generator_seed: int,
    init: str | None = None,
) -> nn.Module:
    """The model of that name, for examples of `input_shape` and so many classes, freshly initialised.

    Built-in: `lenet-300-100` and any other `lenet-W1-W2-...`; `conv-2`, `conv-4`, `conv-6` (Frankle &
    Carbin 2019, figure 2); `mlp1d` (Greydanus 2020). `package.module:build` calls a user's own function
    with keyword arguments `input_shape` and `classes`; what it draws from torch's global generator comes
    from `generator_seed`, and the module keeps its initialisation unless `init` names one.

    `init` is one of SCHEMES; left out, it is `default_init(name)`. The same arguments give the same bits.
    Raises ValueError as `check` does, for an unknown scheme, or where a user's module does not map
    [N, *input_shape] to [N, classes]; TypeError where a user's function returns no module.
    """
    check(name, input_shape=input_shape, classes=classes)
    scheme = default_init(name) if init is None else init
    if scheme is not None:
        _check_scheme(scheme)
    if ":" in name:
        module = _users(name, tuple(input_shape), classes, generator_seed)
    else:
        # On "meta" the layers' own initialisation draws nothing; the memory is filled below.
        with torch.device("meta"):
            module = _built_in(name, tuple(input_shape), classes)
        module.to_empty(device="cpu")
        for layer in module.modules():
            if isinstance(layer, _NORMALISATIONS):
                layer.reset_parameters()  # what `initialise` leaves alone
    if scheme is not None:
        initialise(module, scheme=scheme, generator=torch.Generator().manual_seed(generator_seed))
    return module


def initialise(module: nn.Module, *, scheme: str, generator: Generator) -> None:
    """Draw every Linear and Conv layer of `module` anew, in place and in the order of definition.

    Weights are drawn by `init_of`. Biases are 0, as in Frankle & Carbin 2019, but under "default"
    PyTorch's own: uniform within ±1/√fan_in. All other parameters and all buffers stay as they are.
    """
    _check_scheme(scheme)
    with torch.no_grad():
        for layer in module.modules():
            if not isinstance(layer, nn.Linear | _ConvNd):
                continue
            weight = init_of(scheme, layer.weight.shape, generator)
            layer.weight.copy_(weight)
            if layer.bias is not None:
                bound = 1 / math.sqrt(_fan_in(weight)) if scheme == "default" else 0.0
                drawn = torch.empty(layer.bias.shape)
                layer.bias.copy_(
                    drawn.uniform_(-bound, bound, generator=generator) if bound else drawn.zero_()
                )


def init_of(scheme: str, shape: Sequence[int], generator: Generator) -> Tensor:
    """One weight tensor (float32, CPU) drawn by `scheme`; `shape` is [out, in] or [out, in, *kernel].

    With k the kernel's size, fan_in = in·k and fan_out = out·k:

    - glorot-normal, glorot-uniform: standard deviation √(2 / (fan_in + fan_out)). Glorot & Bengio 2010,
      eq. 16. (The 2019 lottery paper's code cuts the normal off at two deviations; this does not.)
    - kaiming-normal, kaiming-uniform: √(2 / fan_in), for ReLU. He et al. 2015, eq. 10.
    - normal, uniform: √(1 / fan_in). LeCun et al. 1998, "Efficient BackProp".
    - orthogonal: a random (semi-)orthogonal matrix [out, in·k]. Saxe et al. 2014.
    - signed-constant: ±√(2 / fan_in), each sign with probability 1/2. Ramanujan et al. 2020.
    - default: what PyTorch gives Linear and Conv layers, uniform within ±1/√fan_in.

    Raises ValueError for an unknown scheme, or a shape of fewer than two dimensions.
    """
    _check_scheme(scheme)
    if len(shape) < 2:
        raise ValueError(
            f"shape {tuple(shape)} has no fan-in; weights to draw are [out, in] or [out, in, *kernel]"
        )
    return _FILLS[scheme](torch.empty(tuple(shape)), generator)


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _scaled_uniform(weight: Tensor, generator: Generator) -> Tensor:
    bound = math.sqrt(3 / _fan_in(weight))
    return weight.uniform_(-bound, bound, generator=generator)


def _signed_constant(weight: Tensor, generator: Generator) -> Tensor:
    size = math.sqrt(2 / _fan_in(weight))
    return weight.bernoulli_(0.5, generator=generator).mul_(2 * size).sub_(size)


_FILLS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "glorot-normal": lambda w, g: nn.init.xavier_normal_(w, generator=g),
    "glorot-uniform": lambda w, g: nn.init.xavier_uniform_(w, generator=g),
    "kaiming-normal": lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g),
    "kaiming-uniform": lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
    "normal": lambda w, g: w.normal_(0, math.sqrt(1 / _fan_in(w)), generator=g),
    "uniform": _scaled_uniform,
    "orthogonal": lambda w, g: nn.init.orthogonal_(w, generator=g),
    "signed-constant": _signed_constant,
    "default": lambda w, g: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=g),
}


def eligible(module: nn.Module) -> tuple[str, ...]:
    """Names of the weights that may be pruned: those of Linear and Conv layers, in order of definition.

    A weight shared by two layers is named once.
    """
    layers = {
        f"{name}.weight" if name else "weight"
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | _ConvNd)
    }
    return tuple(name for name, _ in module.named_parameters() if name in layers)


def excluded(module: nn.Module) -> dict[str, str]:
    """Every parameter that is not eligible, by name, with the reason in words."""
    may_prune = set(eligible(module))
    reasons = {}
    for name, _ in module.named_parameters():
        if name in may_prune:
            continue
        owner, _, parameter = name.rpartition(".")
        layer = module.get_submodule(owner)
        if isinstance(layer, _NORMALISATIONS):
            reasons[name] = "normalisation parameter"
        elif parameter == "bias":
            reasons[name] = "bias"
        else:
            reasons[name] = f"parameter of {type(layer).__name__}, which is no Linear or Conv layer"
    return reasons


def output_layer(module: nn.Module) -> str:
    """Name of the last eligible weight by order of definition, which gives the logits in models built here.

    Raises ValueError where the module has no eligible weight.
    """
    weights = eligible(module)
    if not weights:
        raise ValueError(f"{type(module).__name__} has no Linear or Conv layer, so nothing can be pruned")
    return weights[-1]


class Mlp1d(nn.Module):
    """Greydanus 2020 (MNIST-1D, the lottery-ticket study): two hidden layers, the second one residual."""

    def __init__(self, inputs: int, classes: int, *, hidden: int = 500) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, *input_shape] -> logits [N, classes]."""
        h = torch.relu(self.fc1(x.flatten(1)))
        h = h + torch.relu(self.fc2(h))
        logits: Tensor = self.fc3(h)
        return logits


def _built_in(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    if name == "mlp1d":
        return Mlp1d(math.prod(input_shape), classes)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    widths = (256, 256) if name in _CONV_WIDTHS else _lenet_widths(name)
    inputs = math.prod(input_shape)
    if name in _CONV_WIDTHS:
        inputs = _add_convolutions(layers, _CONV_WIDTHS[name], input_shape)
    layers["flatten"] = nn.Flatten()
    for number, (fan_in, fan_out) in enumerate(zip((inputs, *widths), (*widths, classes), strict=True), 1):
        layers[f"fc{number}"] = nn.Linear(fan_in, fan_out)
        if number <= len(widths):
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def _add_convolutions(
    layers: OrderedDict[str, nn.Module], widths: tuple[int, ...], input_shape: tuple[int, ...]
) -> int:
    """Add two 3x3 convolutions and a 2x2 max-pool per width; return the number of features they give."""
    channels, height, width = input_shape
    for block, filters in enumerate(widths, 1):
        for number in (2 * block - 1, 2 * block):
            layers[f"conv{number}"] = nn.Conv2d(channels, filters, 3, padding=1)
            layers[f"conv{number}_relu"] = nn.ReLU()
            channels = filters
        layers[f"pool{block}"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    return channels * height * width


def _check_poolable(name: str, input_shape: Sequence[int]) -> None:
    if len(input_shape) != 3:
        raise ValueError(
            f"{name} needs images [channels, height, width], but the examples have shape "
            f"{tuple(input_shape)}; lenet-300-100 takes any shape"
        )
    smallest = 2 ** len(_CONV_WIDTHS[name])
    if min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{name} halves its images {len(_CONV_WIDTHS[name])} times, so they must be at least "
            f"{smallest}x{smallest}; these are {input_shape[1]}x{input_shape[2]}"
        )


def _lenet_widths(name: str) -> tuple[int, ...]:
    """(300, 100) of "lenet-300-100". ValueError for any other kind of name, offering the nearest."""
    if re.fullmatch(r"lenet(-[1-9][0-9]*)+", name, re.ASCII):
        return tuple(int(width) for width in name.split("-")[1:])
    raise ValueError(
        f"there is no model {name!r}{_nearest(name, names())}; possible are {', '.join(names())}, "
        "any widths as lenet-W1-W2-..., or your own package.module:build"
    )


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ValueError(
            f"there is no initialisation {scheme!r}{_nearest(scheme, SCHEMES)}; "
            f"possible are {', '.join(SCHEMES)}"
        )


def _nearest(given: str, possible: Sequence[str]) -> str:
    close = difflib.get_close_matches(given.lower(), possible, n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _imported(name: str) -> Callable[..., object]:
    """The function that "package.module:build" names. ValueError, with the cause, where there is none."""
    path, _, attribute = name.partition(":")
    if not path or not attribute.isidentifier():
        raise ValueError(f"model {name!r} should read package.module:build, a module and a function in it")
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise ValueError(
            f"model {name!r}: importing {path!r} failed with {type(error).__name__}: {error}; "
            "is it installed, or on PYTHONPATH?"
        ) from error
    function = getattr(module, attribute, None)
    if function is None:
        public = [word for word, value in vars(module).items() if callable(value) and word[0] != "_"]
        raise ValueError(f"model {name!r}: {path} has no {attribute!r}{_nearest(attribute, public)}")
    if not callable(function):
        raise TypeError(f"model {name!r}: {attribute!r} is {type(function).__name__}, which cannot be called")
    built: Callable[..., object] = function
    return built


def _users(name: str, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Call a user's function with torch's global generator seeded and, afterwards, as it was."""
    function = _imported(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            module = function(input_shape=input_shape, classes=classes)
        except Exception as error:
            raise ValueError(
                f"model {name!r}: calling it with input_shape={input_shape}, classes={classes} failed with "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise TypeError(f"model {name!r} returned {type(module).__name__}, not a torch.nn.Module")
        _check_logits(name, module, input_shape, classes)
    return module


def _check_logits(name: str, module: nn.Module, input_shape: tuple[int, ...], classes: int) -> None:
    """Two blank examples through the module, in evaluation mode so that no statistic moves."""
    training = {layer: layer.training for layer in module.modules()}
    try:
        with torch.no_grad():
            logits = module.eval()(torch.zeros(2, *input_shape))
    except Exception as error:
        raise ValueError(
            f"model {name!r} does not take inputs [N, {', '.join(map(str, input_shape))}]: "
            f"{type(error).__name__}: {error}"
        ) from error
    for layer, was_training in training.items():
        layer.training = was_training
    given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if given != (2, classes):
        raise ValueError(f"model {name!r} should give logits [N, {classes}], but for N = 2 gives {given}")
