"""The examples on the page of analyses run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from winticket.analyse import ANALYSES

PAGE = Path(__file__).parents[1] / "docs" / "analyses.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)


def test_every_analysis_has_its_section() -> None:
    described = re.findall(r"^## `(\w+)`", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(described) == sorted(ANALYSES)
