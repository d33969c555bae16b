"""The state of a tuning under way, in its folder: from it, the same command goes on with the same bits."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from winticket.lm.files import save_tensors

CHECKPOINT = "checkpoint.safetensors"
EVERY = 10.0
"""Seconds between two checkpoints, at least."""
SHARE = 20
"""A checkpoint is written after this many times what the last one took, at least."""
Names = dict[str, Tensor]


@dataclass
class Checkpoints:
    """Saves and restores what an optimiser trains, the optimiser's state, and the state of PyTorch's random numbers.

    A tuning has phases (LoTA has two), and a checkpoint belongs to one of them. done: the steps that earlier commands
    had taken of all phases. before: the seconds that they took.
    """

    folder: Path
    done: int = 0
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def seconds(self) -> float:
        """How long the tuning has taken, all commands together."""
        return self.before + time.monotonic() - self.began

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= max(EVERY, SHARE * self._took)

    def save(self, phase: str, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Write the state after so many steps of a phase, in the place of the last one.

        If it cannot be written, as on a full disk, a warning says so, and the tuning goes on.
        """
        began = time.monotonic()
        about = {"phase": phase, "step": str(step), "seconds": repr(self.seconds())}
        tensors = {**_numbers(optimizer), "random": torch.get_rng_state()}
        try:
            save_tensors(tensors, self.folder / CHECKPOINT, about)
        except (OSError, SafetensorError) as error:
            warnings.warn(
                f"the state after step {step} could not be kept ({error}); an interruption loses what came after the "
                "last one",
                stacklevel=2,
            )
        self._last = time.monotonic()
        self._took = self._last - began

    def restore(self, phase: str, optimizer: torch.optim.Optimizer) -> int:
        """Continue from the checkpoint of this phase: how many steps it has. 0, and no change, if there is none.

        A damaged checkpoint counts as none, with a warning.
        """
        file = self.folder / CHECKPOINT
        if not file.is_file():
            return 0
        try:
            with safe_open(file, framework="pt") as stored:
                about = stored.metadata() or {}
                if about.get("phase") != phase:
                    return 0
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
            step, seconds = int(about["step"]), float(about["seconds"])
            random = tensors.pop("random")
            torch.Generator().set_state(random)  # raises if it is no such state, before anything is changed
            _put(optimizer, tensors)
            torch.set_rng_state(random)
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
            warnings.warn(f"{file} is damaged ({error}), so this phase begins again", stacklevel=2)
            return 0
        self.done += step
        self.before = seconds
        return step


def _trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [one for group in optimizer.param_groups for one in group["params"]]


def _numbers(optimizer: torch.optim.Optimizer) -> Names:
    numbers: Names = {}
    for at, one in enumerate(_trained(optimizer)):
        numbers[f"{at}.value"] = one.detach().contiguous()
        for key, value in optimizer.state[one].items():
            numbers[f"{at}.state.{key}"] = value.contiguous()
    return numbers


@torch.no_grad()
def _put(optimizer: torch.optim.Optimizer, tensors: Names) -> None:
    """Set what is trained and the optimiser's state. Raises, and changes nothing, if the tensors do not fit."""
    trained = _trained(optimizer)
    values = [tensors.pop(f"{at}.value") for at in range(len(trained))]
    for at, (one, value) in enumerate(zip(trained, values, strict=True)):
        if value.shape != one.shape or value.dtype != one.dtype:
            raise ValueError(f"tensor {at} does not fit the model")
    states: list[Names] = [{} for _ in trained]
    for name, value in tensors.items():
        number, _, key = name.split(".", 2)
        states[int(number)][key] = value
    for one, value, state in zip(trained, values, states, strict=True):
        one.copy_(value)
        optimizer.state[one] = state
