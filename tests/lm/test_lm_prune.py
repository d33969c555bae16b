"""Pruned language models: exact counts, patterns, OWL's densities, files that Transformers loads, and resumption."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm.models import CONFIGS, write_model, write_text
from winticket.lm import (
    Pattern,
    Pruned,
    Request,
    Target,
    densities,
    magnitude,
    outlier_share,
    prepare,
    prune,
    read_masks,
    sparsegpt,
    wanda,
)
from winticket.lm.blocks import calls, find_blocks
from winticket.lm.evaluating import evaluate, prepare_text
from winticket.lm.files import Shards, write_block
from winticket.lm.perplexity import estimate, losses, ratio


def pruned(
    root: Path, family: str = "llama", *, out: str = "out", **options: Any
) -> tuple[Pruned, nn.Module]:
    """The result of pruning a tiny model, and the model that Transformers loads from the folder."""
    model = root / family
    if not model.exists():
        write_model(model, family, dtype=options.pop("dtype", torch.float64))
        write_text(root / "text.txt")
    asked = Request(**{"samples": 3, "length": 16, "windows": 4, **options})
    result = prune(prepare(str(model), asked, root / "text.txt", None), root / out)
    return result, AutoModelForCausalLM.from_pretrained(root / out)


def matrices(model: nn.Module, root: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights and masks [units, inputs] of the pruned layers."""
    mask, weights = read_masks(root), model.state_dict()
    turned = {name for name in mask.keep if mask.laid_out(name).inputs_first}
    return {n: (weights[n].t(), k.t()) if n in turned else (weights[n], k) for n, k in mask.keep.items()}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_is_pruned_and_loads_again(family: str, tmp_path: Path) -> None:
    result, model = pruned(tmp_path, family, method="wanda", density=0.3)
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / family)
    both = matrices(model, tmp_path / "out")
    assert list(both) == [layer["name"] for block in result["blocks"] for layer in block["layers"]]
    for name, (weight, keep) in both.items():
        assert keep.sum(1).tolist() == [math.floor(0.3 * weight.shape[1] + 0.5)] * weight.shape[0], name
        assert not weight[~keep].any()
    now, then = model.state_dict(), dense.state_dict()
    assert now.keys() == then.keys()
    assert {name for name in now if not torch.equal(now[name], then[name])} == set(both)
    for name, keep in read_masks(tmp_path / "out").keep.items():
        assert torch.equal(now[name], then[name] * keep)
    sizes = {name: weight.numel() for name, (weight, _) in both.items()}
    inside = {
        name: module.weight.numel()
        for name, module in dense.named_modules()
        if hasattr(module, "weight") and module.weight.ndim == 2 and any(f".{n}." in name for n in range(3))
    }
    assert {f"{name}.weight": size for name, size in inside.items()} == sizes


def test_tied_weights_are_written_once_and_tied_again(tmp_path: Path) -> None:
    _, model = pruned(tmp_path, "qwen2")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert "lm_head.weight" not in index["weight_map"]
    assert model.get_submodule("lm_head").weight is model.get_submodule("model.embed_tokens").weight


def test_the_folder_has_what_users_need(tmp_path: Path) -> None:
    result, model = pruned(tmp_path, "llama", method="sparsegpt", dtype=torch.bfloat16)
    out = tmp_path / "out"
    assert model.dtype == torch.bfloat16
    assert msgspec.convert(json.loads((out / "result.json").read_text()), Pruned) == result
    assert AutoTokenizer.from_pretrained(out)("abc")["input_ids"] == [0, 1, 2]
    text = (out / "README.md").read_text()
    assert "2,880 of 5,760 weights" in text
    assert "SparseGPT" in text
    assert not [one.name for one in out.iterdir() if one.name.startswith(".") or one.name == "pruning.json"]
    assert len({one.stat().st_mode for one in out.iterdir()}) == 1
    assert result["perplexity"] is not None
    assert result["peak_bytes"] is None or result["peak_bytes"] > 1e7


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
@pytest.mark.parametrize("density", [0.37, 1.0])
def test_layers_keep_exactly_as_many_as_asked(method: str, density: float, tmp_path: Path) -> None:
    blocks: dict[str, Any] = {"blocksize": 5} if method == "sparsegpt" else {}
    result, _ = pruned(tmp_path, method=method, density=density, **blocks)
    for block in result["blocks"]:
        for layer in block["layers"]:
            assert layer["kept"] == math.floor(density * layer["total"] + 0.5)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["2:4", "1:8"])
