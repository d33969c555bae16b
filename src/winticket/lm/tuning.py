"""Tuning language models: under a mask all weights or merged low-rank updates, or a few chosen weights (LoTA)."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from winticket.atomic import replace_file
from winticket.lm import loading
from winticket.lm.files import MASKS, read_masks
from winticket.lm.finishing import CARD, RESULT, comparison, peak_bytes
from winticket.lm.lota import (
    check_quotas,
    check_unchanged,
    copied,
    every_weight,
    largest_changes,
    only,
    rewind,
)
from winticket.lm.pruning import Say, evaluated
from winticket.lm.record import Comparison, Tuned
from winticket.lm.request import checked_tokens, window_length
from winticket.lm.steps import descend
from winticket.lm.text import Windows, drawn_windows, even_windows, parted
from winticket.lm.tuned_card import card
from winticket.loops import masked
from winticket.ticket import Mask, TicketFileError
from winticket.version import __version__

RATE, LORA_RATE = 1e-5, 2e-4
"""Usual learning rates of AdamW: of all weights, and of low-rank updates."""


@dataclass(frozen=True)
class Tuning:
    """How a pruned model is tuned.

    lora: the rank of updates of the pruned layers, None to tune all weights. lr: of AdamW (default: RATE, or LORA_RATE
    with lora), which falls to 0 by a half cosine. length: tokens of a window, None for 2048 or what the model reads.
    windows: most windows of held-out text for perplexity. lota: the share of the linear layers' weights that Lottery
    Ticket Adaptation trains, or lota_rank: r, if it is to train r · (inputs + outputs) weights of each layer;
    calibration_steps: steps of the full tuning that chooses them, None for as many as `steps`. Raises ValueError for
    values that are not possible.

    >>> Tuning(steps=10, lora=0)
    Traceback (most recent call last):
    ValueError: --lora is 0; give the rank of the updates, 1 or more
    """

    steps: int = 500
    batch: int = 4
    lr: float | None = None
    lora: int | None = None
    length: int | None = None
    seed: int = 0
    windows: int = 64
    lota: float | None = None
    lota_rank: int | None = None
    calibration_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "windows", "lota_rank", "calibration_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; give 1 or more")
        if self.lota is not None and not 0 < self.lota <= 1:
            raise ValueError(f"--lota is {self.lota:g}; give the share of weights to train, in (0, 1]")
        ways = {"--lora": self.lora, "--lota": self.lota, "--lota-rank": self.lota_rank}
        if len(chosen := [name for name, value in ways.items() if value is not None]) > 1:
            raise ValueError(f"give one of {' and '.join(chosen)}; each trains other numbers")
        if self.calibration_steps is not None and not self.sparse():
            raise ValueError(
                "--calibration-steps is for --lota and --lota-rank; other tuning has no calibration"
            )
        if self.lora is not None and self.lora < 1:
            raise ValueError(f"--lora is {self.lora}; give the rank of the updates, 1 or more")
        if self.lr is not None and not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"--lr is {self.lr}; give a learning rate above 0")
        if self.length is not None and self.length < 2:
            raise ValueError(f"--length {self.length} is less than 2")

    def sparse(self) -> bool:
        """Whether chosen weights alone are trained (LoTA)."""
        return self.lota is not None or self.lota_rank is not None

    def calibration(self) -> int:
        """Steps of the full tuning that chooses weights."""
        return self.steps if self.calibration_steps is None else self.calibration_steps

    def rate(self) -> float:
        """The learning rate at the first step."""
        return self.lr if self.lr is not None else RATE if self.lora is None else LORA_RATE


@dataclass(frozen=True)
class PreparedTuning:
    """A checked question: the model, its mask, and the text, in tokens.

    masks: the file that the mask comes from; None if the model is not pruned, and the mask keeps all weights.
    """

    asked: Tuning
    source: loading.Source
    tokenizer: Any
    mask: Mask
    train: Tensor
    held: Windows
    masks: Path | None


def prepare_tuning(
    path: str, asked: Tuning, data: Path, held_out: Path | None, mask: Path | None = None
) -> PreparedTuning:
    """Read everything but the weights.

    `path` is a folder that `prune` wrote, or any model with `mask`, the folder or file of its masks; for LoTA it is any
    model. Raises ValueError, with what is possible, if the question makes no sense.
    """
    of = loading.source(path)
    config = loading.configuration(of)
    file = mask or Path(of.folder)
    file = file / MASKS if file.is_dir() or mask is None else file
    dense = mask is None and not file.is_file() and asked.sparse()
    if mask is None and not file.is_file() and not dense:
        raise ValueError(
            f"{path} has no {MASKS}; prune it with winticket lm prune, or name its masks (--mask), or train a few "
            "of its weights (--lota)"
        )
    skeleton = loading.skeleton(config)
    try:
        keep = every_weight(skeleton) if dense else read_masks(file)
    except TicketFileError as error:
        raise ValueError(str(error)) from error
    _check_fit(keep, skeleton)
    if asked.sparse():
        check_quotas(keep, density=asked.lota, rank=asked.lota_rank)
    words = loading.tokenizer(of)
    tokens = checked_tokens(words, skeleton, data)
    train, held = parted(tokens) if held_out is None else (tokens, checked_tokens(words, skeleton, held_out))
    length = window_length(config, asked.length)
    steps = max(asked.steps, asked.calibration()) if asked.sparse() else asked.steps
    drawn = drawn_windows(train, samples=steps * asked.batch, length=length, seed=asked.seed)
    windows = even_windows(held, most=asked.windows, length=length, what="the held-out text")
    return PreparedTuning(asked, of, words, keep, drawn, windows, None if dense else file)


def _check_fit(mask: Mask, model: nn.Module) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    for name, keep in mask.keep.items():
        if shapes.get(name) != tuple(keep.shape):
            there = f"has shape {list(shapes[name])}" if name in shapes else "is not there"
            raise ValueError(
                f"the mask does not fit the model: {name} has {list(keep.shape)} in the mask, and {there} in the model"
            )


def tune(prepared: PreparedTuning, out: Path, *, say: Say = lambda *_: None) -> Tuned:
    """Tune the model under its mask, measure perplexity before and after, and write a folder as `prune` does.

    Weights that are pruned are exactly 0 after every step and in the file; they are counted, and RuntimeError is raised
    if one is not. Raises ValueError if `out` has anything in it. Nothing is kept of a tuning that is interrupted.
    """
    require_new(out)
    began, asked = time.monotonic(), prepared.asked
    say("Loading the model", None)
    model = loading.load(prepared.source)
    dtype = next(iter(model.parameters())).dtype
    working = torch.float64 if dtype == torch.float64 else torch.float32
    model = model.to(working)
    with torch.no_grad():
        for name, keep in prepared.mask.keep.items():
            model.get_parameter(name).mul_(keep)
    before = evaluated(model, prepared.held, "Perplexity before", say)
    start = copied(model) if asked.sparse() else {}
    chosen = Mask({})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(asked.seed)
        if asked.sparse():
            chosen = _adapted(model, prepared, start, say)
        trained = chosen.count() if asked.sparse() else _tuned(model, prepared, say)
    model.eval().requires_grad_(requires_grad=False)
    model = model.to(dtype)
    kept, zeros = counted(model, prepared.mask)
    unchanged = check_unchanged(model, start, chosen) if asked.sparse() else None
    after = evaluated(model.to(working), prepared.held, "Perplexity after", say)
    compared = comparison(before, after, prepared.held)
    result = _result(
        prepared,
        trained=trained,
        counts=(kept, zeros),
        unchanged=unchanged,
        compared=compared,
        seconds=time.monotonic() - began,
    )
    _write(model.to(dtype), prepared, out, result)
    return result


def _result(
    prepared: PreparedTuning,
    *,
    trained: int,
    counts: tuple[int, int],
    unchanged: int | None,
    compared: Comparison,
    seconds: float,
) -> Tuned:
    """The document of a tuning. counts: (weights kept, weights that are 0). unchanged: of LoTA, or None."""
    asked = prepared.asked
    return {
        "winticket": __version__,
        "model": prepared.source.name(),
        "how": _way(asked),
        "lora": asked.lora,
        "lota": None
        if unchanged is None
        else {
            "density": asked.lota,
            "rank": asked.lota_rank,
            "calibration_steps": asked.calibration(),
            "unchanged": unchanged,
        },
        "pruned": prepared.masks is not None,
        "steps": asked.steps,
        "batch": asked.batch,
        "length": prepared.train.shape[1],
        "lr": asked.rate(),
        "seed": asked.seed,
        "trained": trained,
        "kept": counts[0],
        "zeros": counts[1],
        "total": sum(counts),
        "perplexity": compared,
        "seconds": round(seconds, 1),
        "peak_bytes": peak_bytes(),
    }


def require_new(out: Path) -> None:
    """ValueError if there is anything in the folder that is to be written."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; give a new folder (--out)")


