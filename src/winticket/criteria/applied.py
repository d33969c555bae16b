"""Criteria at work: the scores that one gives, checked, and the smaller mask that an allocation makes of them.

Whoever scores, a plan's stage or a user's own loop, does it here, so that a criterion of a user's own which fails is
reported alike: by its file and line, with what was wanted.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from winticket.criteria.activations import in_order
from winticket.criteria.evidence import (
    TRAINING,
    Criterion,
    Evidence,
    is_layer_by_layer,
    modes_kept,
    needed,
)
from winticket.ticket import Mask, Scores, State, apart
from winticket.trouble import short_of_memory

T = TypeVar("T")
WANTED = (
    "a criterion takes an Evidence e and returns one finite score per weight that may be pruned: "
    "{name: tensor} for every name of e.mask.keep, in that mask's shape; the larger, the rather kept"
)


def scores_of(criterion: Criterion, e: Evidence) -> Scores:
    """What the criterion gives, on the CPU and without gradients; the network's modes are as before afterwards.

    ValueError where it raises or gives something else than scores, with file and line of a user's own.
    """
    try:
        # Gradients are a criterion's own affair, also where a loop prunes with gradients off.
        with modes_kept(e.network), torch.inference_mode(False), torch.enable_grad():
            given = careful(criterion)(e)
    except (Exception, SystemExit) as error:
        if short_of_memory(error) or is_ours(criterion):
            raise
        raise ValueError(
            f"criterion {_named(criterion)} raises {type(error).__name__} {_line(criterion, error)}: {error}; {WANTED}"
        ) from error
    return _checked(criterion, given, e.mask)


def mask_of(
    criterion: Criterion, e: Evidence, *, allocate: Callable[..., Mask], density: float | Mapping[str, float]
) -> Mask:
    """The allocation's mask, of the scores of all layers at once or, where the criterion wants it, layer by layer.

    ValueError for such a criterion where the allocation lets layers compete, whose masks then hang on one another.
    """
    allocate = careful(allocate)
    if not is_layer_by_layer(criterion):
        return allocate(scores_of(criterion, e), e.mask, density=density)
    with modes_kept(e.network):
        order = in_order(e)
    mask = e.mask
    for number, name in enumerate(order):
        scores = scores_of(criterion, replace(e, mask=mask))
        if not number:
            _check_by_layer(criterion, scores, e.mask, allocate=allocate, density=density)
        decided = allocate(scores, e.mask, density=density)
        mask = Mask({**mask.keep, name: decided.keep[name]})
    return mask


def _check_by_layer(
    criterion: Criterion,
    scores: Scores,
    mask: Mask,
    *,
    allocate: Callable[..., Mask],
    density: float | Mapping[str, float],
) -> None:
    """ValueError where what a layer keeps depends on whether its scores are larger than another's."""
    name = next(iter(mask.keep))
    high, low = (
        allocate({**scores, name: scores[name].double() * size}, mask, density=density)
        for size in (1e30, 1e-30)
    )
    if any(bool((high.keep[other] != keep).any()) for other, keep in low.keep.items()):
        raise ValueError(
            f"{name_of(criterion)} scores layer by layer, each behind those that are pruned already, and "
            f"{name_of(allocate)} decides over several layers at once; take an allocation that decides each by itself "
            "(constant_fan_in, layerwise, uniform, ...)"
        )


def tried_on(criterion: Criterion, state: State) -> State:
    """The state to try a criterion on before there was a training.

    Where it needs one to have gone before, weights have moved a little, by a hundredth of their size.
    """
    if TRAINING not in needed(criterion):
        return state
    return replace(state, weights={name: w + 0.01 * w for name, w in state.weights.items()})


def name_of(function: Callable[..., object]) -> str:
    """A function's name, with the options that were put into it."""
    if isinstance(function, functools.partial):
        options = ", ".join(f"{name}={value!r}" for name, value in function.keywords.items())
        return f"{name_of(function.func)}({options})"
    return str(getattr(function, "__name__", type(function).__name__))


def _checked(criterion: Criterion, given: Any, mask: Mask) -> Scores:
    def wrong(what: str) -> ValueError:
        return ValueError(f"criterion {_named(criterion)} returns {what}; {WANTED}")

    if not isinstance(given, Mapping):
        raise wrong(f"{type(given).__name__}")
    if lacking := [name for name in mask.keep if name not in given]:
        raise wrong(f"no scores of {', '.join(lacking)}, but of {', '.join(map(str, given)) or 'nothing'}")
    for name, keep in mask.keep.items():
        score = given[name]
        if not isinstance(score, Tensor) or score.is_complex():
            raise wrong(f"{score.dtype if isinstance(score, Tensor) else type(score).__name__} for {name}")
        if score.shape != keep.shape:
            raise wrong(f"scores of shape {list(score.shape)} for {name}, whose shape is {list(keep.shape)}")
    scores = {name: given[name].detach().cpu() for name in mask.keep}
    if wild := [name for name, score in scores.items() if not bool(score.isfinite().all())]:
        raise ValueError(
            f"the scores of layer {wild[0]!r} are not all finite ({int((~scores[wild[0]].isfinite()).sum())} of "
            f"{scores[wild[0]].numel()}, by criterion {_named(criterion)}); a criterion gives finite scores, of a "
            "training that has not diverged"
        )
    return scores


def careful(function: Callable[..., T]) -> Callable[..., T]:
    """A user's own function, given copies: what it writes into them must not change a result. Ours as it is."""
    if is_ours(function):
        return function
    return functools.wraps(function)(lambda *given, **options: function(*apart(given), **options))


def is_ours(criterion: Callable[..., Any]) -> bool:
    """Whether a criterion, an allocation or a rewind is one of the package's."""
    return str(getattr(_innermost(criterion), "__module__", "")).split(".")[0] == __name__.split(".")[0]


def _innermost(criterion: Callable[..., Any]) -> Any:
    """The function itself, without options or decorators; of an object that can be called, its class."""
    while isinstance(criterion, functools.partial):
        criterion = criterion.func
    function = inspect.unwrap(criterion)
    return function if inspect.isroutine(function) else type(function)


def _named(criterion: Criterion) -> str:
    """A criterion's name, and where a user's own is written."""
    if is_ours(criterion):
        return name_of(criterion)
    try:
        file, (_, line) = (
            inspect.getsourcefile(_innermost(criterion)),
            inspect.getsourcelines(_innermost(criterion)),
        )
    except (OSError, TypeError):  # defined where no source is kept
        return name_of(criterion)
    return f"{name_of(criterion)} ({file}, line {line})"


def _line(criterion: Criterion, error: BaseException) -> str:
    """Where within a user's file an error came from: the innermost line of it, else of all but ours and torch's."""
    frames = traceback.extract_tb(error.__traceback__)
    try:
        file = inspect.getsourcefile(_innermost(criterion))
    except TypeError:
        file = None
    own = [f for f in frames if f.filename == file] or [f for f in frames if not _within_packages(f.filename)]
    return f"at {own[-1].filename}, line {own[-1].lineno}" if own else "when it is called"


def _within_packages(filename: str) -> bool:
    parts = Path(filename).parts
    return "site-packages" in parts or Path(__file__).parents[1] in Path(filename).parents
