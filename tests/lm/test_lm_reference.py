"""Wanda and SparseGPT on whole transformers, against their papers' formulas in float64 without blocks or factors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from lm.models import write_model, write_text
from winticket.lm import Request, prepare, prune, read_masks

Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes a matrix [units, inputs] and what it reads [tokens, inputs]: its new values, and which are kept."""
SAMPLES, LENGTH = 5, 16


def read_by(model: nn.Module, layers: dict[str, nn.Module], windows: Tensor) -> dict[str, Tensor]:
    """What linear layers read when the whole model reads all windows at once: [tokens, inputs]."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        return lambda _, args: seen.__setitem__(name, args[0].detach().flatten(0, -2).double())

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    with torch.no_grad():
        model(input_ids=windows)
    for handle in handles:
        handle.remove()
    return seen


def by_hand(
    folder: Path, windows: Tensor, blocks: str, rule: Rule
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All weights, and the masks of linear layers, after pruning one block after the other by the rule."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    masks = {}
    for number in range(len(model.get_submodule(blocks))):
        prefix = f"{blocks}.{number}."
        layers = {
            n: m
            for n, m in model.named_modules()
            if n.startswith(prefix) and isinstance(m, nn.Linear | Conv1D)
        }
        read = read_by(model, layers, windows)
        for name, layer in layers.items():
            turned: Callable[[Tensor], Tensor] = Tensor.t if isinstance(layer, Conv1D) else Tensor.clone
            weight, keep = rule(turned(layer.weight.detach()), read[name])
            layer.weight.data = turned(weight).contiguous()
            masks[f"{name}.weight"] = turned(keep)
    return model.state_dict(), masks


def wanda_rule(weight: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 1 of Wanda, row by row."""
    keep = torch.zeros_like(weight, dtype=torch.bool)
    norms = [float(torch.linalg.vector_norm(read[:, j])) for j in range(weight.shape[1])]
    for i, row in enumerate(weight.tolist()):
        scores = [abs(w) * norm for w, norm in zip(row, norms, strict=True)]
        for _, j in sorted((-score, j) for j, score in enumerate(scores))[: len(row) // 2]:
            keep[i, j] = True
    return weight * keep, keep


def sparsegpt_rule(chosen_at_once: int, pattern: int | None = None) -> Rule:
    """Equation 3 of SparseGPT, with H restricted to the inputs from j on and inverted anew at every input j."""

    def rule(weight: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        left, inputs = weight.clone(), weight.shape[1]
        hessian = 2 / SAMPLES * read.T @ read
        dead = torch.diag(hessian) == 0
        hessian += torch.diag(dead.double())
        left[:, dead] = 0
        hessian += 0.01 * torch.diag(hessian).mean() * torch.eye(inputs, dtype=torch.float64)
        inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(inputs)]
        diagonal = torch.stack([inverse[0, 0] for inverse in inverses])
        keep = torch.ones_like(weight, dtype=torch.bool)
        for j in range(inputs):
            if pattern and j % pattern == 0:
                group = left[:, j : j + pattern] ** 2 / diagonal[j : j + pattern]
                keep[:, j : j + pattern] = group.argsort(1, descending=True).argsort(1) < pattern // 2
            elif not pattern and j % chosen_at_once == 0:
                group = left[:, j : j + chosen_at_once] ** 2 / diagonal[j : j + chosen_at_once]
                order = group.flatten().argsort(descending=True).argsort()
                keep[:, j : j + chosen_at_once] = (order < group.numel() // 2).view_as(group)
            error = left[:, j] * ~keep[:, j] / diagonal[j]
            left[:, j:] -= error[:, None] * inverses[j][0]
        return left * keep, keep

    return rule


CASES: dict[str, tuple[str, dict[str, Any], Rule]] = {
    "wanda": ("llama", {"method": "wanda"}, wanda_rule),
    "wanda-conv1d": ("gpt2", {"method": "wanda"}, wanda_rule),
    "sparsegpt": ("llama", {"method": "sparsegpt"}, sparsegpt_rule(10**6)),
    "sparsegpt-blocks": ("gpt_neox", {"method": "sparsegpt", "blocksize": 8}, sparsegpt_rule(8)),
    "sparsegpt-conv1d": ("gpt2", {"method": "sparsegpt", "blocksize": 16}, sparsegpt_rule(16)),
    "sparsegpt-2:4": (
        "llama",
        {"method": "sparsegpt", "pattern": "2:4", "blocksize": 8},
        sparsegpt_rule(8, 4),
    ),
}
BLOCKS = {"llama": "model.layers", "gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}


@pytest.mark.parametrize("case", CASES)
def test_masks_and_weights_are_those_of_the_formulas(case: str, tmp_path: Path) -> None:
    family, options, rule = CASES[case]
    folder, text = write_model(tmp_path / "model", family), write_text(tmp_path / "text.txt")
    asked = Request(samples=SAMPLES, length=LENGTH, windows=0, **options)
    prepared = prepare(str(folder), asked, text, None)
    assert prepared.calibration is not None
    weights, masks = by_hand(folder, prepared.calibration, BLOCKS[family], rule)
    prune(prepared, tmp_path / "out")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    kept = read_masks(tmp_path / "out").keep
    assert kept.keys() == masks.keys()
    assert made.keys() == weights.keys()
    for name, keep in masks.items():
        assert torch.equal(kept[name], keep), name
        assert not made[name][~keep].any()
    for name, value in weights.items():
        torch.testing.assert_close(
            made[name], value, rtol=1e-6, atol=1e-6 * float(value.abs().max() + 1), msg=name
        )