def counted(model: nn.Module, mask: Mask) -> tuple[int, int]:
    """(Weights kept, weights that are pruned and exactly 0). RuntimeError, with the layer, if a pruned one is not 0."""
    kept = zeros = 0
    for name, keep in mask.keep.items():
        weight = model.get_parameter(name).detach()
        gone = int((weight[~keep] == 0).sum())
        if gone != int((~keep).sum()):
            raise RuntimeError(f"{int((~keep).sum()) - gone} pruned weights of {name} are not 0")
        kept, zeros = kept + int(keep.sum()), zeros + gone
    return kept, zeros


def _way(asked: Tuning) -> str:
    """What is trained, in words."""
    if asked.sparse():
        return "weights chosen by LoTA"
    return "all weights" if asked.lora is None else f"updates of rank {asked.lora}"


def _adapted(model: nn.Module, prepared: PreparedTuning, start: Mapping[str, Tensor], say: Say) -> Mask:
    """Lottery Ticket Adaptation in place; the weights that were trained. See `winticket.lm.lota`."""
    asked = prepared.asked
    model.requires_grad_(requires_grad=True)
    every = torch.optim.AdamW(model.parameters(), lr=asked.rate(), weight_decay=0.0)
    some = prepared.train[: asked.calibration() * asked.batch]
    with masked(model, prepared.mask):
        descend(model, every, some, batch=asked.batch, rate=asked.rate(), say=say, what="Calibration step")
    del every
    model.zero_grad()
    chosen = largest_changes(model, start, prepared.mask, density=asked.lota, rank=asked.lota_rank)
    rewind(model, start)
    torch.default_generator.manual_seed(asked.seed)
    some = prepared.train[: asked.steps * asked.batch]
    with only(model, chosen) as values:
        few = torch.optim.AdamW(values, lr=asked.rate(), weight_decay=0.0)
        descend(model, few, some, batch=asked.batch, rate=asked.rate(), say=say)
    return chosen


