"""Lottery Ticket Adaptation: the weights that change most, by counting, and everything else bit for bit as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from lm.models import write_model, write_text
from winticket.cli.language import app
from winticket.lm import Request, Tuning, loading, prepare, prepare_tuning, prune, read_masks, tune
from winticket.lm.lota import check_unchanged, copied, every_weight, largest_changes, only, rewind
from winticket.ticket import Mask

SMALL: dict[str, Any] = {"steps": 12, "batch": 2, "length": 16, "windows": 6, "lr": 0.01}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path / "text.txt")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return {name: value.detach() for name, value in model.named_parameters()}


def same(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Which elements have the same bits."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return one.view(bits) == two.view(bits)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_dense_model_changes_in_so_many_weights_and_nowhere_else(
    family: str, dtype: torch.dtype, text: Path, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model", family, dtype=dtype)
    asked = Tuning(**{**SMALL, "lr": 0.1}, lota=0.1)
    result = tune(prepare_tuning(str(folder), asked, text, None), tmp_path / "tuned")
    before, after = weights(folder), weights(tmp_path / "tuned")
    linear = every_weight(loading.skeleton(loading.configuration(loading.source(folder)))).keep
    changed = {name: int((~same(before[name], after[name])).sum()) for name in before}
    total = sum(keep.numel() for keep in linear.values())
    assert result["trained"] == int(0.1 * total + 0.5)
    assert {name for name, count in changed.items() if count} <= linear.keys()
    assert sum(changed.values()) <= result["trained"]
    assert sum(changed.values()) > 0.9 * result["trained"]  # a trained weight may come back to where it was
    adapted = result["lota"]
    assert adapted is not None
    assert adapted["unchanged"] == sum(one.numel() for one in before.values()) - result["trained"]
    assert result["zeros"] == 0
    both = result["perplexity"]
    assert both["after"]["perplexity"]["value"] < both["before"]["perplexity"]["value"]
    assert not (tmp_path / "tuned" / "masks.safetensors").exists()
    assert json.loads((tmp_path / "tuned" / "result.json").read_text()) == result


def test_under_a_pruning_mask_zeros_stay_zero(text: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", dtype=torch.float32)
    asked = Request(method="magnitude", density=0.5, length=16, windows=0)
    prune(prepare(str(folder), asked, text, None), tmp_path / "pruned")
    prepared = prepare_tuning(str(tmp_path / "pruned"), Tuning(**SMALL, lota_rank=1), text, None)
    result = tune(prepared, tmp_path / "tuned")
    before, after = weights(tmp_path / "pruned"), weights(tmp_path / "tuned")
    for name, keep in read_masks(tmp_path / "tuned").keep.items():
        changed = ~same(before[name], after[name])
        assert not bool((changed & ~keep).any())
        assert 0.9 * sum(keep.shape) < int(changed.sum()) <= sum(keep.shape)
        assert torch.equal(after[name] != 0, keep)
    assert result["zeros"] == 2880
    assert result["trained"] == sum(sum(keep.shape) for keep in prepared.mask.keep.values())


def test_the_weights_of_the_largest_task_vector_are_trained_by_adam_alone(text: Path, tmp_path: Path) -> None:
    """Against a plain derivation: AdamW tunes everything, the largest |tuned - start| are found by sorting, and then
    AdamW without weight decay gets the gradients of these alone; all else has gradients of 0, which move nothing."""
    folder = write_model(tmp_path / "model", dtype=torch.float64)
    asked = Tuning(**{**SMALL, "steps": 4}, lota=0.2, calibration_steps=3)
    prepared = prepare_tuning(str(folder), asked, text, None)
    tune(prepared, tmp_path / "tuned")
    windows = prepared.train

    def trained(steps: int, keep: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
        for step in range(steps):
            rate = 0.01 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps, dtype=torch.float64)))
            optimizer.param_groups[0]["lr"] = float(rate)
            some = windows[2 * step : 2 * step + 2]
            optimizer.zero_grad()
            logits = model(some).logits[:, :-1]
            torch.autograd.backward(functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten()))
            if keep is not None:
                for name, one in model.named_parameters():
                    one.grad = one.grad * keep[name] if name in keep else torch.zeros_like(one)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return {name: one.detach() for name, one in model.named_parameters()}

    start, tuned = weights(folder), trained(3, None)
    names = list(prepared.mask.keep)
    task = torch.cat([(tuned[name] - start[name]).abs().flatten() for name in names])
    chosen = torch.zeros(len(task), dtype=torch.bool)
    chosen[task.sort(descending=True, stable=True).indices[: round(0.2 * len(task))]] = True
    parts = torch.split(chosen, [start[name].numel() for name in names])
    keep = {name: part.view_as(start[name]) for name, part in zip(names, parts, strict=True)}
    expected, got = trained(4, keep), weights(tmp_path / "tuned")
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12)
        if name in keep:
            assert torch.equal(~same(got[name], start[name]) | keep[name], keep[name])


def test_calibration_changes_nothing_but_the_choice(text: Path, tmp_path: Path) -> None:
    """With every weight chosen, the model is what it would be after training the linear layers from the start."""
    folder = write_model(tmp_path / "model", dtype=torch.float32)
    for name, steps in (("one", 1), ("two", 6)):
        asked = Tuning(**{**SMALL, "steps": 4}, lota=1.0, calibration_steps=steps)
        tune(prepare_tuning(str(folder), asked, text, None), tmp_path / name)
    one, two, start = (weights(tmp_path / name) for name in ("one", "two", "model"))
    for name, value in one.items():
        assert bool(same(value, two[name]).all()), name
        linear = name.endswith("proj.weight")
        assert bool(same(value, start[name]).all()) == (not linear), name


def test_only_chosen_weights_have_gradients_and_state() -> None:
    layer = nn.Linear(4, 3)
    start, keep = copied(layer), torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    x = torch.randn(5, 4)
    expected = torch.autograd.grad(
        functional.linear(x, layer.weight, layer.bias).square().sum(), layer.weight
    )[0]
    with only(nn.Sequential(layer), Mask({"0.weight": keep})) as (values,):
        layer(x).square().sum().backward()
        assert values.grad is not None
        torch.testing.assert_close(values.grad, expected[keep])
        values.data += 1
    assert torch.equal(layer.weight[keep], start["weight"][keep] + 1)
    assert bool(same(layer.weight[~keep], start["weight"][~keep]).all())
    assert check_unchanged(layer, start, Mask({"weight": keep})) == int((~keep).sum()) + 3
    with pytest.raises(RuntimeError, match="numbers of weight changed"):
        check_unchanged(layer, start, Mask({}))
    rewind(layer, start)
    assert check_unchanged(layer, start, Mask({})) == 15


def test_layers_compete_for_a_density_and_not_for_a_rank() -> None:
    model = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])
    start = copied(model)
    with torch.no_grad():
        model.get_parameter("0.weight").add_(torch.arange(12.0).view(3, 4) / 100)
        model.get_parameter("1.weight").add_(1 + torch.arange(12.0).view(3, 4))
    mask = Mask({f"{n}.weight": torch.ones(3, 4, dtype=torch.bool) for n in range(2)})
    by_density = largest_changes(model, start, mask, density=0.5, rank=None)
    assert by_density.layers() == {"0.weight": (0, 12), "1.weight": (12, 12)}
    by_rank = largest_changes(model, start, mask, density=None, rank=1)
    assert by_rank.layers() == {"0.weight": (7, 12), "1.weight": (7, 12)}
    assert by_rank.keep["0.weight"].flatten().nonzero().flatten().tolist() == list(range(5, 12))


REFUSED = {
    "--lota 0": "--lota is 0; give the share of weights to train, in (0, 1]",
    "--lota 1.5": "in (0, 1]",
    "--lota nan": "in (0, 1]",
    "--lota-rank 0": "--lota-rank is 0; give 1 or more",
    "--lota-rank 9": "--lota-rank 9 trains 288 weights of model.layers.0.self_attn.q_proj.weight, which has 256",
    "--lota .1 --lora 2": "give one of --lora and --lota",
    "--lota .1 --lota-rank 2": "give one of --lota and --lota-rank",
    "--lota .1 --calibration-steps 0": "--calibration-steps is 0; give 1 or more",
    "--calibration-steps 3": "--calibration-steps is for --lota and --lota-rank",
    "": "or train a few of its weights (--lota)",
}


def test_bad_requests_are_refused_before_weights_are_read(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "model")

    def never(_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(loading, "load", never)
    usual = ["tune", str(folder), "--data", str(text), "--length", "16", "--out", str(tmp_path / "new")]
    for words, message in REFUSED.items():
        done = CliRunner().invoke(app, [*usual, *words.split()])
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.output.split()), words
    assert not (tmp_path / "new").exists()


def test_more_than_the_mask_keeps_is_refused(text: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    prune(
        prepare(str(folder), Request(method="magnitude", density=0.3, length=16, windows=0), text, None),
        tmp_path / "pruned",
    )
    with pytest.raises(ValueError, match=r"--lota 0\.4 is more than the density 0\.2995 of the mask"):
        prepare_tuning(str(tmp_path / "pruned"), Tuning(**SMALL, lota=0.4), text, None)
    with pytest.raises(ValueError, match=r"--lota-rank 3 trains 96 weights of .*, which keeps \d+"):
        prepare_tuning(str(tmp_path / "pruned"), Tuning(**SMALL, lota_rank=3), text, None)


def test_the_command_says_what_it_did(text: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", dtype=torch.float32)
    words = ["tune", str(folder), "--data", str(text), "--steps", "2", "--batch", "1", "--length", "16"]
    done = CliRunner().invoke(app, [*words, "--lota", ".1", "--out", str(tmp_path / "new"), "--quiet"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "tuned weights chosen by LoTA of model (576 numbers)" in said
    assert "2 steps of tuning all weights changed most" in said
    assert "All other 5,936 numbers of the model are bit for bit what they were" in said
    assert "are 0" not in said
