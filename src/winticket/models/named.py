"""From a name and the data's shape to a network, freshly initialised."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from winticket.catalogue import MODELS, no_model
from winticket.models import deep, plain, text
from winticket.models.eligibility import NORMALISATIONS
from winticket.models.initial import check_scheme, initialise
from winticket.models.users import imported, users

EMBEDDING_STD = 0.02
"""Of embeddings in models built here: Radford et al. 2019 (GPT-2)."""


def names() -> list[str]:
    """The built-in names.

    Other sizes work as well: `lenet-W1-W2-...`, `vgg-13`, `resnet-` with 6n + 2 layers, `vgg-16-W` and `resnet-20-W`
    with W filters in the first layer, `chargpt-LAYERS-WIDTH` and `chargpt-LAYERS-WIDTH-CONTEXT`; and so does
    `package.module:build`.
    """
    return list(MODELS)


def default_init(name: str) -> str | None:
    """The scheme that `build` uses where none is named; None for a user's module, which keeps its own."""
    if ":" in name:
        return None
    if name.startswith(("vgg", "resnet")):
        return "kaiming-normal"
    return "default" if name == "mlp1d" or name.startswith("chargpt") else "glorot-normal"


def context(name: str) -> int | None:
    """The characters that a network for text reads at once, where its name says so: 256 for "chargpt-2-64-256".

    None for all other names: those networks read examples as they are.
    """
    known = text.parse(name)
    return known[2] if known else None


MOST_PARAMETERS = 2**31
"""Weights of a built-in network beyond which it is refused: more than any machine here holds several times over."""


def check(name: str, *, input_shape: Sequence[int], classes: int, tokens: bool = False) -> None:
    """Raise ValueError, with the reason, unless `build` can make this model for such data.

    `input_shape` is that of one example: [channels, height, width] for images. With `tokens`, examples are text: whole
    numbers below `classes`, [length] of them, and an answer is wanted at each. For a user's `package.module:build` this
    imports the module, but builds nothing; TypeError where that is no function.
    """
    if not input_shape or any(size < 1 for size in input_shape):
        raise ValueError(f"input shape {tuple(input_shape)}: every size must be at least 1")
    if classes < 2:
        raise ValueError(f"{classes} classes: classification needs at least 2")
    if ":" in name:
        imported(name)
        return
    _require_known(name)
    reads = text.parse(name) is not None
    if tokens and not reads:
        raise ValueError(
            f"{name} gives one answer per example, and text wants one per character; chargpt does that, or your own "
            "package.module:build"
        )
    if reads and not tokens:
        raise ValueError(
            f"{name} reads text, but the examples are of shape {tuple(input_shape)}; possible are "
            f"{', '.join(n for n in names() if not n.startswith('chargpt'))}"
        )
    wanted = context(name)
    if wanted not in (None, input_shape[0]):
        raise ValueError(
            f"{name} reads windows of {wanted} characters, and these examples have {input_shape[0]}; load the text "
            f"with window={wanted}"
        )
    if name in plain.CONV_WIDTHS:
        deep.check_images(name, input_shape, halved=len(plain.CONV_WIDTHS[name]))
    elif known := deep.parse(name):
        deep.check_images(name, input_shape, halved=4 if known[0] == "vgg" else 2)
    if (count := _size(name, tuple(input_shape), classes)) > MOST_PARAMETERS:
        raise ValueError(f"{name} would have {count} weights on this data; give smaller widths")


def _require_known(name: str) -> None:
    """ValueError for a name that is none, offering the nearest."""
    known = (
        name in ("mlp1d", *plain.CONV_WIDTHS)
        or plain.lenet_widths(name)
        or deep.parse(name)
        or text.parse(name)
    )
    if not known:
        raise ValueError(no_model(name))


def _size(name: str, input_shape: tuple[int, ...], classes: int) -> int:
    """Weights that a built-in network would have. Of a LeNet by its widths, which may be beyond what tensors can be."""
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
    trust: bool = False,
) -> nn.Module:
    """The model of that name, for examples of `input_shape` and so many classes, freshly initialised.

    Built-in: `lenet-300-100` and any other `lenet-W1-W2-...`; `conv-2`, `conv-4`, `conv-6` (Frankle &
    Carbin 2019, figure 2); `mlp1d` (Greydanus 2020); `vgg-11`, `vgg-16`, `vgg-19` and `resnet-20`, `resnet-32`,
    `resnet-56`, with BatchNorm; `chargpt`, a transformer for text (`tokens`: see `check`). `package.module:build` calls
    a user's own function with keyword arguments `input_shape` and `classes`; what it draws from torch's global
    generator comes from `generator_seed`, and the module keeps its initialisation unless `init` names one.

    With `trust`, a user's module may be imported and its function called; without, it is refused, since a name often
    comes from a file (`models.build(**ticket.about["build"])`) and the file would then decide what runs.

    `init` is one of SCHEMES; left out, it is `default_init(name)`. The same arguments give the same bits.
    Raises ValueError as `check` does, for an unknown scheme, or where a user's module does not map
    [N, *input_shape] to [N, classes] (tokens [N, T] to [N, T, classes]); TypeError where a user's function
    returns no module.
    """
    if ":" in name and not trust:
        raise ValueError(
            f"model {name!r} is a function in a module of somebody's own, which would be imported and called; if you "
            "know it, add trust=True"
        )
    check(name, input_shape=input_shape, classes=classes, tokens=tokens)
    scheme = default_init(name) if init is None else init
    if scheme is not None:
        check_scheme(scheme)
    generator = torch.Generator().manual_seed(generator_seed)
    if ":" in name:
        module = users(name, tuple(input_shape), classes, generator_seed, tokens=tokens)
    else:
        # On "meta" the layers' own initialisation draws nothing; the memory is filled below.
        with torch.device("meta"):
            module = _built_in(name, tuple(input_shape), classes)
        module.to_empty(device="cpu")
        for layer in module.modules():
            if isinstance(layer, NORMALISATIONS):
                layer.reset_parameters()  # what `initialise` leaves alone
    if scheme is not None:
        initialise(module, scheme=scheme, generator=generator)
    if ":" not in name:
        _draw_embeddings(module, generator)
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
    return plain.plain(name, input_shape, classes)
