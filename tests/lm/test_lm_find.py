"""Tickets of pretrained language models: the network is Transformers' own, the search that of `winticket find`."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from lm.models import LETTERS, write_model, write_text
from undrawn import undraw
from winticket import data, models
from winticket.cli import app
from winticket.cli.language_tickets import DEFAULTS
from winticket.data import Reading
from winticket.experiment import Experiment, conduct, plan
from winticket.lm.blocks import find_blocks, linear_layers
from winticket.lm.finding import choices
from winticket.models import pretrained
from winticket.objective import LossAndMetric, Objective
from winticket.objective.metrics import perplexity
from winticket.report.question import subject
from winticket.stages import control_ticket, dense_ticket, examples, prunable, train_stack
from winticket.ticket import Trajectory
from winticket.train import Recipe
from winticket.train.curves import Rows, evaluate_outputs

FAMILIES = ("llama", "gpt2", "gpt_neox", "qwen2")
FEW: dict[str, Any] = {
    "steps": 4,
    "batch": 2,
    "replicates": 2,
    "validation": 3,
    "test": 3,
    "gate": False,
    "lr": 1e-3,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tickets")
    for family in FAMILIES:
        write_model(folder / family, family, dtype=torch.float32)
    write_text(folder / "text.txt", 1500)
    return folder


def asked(root: Path, family: str = "llama", **others: Any) -> Experiment:
    usual = choices(str(root / family), root / "text.txt", length=8)
    return Experiment.of(root / "text.txt", **{**usual, **FEW, **others})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_dense_network_is_the_pretrained_model(family: str, root: Path) -> None:
    setup = asked(root, family).setup()
    start = dense_ticket(setup, 0).start
    theirs: Any = AutoModelForCausalLM.from_pretrained(root / family).eval()
    assert start.weights.keys() == dict(theirs.named_parameters()).keys()
    for name, value in theirs.named_parameters():
        assert torch.equal(start.weights[name], value.detach()), name
    tokens = torch.randint(18, (3, 8), generator=torch.Generator().manual_seed(0))
    module = setup.module().eval()
    with torch.no_grad():
        ours = torch.func.functional_call(module, (dict(start.weights), dict(start.buffers)), (tokens,))
        # Theirs takes attention from a fused kernel, which sums in another order.
        torch.testing.assert_close(ours, theirs(input_ids=tokens).logits, rtol=1e-4, atol=1e-4)
    module.train()


@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_the_linear_layers_of_the_blocks_are_pruned(family: str, root: Path) -> None:
    setup = asked(root, family).setup()
    theirs: Any = AutoModelForCausalLM.from_pretrained(root / family)
    blocks = find_blocks(theirs)
    expected = {
        f"{blocks.name(number)}.{name}.weight"
        for number, block in enumerate(blocks.modules)
        for name in linear_layers(block)
    }
    assert set(prunable(setup)) == expected
    tied = theirs.config.tie_word_embeddings
    assert (models.output_layer(setup.module()) is None) == tied


def test_controls_start_from_the_pretrained_weights(root: Path) -> None:
    from winticket.controls import random_mask, reinit

    setup = asked(root).setup()
    ticket = dense_ticket(setup, 0)
    name = "model.layers.1.mlp.up_proj.weight"
    keep = torch.rand(24, 16, generator=torch.Generator().manual_seed(1)) < 0.5
    pruned = ticket.__class__(
        ticket.mask.__class__({**ticket.mask.keep, name: keep}, ticket.mask.layout),
        ticket.start,
        "ticket",
        ticket.seeds,
    )
    start = ticket.start.weights[name]
    drawn = control_ticket(setup, pruned, control=random_mask)
    assert torch.equal(drawn.start.weights[name], start * drawn.mask.keep[name])
    assert not torch.equal(drawn.mask.keep[name], keep)
    assert drawn.mask.keep[name].sum() == keep.sum()
    shuffled = control_ticket(setup, pruned, control=reinit)
    values = shuffled.start.weights[name]
    assert torch.equal(shuffled.mask.keep[name], keep)
    assert bool(torch.isin(values[keep], start).all())
    assert not torch.equal(values[keep], start[keep])
    assert not values[~keep].any()


def test_fine_tuning_takes_the_steps_of_adamw(root: Path) -> None:
    """The trained weights are those of a plain loop over Transformers' model, with its loss and torch's AdamW."""
    setup = asked(root, clip_norm=0.05).setup()
    ticket = dense_ticket(setup, 0)
    (path,) = train_stack(setup, [ticket])
    assert isinstance(path, Trajectory)
    theirs: Any = AutoModelForCausalLM.from_pretrained(root / "llama")
    recipe = setup.recipe
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=recipe.lr, weight_decay=0.0)
    loaded = examples(setup, [ticket], torch.device("cpu")).train
    order = data.permutation(len(loaded.y), seed=ticket.seeds.derive("order"), epoch=0)
    for step in range(recipe.steps):
        rows = order[2 * step : 2 * step + 2]
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        logits = theirs(input_ids=loaded.x[rows]).logits
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(logits.flatten(0, 1), loaded.y[rows].flatten()))
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        optimizer.step()
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(path.saved[4].weights[name], value.detach(), rtol=1e-4, atol=1e-5)


def test_a_text_is_cut_by_the_models_tokenizer(root: Path) -> None:
    loaded = data.load(
        root / "text.txt", reading=Reading(tokenizer=str(root / "llama"), window=8), validation=2, test=2
    )
    assert (loaded.input_shape, loaded.classes, loaded.class_names) == ((8,), 20, ())
    text = (root / "text.txt").read_text()
    assert (
        "".join(LETTERS[token] for token in loaded.train.x.flatten().tolist())
        == text[: loaded.train.x.numel()]
    )
    assert torch.equal(loaded.train.x.flatten()[1:], loaded.train.y.flatten()[:-1])
    again = data.find_dataset(root / "text.txt", reading=Reading(tokenizer=str(root / "llama"), window=8))
    assert again.fingerprint == loaded.fingerprint
    with pytest.raises(ValueError, match="leave one of them out"):
        Reading(tokenizer="a", alphabet="b")


def test_a_moved_folder_keeps_its_results_and_another_model_has_its_own(root: Path, tmp_path: Path) -> None:
    def key(experiment: Experiment) -> str:
        return plan(experiment).tasks[0, "dense", 0].key

    shutil.copytree(root / "llama", tmp_path / "llama")
    shutil.copy(root / "text.txt", tmp_path / "text.txt")
    before = key(asked(root))
    assert key(asked(tmp_path)) == before
    file = tmp_path / "llama" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rms_norm_eps": 1e-3}))
    assert key(asked(tmp_path)) != before


def test_prefixes_that_belong_to_the_network_are_put_back(root: Path) -> None:
    tied = pretrained.read(root / "qwen2")  # all names begin with "model.", as those of a wrapper would
    module = asked(root, "qwen2").setup().module()
    assert not any(name.startswith("model.") for name in tied)
    fit = pretrained.fit(module, tied)
    assert set(fit.taken) == {name for name, _ in module.named_parameters()}
    assert fit.drawn == fit.unused == ()


def test_perplexity_by_answer_is_that_of_all_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few examples, of which only a number for each token is kept, give the bits of all logits at once."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(1, 7, 7, generator=generator)
    y = torch.randint(7, (9, 5), generator=generator)

    class Look(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(table[0])

        def forward(self, x: Tensor) -> Tensor:
            return self.table[x]

    whole = perplexity(table[0][y], y)
    made = LossAndMetric(
        Objective("next-token", metric="perplexity"), (), functional_mean, perplexity, outputs=7
    )
    monkeypatch.setattr("winticket.train.curves.MOST_OUTPUTS", 80)  # two examples at a time
    loss, needed = evaluate_outputs(Look(), {"table": table}, {}, Rows(y, y), objective=made)
    assert needed.shape == (1, 9, 5)
    assert made.score_needed(needed[0], y) == whole
    assert loss.item() == pytest.approx(torch.tensor(whole).log().item(), rel=1e-6)
    assert torch.tensor(
        made.score_needed(made.needed(torch.full((1, 5, 7), torch.inf), y[:1]), y[:1])
    ).isnan()


def functional_mean(outputs: Tensor, y: Tensor) -> Tensor:
    return -torch.log_softmax(outputs, -1).gather(-1, y.unsqueeze(-1)).mean()


def test_a_search_from_end_to_end_and_what_it_keeps(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undraw(monkeypatch)
    experiment = asked(root, "qwen2", density=(0.8, 0.5))
    result = conduct(experiment, store=tmp_path / "store", workers=0, out=tmp_path / "out")
    document: Any = result.document
    assert document["experiment"]["metric"] == "perplexity"
    # 4352 weights in the blocks, of which these many are kept.
    assert [level["density"] for level in document["levels"]] == [1.0, 3482 / 4352, 0.5]
    assert document["failures"] == []
    again = conduct(experiment, store=tmp_path / "store", workers=0, out=tmp_path / "out")
    assert again.outcomes.computed == ()
    assert {k: again.document[k] for k in ("verdict", "levels")} == {
        k: document[k] for k in ("verdict", "levels")
    }
    opened = __import__("winticket").open(tmp_path / "out")
    trained = opened.trained("ticket", density=0.5)
    weights = trained.ticket.start.weights
    for name, keep in trained.ticket.mask.keep.items():
        assert not weights[name][~keep].any()
    assert trained.ticket.mask.density() == 0.5
    theirs: Any = AutoModelForCausalLM.from_pretrained(root / "qwen2").eval()
    theirs.load_state_dict(
        dict(weights), strict=False
    )  # an output layer that is tied has no weights of its own
    seed = opened.plan.setup.split_seed(0)
    reading = Reading(tokenizer=str(root / "qwen2"), window=8)
    tested = data.load(root / "text.txt", reading=reading, seed=seed, validation=3, test=3).test
    with torch.no_grad():
        logits = theirs(input_ids=tested.x).logits
    reported = trained.ticket.about["test_accuracy"]  # its perplexity, as the metric says
    assert perplexity(logits, tested.y) == pytest.approx(reported, rel=1e-4)
    said = " ".join(subject(document))
    assert "2 replicates (orders of examples)" in said
    assert "windows of 8 tokens in 20 classes" in said


COMMANDS = CliRunner()
REFUSED = {
    "--density 0": "density",
    "--density 1.5": "density",
    "--length 1": "--length 1 is less than 2",
    "--length 100": "--length 100 is more than the 64 tokens",
    "--length 60 --data short.txt": "short.txt has 300 tokens, but needs at least 610",
    "--data none.txt": "there is no text file at none.txt",
    "--replicates 0": "replicates is 0",
    "--batch 1000": "batch 1000 is larger than the",
    "--rate 0.1 --density 0.5": "rate does not go with density",
}


def refused(root: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What the command says; it must not come to training."""
    monkeypatch.chdir(root)
    (root / "short.txt").write_text("abcde " * 50)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("winticket.experiment.execute", never)
    done = COMMANDS.invoke(app, ["lm", "find", *words, "--store", str(root / "none")])
    assert done.exit_code == 2, done.output
    assert not (root / "none").exists()
    return " ".join(done.output.split())


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_is_refused_before_anything_trains(
    options: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = [] if "--data" in options else ["--data", "text.txt"]
    length = [] if "--length" in options else ["--length", "8"]
    assert REFUSED[options] in refused(root, monkeypatch, "llama", *usual, *length, *options.split())


def test_what_is_no_language_model_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "empty").mkdir(exist_ok=True)
    assert "there is no model at ./nowhere" in refused(root, monkeypatch, "./nowhere", "--data", "text.txt")
    assert "is no language model" in refused(root, monkeypatch, "empty", "--data", "text.txt")
    assert "hf download user/name" in refused(root, monkeypatch, "user/name", "--data", "text.txt")


