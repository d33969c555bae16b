"""The search inside both trainers on two processes (DistributedDataParallel, gloo), held against the plain loop."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from together import together
from winticket.ticket import same_bits

DENSITIES, STEPS = [0.5, 0.25], 8
REWOUND = {"to_init": 0, "to_step": 4, "to_step_with_optimizer": 4}
SCRIPT = Path(__file__).with_name("trainers.py")
WORLD = 2
IMPORTED = {
    "lightning": (
        "torch._dynamo",
        "winticket.loops",
        "lightning.pytorch",
        "winticket.integrations.lightning",
    ),
    "transformers": (
        "torch._dynamo",
        "winticket.loops",
        "transformers.trainer",
        "winticket.integrations.transformers",
    ),
}
"""What the script of the ranks imports, and an optimiser."""
Ranks = tuple[list[dict[str, dict[str, Any]]], Path]

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")


@pytest.fixture(scope="module", params=["lightning", "transformers"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What each rank says of every case, and the folder they worked in; a trainer's processes are started once."""
    trainer = request.param
    if find_spec(trainer) is None:
        pytest.skip(f"{trainer} is not installed")
    folder = tmp_path_factory.mktemp(trainer)
    together(
        SCRIPT,
        [[trainer, str(rank), str(WORLD), str(folder)] for rank in range(WORLD)],
        seconds=240,
        imported=IMPORTED[trainer],
    )
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)], folder


@pytest.mark.parametrize("kind", REWOUND)
def test_a_search_is_that_of_a_plain_loop_on_every_rank(kind: str, trained: Ranks) -> None:
    ranks, _ = trained
    one, two = (rank[kind] for rank in ranks)
    back = REWOUND[kind]
    assert one["updates"] == two["updates"] == STEPS + 2 * (STEPS - back)
    assert [(level["count"], level["step"]) for level in one["levels"]] == [(192, 0), (96, back), (48, back)]
    assert one["batches"] != two["batches"]  # each rank has examples of its own
    # Masks, starts with BatchNorm's statistics and the optimiser's state, trained weights: by their bytes.
    assert one["levels"] == two["levels"] == one["plain levels"] == two["plain levels"]
    assert one["weights"] == two["weights"] == one["plain weights"]
    for rank in (one, two):
        assert rank["begun"]  # from the first rank's initial weights
        assert (
            rank["starts met"] == [True] * 3
        )  # what a level's first batch met is its ticket's start, bit for bit
        assert rank["revived"] == 0


@pytest.mark.parametrize("kind", REWOUND)
def test_the_first_rank_alone_writes_the_tickets(kind: str, trained: Ranks) -> None:
    ranks, folder = trained
    names = [f"level-{number}.safetensors" for number in range(3)]
    assert [rank[kind]["saved"] for rank in ranks] == [names, []]
    assert sorted(path.name for path in (folder / kind).iterdir()) == names
    for rank in ranks:
        assert rank[kind]["files"] == ranks[1][kind]["levels"]


def test_ranks_that_score_on_examples_of_their_own_are_told_so(trained: Ranks) -> None:
    for rank in trained[0]:
        assert "the ranks have different tickets: [0] differ from [1]" in rank["own examples"]["error"]
        assert rank["own examples"]["levels"] == 1


@pytest.mark.parametrize("trained", ["lightning"], indirect=True)
def test_a_strategy_that_cuts_weights_up_is_refused(trained: Ranks) -> None:
    for told in (rank["cut up"] for rank in trained[0]):
        assert "ModelParallelStrategy does not give each process the whole" in told["error"]
        assert told["untouched"]
        assert told["levels"] == 0


@pytest.mark.parametrize(
    "name", ["FSDPStrategy", "DeepSpeedStrategy", "XLAStrategy", "ModelParallelStrategy"]
)
def test_lightnings_strategies_that_are_refused(name: str) -> None:
    strategies = pytest.importorskip("lightning.pytorch.strategies")
    from winticket.integrations.lightning import LotteryTicket

    kind = getattr(strategies, name)
    trainer: Any = SimpleNamespace(strategy=kind.__new__(kind))  # most cannot be made without their packages
    with pytest.raises(ValueError, match=f'{name} does not give.* on several with strategy="ddp"'):
        LotteryTicket(DENSITIES, steps=STEPS).setup(trainer, None, "fit")


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"])
@pytest.mark.parametrize("added", ["at once", "later"])
def test_accelerates_ways_that_are_refused(
    name: str, added: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    from accelerate.utils import DistributedType

    from winticket.integrations import transformers as ours

    monkeypatch.setattr(
        ours, "AcceleratorState", lambda: SimpleNamespace(distributed_type=DistributedType[name])
    )
    search, model = ours.LotteryTicket(DENSITIES, steps=STEPS), torch.nn.Linear(8, 2)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    quiet: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=search.total_steps, save_strategy="no", dataloader_pin_memory=False, **quiet
    )
    data = [{"x": torch.zeros(8), "labels": torch.tensor(0)}] * 4

    def at_once() -> None:
        transformers.Trainer(model, arguments, train_dataset=data, callbacks=[search])

    def later() -> None:
        trainer = transformers.Trainer(model, arguments, train_dataset=data)
        trainer.add_callback(search)
        trainer.train()

    with pytest.raises(ValueError, match=f"{name} does not give each process the whole weights"):
        (at_once if added == "at once" else later)()
    assert same_bits(dict(model.named_parameters()), before)


def test_an_optimiser_that_cuts_its_state_up_is_refused() -> None:
    from winticket.integrations.search import Search

    class ZeroRedundancyOptimizer(torch.optim.SGD):
        """By its name, as it is told."""

    search = Search(DENSITIES, epochs=1, steps=None, folder=None, options={})
    model = torch.nn.Linear(4, 4)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="ZeroRedundancyOptimizer shards its state over processes"):
        search.begin(model, [optimizer], [], writes=False)
