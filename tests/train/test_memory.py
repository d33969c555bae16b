"""The estimate of a training's memory is an upper bound, and not a wild one: measured peaks of real trainings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from winticket.train import Recipe, peak_bytes
from winticket.train.memory import PROCESS, flow

FACTOR = 2.5
"""The estimate is at most so many times the measured peak."""
TRAINING = """
import sys, tempfile, torch
torch.set_num_threads(1)
from winticket.experiment import Experiment, plan
from winticket.run import Conditions, Store
from winticket.run.task import pack
from winticket.run.work import Desk, attempt
options = dict(steps=3, replicates=int(sys.argv[3]), levels=1, controls=(), gate=False)
planned = plan(Experiment.of(sys.argv[1], model=sys.argv[2], **options))
assert "torch._dynamo" not in sys.modules  # importing it takes longer than the rest of planning
whole = planned.tasks[0, "dense", 0]
with tempfile.TemporaryDirectory() as folder:
    desk = Desk(Conditions(Store(folder), 0.0, {"engine": "dense"}), lambda message: None, lambda: False)
    assert attempt(pack(whole), desk).said == "finished"
# Not ru_maxrss, which a process inherits from the one that started it, even over exec.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(whole.memory, int(peak) << 10)
"""


def measured(data: str, model: str, stack: int) -> tuple[int, int]:
    """Estimate and peak of the memory of a fresh process that trains a stack, in bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAINING, data, model, str(stack)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    estimate, peak = map(int, done.stdout.split())
    return estimate, peak


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what the peak was")
def test_the_estimate_bounds_the_peak_of_a_dense_stack() -> None:
    estimate, peak = measured("digits", "lenet-1000-700", 5)
    assert peak <= estimate <= FACTOR * peak


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what the peak was")
def test_the_estimate_bounds_the_peak_of_convolutions(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(60):
            pixels = noise.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    estimate, peak = measured(str(tmp_path), "conv-4", 1)
    assert peak <= estimate <= FACTOR * peak


def test_the_flow_counts_results_once_and_views_not_at_all() -> None:
    # Per example: 6 x 8 x 8 after the convolution, as many after the ReLU, and 10 logits; Flatten is a view.
    module = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, 10))
    module.train()
    seen = flow(module, torch.zeros(2, 1, 8, 8))
    assert seen is not None
    assert seen.together == 4 * (384 + 384 + 10)
    assert module.training


def test_a_network_that_cannot_run_has_no_estimate() -> None:
    assert flow(nn.Linear(3, 2), torch.zeros(2, 4)) is None
    assert peak_bytes(nn.Linear(3, 2), Recipe(steps=1), torch.zeros(2, 4), stack=1, data=0) == 0


def test_the_estimate_grows_with_stack_optimiser_batch_and_data() -> None:
    module, example = nn.Sequential(nn.Linear(500, 400), nn.ReLU(), nn.Linear(400, 10)), torch.zeros(2, 500)
    sgd = Recipe(steps=1, optimizer="sgd", lr=0.1)

    def bytes_(recipe: Recipe = sgd, stack: int = 1, data: int = 0) -> int:
        return peak_bytes(module, recipe, example, stack=stack, data=data) - PROCESS

    assert bytes_(stack=5) == pytest.approx(5 * bytes_(), rel=1e-6)
    assert bytes_() < bytes_(Recipe(steps=1, optimizer="sgd", lr=0.1, momentum=0.9)) < bytes_(Recipe(steps=1))
    assert bytes_(Recipe(steps=1, optimizer="sgd", lr=0.1, batch=60_000)) > bytes_()
    assert bytes_(data=1000) == bytes_() + 1250