def test_patterns_hold_along_the_inputs(method: str, pattern: str, tmp_path: Path) -> None:
    _, model = pruned(tmp_path, "gpt2", method=method, pattern=pattern, windows=0)
    n, m = map(int, pattern.split(":"))
    for weight, keep in matrices(model, tmp_path / "out").values():
        assert (keep.view(len(keep), -1, m).sum(2) == n).all()
        assert ((weight != 0).view(len(keep), -1, m).sum(2) <= n).all()


def test_equal_scores_are_broken_by_position() -> None:
    weight, target = torch.ones(2, 4), Target(0.5)
    half = [[True, True, False, False]] * 2
    assert wanda(weight, torch.ones(4), target).tolist() == half
    assert magnitude(weight, target).tolist() == [[True] * 4, [False] * 4]
    assert magnitude(weight, Target(0.5, Pattern(2, 4))).tolist() == half
    # With inputs that do not depend on each other, nothing makes up for anything.
    kept, keep = sparsegpt(weight, torch.eye(4), Target(0.5))
    assert keep.tolist() == [[True] * 4, [False] * 4]
    assert torch.equal(kept, keep.float())


def test_an_input_that_is_always_0_loses_its_weights_and_a_singular_hessian_is_refused() -> None:
    hessian = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    weight, keep = sparsegpt(torch.full((1, 3), 5.0), hessian, Target(2 / 3))
    assert keep.tolist() == [[True, False, True]]
    assert weight.tolist() == [[5.0, 0.0, 5.0]]
    with pytest.raises(ValueError, match="--percdamp, now 1e-30"):
        sparsegpt(torch.ones(1, 2), torch.ones(2, 2), Target(0.5, percdamp=1e-30))


