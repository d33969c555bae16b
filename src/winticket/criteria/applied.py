"""Applying a criterion: its scores, checked, and the smaller mask that an allocation makes from them.

All scoring goes through here, whether a plan's stage does it or a user's own loop. So if a user's criterion fails, the
report is the same everywhere: its file and line, and what a criterion must return.
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
from winticket.criteria.calling import modes_kept
from winticket.criteria.evidence import (
    TRAINING,
    Criterion,
    Evidence,
    is_layer_by_layer,
    needed,
)
from winticket.ticket import Mask, Scores, State, apart
from winticket.trouble import short_of_memory

T = TypeVar("T")
CONTRACT = (
    "a criterion takes an Evidence e and returns one finite score per weight that may be pruned: "
    "{name: tensor} for every name in e.mask.keep, in that mask's shape; weights with larger scores are kept"
)


def scores_of(criterion: Criterion, e: Evidence) -> Scores:
    """The criterion's scores, on the CPU and without gradients. The network's modes are restored afterwards.

    Raises ValueError if the criterion raises, or returns anything but scores; for a user's criterion the message has
    file and line.
    """
    try:
        # A criterion may need gradients even if the loop that prunes has turned them off.
        with modes_kept(e.network), torch.inference_mode(False), torch.enable_grad():
            result = careful(criterion)(e)
    except (Exception, SystemExit) as error:
        if short_of_memory(error) or is_ours(criterion):
            raise
        raise ValueError(
            f"criterion {_named(criterion)} raises {type(error).__name__} {_line(criterion, error)}: {error}; "
            f"{CONTRACT}"
        ) from error
    return _checked(criterion, result, e.mask)


def mask_of(
    criterion: Criterion, e: Evidence, *, allocate: Callable[..., Mask], density: float | Mapping[str, float]
) -> Mask:
    """The allocation's mask, from the scores of all layers at once or, if the criterion declares so, layer by layer.

    Raises ValueError if such a criterion meets an allocation that lets layers compete: each layer's mask would then
    depend on layers that are not scored yet.
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
    """Raise ValueError if what a layer keeps depends on how its scores compare with another layer's."""
    name = next(iter(mask.keep))
    high, low = (
        allocate({**scores, name: scores[name].double() * size}, mask, density=density)
        for size in (1e30, 1e-30)
    )
    if any(bool((high.keep[other] != keep).any()) for other, keep in low.keep.items()):
        raise ValueError(
            f"{name_of(criterion)} scores layer by layer, each with the layers before it already pruned, but "
            f"{name_of(allocate)} decides over several layers at once; use an allocation that decides each layer by "
            "itself (constant_fan_in, layerwise, uniform, ...)"
        )


def tried_on(criterion: Criterion, state: State) -> State:
    """The state to try a criterion on before any training.

    If the criterion needs training before it, all weights are moved by a hundredth of their size.
    """
    if TRAINING not in needed(criterion):
        return state
    return replace(state, weights={name: w + 0.01 * w for name, w in state.weights.items()})


def name_of(function: Callable[..., object]) -> str:
    """A function's name, with the options that `functools.partial` has filled in."""
    if isinstance(function, functools.partial):
        options = ", ".join(f"{name}={value!r}" for name, value in function.keywords.items())
        return f"{name_of(function.func)}({options})"
    return str(getattr(function, "__name__", type(function).__name__))


def _checked(criterion: Criterion, result: Any, mask: Mask) -> Scores:
    """The scores in `result`, on the CPU. Raises ValueError if they break the contract of a criterion."""

    def wrong(what: str) -> ValueError:
        return ValueError(f"criterion {_named(criterion)} returns {what}; {CONTRACT}")

    if not isinstance(result, Mapping):
        raise wrong(f"{type(result).__name__}")
    if lacking := [name for name in mask.keep if name not in result]:
        raise wrong(f"no scores of {', '.join(lacking)}, but of {', '.join(map(str, result)) or 'nothing'}")
    for name, keep in mask.keep.items():
        score = result[name]
        if not isinstance(score, Tensor) or score.is_complex():
            raise wrong(f"{score.dtype if isinstance(score, Tensor) else type(score).__name__} for {name}")
        if score.shape != keep.shape:
            raise wrong(f"scores of shape {list(score.shape)} for {name}, whose shape is {list(keep.shape)}")
    scores = {name: result[name].detach().cpu() for name in mask.keep}
    if wild := [name for name, score in scores.items() if not bool(score.isfinite().all())]:
        raise ValueError(
            f"the scores of layer {wild[0]!r} are not all finite ({int((~scores[wild[0]].isfinite()).sum())} of "
            f"{scores[wild[0]].numel()}, by criterion {_named(criterion)}); a criterion must return finite scores, and "
            "the training must not have diverged"
        )
    return scores


def careful(function: Callable[..., T]) -> Callable[..., T]:
    """A user's function, called with copies, so that no result changes if it writes to them; ours is unchanged."""
    if is_ours(function):
        return function
    return functools.wraps(function)(lambda *inputs, **options: function(*apart(inputs), **options))


def is_ours(criterion: Callable[..., Any]) -> bool:
    """True if a criterion, an allocation or a rewind belongs to the package."""
    return str(getattr(_innermost(criterion), "__module__", "")).split(".")[0] == __name__.split(".")[0]


def _innermost(criterion: Callable[..., Any]) -> Any:
    """The function itself, without options or decorators; for a callable object, its class."""
    while isinstance(criterion, functools.partial):
        criterion = criterion.func
    function = inspect.unwrap(criterion)
    return function if inspect.isroutine(function) else type(function)


def _named(criterion: Criterion) -> str:
    """A criterion's name and, for a user's criterion, its file and line."""
    if is_ours(criterion):
        return name_of(criterion)
    try:
        file, (_, line) = (
            inspect.getsourcefile(_innermost(criterion)),
            inspect.getsourcelines(_innermost(criterion)),
        )
    except (OSError, TypeError):  # its source is not available
        return name_of(criterion)
    return f"{name_of(criterion)} ({file}, line {line})"


def _line(criterion: Criterion, error: BaseException) -> str:
    """The innermost line of a traceback in the criterion's file; else in any file outside installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    try:
        file = inspect.getsourcefile(_innermost(criterion))
    except TypeError:
        file = None
    lines = [f for f in frames if f.filename == file] or [
        f for f in frames if not _within_packages(f.filename)
    ]
    return f"at {lines[-1].filename}, line {lines[-1].lineno}" if lines else "when it is called"


def _within_packages(filename: str) -> bool:
    parts = Path(filename).parts
    return "site-packages" in parts or Path(__file__).parents[1] in Path(filename).parents
