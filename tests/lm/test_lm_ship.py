"""Tickets of language models as folders of Transformers: at the recorded perplexity, whole or smaller."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Olmo2Config, OPTConfig
from typer.testing import CliRunner

import winticket
from lm.models import write_text, write_tokenizer
from undrawn import undraw
from winticket import allocate
from winticket.cli import app
from winticket.experiment import Experiment, conduct
from winticket.lm.finding import choices
from winticket.ship.as_transformers import TRANSFORMERS, fitted
from winticket.ticket import Mask

SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA = LlamaConfig(**SIZES, intermediate_size=24, num_key_value_heads=2, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of half of the heads and neurons of a small Llama with grouped queries and tied embeddings."""
    root = tmp_path_factory.mktemp("shipped")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(copy.deepcopy(LLAMA)).save_pretrained(root / "llama")
    write_tokenizer(root / "llama")
    text = write_text(root / "text.txt", 1500)
    usual = choices(str(root / "llama"), text, length=8)
    experiment = Experiment.of(
        text, **usual, criterion="head_importance", density=(0.5,), levels=None, rate=None, controls=("random",),
        steps=4, batch=2, replicates=2, validation=3, test=3, gate=False, lr=1e-3,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        conduct(experiment, store=root / "store", out=root / "run", workers=0)
    return root / "run"


def answer(*words: str) -> Any:
    done = CliRunner().invoke(app, ["ship", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def weights(folder: str) -> tuple[Any, dict[str, torch.Tensor]]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, {name: one.detach() for name, one in model.named_parameters()}


def test_the_folder_loads_with_the_trained_weights(run: Path, tmp_path: Path) -> None:
    shipment = answer(str(run), "--to", "hub", "--out", str(tmp_path))
    trained = winticket.open(run).trained("ticket").ticket
    folder = str(Path(shipment["file"]).parent)
    model, stored = weights(folder)
    assert stored.keys() == trained.start.weights.keys()
    for name, value in trained.mask.apply(trained.start.weights).items():
        assert torch.equal(stored[name], value), name
    assert model.config.num_key_value_heads == 2
    assert shipment["read_back"]["test_accuracy"] == pytest.approx(
        shipment["origin"]["test_accuracy"], rel=1e-5
    )
    assert shipment["use"][-2].endswith("# pruned weights are 0")
    words: Any = AutoTokenizer.from_pretrained(folder)
    assert (
        words("abc")["input_ids"] == AutoTokenizer.from_pretrained(run.parent / "llama")("abc")["input_ids"]
    )
    card = (Path(folder) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    assert {Path(name).name for name in shipment["beside"]} >= {"config.json", "tokenizer.json"}


def test_without_what_is_pruned_it_computes_the_same(run: Path, tmp_path: Path) -> None:
    whole = answer(str(run), "--to", "hub", "--out", str(tmp_path))
    small = answer(str(run), "--to", "hub", "--shrink", "--out", str(tmp_path))
    assert small["read_back"]["test_accuracy"] == pytest.approx(whole["read_back"]["test_accuracy"], rel=1e-5)
    one, two = (weights(str(Path(each["file"]).parent))[0] for each in (whole, small))
    settings = two.config
    assert (settings.num_attention_heads, settings.num_key_value_heads, settings.head_dim) == (2, 1, 8)
    assert settings.intermediate_size == 12
    assert two.get_parameter("model.layers.0.self_attn.q_proj.weight").shape == (16, 32)
    tokens = torch.randint(3, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(one(tokens).logits, two(tokens).logits, atol=1e-5, rtol=1e-5)
    told: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(one.generate(tokens, **told), two.generate(tokens, **told))
    assert small["shrunk"]["units"] < small["shrunk"]["units_before"]
    assert not any("pruned weights" in line for line in small["use"])


@pytest.mark.parametrize(("values", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_values_are_stored_as_they_are_named(
    values: str, dtype: torch.dtype, run: Path, tmp_path: Path
) -> None:
    shipment = answer(str(run), "--to", "hub", "--shrink", "--values", values, "--out", str(tmp_path))
    folder = Path(shipment["file"]).parent
    assert folder.name == f"ticket-50pct-r1-shrunk-{values}"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert {one.dtype for one in model.parameters()} == {dtype}
    assert shipment["read_back"]["largest_difference"] > 0  # it is rounded, and evaluated as it is
    whole = answer(str(run), "--to", "hub", "--shrink", "--out", str(tmp_path))
    assert shipment["bytes"] < 0.6 * whole["bytes"]


def test_values_that_the_folder_does_not_hold_are_refused(run: Path, tmp_path: Path) -> None:
    words = ["ship", str(run), "--to", "hub", "--values", "int8", "--out", str(tmp_path / "none")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "Transformers loads holds values in fp32, fp16, bf16, not in int8" in " ".join(done.output.split())
    assert not (tmp_path / "none").exists()


def test_the_pretrained_model_is_never_written_over(run: Path) -> None:
    pretrained = run.parent / "llama"
    before = {file.name: file.read_bytes() for file in pretrained.iterdir()}
    done = CliRunner().invoke(
        app, ["ship", str(run), "--to", "hub", "--out", str(run.parent), "--name", "llama"]
    )
    assert done.exit_code == 2
    assert "is the folder of the pretrained model, which would be lost" in " ".join(done.output.split())
    assert {file.name: file.read_bytes() for file in pretrained.iterdir()} == before


def test_files_of_others_in_the_folder_are_neither_listed_nor_removed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.json").write_text("{}")
    for _ in range(2):
        shipment = answer(str(run), "--to", "hub", "--out", str(tmp_path), "--name", "mine")
        assert sorted(Path(name).name for name in shipment["beside"]) == [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    wrong = replace(TRANSFORMERS, logits=lambda source, path, x: 1 + TRANSFORMERS.logits(source, path, x))
    monkeypatch.setattr("winticket.ship.shipping.format_of", lambda source, to: wrong)
    done = CliRunner().invoke(
        app, ["ship", str(run), "--to", "hub", "--out", str(tmp_path), "--name", "mine"]
    )
    assert done.exit_code == 1, done.output
    assert [file.name for file in folder.iterdir()] == ["notes.json"]


def test_a_folder_whose_writing_stops_does_not_load(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (str(run), "--to", "hub", "--out", str(tmp_path), "--name", "mine")
    answer(*words)

    def killed(folder: Path, model: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("winticket.causal.saved", killed)
        CliRunner().invoke(app, ["ship", *words])
    assert not list((tmp_path / "mine").glob("**/*.safetensors"))
    assert not (tmp_path / "mine" / "README.md").exists()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "mine")
    assert answer(*words)["read_back"] is not None


def test_nothing_that_is_passed_on_names_folders_of_this_machine(run: Path, tmp_path: Path) -> None:
    shipment = answer(str(run), "--to", "hub", "--shrink", "--out", str(tmp_path))
    for file in Path(shipment["file"]).parent.iterdir():
        assert str(run.parent).encode() not in file.read_bytes(), file.name
    assert "# llama for text.txt, " in Path(shipment["card"]).read_text()


def test_sizes_are_compared_with_tied_weights_counted_once(run: Path, tmp_path: Path) -> None:
    shipment = answer(str(run), "--to", "hub", "--out", str(tmp_path))
    assert shipment["bytes"] == pytest.approx(shipment["dense_bytes"], rel=0.01)


def test_a_state_dict_can_be_smaller_too(run: Path, tmp_path: Path) -> None:
    shipment = answer(str(run), "--to", "torch", "--shrink", "--out", str(tmp_path))
    assert shipment["read_back"]["test_accuracy"] == pytest.approx(
        shipment["origin"]["test_accuracy"], rel=1e-5
    )
    assert "small = winticket.remove_parts(model, ticket, example=x).module" in shipment["use"]


def test_what_cannot_be_written_is_refused(run: Path, tmp_path: Path) -> None:
    for words, message in (
        (("--to", "onnx"), "also as its folder (--to hub)"),
        (("--to", "c"), "shipped as a state dict (--to torch)"),
    ):
        done = CliRunner().invoke(app, ["ship", str(run), *words, "--out", str(tmp_path / "none")])
        assert done.exit_code == 2
        assert message in " ".join(done.output.split())
    assert not (tmp_path / "none").exists()


def test_a_model_that_has_moved_is_told(run: Path, tmp_path: Path) -> None:
    model = run.parent / "llama"
    shutil.move(model, tmp_path / "elsewhere")
    try:
        done = CliRunner().invoke(app, ["ship", str(run), "--to", "hub", "--out", str(tmp_path / "none")])
    finally:
        shutil.move(tmp_path / "elsewhere", model)
    assert done.exit_code == 2, done.output
    assert "llama" in done.output
    assert not (tmp_path / "none").exists()


def _smaller(config: Any, kept: list[list[bool]]) -> Any:
    """A model that keeps these key-value groups in its layers."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    ticket = winticket.prune(model, 0.5, allocate=allocate.structures)
    keep = {name: torch.ones_like(one) for name, one in ticket.mask.keep.items()}
    for name, one in keep.items():
        for layer, groups in enumerate(kept):
            layout = ticket.mask.layout[name]
            if layout.structure.endswith(f"layers.{layer}.self_attn.heads"):
                blocks = layout.by_part(one).clone()
                blocks[~torch.tensor(groups)] = False
                keep[name] = layout.from_parts(blocks, one)
    tokens = torch.randint(3, 20, (1, 8))
    return winticket.remove_parts(model, Mask(keep, ticket.mask.layout), example=tokens).module


def test_a_configuration_has_one_number_for_all_layers() -> None:
    same = _smaller(LLAMA, [[True, False], [False, True]])
    assert fitted(same.config, same).num_attention_heads == 2
    mixed = _smaller(LLAMA, [[True, False], [True, True]])
    with pytest.raises(ValueError, match=r"one num_key_value_heads for all layers, and these keep 1 or 2"):
        fitted(mixed.config, mixed)


def test_kinds_whose_configuration_cannot_say_it_are_refused() -> None:
    config = OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32)
    small = _smaller(config, [[True, True, False, False]] * 2)
    with pytest.raises(
        ValueError, match=r"config.json of opt models cannot describe .*k_proj.*use --to torch --shrink"
    ):
        fitted(small.config, small)
    odd = LlamaConfig(**SIZES, intermediate_size=24, num_key_value_heads=4)
    three = _smaller(odd, [[True, True, True, False]] * 2)
    with pytest.raises(ValueError, match=r"32.*not a multiple.*3"):
        fitted(three.config, three)


def test_a_search_for_heads_prunes_what_belongs_to_parts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of OLMo 2, these are the hidden neurons: a norm over all heads makes its heads depend on one another."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(Olmo2Config(**SIZES, intermediate_size=24)).save_pretrained("olmo")
    write_tokenizer(Path("olmo"))
    write_text(Path("text.txt"), 1500)
    words = "lm find olmo --data text.txt --length 8 --steps 4 --criterion head_importance --plan --json"
    planned = CliRunner().invoke(app, words.split())
    assert planned.exit_code == 0, planned.output
    pruned = {row["name"] for row in json.loads(planned.stdout)["parameters"] if row["spared"] is None}
    assert pruned == {
        f"model.layers.{layer}.mlp.{name}_proj.weight"
        for layer in range(2)
        for name in ("gate", "up", "down")
    }
