"""What is asked of `winticket lm prune`, checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from winticket.bits import octets
from winticket.documents import read_documents
from winticket.lm import loading
from winticket.lm.blocks import Blocks, find_blocks, linear_layers, matrix
from winticket.lm.matrices import Pattern, Target
from winticket.lm.progress import Say, silent
from winticket.lm.text import Tokens, Windows, drawn_windows, even_windows, parted, tokens_of
from winticket.text import nearest

METHODS = ("magnitude", "wanda", "sparsegpt")
ALLOCATIONS = ("uniform", "owl")
DENSITY = 0.5
LENGTH = 2048
"""Tokens of a window, unless the model reads fewer."""


@dataclass(frozen=True)
class Request:
    """How to prune a language model.

    density: share of the weights of linear layers to keep, or pattern: n:m. owl_threshold, owl_range: M and λ of OWL.
    samples, length, seed: windows of calibration text, their tokens, and where they begin. windows: windows of held-out
    text for perplexity; 0 evaluates nothing.
    """

    method: str = "wanda"
    density: float | None = None
    pattern: str | None = None
    allocation: str = "uniform"
    owl_threshold: float = 5.0
    owl_range: float = 0.08
    samples: int = 128
    length: int | None = None
    seed: int = 0
    blocksize: int = 128
    percdamp: float = 0.01
    windows: int = 64

    def target(self, density: float | None = None) -> Target:
        """What to keep of a block's matrices; density: the block's, if it is not the model's."""
        pattern = Pattern.of(self.pattern) if self.pattern else None
        share = pattern.density if pattern else (self.density or DENSITY)
        return Target(density or share, pattern, self.blocksize, self.percdamp)

    def calibrates(self) -> bool:
        """True if calibration text decides what is pruned."""
        return self.method != "magnitude" or self.allocation == "owl"


def check(request: Request) -> None:
    """Raise ValueError for a request that cannot be met, whatever the model.

    >>> try:
    ...     check(Request(density=1.5))
    ... except ValueError as error:
    ...     print(error)
    density 1.5 is not in (0, 1]
    """
    for what, name, offered in (
        ("method", request.method, METHODS),
        ("allocation", request.allocation, ALLOCATIONS),
    ):
        if name not in offered:
            raise ValueError(
                f"there is no {what} {name!r}; there are {', '.join(offered)}{nearest(name, offered)}"
            )
    if request.density is not None and not 0 < request.density <= 1:
        raise ValueError(f"density {request.density:g} is not in (0, 1]")
    if request.density is not None and request.pattern is not None:
        raise ValueError(f"give a density or a pattern, not both: {request.pattern} decides the density")
    for option, value, least in (
        ("--samples", request.samples, 1),
        ("--length", request.length or LENGTH, 2),
        ("--blocksize", request.blocksize, 1),
        ("--windows", request.windows, 0),
    ):
        if value < least:
            raise ValueError(f"{option} {value} is less than {least}")
    if not -(1 << 63) <= request.seed < 1 << 63:
        raise ValueError(f"--seed {request.seed} has more than 64 bits")
    if not 0 < request.percdamp < float("inf"):
        raise ValueError(f"--percdamp {request.percdamp:g} is not a positive number")
    pattern = request.target().pattern
    if pattern and request.method == "sparsegpt" and request.blocksize % pattern.m:
        raise ValueError(f"--blocksize {request.blocksize} is not a multiple of the {pattern.m} of {pattern}")
    if request.allocation == "owl":
        _check_owl(request)
    _check_unused(request)


def _check_unused(request: Request) -> None:
    """ValueError for an option that changes nothing with the method and the allocation that were chosen."""
    usual, obs, owl = Request(), request.method == "sparsegpt", request.allocation == "owl"
    for name, used, what in (
        ("blocksize", obs, "--method sparsegpt"),
        ("percdamp", obs, "--method sparsegpt"),
        ("owl_threshold", owl, "--allocation owl"),
        ("owl_range", owl, "--allocation owl"),
    ):
        if not used and getattr(request, name) != getattr(usual, name):
            raise ValueError(f"--{name.replace('_', '-')} is for {what}; leave it out")