@pytest.mark.parametrize("pattern", [None, Pattern(2, 4)])
def test_sparsegpt_changes_a_layer_least_and_magnitude_most(pattern: Pattern | None) -> None:
    """On inputs of unlike sizes that depend on each other, as those of language models do."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 32, generator=generator, dtype=torch.float64)
    mixed = torch.randn(32, 32, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1, 32)
    read = torch.randn(400, 32, generator=generator, dtype=torch.float64) @ mixed
    read *= torch.logspace(1, -1, 32)
    target = Target(0.5, pattern, blocksize=8)
    made = {
        "magnitude": weight * magnitude(weight, target),
        "wanda": weight * wanda(weight, read.norm(dim=0), target),
        "sparsegpt": sparsegpt(weight, read.T @ read, target)[0],
    }
    errors = {name: float(((weight - new) @ read.T).norm()) for name, new in made.items()}
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]


def test_owl_gives_blocks_with_outliers_more_and_the_mean_is_the_density(tmp_path: Path) -> None:
    result, _ = pruned(
        tmp_path, method="wanda", density=0.5, allocation="owl", owl_range=0.2, owl_threshold=2
    )
    given = [block["density"] for block in result["blocks"]]
    assert sum(given) / len(given) == pytest.approx(0.5, abs=1e-12)
    assert max(given) - min(given) == pytest.approx(0.4, abs=1e-12)
    # The shares of outliers from one pass of the whole dense model.
    prepared = prepare(str(tmp_path / "llama"), Request(samples=3, length=16), tmp_path / "text.txt", None)
    assert prepared.calibration is not None
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    read: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("model.layers"):
            module.register_forward_pre_hook(
                lambda _, args, name=name: read.update({name: args[0].flatten(0, 1)})
            )
    with torch.no_grad():
        model(input_ids=prepared.calibration)
    shares = []
    for number in range(3):
        scores = [
            (model.get_submodule(name).weight.abs() * x.norm(dim=0)).flatten()
            for name, x in read.items()
            if f"layers.{number}." in name
        ]
        together = torch.cat(scores)
        shares.append(float((together > 2 * together.mean()).double().mean()))
    scaled = np.interp(shares, [min(shares), max(shares)], [0, 0.4])
    assert given == pytest.approx(list(scaled - scaled.mean() + 0.5), abs=1e-12)


def test_owl_by_hand() -> None:
    assert outlier_share([torch.tensor([1.0, 1.0, 1.0, 9.0])], 3) == 0
    assert outlier_share([torch.tensor([1.0, 1.0, 1.0, 9.0])], 2.9) == 0.25
    assert densities([0.2, 0.2], 0.4, 0.1) == [0.4, 0.4]
    with pytest.raises(ValueError, match="not both in"):
        densities([1.0, 0.0, 0.0, 0.0], 0.9, 0.08)


def test_perplexity_is_that_of_transformers_with_students_interval(tmp_path: Path) -> None:
    folder, text = write_model(tmp_path / "m"), write_text(tmp_path / "t.txt", 70)
    question = prepare_text(str(folder), text, length=10, most=5)
    result = evaluate(question)
    model = AutoModelForCausalLM.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)(text.read_text())["input_ids"]
    starts = [0, 10, 20, 40, 50]
    with torch.no_grad():
        each = [
            float(
                functional.cross_entropy(
                    model(input_ids=torch.tensor([words[s : s + 9]])).logits[0],
                    torch.tensor(words[s + 1 : s + 10]),
                )
            )
            for s in starts
        ]
    assert losses(model, question.windows.ids) == pytest.approx(each, rel=1e-6)
    low, high = stats.t.interval(0.95, 4, np.mean(each), stats.sem(each))
    assert result["perplexity"]["value"] == pytest.approx(math.exp(np.mean(each)), rel=1e-6)
    assert result["perplexity"]["interval"] == pytest.approx([math.exp(low), math.exp(high)], rel=1e-5)
    assert result["tokens"] == 45
    assert estimate([2.0])["interval"] is None
    assert ratio([1.0, 3.0], [0.0, 2.0]) == {"value": math.e, "interval": [math.e, math.e]}


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("options", [{"method": "sparsegpt"}, {"allocation": "owl", "owl_range": 0.1}])
def test_an_interrupted_run_resumes_to_the_same_bits(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = pruned(tmp_path, out="whole", **options, dtype=torch.bfloat16)
    count = [0]

    def stopping(*args: Any) -> None:
        write_block(*args)
        count[0] += 1
        if count[0] == 2:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("winticket.lm.pruning.write_block", stopping)
        with pytest.raises(Stopped):
            pruned(tmp_path, **options)
    begun = [Shards(tmp_path / "out", 3).path(n) for n in (0, 1)]
    before = [one.stat().st_mtime_ns for one in begun]
    with pytest.raises(ValueError, match="another density"):
        pruned(tmp_path, **options, density=0.4)
    result, model = pruned(tmp_path, **options)
    assert result["resumed"] == 1  # the second block's record was not yet written
    assert begun[0].stat().st_mtime_ns == before[0]
    now, then = model.state_dict(), expected.state_dict()
    assert all(torch.equal(now[name], then[name]) for name in then)
    assert result["perplexity"] == whole["perplexity"]
    with pytest.raises(ValueError, match="exists already"):
        pruned(tmp_path, **options)


@pytest.mark.parametrize("file", ["result.json", "README.md"])
def test_a_run_that_is_killed_at_its_end_prunes_nothing_again(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(path: Path, content: bytes) -> None:
        if path.name == file:
            raise Stopped
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr("winticket.lm.finishing.replace_file", stopping)
        with pytest.raises(Stopped):
            pruned(tmp_path)
    (tmp_path / "out" / ".model-00001-of-00004.safetensors.12.0123abcd.tmp").write_bytes(b"half")
    result, _ = pruned(tmp_path)
    assert result["resumed"] == len(result["blocks"]) == 3
    assert not [one.name for one in (tmp_path / "out").iterdir() if one.name.startswith(".")]


class Skipping(nn.Module):
    """A model whose second block reads what no block returned."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

    def forward(self, input_ids: Tensor, use_cache: bool) -> Tensor:
        x = functional.one_hot(input_ids, 2).float()
        y: Tensor = self.layers[1](self.layers[0](x) + 1)
        return y


def test_models_whose_blocks_do_more_than_follow_each_other_are_refused() -> None:
    model = Skipping()
    with pytest.raises(ValueError, match="does not read what the block before it returns"):
        calls(model, find_blocks(model), torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="no list of blocks"):
        find_blocks(nn.Linear(2, 2))
    shared = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="shares parameters"):
        find_blocks(nn.ModuleList([nn.ModuleList([shared, shared])]))
    with pytest.raises(ValueError, match="weights outside linear layers"):
        find_blocks(nn.ModuleList([nn.Conv1d(2, 2, 1)]))
