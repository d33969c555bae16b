"""Requests that cannot be met end with exit status 2 before the weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lm.models import write_model, write_text, write_tokenizer
from winticket.cli import app
from winticket.lm import loading

COMMANDS = CliRunner()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    write_model(folder / "model")
    write_text(folder / "text.txt")
    (folder / "short.txt").write_text("abc")
    (folder / "blank.txt").write_text(" \n")
    (folder / "latin.txt").write_bytes("größer".encode("latin-1"))
    (folder / "empty").mkdir()
    for name in ("unknown", "encoder", "bare", "pickled", "foreign", "damaged", "lacking"):
        shutil.copytree(folder / "model", folder / name)
    write_model(folder / "wordless", "gpt2")
    _configure(folder / "unknown", model_type="perceptron")
    _configure(folder / "encoder", model_type="vit")
    for name in ("bare", "wordless"):
        for file in (folder / name).glob("token*"):
            file.unlink()
    for name in ("pickled", "foreign"):
        (folder / name / "model.safetensors").rename(folder / name / "pytorch_model.bin")
    (folder / "foreign" / "config.json").unlink()
    (folder / "damaged" / "config.json").write_text("{")
    _configure(folder / "lacking", vocab_size=3)
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "taken").mkdir()
    (folder / "taken" / "notes").write_text("mine")
    return folder


def _configure(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


MODELS = {
    "nowhere": "there is no model at",
    "empty": "is no language model: it has neither config.json with *.safetensors nor a .gguf file",
    "model.onnx": "is a file, but neither GGUF",
    "unknown": "names the model type 'perceptron', which Transformers",
    "encoder": "is of the type 'vit', which is no causal language model",
    "bare": "the tokenizer of bare cannot be read",
    "wordless": "the tokenizer of wordless cannot be read: there is no vocabulary",
    "pickled": "winticket opens no pickles",
    "foreign": "is no language model",
    "damaged": "config.json is no good",
    "lacking": "the tokenizer makes the token 18, but the model knows 3",
}
OPTIONS = {
    "--density 0": "density 0 is not in (0, 1]",
    "--density 1.2": "density 1.2 is not in (0, 1]",
    "--density nan": "density nan is not in (0, 1]",
    "--density .5 --pattern 2:4": "give a density or a pattern, not both",
    "--pattern 5:4": "pattern '5:4' is not n:m",
    "--pattern half": "pattern 'half' is not n:m",
    "--pattern 2:5": "model.layers.0.self_attn.q_proj has 16 inputs, which the pattern 2:5 does not divide",
    "--pattern 2:4 --allocation owl": "leave one out",
    "--pattern 2:4 --method sparsegpt --blocksize 6": "--blocksize 6 is not a multiple of the 4 of 2:4",
    "--method wandas": "there is no method 'wandas'; there are magnitude, wanda, sparsegpt (did you mean 'wanda'?)",
    "--allocation erk": "there is no allocation 'erk'",
    "--allocation owl --owl-range .3": "allows densities from -0.1 to 1.1",
    "--allocation owl --owl-threshold 0": "--owl-threshold 0 is not a positive number",
    "--length 100": "--length 100 is more than the 64 tokens that the model reads at once",
    "--length 1": "--length 1 is less than 2",
    "--samples 0": "--samples 0 is less than 1",
    "--windows -1": "--windows -1 is less than 0",
    "--blocksize 0": "--blocksize 0 is less than 1",
    "--percdamp 0": "--percdamp 0 is not a positive number",
    "--blocksize 64": "--blocksize is for --method sparsegpt; leave it out",
    "--percdamp .1": "--percdamp is for --method sparsegpt; leave it out",
    "--owl-threshold 3": "--owl-threshold is for --allocation owl; leave it out",
    "--owl-range .1": "--owl-range is for --allocation owl; leave it out",
    "--data short.txt": "the text for calibration has 3 tokens, fewer than one window of 8",
    "--held-out short.txt": "the held-out text has 3 tokens, fewer than one window of 8",
    "--data blank.txt": "is blank",
    "--data latin.txt": "is not text in UTF-8",
    "--data none.txt": "there is no text file at",
    "--out taken": "exists already and is no unfinished pruning",
}


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command says; it must not come to reading weights."""

    def never(_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(loading, "load", never)
    done = COMMANDS.invoke(app, ["lm", *arguments])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize("model", MODELS)
def test_what_is_no_language_model_is_refused(
    model: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    text = ["--data", "text.txt", "--length", "8", "--out", "new"]
    assert MODELS[model] in refused(["prune", f"./{model}", *text], monkeypatch)
    assert MODELS[model] in refused(["perplexity", f"./{model}", *text[:4]], monkeypatch)
    assert not (root / "new").exists()


@pytest.mark.parametrize("options", OPTIONS)
def test_wrong_options_are_refused(options: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    usual = ["--data", "text.txt", "--length", "8", "--out", "new"]
    assert OPTIONS[options] in refused(["prune", "model", *usual, *options.split()], monkeypatch)
    assert not (root / "new").exists()


def test_weights_that_a_file_lacks_are_not_made_up(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "model", tmp_path / "model")
    _configure(tmp_path / "model", num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"lacks weights of the model: model\.layers\.3"):
        loading.load(loading.source(tmp_path / "model"))


def test_several_gguf_files_are_not_guessed_from(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="several GGUF files"):
        loading.source(tmp_path)
    assert loading.source(tmp_path / "a.gguf") == loading.Source(str(tmp_path), "a.gguf")
    assert loading.source("user/name") == loading.Source("user/name")
    write_tokenizer(tmp_path)


def test_a_folder_may_have_a_configuration_beside_its_gguf_file(root: Path, tmp_path: Path) -> None:
    shutil.copyfile(root / "model" / "config.json", tmp_path / "config.json")
    (tmp_path / "smol.q4.gguf").write_bytes(b"GGUF")
    assert loading.source(tmp_path) == loading.Source(str(tmp_path), "smol.q4.gguf")


def test_a_name_that_is_neither_a_folder_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"there is no folder models/smoll here; as a name on the Hub, the"):
        loading.configuration(loading.source("models/smoll"))
