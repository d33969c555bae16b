"""What is asked of `winticket lm tune`, checked before anything is computed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from winticket.lm import loading
from winticket.lm.files import MASKS, read_masks
from winticket.lm.lota import check_quotas, every_weight
from winticket.lm.progress import Say, silent
from winticket.lm.request import checked_tokens, identity, window_length
from winticket.lm.text import Windows, drawn_windows, even_windows, parted
from winticket.ticket import Mask, TicketFileError

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
    identity: what an interrupted tuning has to have in common to be resumed.
    """

    asked: Tuning
    source: loading.Source
    tokenizer: Any
    mask: Mask
    train: Tensor
    held: Windows
    masks: Path | None
    identity: Mapping[str, Any]


def prepare_tuning(
    path: str,
    asked: Tuning,
    data: Path,
    held_out: Path | None,
    mask: Path | None = None,
    *,
    say: Say = silent,
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
    say("Reading the text", None)
    tokens = checked_tokens(words, skeleton, data)
    train, held = parted(tokens) if held_out is None else (tokens, checked_tokens(words, skeleton, held_out))
    length = window_length(config, asked.length)
    steps = max(asked.steps, asked.calibration()) if asked.sparse() else asked.steps
    drawn = drawn_windows(train, samples=steps * asked.batch, length=length, seed=asked.seed)
    windows = even_windows(held, most=asked.windows, length=length, what="the held-out text")
    same = identity(asdict(asked), of, (drawn, windows.ids))
    same["masks"] = None if dense else hashlib.sha256(file.read_bytes()).hexdigest()
    return PreparedTuning(asked, of, words, keep, drawn, windows, None if dense else file, same)


def _check_fit(mask: Mask, model: nn.Module) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    for name, keep in mask.keep.items():
        if shapes.get(name) != tuple(keep.shape):
            there = f"has shape {list(shapes[name])}" if name in shapes else "is not there"
            raise ValueError(
                f"the mask does not fit the model: {name} has {list(keep.shape)} in the mask, and {there} in the model"
            )
