"""From a name and the shape of the data to a freshly initialised network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from winticket.catalogue import MODELS, is_folder, no_model
from winticket.models import deep, hub, plain, positions, text
from winticket.models.eligibility import NORMALISATIONS
from winticket.models.initial import check_scheme, initialise
from winticket.models.users import imported, users_network

EMBEDDING_STD = 0.02
"""Standard deviation of embeddings in built-in models: Radford et al. 2019 (GPT-2)."""


def names() -> list[str]:
    """The built-in names.

    Other sizes work as well: `lenet-W1-W2-...`, `conv1d-W1-W2-...` for signals, `vgg-13`, `resnet-` with 6n + 2 layers,
    `vgg-16-W` and `resnet-20-W` with W filters in the first layer, `chargpt-LAYERS-WIDTH` and
    `chargpt-LAYERS-WIDTH-CONTEXT`. So do `package.module:build`, a function of yours, and the path of a folder or GGUF
    file of a causal language model of Transformers.

    >>> from winticket import models
    >>> models.names()[:4]
    ['lenet-300-100', 'conv-2', 'conv-4', 'conv-6']
    """
    return list(MODELS)


def default_init(name: str) -> str | None:
    """The default of `build`'s `init`; None for a user's model, which keeps its initialisation.

    >>> from winticket import models
    >>> models.default_init("lenet-300-100"), models.default_init("resnet-20")
    ('glorot-normal', 'kaiming-normal')
    """
    if ":" in name or is_folder(name):
        return None
    if name.startswith(("vgg", "resnet")):
        return "kaiming-normal"
    return "default" if name == "mlp1d" or name.startswith("chargpt") else "glorot-normal"


def context(name: str) -> int | None:
    """How many characters a network for text reads at once, if its name contains the number; else None.

    >>> from winticket import models
    >>> models.context("chargpt-2-64-256"), models.context("lenet-300-100")
    (256, None)
    """
    parsed = text.parse(name)
    return parsed[2] if parsed else None


MOST_PARAMETERS = 2**31
"""Built-in networks with more weights are refused: training needs several copies of them in memory."""


def check(
    name: str,
    *,
    input_shape: Sequence[int],
    classes: int,
    tokens: bool = False,
    target: str = "classes",
) -> None:
    """Raise ValueError, with the reason, unless `build` can make this model for such data.

    input_shape: of one example, [channels, height, width] for images. tokens: examples are text, [length] integers
    below `classes`, with an answer at each position. target: what an example is answered by: "classes" (one of them),
    "numbers" or "labels" (`classes` of them), or "positions" (a class at each pixel). For a user's
    `package.module:build`, this imports the module but calls nothing; it raises TypeError if the name is not a
    function's.

    >>> from winticket import models
    >>> models.check("conv-2", input_shape=(40,), classes=10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: conv-2 needs images [channels, height, width], but the examples have shape (40,); ...
    """
    if not input_shape or any(size < 1 for size in input_shape):
        raise ValueError(f"input shape {tuple(input_shape)}: every size must be at least 1")
    if classes < 2 and target not in ("numbers", "labels"):
        raise ValueError(f"{classes} classes: classification needs at least 2")
    if classes < 1:
        raise ValueError(f"{classes} {target} to predict; there must be at least 1")
    if ":" in name:
        imported(name)
        return
    if is_folder(name):
        hub.check(name, tuple(input_shape), classes, tokens=tokens)
        return
    _require_known(name)
    _check_tokens(name, tuple(input_shape), tokens=tokens)
    _check_positions(name, tuple(input_shape), positions_asked=target == "positions")
    if name in plain.CONV_WIDTHS:
        deep.check_images(name, input_shape, halved=len(plain.CONV_WIDTHS[name]))
    elif signals := plain.conv1d_widths(name):
        plain.check_signals(name, input_shape, blocks=len(signals))
    elif parsed := deep.parse(name):
        deep.check_images(name, input_shape, halved=4 if parsed[0] == "vgg" else 2)
    if (count := _size(name, tuple(input_shape), classes)) > MOST_PARAMETERS:
        raise ValueError(f"{name} would have {count} weights on this data; give smaller widths")


def _check_tokens(name: str, input_shape: tuple[int, ...], *, tokens: bool) -> None:
    """Raise ValueError unless a network for text gets text, of its length, and any other network does not."""
    for_text = text.parse(name) is not None
    if tokens and not for_text:
        raise ValueError(
            f"{name} gives one answer per example, but text needs one per character; use chargpt or your own "
            "package.module:build"
        )
    if for_text and not tokens:
        raise ValueError(
            f"{name} reads text, but the examples have shape {input_shape}; possible are "
            f"{', '.join(n for n in names() if not n.startswith('chargpt'))}"
        )
    length = context(name)
    if length not in (None, input_shape[0]):
        raise ValueError(
            f"{name} reads windows of {length} characters, but these examples have {input_shape[0]}; load the text "
            f"with window={length}"
        )


def _check_positions(name: str, input_shape: tuple[int, ...], *, positions_asked: bool) -> None:
    """Raise ValueError unless a network that answers at each pixel gets images with such answers, and no other does."""
    if (positions.widths(name) is not None) != positions_asked:
        raise ValueError(
            f"{name} gives one answer per example, but these have one at each position; use fcn-W1-W2-..., such as "
            "fcn-32-32, or your own package.module:build"
            if positions_asked
            else f"{name} gives an answer at each pixel, but these examples have one in all; use another network"
        )
    if positions_asked and len(input_shape) != 3:
        raise ValueError(f"{name} needs images [channels, height, width], but these have shape {input_shape}")


def _require_known(name: str) -> None:
    """Raise ValueError for an unknown name, suggesting the nearest."""
    known = (
        name in ("mlp1d", *plain.CONV_WIDTHS)
        or plain.lenet_widths(name)
        or plain.conv1d_widths(name)
        or deep.parse(name)
        or text.parse(name)
        or positions.widths(name)
    )
    if not known:
        raise ValueError(no_model(name))


def size(name: str, *, input_shape: Sequence[int], classes: int) -> int:
    """The number of weights of a built-in network, without building it: a LeNet's without biases, else all parameters.

    >>> from winticket import models
    >>> models.size("lenet-300-100", input_shape=(1, 8, 8), classes=10)
    50200
    """
    return _size(name, tuple(input_shape), classes)


def _size(name: str, input_shape: tuple[int, ...], classes: int) -> int:
    """As `size`. A LeNet's widths are only multiplied, since they may be too large for a tensor."""
    if is_folder(name):
        return hub.size(name)
    if widths := plain.lenet_widths(name):
        return sum(a * b for a, b in itertools.pairwise([math.prod(input_shape), *widths, classes]))
    with torch.device("meta"):
        return sum(p.numel() for p in _built_in(name, input_shape, classes).parameters())


def build(
    name: str,
    *,
    input_shape: Sequence[int],
    classes: int,
    generator_seed: int,
    init: str | None = None,
    tokens: bool = False,
    target: str = "classes",
    trust: bool = False,
) -> nn.Module:
    """The model of that name for examples of `input_shape` and so many classes, freshly initialised.

    Built-in (`names`): LeNet, Conv-2/4/6 (Frankle & Carbin 2019, figure 2), `conv1d-W1-W2-...` for signals [channels,
    length] (per width a convolution over 5 points, ReLU and a max-pool over 2; then a Linear layer of 128 units),
    `mlp1d` (Greydanus 2020), VGG and ResNet with BatchNorm, `chargpt`, a transformer for text (`tokens`, `target`: see
    `check`), and `fcn` for an answer at each pixel. The path of a folder or GGUF file is that of a causal language
    model, of which this takes the configuration and not the weights. `package.module:build` calls your function with
    keyword arguments `input_shape` and `classes`; what it draws from torch's global generator depends on
    `generator_seed` alone.

    init: one of SCHEMES (default: `default_init(name)`). trust: allows to import and call a user's module. Without it,
    such a name is refused, because it often comes from a file (`models.build(**ticket.about["build"])`), and the file
    would decide what runs. The same arguments give the same bits.

    Raises ValueError as `check` does, for an unknown scheme, or if a user's module does not map [N, *input_shape] to
    [N, classes] (tokens [N, T] to [N, T, classes], positions to [N, classes, height, width]); TypeError if a user's
    function returns no module.

    >>> from winticket import models
    >>> models.build("lenet-300-100", input_shape=(1, 28, 28), classes=10, generator_seed=0).fc1
    Linear(in_features=784, out_features=300, bias=True)
    """
    if ":" in name and not trust:
        raise ValueError(
            f"model {name!r} is a function of a module outside winticket, which would be imported and called; if you "
            "know it, add trust=True"
        )
    check(name, input_shape=input_shape, classes=classes, tokens=tokens, target=target)
    scheme = default_init(name) if init is None else init
    if scheme is not None:
        check_scheme(scheme)
    if ":" in name:
        module = users_network(
            name, tuple(input_shape), classes, generator_seed, target="tokens" if tokens else target
        )
    elif is_folder(name):
        return hub.network(name, generator_seed)
    else:
        module = _uninitialised(name, tuple(input_shape), classes)
    generator = torch.Generator().manual_seed(generator_seed)
    if scheme is not None:
        initialise(module, scheme=scheme, generator=generator)
    if ":" not in name:
        _draw_embeddings(module, generator)
    return module


def _uninitialised(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A built-in network on the CPU, in which only the normalisation layers have values yet."""
    with torch.device("meta"):  # on which the layers' initialisation draws nothing
        module = _built_in(name, input_shape, classes)
    for layer in module.modules():
        # As `to_empty` does, which imports torch's symbolic shapes for it: half a second in every process.
        for parameter, value in [*layer.named_parameters(recurse=False)]:
            setattr(layer, parameter, nn.Parameter(torch.empty(value.shape, dtype=value.dtype)))
        for buffer, content in [*layer.named_buffers(recurse=False)]:
            setattr(layer, buffer, torch.empty(content.shape, dtype=content.dtype))
        if isinstance(layer, NORMALISATIONS):
            layer.reset_parameters()  # `initialise` does not
    return module


def _draw_embeddings(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Embedding):
                layer.weight.normal_(0, EMBEDDING_STD, generator=generator)


def _built_in(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    if text.parse(name):
        return text.chargpt(name, input_shape[0], classes)
    if deep.parse(name):
        return deep.deep(name, input_shape, classes)
    if positions.widths(name):
        return positions.fcn(name, input_shape, classes)
    return plain.plain(name, input_shape, classes)
