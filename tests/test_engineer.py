"""The engineer's page runs as it stands, from the first block to the last, and ends with what it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from winticket.ship.native import missing

PAGE = Path(__file__).parents[1] / "docs" / "engineer.md"


@pytest.mark.skipif(bool(missing), reason=f"built without inference kernels: {missing}")
def test_the_page_runs_and_ends_with_a_smaller_file_that_answers_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) > 6
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    before, after = ((tmp_path / f"activity.{kind}").stat().st_size for kind in ("pt", "safetensors"))
    assert before > 12 * after
    assert names["difference"] < 1e-4
    assert abs(names["shipped"] - names["reached"][min(names["reached"])]) < 0.005
    assert names["reached"][1.0] > 0.8  # of six activities: the loop does learn
    assert {timing["runtime"] for timing in names["measured"]["timings"]} == {"sparse engine", "torch"}
    assert {best["verdict"] for best in names["measured"]["best"]} <= {"faster", "slower", "alike"}
    assert {name: int(keep.sum()) for name, keep in names["mask"].keep.items()} == names["kept"]
