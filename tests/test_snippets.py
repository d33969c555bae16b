"""The Python that README, guide, page and final screen show for a saved ticket is one and the same, and runs."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import winticket
from winticket.experiment import Experiment, conduct
from winticket.report import final_screen
from winticket.report.reading import lines_to_use
from winticket.results import Document

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The result document of a small search."""
    folder = tmp_path_factory.mktemp("searched")
    small = {"model": "lenet-20-10", "steps": 20, "evaluate_every": 10, "levels": 1, "replicates": 2}
    experiment = Experiment.of("digits", **small, gate=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("winticket.report.draw_all", lambda *_, **__: [])
        return conduct(experiment, store=folder / "runs", out=folder / "out", workers=0).document


def on_the_page(document: Mapping[str, Any]) -> str:
    html = Path(document["report"]).read_text(encoding="utf-8")
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", html, flags=re.DOTALL)
    (code,) = (block for block in blocks if "import winticket" in block)
    return unescape(code)


def run(code: str) -> tuple[nn.Module, winticket.Ticket]:
    """What the code leaves behind, having called the reader's loop with a masked model of the ticket's own start."""
    seen: list[bool] = []

    def my_training_loop(model: nn.Module) -> None:
        start = names["ticket"].start.weights
        kept = names["ticket"].mask.keep
        for name, weight in model.named_parameters():
            wanted = start[name] * kept[name] if name in kept else start[name]
            seen.append(torch.equal(weight.detach(), wanted))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        model(torch.rand(8, 1, 8, 8)).square().mean().backward()
        optimizer.step()

    names: dict[str, Any] = {"my_training_loop": my_training_loop}
    exec(compile(code, "snippet", "exec"), names)
    assert seen
    assert all(seen)
    return names["model"], names["ticket"]


def test_the_pages_snippet_runs_as_it_stands(searched: Document) -> None:
    model, ticket = run(on_the_page(searched))
    for name, keep in ticket.mask.keep.items():
        assert not model.get_parameter(name)[~keep].any()
        assert model.get_parameter(name)[keep].any()


def test_the_screens_lines_are_the_pages(searched: Document) -> None:
    console = Console(file=io.StringIO(), width=500)
    shown = searched.copy()
    shown["ticket"] = "t.safetensors"
    console.print(final_screen(shown))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for line in lines_to_use(shown):
        assert f"  {line.partition('  #')[0]}" in text


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_readme_and_guide_show_the_same_lines(page: str) -> None:
    text = (ROOT / page).read_text()
    document: Any = {"ticket": "runs/digits/ticket.safetensors"}
    for line in lines_to_use(document):
        assert line.partition("  #")[0] in text


def test_the_saved_ticket_is_the_one_that_the_document_names(searched: Any) -> None:
    saved = searched["saved_ticket"]
    ticket = winticket.Ticket.load(searched["ticket"])
    level = searched["levels"][saved["level"]]
    arm = level["arms"]["ticket"]
    assert (saved["density"], saved["replicates"]) == (level["density"], 2)
    assert saved["replicate"] == ticket.seeds.replicate
    assert saved["test_accuracy"] == arm["accuracies"][saved["replicate"]] == ticket.about["test_accuracy"]
    assert saved["mean_test_accuracy"] == arm["accuracy"]
    assert saved["build"] == ticket.about["build"]
    # Chosen on validation data: no other replicate's is better there, whatever its test accuracy.
    assert saved["validation_accuracy"] == ticket.about["validation_accuracy"]
    # The model that it names begins with the ticket's own start, and needs no load.
    model = winticket.models.build(**saved["build"])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach(), ticket.start.weights[name])