def _tuned(model: nn.Module, prepared: PreparedTuning, say: Say) -> int:
    """Tune in place; how many numbers were trained."""
    asked = prepared.asked
    if asked.lora is None:
        model.requires_grad_(requires_grad=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=asked.rate())
        with masked(model, prepared.mask):
            descend(model, optimizer, prepared.train, batch=asked.batch, rate=asked.rate(), say=say)
        return sum(p.numel() for p in model.parameters())
    with low_rank(model, prepared.mask, rank=asked.lora) as updates:
        numbers = [p for update in updates for p in update.parameters()]
        optimizer = torch.optim.AdamW(numbers, lr=asked.rate(), weight_decay=0.0)
        descend(model, optimizer, prepared.train, batch=asked.batch, rate=asked.rate(), say=say)
    return sum(p.numel() for p in numbers)


class LowRank(nn.Module):
    """A weight with a low-rank update under a mask: W + keep · (B A), of rank r (Hu et al. 2021, LoRA, equation 3).

    A [r, inputs] is drawn as PyTorch draws a Linear layer, B [outputs, r] is 0, so the weight is W at first. The update
    is masked while it is trained, so merging it changes nothing, and pruned weights stay exactly 0.

    >>> update = LowRank(torch.tensor([[True, False]]), 1, dtype=torch.float32)
    >>> update(torch.tensor([[2.0, 0.0]]))
    tensor([[2., 0.]], grad_fn=<AddBackward0>)
    """

    keep: Tensor

    def __init__(self, keep: Tensor, rank: int, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("keep", keep, persistent=False)
        self.down = nn.Parameter(torch.empty(rank, keep.shape[1], dtype=dtype))
        self.up = nn.Parameter(torch.zeros(keep.shape[0], rank, dtype=dtype))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight [outputs, inputs] with the update."""
        return weight + self.keep * (self.up @ self.down)


@contextmanager
def low_rank(model: nn.Module, mask: Mask, *, rank: int) -> Iterator[list[LowRank]]:
    """While it lasts, the masked weights have updates of so low a rank that can be trained; then these are merged.

    All other parameters are frozen. If it ends by an error, the weights are left with what the updates were then.

    >>> layer = nn.Linear(3, 2)
    >>> with low_rank(nn.Sequential(layer), Mask({"0.weight": torch.ones(2, 3, dtype=torch.bool)}), rank=1) as updates:
    ...     sum(p.numel() for update in updates for p in update.parameters())
    5
    """
    model.requires_grad_(requires_grad=False)
    owners = []
    for name, keep in mask.keep.items():
        path, _, attribute = name.rpartition(".")
        owner, weight = model.get_submodule(path), model.get_parameter(name)
        update = LowRank(keep.to(weight.device), rank, dtype=weight.dtype)
        parametrize.register_parametrization(owner, attribute, update)
        owners.append((owner, attribute, update))
    try:
        yield [update for _, _, update in owners]
    finally:
        for owner, attribute, _ in owners:
            parametrize.remove_parametrizations(owner, attribute, leave_parametrized=True)


def _write(model: nn.Module, prepared: PreparedTuning, out: Path, result: Tuned) -> None:
    """The folder, whole or not at all: it is written under another name, and then moved."""
    new = out.with_name(f".{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    loading.saved(new, model)
    loading.saved_beside(new, model, prepared.tokenizer)
    if prepared.masks is not None:
        shutil.copyfile(prepared.masks, new / MASKS)
    replace_file(new / RESULT, f"{json.dumps(result, indent=1, allow_nan=False)}\n".encode())
    replace_file(new / CARD, card(result).encode())
    if out.is_dir():
        out.rmdir()
    new.rename(out)
