"""DistributedDataParallel on two processes (gloo): one mask on all ranks, or a clear error on all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("ranks.py")
WORLD = 2

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")


def on_two_ranks(case: str, folder: Path) -> list[dict[str, Any]]:
    outs = [folder / f"{rank}.json" for rank in range(WORLD)]
    command = [sys.executable, "-W", "error", str(SCRIPT)]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(WORLD), str(folder / "meeting"), case, str(outs[rank])],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(WORLD)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    return [json.loads(out.read_text()) for out in outs]


@pytest.mark.parametrize("given", ["ddp", "module"])
def test_masked_under_ddp(given: str, tmp_path: Path) -> None:
    one, two = on_two_ranks(given, tmp_path)
    assert one == two  # weights by their bytes, and the norms that were clipped by
    assert one["wrong"] == one["gradients"] == one["left"] == 0
    assert all(name.startswith("module.") for name in one["names"])


def test_ranks_that_were_given_different_masks_all_say_so(tmp_path: Path) -> None:
    for rank in on_two_ranks("different", tmp_path):
        assert "the ranks were given different masks: [0] differ from [1]" in rank["error"]
        assert rank["untouched"]
