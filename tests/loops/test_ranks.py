"""DistributedDataParallel on two processes (gloo): one mask on all ranks, or a clear error on all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from together import together

SCRIPT = Path(__file__).with_name("ranks.py")
WORLD = 2
Ranks = list[dict[str, dict[str, Any]]]

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What each rank says of every case; the processes are started once."""
    folder = tmp_path_factory.mktemp("ranks")
    outs = [folder / f"{rank}.json" for rank in range(WORLD)]
    meeting = str(folder / "meeting")
    together(
        SCRIPT,
        [[str(rank), str(WORLD), meeting, str(out)] for rank, out in enumerate(outs)],
        seconds=120,
        imported=("torch._dynamo", "torch.distributed.fsdp", "winticket.loops", "winticket.criteria"),
        options=("-W", "error"),
    )
    return [json.loads(out.read_text()) for out in outs]


@pytest.mark.parametrize("given", ["ddp", "module"])
def test_masked_under_ddp(given: str, ranks: Ranks) -> None:
    one, two = (rank[given] for rank in ranks)
    assert one == two  # weights by their bytes, and the norms that were clipped by
    assert one["wrong"] == one["gradients"] == one["left"] == 0
    assert all(name.startswith("module.") for name in one["names"])


def test_ranks_that_were_given_different_masks_all_say_so(ranks: Ranks) -> None:
    for rank in (rank["different"] for rank in ranks):
        assert "the ranks have different masks: [0] differ from [1]" in rank["error"]
        assert rank["untouched"]


def test_a_search_gives_all_ranks_the_same_masks_and_weights(ranks: Ranks) -> None:
    one, two = (rank["search"] for rank in ranks)
    assert one == two  # masks, starts with their BatchNorm statistics, trained weights, by their bytes
    assert [level[:3] for level in one["levels"]] == [[0, 72, 0], [0, 36, 2], [0, 18, 2]]


def test_ranks_that_score_on_examples_of_their_own_are_told_so(ranks: Ranks) -> None:
    for rank in (rank["search, own examples"] for rank in ranks):
        assert "the ranks have different tickets: [0] differ from [1]" in rank["error"]
        assert "examples on every rank" in rank["error"]


def test_weights_that_are_cut_up_over_the_ranks_are_refused(ranks: Ranks) -> None:
    for errors in (rank["cut up"]["errors"] for rank in ranks):
        assert len(errors) == 5
        assert all("weights are sharded over processes (FSDP), and a mask needs whole" in e for e in errors)


def test_masks_that_change_are_one_on_all_ranks_and_see_everybodys_gradient(ranks: Ranks) -> None:
    one, two = (rank["regrown"] for rank in ranks)
    assert one == two
    assert one["mask"] == one["wanted"] != one["first"]  # what one process finds on the examples of both
    assert one["wrong"] == 0
    # By erk, 36 of 72 weights as (6 + 8) to (8 + 3): 20.2 and 15.8.
    assert one["counts"] == ["{'0.weight': (20, 48), '2.weight': (16, 24)}"]


def test_an_optimiser_cut_up_over_the_ranks_is_counted_once(ranks: Ranks) -> None:
    one, two = (rank["sharded"] for rank in ranks)
    assert one == two
    assert one["steps"] == list(range(1, 13))
    assert one["mask"] != one["first"]
    assert one["wrong"] == 0


@pytest.mark.parametrize("case", ["own seeds", "own examples"])
def test_ranks_whose_changing_masks_differ_all_say_so(case: str, ranks: Ranks) -> None:
    for rank in (rank[f"regrown, {case}"] for rank in ranks):
        assert "the ranks have different masks: [0] differ from [1]" in rank["error"]


def test_a_mask_is_learned_from_everybodys_gradient(ranks: Ranks) -> None:
    one, two = (rank["learned"] for rank in ranks)
    assert one == two
    assert one["mask"] == one["wanted"] != one["first"]  # what one process finds on the examples of both
    assert one["wrong"] == 0
    assert "supermask adds scores to the model" in one["told"]
