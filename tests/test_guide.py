"""The user guide's Python about one's own loop and other tools runs as it stands, in a folder of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import winticket
from winticket.ticket import Mask, Seeds, State, Ticket

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"
SECTIONS = {
    "Use the ticket": 1,
    "A smaller network": 1,
    "Ship the trained network": 1,
    "Your own loop": 8,
    "From and to other tools": 1,
    "Read a run again": 1,
    "Your own parts": 1,
}
"""Sections whose blocks run, and how many there are: a block that is not found is not run."""


def blocks(section: str) -> list[str]:
    (text,) = re.findall(
        rf"^## {section}\n(.*?)(?=^## |\Z)", GUIDE.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


CASES = [(section, number) for section, count in SECTIONS.items() for number in range(count)]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_block_is_found(section: str) -> None:
    assert len(blocks(section)) == SECTIONS[section]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))


def save_digits_ticket(folder: Path) -> None:
    """A ticket as `find` saves it, of a small network for examples of six numbers."""
    build: dict[str, Any] = {"name": "lenet-20", "input_shape": [6], "classes": 3, "generator_seed": 5}
    model = winticket.models.build(**build)
    start = State({n: p.detach() for n, p in model.named_parameters()}, {}, {}, 0)
    mask = Mask({"fc1.weight": torch.rand(20, 6) < 0.5})
    folder.mkdir(parents=True)
    Ticket(mask, start, "ticket", Seeds(0, 0), {"build": build}).save(folder / "ticket.safetensors")


def my_update(model: nn.Module, step: int) -> None:
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(p.grad if p.grad is not None else 0, alpha=0.1)


def my_test_accuracy(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model(torch.randn(50, 6)).argmax(1) == 0).double().mean())


def my_training_loop(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(8, 6)), torch.randint(0, 3, (8,))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def for_trainers(code: str) -> dict[str, Any]:
    """What a block about a trainer speaks of."""
    data = TensorDataset(torch.randn(32, 6), torch.randint(0, 3, (32,)))
    if "lightning" in code:
        from lightning.pytorch import LightningModule

        class Module(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = network()

            def training_step(self, batch: Any, _: int) -> Tensor:
                return F.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self) -> Any:
                return torch.optim.Adam(self.parameters())

        return {"module": Module(), "data": DataLoader(data, batch_size=8)}
    if "transformers" in code:

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body, self.head = nn.Linear(6, 20), nn.Linear(20, 3)

            def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
                return {"loss": F.cross_entropy(self.head(self.body(x).relu()), labels)}

        return {
            "network": Network(),
            "dataset": [{"x": x, "labels": y} for x, y in map(data.__getitem__, range(32))],
        }
    return {}


@pytest.mark.filterwarnings("ignore:.*output unit:RuntimeWarning")  # of networks of a few units
@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.filterwarnings("ignore:Starting from v1.9.0, `tensorboardX` has been removed")
@pytest.mark.parametrize(("section", "number"), CASES)
def test_the_guide_runs(section: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = network()
    start = State(
        {n: p.detach().clone() for n, p in model.named_parameters()},
        {n: b.clone() for n, b in model.named_buffers()},
        {},
        0,
    )
    ticket = Ticket(Mask({"0.weight": torch.rand(20, 6) < 0.5}), start, "ticket", Seeds(0, 0))
    if section == "Read a run again":
        options: dict[str, Any] = {"model": "lenet-20", "steps": 20, "density": [0.5, 0.1], "replicates": 2}
        winticket.find("digits", out="runs/digits", workers=0, controls=(), gate=False, **options)
    else:
        save_digits_ticket(Path("runs/digits"))
    code = blocks(section)[number]
    known: dict[str, Any] = {
        "model": model,
        "ticket": ticket,
        "my_training_loop": my_training_loop,
        "my_update": my_update,
        "my_network": network,
        "my_test_accuracy": my_test_accuracy,
        "x": torch.randn(32, 6),
        "y": torch.randint(0, 3, (32,)),
        "winticket": winticket,
        **for_trainers(code),
    }
    exec(compile(code, f"guide.md, {section}, block {number}", "exec"), known)
    if "verdict" in known:
        assert known["verdict"].replicates == 10
        assert [len(values) for values in known["accuracy"].values()] == [10] * 4
        assert known["rivals"]["random"].mask.layers() == known["ticket"].mask.layers()
    elif "level" in known:
        assert known["level"].number == len(known["level"]._levels.densities)
        assert all(not model.get_parameter(n)[~k].any() for n, k in known["level"].ticket.mask.keep.items())
    if "sparse" in known:
        assert known["sparse"].mask.count() == 18  # a tenth of 180
        assert all(not model.get_parameter(n)[~k].any() for n, k in known["sparse"].mask.keep.items())
    if "learned" in known:
        assert known["learned"].mask.count() == 90
        weights = dict(model.named_parameters())
        kept = known["learned"].mask.apply({n: start.weights[n] for n in known["learned"].mask.keep})
        assert all(torch.equal(weights[n], value) for n, value in kept.items())
    if "logits" in known:
        pruned = ticket.mask.apply(dict(model.named_parameters()))
        expected = torch.func.functional_call(model.eval(), pruned, (known["x"],)).detach()
        largest = float(expected.abs().max())
        assert abs(known["logits"] - expected.numpy()).max() < 0.05 * largest  # int8
        assert known["sizes"].file == Path("small.safetensors").stat().st_size
    if "steady" in known:
        assert known["ticket"].mask.count() == 18
        assert known["ticket"].about["criterion"] == "steady"
    if "search" in known:
        kept = [round(t.mask.density(), 1) for t in known["search"].tickets]
        assert kept == [1.0, *(round(d, 1) for d in (0.5, 0.25, 0.1))][: len(kept)]
        assert len(list(Path("tickets").iterdir())) == len(known["search"].tickets) >= 3


def test_rooms_are_attributes_of_the_package() -> None:
    assert winticket.criteria.snip.__name__ == "snip"
    assert winticket.schedules.geometric(0.25, 2) == [0.5, 0.25]
    for name in winticket.__all__:
        assert getattr(winticket, name) is not None