def _check_owl(request: Request) -> None:
    if request.pattern:
        raise ValueError(
            "--allocation owl gives each block its own density, and a pattern gives all the same; leave one out"
        )
    if not 0 < request.owl_threshold < float("inf"):
        raise ValueError(f"--owl-threshold {request.owl_threshold:g} is not a positive number")
    density, spread = request.target().density, request.owl_range
    if not 0 < spread < float("inf") or density - 2 * spread <= 0 or density + 2 * spread > 1:
        raise ValueError(
            f"--owl-range {spread:g} allows densities from {density - 2 * spread:g} to {density + 2 * spread:g}, which "
            "must lie in (0, 1]"
        )


@dataclass(frozen=True)
class Prepared:
    """A checked request: the model's source, configuration and tokenizer, and the windows of text.

    calibration: token ids [samples, length], None if none are needed. held_out: None if perplexity is not evaluated.
    identity: what an interrupted run has to have in common to be resumed.
    """

    request: Request
    source: loading.Source
    config: Any
    tokenizer: Any
    length: int
    calibration: Tensor | None
    held_out: Windows | None
    identity: Mapping[str, Any]


def prepare(path: str, request: Request, data: Path, held_out: Path | None, *, say: Say = silent) -> Prepared:
    """Read everything but the weights, and check that the request can be met.

    data: text for calibration; if `held_out` is None, its last fifth is held out for evaluation. Raises ValueError with
    what was given and what is possible.
    """
    check(request)
    of = loading.source(path)
    config = loading.configuration(of)
    length = window_length(config, request.length)
    skeleton = loading.skeleton(config)
    _check_layers(find_blocks(skeleton), request)
    words = loading.tokenizer(of)
    say("Reading the text", None)
    first, second = _tokens(words, skeleton, data, held_out)
    needed = request.calibrates()
    calibration = held = None
    if needed:
        calibration = drawn_windows(
            first, samples=request.samples, length=length, seed=request.seed, what="the text for calibration"
        )
    if request.windows:
        held = even_windows(second, most=request.windows, length=length, what="the held-out text")
    same = identity(asdict(request), of, (calibration, held and held.ids))
    return Prepared(request, of, config, words, length, calibration, held, same)


def identity(asked: Mapping[str, Any], of: loading.Source, texts: Sequence[Tensor | None]) -> dict[str, Any]:
    """What two commands have in common if one resumes what the other began: options, model, and tokens of the texts."""
    facts = {
        "request": dict(asked),
        "model": of.name(),
        "files": [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in of.files()],
        "text": [_digest(one) for one in texts],
    }
    return dict(json.loads(json.dumps(facts)))


def window_length(config: Any, length: int | None) -> int:
    """Tokens of a window: as asked for, or 2048, or as many as the model reads. Raises ValueError for too many."""
    most = loading.longest(config)
    if length is None:
        return min(LENGTH, most or LENGTH)
    if most is not None and length > most:
        raise ValueError(f"--length {length} is more than the {most} tokens that the model reads at once")
    return length


def checked_tokens(words: Any, model: nn.Module, path: Path) -> Tokens:
    """The tokens of a text's documents. Raises ValueError if the tokenizer has tokens that the model does not know."""
    tokens = tokens_of(read_documents(path), loading.encoder(words))
    whole: Any = model  # of Transformers, whose models have such a method
    size = whole.get_input_embeddings().num_embeddings
    if tokens.ids.numel() and int(tokens.ids.max()) >= size:
        raise ValueError(
            f"the tokenizer makes the token {int(tokens.ids.max())}, but the model knows {size}; they do not "
            "belong together"
        )
    return tokens


def _tokens(words: Any, model: nn.Module, data: Path, held_out: Path | None) -> tuple[Tokens, Tokens]:
    tokens = checked_tokens(words, model, data)
    if held_out is None:
        return parted(tokens)
    return tokens, checked_tokens(words, model, held_out)


def _check_layers(blocks: Blocks, request: Request) -> None:
    pattern = request.target().pattern
    for number, block in enumerate(blocks.modules):
        for name, layer in linear_layers(block).items():
            inputs = matrix(layer).shape[1]
            if pattern and inputs % pattern.m:
                raise ValueError(
                    f"{blocks.name(number)}.{name} has {inputs} inputs, which the pattern {pattern} does not divide "
                    f"into groups of {pattern.m}"
                )


def _digest(tokens: Tensor | None) -> str | None:
    return None if tokens is None else hashlib.sha256(octets(tokens).numpy().data).hexdigest()