def test_without_transformers_it_is_said_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module

    def none(name: str, package: str | None = None) -> Any:
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'")
        return found(name, package)

    monkeypatch.setattr(importlib, "import_module", none)
    assert "pip install 'winticket[lm]'" in refused(root, monkeypatch, "llama", "--data", "text.txt")


def test_weights_that_do_not_fit_or_are_not_finite_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    for name in ("broken", "lacking"):
        shutil.copytree(root / "llama", root / name, dirs_exist_ok=True)
    tensors = load_file(root / "llama" / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, key: torch.full((24, 16), torch.nan)}, root / "broken" / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if n != key}, root / "lacking" / "model.safetensors")
    usual = ("--data", "text.txt", "--length", "8")
    assert "that are not finite" in refused(root, monkeypatch, "broken", *usual)
    assert f"lacks weights of the model: {key}" in refused(root, monkeypatch, "lacking", *usual)


def test_the_plan_says_what_is_pruned(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    words = ["lm", "find", "gpt2", "--data", "text.txt", "--length", "8", "--steps", "4", "--plan", "--json"]
    done = COMMANDS.invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    pruned = {row["name"] for row in told["parameters"] if row["spared"] is None}
    assert "transformer.h.1.mlp.c_fc.weight" in pruned
    assert len(pruned) == 8
    assert told["experiment"]["metric"] == "perplexity"
    assert told["experiment"]["density"] == [0.5]
    assert told["experiment"]["redraw"] == "shuffled"
    assert (told["experiment"]["relative_margin"], told["experiment"]["margin_pp"]) == (True, 2.0)


def test_a_network_of_text_is_refused_for_characters_and_images(root: Path) -> None:
    path = str(root / "llama")
    with pytest.raises(
        ValueError, match=r"knows 20 tokens, but the text is read as 19 different ones; .*--tokenizer"
    ):
        Experiment.of(root / "text.txt", model=path)
    with pytest.raises(ValueError, match=r"is a language model, but the examples have shape \(1, 8, 8\)"):
        Experiment.of("digits", model=path)
    with pytest.raises(ValueError, match="reads 64 tokens at once, but the text is cut into windows of 65"):
        Experiment.of(root / "text.txt", model=path, tokenizer=path, window=65)


def test_the_recipe_is_that_of_fine_tuning(root: Path) -> None:
    usual = choices(str(root / "llama"), root / "text.txt", length=8)
    experiment = Experiment.of(root / "text.txt", **usual)
    assert experiment.recipe == Recipe(
        steps=500,
        batch=4,
        optimizer="adamw",
        lr=5e-5,
        schedule="cosine",
        warmup=50,
        evaluate_every=100,
        early_points=False,
        clip_norm=1.0,
    )
    levels = Experiment.of(root / "text.txt", **usual, rate=0.2)
    assert (levels.density, levels.levels, levels.rate) == ((), 7, 0.2)


def test_the_defaults_that_help_names_are_those_that_are_used(root: Path) -> None:
    usual = choices(str(root / "llama"), root / "text.txt", length=8)
    experiment = Experiment.of(root / "text.txt", **usual)
    found = {**experiment.describe(), **asdict(experiment.recipe), "redraw": usual["redraw"]}
    named = {name: text for name, text in DEFAULTS.items() if re.fullmatch(r"[a-z]+|[\d.]+", text)}
    assert len(named) > 8
    for name, text in named.items():
        assert found[name] == (text if text.isalpha() else float(text)), name
    margin = f"{found['margin_pp']:g}{'%' if found['relative_margin'] else ''}"
    assert DEFAULTS["margin_pp"] == margin
    assert DEFAULTS["lr"].startswith(f"{found['lr']:f}".rstrip("0"))
    assert (found["warmup"], found["evaluate_every"]) == (found["steps"] // 10, found["steps"] // 5)
